"""How nearly SFace agrees with itself on changed images: a table of `real_faces_tables.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from lfw import Row, read_all
from real_faces import drawn_faces, sface
from torch import Tensor
from torch.nn.functional import normalize

from ekd_lite.data.augment import augment, coarser, compressed, shifted

if TYPE_CHECKING:
    from real_faces_tables import Nets


def views(nets: Nets, count: int = 200) -> Iterator[Row]:
    """Mean cosine between SFace's rows of an image and of the same image changed."""
    folder, packed, cached = read_all(nets.data, nets.work, 112)
    chosen = torch.linspace(0, len(folder) - 1, count).long()
    images, teacher = packed.batch(chosen), sface(nets.work)
    generator = np.random.default_rng(0)
    by = generator.random((count, 2)) * 2 - 1
    changed = {
        "nothing": images,
        "mirrored": images.flip(-1),
        "shifted": shifted(images, by),
        "brighter": (images * 1.25 + 0.15).clamp(-1, 1),
        "a third of the pixels": torch.stack([coarser(image, 1 / 3) for image in images]),
        "JPEG of quality 30": torch.stack([compressed(image, 30) for image in images]),
        "as in training": augment(images, generator),
    }
    plain = None
    for name, view in changed.items():
        with torch.inference_mode():
            rows = normalize(torch.cat([teacher(part) for part in torch.split(view, 32)]), dim=1)
        if plain is None:
            plain = rows
            gap = (normalize(cached[chosen], dim=1) * rows).sum(1)
            yield {"view": "the cached row", "images": str(count), **_quantiles(gap)}
        yield {"view": name, "images": str(count), **_quantiles((plain * rows).sum(1))}
    yield from _other_pictures(cached, packed.labels, ("another photograph", "another person"))
    faces, drawn = drawn_faces(64, nets.work)
    yield from _other_pictures(drawn, faces.labels, ("another drawing", "another drawn person"))


def _other_pictures(rows: Tensor, labels: Tensor, names: tuple[str, str]) -> Iterator[Row]:
    """To compare with: another picture of the same person, and of the one before."""
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), labels.diff().nonzero().flatten() + 1])
    several = starts[torch.bincount(labels) > 1]
    unit = normalize(rows, dim=1)
    for name, other in zip(names, (several + 1, several - 1), strict=True):
        row = {"view": name, "images": str(len(several) - 1)}
        yield row | _quantiles((unit[several[1:]] * unit[other[1:]]).sum(1))


def _quantiles(cosines: Tensor) -> Row:
    return {"mean_cosine": f"{cosines.mean():.4f}", "lowest_tenth": f"{cosines.quantile(0.1):.4f}"}
