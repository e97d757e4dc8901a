"""From indices to what a step takes: images read ahead, mirrored, with the teacher's embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ekd_lite.data import FaceSet, IdentityBalancedSampler
from ekd_lite.evaluate.embed import embed
from ekd_lite.train.checks import check_pixels
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.model_file import Model
from ekd_lite.train.state import TrainState
from ekd_lite.train.step import Batch


def cache_teacher(
    teacher: Model, faces: FaceSet, *, flip: bool, progress: bool = True
) -> list[Tensor]:
    """The teacher's embeddings of every image, and of every mirrored image if runs will flip.

    Valid as long as training changes images in no other way.
    """
    label = "teacher" if progress else None
    views = (False, True) if flip else (False,)
    return [embed(teacher.backbone, faces, mirrored=view, progress=label) for view in views]


class _Indexed(Dataset[Any]):
    """A face set as torch's loader wants it, one whole batch a call."""

    def __init__(self, faces: FaceSet) -> None:
        self.faces = faces

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        index = torch.tensor(indices)
        return self.faces.batch(index), index


def _as_it_is(batch: Any) -> Any:
    return batch


def iter_batches(
    config: TrainConfig, faces: FaceSet, sampler: IdentityBalancedSampler
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images (N, 3, H, H), labels (N,) and indices (N,), from the sampler's step on."""
    loader = DataLoader(
        _Indexed(faces),
        batch_sampler=sampler,
        num_workers=config.workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # else the loader draws from the generator of the dropout
        timeout=120 if config.workers else 0,
    )
    for images, index in loader:
        check_pixels(images, index)
        yield images, faces.labels[index], index


def prepare(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    cache: Sequence[Tensor] | None,
) -> Batch:
    """Move a batch to the nets' device, mirror half of it if wanted, add the teacher's view."""
    config = state.config
    device = state.head.prototypes.device
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    mirrored = torch.zeros(len(index), dtype=torch.bool)
    if config.flip:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        mirrored = torch.rand(len(index), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None].to(device), images.flip(-1), images)
    teacher_embeddings = None
    if cache is not None:
        rows = [view[index] for view in cache]
        teacher_embeddings = torch.where(mirrored[:, None], rows[-1], rows[0]).to(device)
    elif state.teacher is not None:
        with torch.no_grad():
            teacher_embeddings = state.teacher.backbone(images)
    return Batch(images, labels.to(device, non_blocking=True), teacher_embeddings)
