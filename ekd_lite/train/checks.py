"""What is checked before the first step, so that nothing fails after hours."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.data import FaceSet, IdentityBalancedSampler
from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.models import build_backbone
from ekd_lite.parallel import rank, world_size
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.log import tensorboard_writer
from ekd_lite.train.model_file import Model, load_model

MAX_LOOKED_AT = 4096  # images, before training starts


def check_faces(config: TrainConfig, faces: FaceSet) -> IdentityBalancedSampler:
    """Check the set against the configuration and build the sampler."""
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
    return IdentityBalancedSampler(
        labels,
        general=config.general,
        identities=config.identities,
        images_per_identity=config.images_per_identity,
        num_steps=config.steps * config.accumulate,
        seed=config.seed,
        rank=rank(),
        world_size=world_size(),
    )


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


def load_teacher(config: TrainConfig, faces: FaceSet, *, device: torch.device) -> Model | None:
    """Load the teacher that the method needs, and refuse one that cannot be it."""
    if config.method == "none":
        return None
    teacher = load_model(str(config.teacher), device=device)
    teacher.backbone.requires_grad_(False)
    teacher.head.requires_grad_(False)
    problems = []
    if teacher.info["image_size"] != config.image_size:
        problems.append(f"it takes {teacher.info['image_size']} pixels, not {config.image_size}")
    needs = {DISTILLERS[name].needs for name in parse_method(config.method)}
    if "logits" in needs and teacher.info["num_identities"] != faces.num_identities:
        problems.append(
            f"it knows {teacher.info['num_identities']} identities, the set has "
            f"{faces.num_identities}, and {config.method!r} compares their logits one by one"
        )
    with torch.device("meta"):
        student = build_backbone(
            config.backbone, embedding_dim=config.embedding_dim, image_size=config.image_size
        )
    size = sum(p.numel() for p in student.parameters())
    if teacher.num_parameters <= size:
        problems.append(
            f"it has {teacher.num_parameters:,} parameters, no more than the student's {size:,}: "
            "probably a student's file"
        )
    if problems:
        raise ValueError(f"{config.teacher} cannot be the teacher: " + "; ".join(problems))
    return teacher
