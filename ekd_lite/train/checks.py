"""What is checked before the first step, so that nothing fails after hours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ekd_lite.data import FaceSet
from ekd_lite.data.faceset import about_range, check_pixels, check_side, kind_of
from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.ops import are_numbers, check_embeddings
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.log import tensorboard_writer

MAX_LOOKED_AT = 4096  # images, before training starts
LENGTHS = 1e-5, 1e18  # of rows whose squares float32 can hold, as losses make them
ONE_EMBEDDING = 1e-6  # coordinates of unit embeddings that differ by less say nothing


def check_faces(config: TrainConfig, faces: FaceSet) -> None:
    """Raise a ValueError if the set does not fit the configuration, in size, labels or pixels."""
    if config.tensorboard:
        tensorboard_writer()
    wanted = ("labels", "image_size", "num_identities", "batch", "__len__")
    missing = [name for name in wanted if not hasattr(faces, name)]
    if missing:
        is_torchs = isinstance(faces, Dataset) and "batch" in missing
        raise ValueError(
            f"a set of faces needs {', '.join(wanted)} (ekd_lite.data.FaceSet says what they are); "
            f"{type(faces).__name__} has no {', '.join(missing)}"
            + ("; ekd_lite.data.FaceDataset makes one of a torch Dataset" if is_torchs else "")
        )
    if faces.image_size != config.image_size:
        raise ValueError(
            f"the images are {faces.image_size} pixels wide, the configuration says "
            f"{config.image_size}"
        )
    if not len(faces):
        raise ValueError("the set holds no image: there is nothing to train on")
    if not are_numbers(faces.num_identities, whole=True):
        raise ValueError(
            f"the set's num_identities must be a whole number, got {faces.num_identities!r}"
        )
    if faces.num_identities < 2 and looks_at_labels(config):
        raise ValueError(
            f"the set holds {faces.num_identities} identity: telling faces apart takes two or more"
        )
    check_set_labels(faces)
    # All images of a small set, some thousands of a large one; training looks at every batch.
    sample = torch.arange(0, len(faces), max(1, len(faces) // MAX_LOOKED_AT))
    low, high = torch.inf, -torch.inf
    for part in torch.split(sample, 256):
        images = faces.batch(part)
        check_pixels(images, part)
        check_side(images, config.image_size)
        low, high = min(low, float(images.min())), max(high, float(images.max()))
    if problem := about_range(low, high, len(sample)):
        raise ValueError(problem)


def looks_at_labels(config: TrainConfig) -> bool:
    """Whether a run compares people, and not only the images of two nets."""
    used = [DISTILLERS[name] for name in parse_method(config.method)]
    return config.identity_weight > 0 or any(m.needs_labels for m in used)


def batches_without_labels(config: TrainConfig, num_images: int) -> str:
    """How the batches of a run that needs no label can do without, if it asked for some; or ""."""
    used = [DISTILLERS[name] for name in parse_method(config.method)]
    by_label = any(m.by_person or m.needs == "logits" for m in used)
    if looks_at_labels(config) or by_label or not config.identities or num_images < 2:
        return ""
    count = config.general + config.identities * config.images_per_identity
    return (
        "; this run needs no labels: random images alone, --general "
        f"{min(count, num_images)} --identities 0, make batches of any set"
    )


def check_set_labels(faces: FaceSet) -> None:
    """Raise a ValueError unless the labels are int64 (N,) in 0..num_identities - 1."""
    labels: Any = faces.labels
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(
            f"expected {len(faces)} int64 labels, a Tensor (N,), got {kind_of(labels)}"
        )
    if len(labels) != len(faces):
        raise ValueError(f"expected {len(faces)} int64 labels, one an image, got {len(labels)}")
    bad = ((labels < 0) | (labels >= faces.num_identities)).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"label {int(labels[bad[0]])} of image {int(bad[0])} is not in "
            f"0..{faces.num_identities - 1}"
        )


def check_repeats(faces: FaceSet) -> Tensor:
    """Raise a ValueError if the set does not give the same image twice: no cache is valid then.

    Returns:
        Which images were looked at, 16 at most.
    """
    sample = torch.linspace(0, len(faces) - 1, min(16, len(faces))).long()
    first, second = faces.batch(sample), faces.batch(sample)
    changed = (first != second).flatten(1).any(dim=1).nonzero().flatten()
    if len(changed):
        raise ValueError(
            f"image {int(sample[changed[0]])} of the set is another every time it is read, so that "
            "the teacher's embeddings cannot be cached: set cache_teacher to false. (Mirroring by "
            "the configuration's own flip is allowed for.)"
        )
    return sample


@torch.no_grad()
def check_net(net: nn.Module, *, image_size: int, width: int | None, name: str) -> int:
    """Raise a ValueError unless a net maps images (N, 3, H, H) to embeddings (N, width).

    Two black images are put through it in evaluation mode; neither it nor any generator is changed.

    Args:
        net: image -> embedding.
        image_size: H.
        width: D; None allows any.
        name: what a message calls it, such as "the student".

    Returns:
        D.
    """
    for key, weight in net.named_parameters():
        if weight.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"{name}'s weights are {weight.dtype} ({key}): expected float32, which net.float() "
                "gives; `precision` in the configuration makes the arithmetic half"
            )
    like: Tensor = next(net.parameters(), torch.zeros(()))
    images = like.new_zeros(2, 3, image_size, image_size)
    was_training = [(module, module.training) for module in net.modules()]
    try:
        with torch.random.fork_rng(devices=[]):
            output: Any = net.eval()(images)
    finally:
        for module, mode in was_training:
            module.training = mode
    try:
        found = check_embeddings(output, 2).shape[1]
    except ValueError as error:
        raise ValueError(f"{name} cannot be used: {error}") from error
    if width is not None and found != width:
        raise ValueError(
            f"{name} cannot be used: it gives embeddings (N, {found}), not (N, {width})"
        )
    return found


def check_rows(rows: Any, *, count: int, width: int, flip: bool) -> list[Tensor]:
    """A teacher's embeddings of a set, one float32 tensor a view; a ValueError if they do not fit.

    Args:
        rows: one or two tables (N, D') of tensors, arrays or lists: of the images, and of the
            mirrored ones; a single table stands for one view.
        count: N, images of the set.
        width: D', of the teacher.
        flip: whether images will be mirrored, so that both views are needed.
    """
    if isinstance(rows, Tensor | np.ndarray) and rows.ndim == 2:
        rows = [rows]
    if not isinstance(rows, Tensor | np.ndarray | Sequence) or len(rows) not in (1, 2):
        raise ValueError(
            f"expected the teacher's embeddings as one or two tables ({count}, {width}), of the "
            f"images and of the mirrored images; got {kind_of(rows)}"
        )
    if flip and len(rows) == 1:
        raise ValueError(
            "half of the images will be mirrored (flip), and there are no teacher's embeddings of "
            "mirrored images: make both views (cache_teacher with flip=True), or give the same "
            "rows twice, [rows, rows], if a mirrored face shall keep its embedding"
        )
    tables = [_checked_view(view, count, width) for view in rows]
    check_varies(tables[0])
    return tables


def check_varies(rows: Tensor) -> None:
    """Raise a ValueError if a teacher's embeddings say the same of every image, or nothing."""
    lengths = torch.cat([part.double().norm(dim=1) for part in torch.split(rows, 4096)])
    empty = (lengths == 0).nonzero().flatten()
    if len(empty):
        raise ValueError(
            f"the teacher's embedding of image {int(empty[0])} is all zeros ({len(empty)} such): "
            "it has no direction"
        )
    low, high = LENGTHS
    odd = ((lengths < low) | (lengths > high)).nonzero().flatten()
    if len(odd):
        raise ValueError(
            f"the teacher's embedding of image {int(odd[0])} is {float(lengths[odd[0]]):.3g} long "
            f"({len(odd)} such), expected {low:g} to {high:g}: multiply all of them by one number"
        )
    first = torch.nn.functional.normalize(rows[:1], dim=1)
    apart = (
        (torch.nn.functional.normalize(part, dim=1) - first).abs().max() > ONE_EMBEDDING
        for part in torch.split(rows, 4096)
    )
    if len(rows) > 1 and not any(apart):
        raise ValueError(
            "the teacher gives one embedding for all images: is the range of its pixels right "
            "(Teacher's pixel_range), are its weights loaded?"
        )


def _checked_view(view: Any, count: int, width: int) -> Tensor:
    try:
        table = torch.as_tensor(view).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the teacher's embeddings are no table of numbers: {error}") from error
    if not table.is_floating_point() or table.shape != (count, width):
        raise ValueError(
            f"expected the teacher's embeddings of {count} images, ({count}, {width}) of a "
            f"floating-point type, got {kind_of(table)}"
        )
    table = table.to("cpu", torch.float32)
    bad = (~table.isfinite().all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"the teacher's embedding of image {int(bad[0])} is not finite ({len(bad)} such)"
        )
    return table
