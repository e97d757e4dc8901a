"""Backbones: image in [-1, 1] -> embedding, not normalised."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ekd_lite.models.iresnet import IResNet
from ekd_lite.models.layouts import LAYOUTS
from ekd_lite.models.mobilefacenet import MobileFaceNet
from ekd_lite.models.profile import Profile, profile_backbone
from ekd_lite.models.published import describe_published, load_published
from ekd_lite.models.summary import Publisher, Summary
from ekd_lite.models.tiny import TinyStudent, tiny_teacher
from ekd_lite.ops import check_image_size, nearest_name

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "iresnet18": partial(IResNet, (2, 2, 2, 2)),
    "iresnet34": partial(IResNet, (3, 4, 6, 3)),
    "iresnet50": partial(IResNet, (3, 4, 14, 3)),
    "iresnet100": partial(IResNet, (3, 13, 30, 3)),
    "mobilefacenet": MobileFaceNet,
    "mobilefacenet_half": partial(MobileFaceNet, scale=0.5, expansion=0.5),
    **{
        f"arcface_iresnet{layers}": partial(IResNet, depths, project_all=True, affine_output=True)
        for layers, depths in (
            (18, (2, 2, 2, 2)),
            (34, (3, 4, 6, 3)),
            (50, (3, 4, 14, 3)),
            (100, (3, 13, 30, 3)),
        )
    },
    "arcface_mobilefacenet": partial(MobileFaceNet, scale=2, affine_output=True),
    "tiny_teacher": tiny_teacher,
    "tiny_student": TinyStudent,
}

MAX_EMBEDDING_DIM = 65_536  # far above any use, and below what only a slip of the pen asks for


def build_backbone(name: str, *, embedding_dim: int = 512, image_size: int = 112) -> nn.Module:
    """Build a backbone with fresh weights, drawn from torch's global generator.

    Args:
        name: one of `BACKBONES`.
        embedding_dim: D, the width of the embedding.
        image_size: side of the square input in pixels, a multiple of 16.

    Returns:
        A module that maps images (N, 3, image_size, image_size) to embeddings (N, D).

    Raises:
        ValueError: unknown name (the nearest one is suggested), or an impossible size.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}{nearest_name(name, BACKBONES)}")
    check_image_size(image_size)
    if not 1 <= embedding_dim <= MAX_EMBEDDING_DIM:
        raise ValueError(
            f"embedding_dim must be positive and at most {MAX_EMBEDDING_DIM}, got {embedding_dim}"
        )
    return BACKBONES[name](embedding_dim=embedding_dim, image_size=image_size)


__all__ = [
    "BACKBONES",
    "LAYOUTS",
    "IResNet",
    "MobileFaceNet",
    "Profile",
    "Publisher",
    "Summary",
    "TinyStudent",
    "build_backbone",
    "describe_published",
    "load_published",
    "profile_backbone",
    "tiny_teacher",
]
