"""Faces of people who are nobody's yet: the renderer fed with vectors instead of numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.data.renderer.draw import identity_table, nuisance_table
from ekd_lite.data.renderer.parameters import IDENTITY_PARAMETERS
from ekd_lite.data.renderer.render import render_faces
from ekd_lite.data.synthetic import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE
from ekd_lite.ops import check_tensors

PIXELS = 96 << 10  # rendered at a time
NUM_LATENTS = len(IDENTITY_PARAMETERS)
"""Numbers that are a person, K."""


@torch.no_grad()
def faces_from_latents(
    latents: Tensor,
    nuisance_seed: int,
    *,
    image_size: int = 32,
    identity_spread: float = 1.5,
    nuisance_strength: float = 0.4,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Render one picture of each of N people, who are given as vectors.

    A person of `SyntheticFaces` is a vector of K standard normal numbers. Drawing such a vector
    draws a stranger; moving it a little makes a look-alike.

    Args:
        latents: (N, K) of any floating-point type, K = `NUM_LATENTS`. Numbers far beyond 3 are cut
            to the limits of their parameter.
        nuisance_seed: not negative; pose, light and the rest of picture i are a hash of it and i.
        image_size: height and width in pixels, a multiple of 16 from 32 to 224.
        identity_spread: as in `SyntheticFaces`.
        nuisance_strength: as in `SyntheticFaces`.
        device: where to render.

    Returns:
        float32 (N, 3, image_size, image_size) in [-1, 1] on that device.

    Raises:
        ValueError: another shape, NaN in a vector, a bad size or seed.

    Example:
        >>> strangers = torch.randn(2, NUM_LATENTS)
        >>> faces_from_latents(strangers, 0).shape
        torch.Size([2, 3, 32, 32])
    """
    check_tensors(latents=latents)
    if latents.ndim != 2 or latents.shape[1] != NUM_LATENTS or not latents.is_floating_point():
        raise ValueError(
            f"expected latents (N, {NUM_LATENTS}) of a floating-point type, got "
            f"{tuple(latents.shape)} of {latents.dtype}"
        )
    bad = (~latents.isfinite().all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"vector {int(bad[0])} of latents holds NaN or infinity")
    if nuisance_seed < 0:
        raise ValueError(f"nuisance_seed must not be negative, got {nuisance_seed}")
    if image_size % 16 or not MIN_IMAGE_SIZE <= image_size <= MAX_IMAGE_SIZE:
        raise ValueError(
            f"image_size must be a multiple of 16 from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}, got "
            f"{image_size}"
        )
    images = torch.empty(len(latents), 3, image_size, image_size, device=device)
    who = identity_table(latents.cpu().double(), spread=identity_spread)
    for part in torch.split(torch.arange(len(latents)), max(1, PIXELS // image_size**2)):
        first = torch.zeros_like(part)
        how = nuisance_table(nuisance_seed, part, first, strength=nuisance_strength)
        images[part] = render_faces(who[part], how, size=image_size, device=images.device)
    return images
