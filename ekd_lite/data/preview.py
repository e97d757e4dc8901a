"""Contact sheets of procedural faces, to look at."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ekd_lite.data.renderer.parameters import nuisance_names
from ekd_lite.data.renderer.render import render_faces
from ekd_lite.data.synthetic import SyntheticFaces, whole

_SWEEPS = (
    ("yaw", -0.8, 0.8), ("pitch", -0.4, 0.4), ("light_x", -1.5, 1.5), ("smile", -0.6, 1.2),
    ("mouth_open", 0.0, 0.2), ("age", 0.0, 1.3),
)  # fmt: skip


def preview(
    path: str | Path,
    *,
    num_identities: int = 9,
    images_per_identity: int = 10,
    image_size: int = 112,
    seed: int = 0,
    first_identity: int = 0,
    identity_spread: float = 1.5,
    nuisance_strength: float = 0.4,
) -> Path:
    """Writes a contact sheet (PNG): one row for each identity.

    The first column is the studio portrait (strength 0), the others are the first pictures of the
    set with the same arguments.

    Args:
        path: where to write; the folder must exist.
        num_identities: rows.
        images_per_identity: columns, the portrait included.
        image_size: size of each picture, as in `SyntheticFaces`.
        seed: as in `SyntheticFaces`.
        first_identity: as in `SyntheticFaces`.
        identity_spread: as in `SyntheticFaces`.
        nuisance_strength: as in `SyntheticFaces`.

    Returns:
        The path written.

    Raises:
        ValueError: an argument is out of its range.
    """
    whole("images_per_identity", images_per_identity, at_least=1)

    def faces(count: int, strength: float) -> Tensor:
        chosen = SyntheticFaces(
            num_identities, count, image_size=image_size, seed=seed,
            first_identity=first_identity, identity_spread=identity_spread,
            nuisance_strength=strength,
        )  # fmt: skip
        return chosen.batch(range(len(chosen))).view(
            num_identities, count, 3, image_size, image_size
        )

    sheet = faces(1, 0.0)
    if images_per_identity > 1:
        sheet = torch.cat([sheet, faces(images_per_identity - 1, nuisance_strength)], dim=1)
    return _write_sheet(sheet, path)


def preview_sweep(
    path: str | Path, *, identity: int = 0, columns: int = 9, image_size: int = 112, seed: int = 0
) -> Path:
    """Writes a contact sheet (PNG) of one face under one nuisance at a time.

    The rows are yaw, pitch, the light's direction, smile, open mouth and age; each goes from one
    extreme to the other with everything else as in the studio portrait.

    Args:
        path: where to write; the folder must exist.
        identity: whose face.
        columns: pictures in a row, at least 2.
        image_size: size of each picture, as in `SyntheticFaces`.
        seed: as in `SyntheticFaces`.

    Returns:
        The path written.

    Raises:
        ValueError: an argument is out of its range.
    """
    whole("columns", columns, at_least=2)
    faces = SyntheticFaces(
        1, 1, image_size=image_size, seed=seed, first_identity=identity, nuisance_strength=0.0
    )
    who, how = faces.tables(torch.zeros(columns, dtype=torch.int64))
    rows = []
    for name, low, high in _SWEEPS:
        changed, names = how.clone(), nuisance_names()
        values = torch.linspace(low, high, columns)
        changed[:, names.index(name)] = values
        if f"sin_{name}" in names:
            changed[:, names.index(f"sin_{name}")] = values.sin()
            changed[:, names.index(f"cos_{name}")] = values.cos()
        rows.append(render_faces(who, changed, size=image_size, device=torch.device("cpu")))
    return _write_sheet(torch.stack(rows), path)


def _write_sheet(images: Tensor, path: str | Path) -> Path:
    """Writes images `(rows, columns, 3, H, W)` with white lines between them."""
    gap = 2
    sheet = torch.nn.functional.pad(images, (0, gap, 0, gap), value=1.0)
    pixels = ((sheet + 1.0) * 127.5).round().to(torch.uint8)
    rows = pixels.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    Image.fromarray(rows[:-gap, :-gap].contiguous().numpy()).save(path)
    return Path(path)
