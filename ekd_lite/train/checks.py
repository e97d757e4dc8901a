"""What is checked before the first step, so that nothing fails after hours."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.log import tensorboard_writer

MAX_LOOKED_AT = 4096  # images, before training starts


def check_faces(config: TrainConfig, faces: FaceSet) -> None:
    """Raise a ValueError if the set does not fit the configuration, in size, labels or pixels."""
    if config.tensorboard:
        tensorboard_writer()
    if faces.image_size != config.image_size:
        raise ValueError(
            f"the images are {faces.image_size} pixels wide, the configuration says "
            f"{config.image_size}"
        )
    if faces.num_identities < 2:
        raise ValueError(
            f"the set holds {faces.num_identities} identity: telling faces apart takes two or more"
        )
    labels = faces.labels
    if labels.dtype != torch.int64 or labels.shape != (len(faces),):
        raise ValueError(f"expected {len(faces)} int64 labels, got {labels.dtype} {labels.shape}")
    bad = ((labels < 0) | (labels >= faces.num_identities)).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"label {int(labels[bad[0]])} of image {int(bad[0])} is not in "
            f"0..{faces.num_identities - 1}"
        )
    # All images of a small set, some thousands of a large one; training looks at every batch.
    sample = torch.arange(0, len(faces), max(1, len(faces) // MAX_LOOKED_AT))
    for part in torch.split(sample, 256):
        check_pixels(faces.batch(part), part)


def check_repeats(faces: FaceSet) -> None:
    """Raise a ValueError if the set does not give the same image twice: no cache is valid then."""
    sample = torch.linspace(0, len(faces) - 1, min(16, len(faces))).long()
    first, second = faces.batch(sample), faces.batch(sample)
    changed = (first != second).flatten(1).any(dim=1).nonzero().flatten()
    if len(changed):
        raise ValueError(
            f"image {int(sample[changed[0]])} of the set is another every time it is read, so that "
            "the teacher's embeddings cannot be cached: set cache_teacher to false. (Mirroring by "
            "the configuration's own flip is allowed for.)"
        )


def check_pixels(images: Tensor, index: Tensor) -> None:
    """Raise a ValueError that names the first image with a pixel that is no number."""
    bad = (~images.isfinite().flatten(1).all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"image {int(index[bad[0]])} of the set holds NaN or infinite pixels")
