"""Photographs as other cameras would have taken them: shifted, lit otherwise, coarser, compressed.

For training. None of the changes says anything about who is seen, and a good face model hardly
notices them, so that a teacher's embedding of the unchanged image remains a fair target. How fair
is measured in chapter 13 (`data/results/real_faces_views.csv`). Each change is also what goes wrong
at the door: a detector that misses by a few pixels, a lamp, distance, a cheap camera's JPEG.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

SHIFT = 0.04  # farthest shift along each axis, in sides of the image
GAIN, OFFSET = 0.25, 0.15  # contrast 1 +- GAIN, and light +- OFFSET of the range -1 .. 1
COARSE, SMALLEST = 0.25, 1 / 3  # share of the images made coarser; down to this side, of theirs
JPEG, QUALITY = 0.25, (30, 90)  # share of the images compressed, and the qualities


def augment(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Change every image at random; people stay who they are.

    In this order: shift by whole pixels, up to 4 % of the side, the border repeated; contrast times
    0.75 .. 1.25 and light +- 0.15; for a quarter of the images, reduction to between a third of the
    side and all of it, and back; for a quarter, JPEG of quality 30 .. 90.

    Args:
        images: in [-1, 1], (N, 3, H, H) float32, on the CPU; they are not changed.
        generator: of the draws. An image's changes depend on its place in the batch alone.

    Returns:
        Images in [-1, 1] of the same shape.

    Example:
        >>> images = torch.zeros(2, 3, 32, 32)
        >>> augment(images, np.random.default_rng(0)).shape
        torch.Size([2, 3, 32, 32])
    """
    draws = generator.random((len(images), 8))
    images = shifted(images, draws[:, :2] * 2 - 1)
    gain, offset = (torch.from_numpy(draws[:, k] * 2 - 1).to(images) for k in (2, 3))
    gain, offset = 1 + GAIN * gain[:, None, None, None], OFFSET * offset[:, None, None, None]
    images = (images * gain + offset).clamp_(-1, 1)
    for i in np.flatnonzero(draws[:, 4] < COARSE):
        images[i] = coarser(images[i], SMALLEST + (1 - SMALLEST) * draws[i, 5])
    for i in np.flatnonzero(draws[:, 6] < JPEG):
        images[i] = compressed(images[i], int(QUALITY[0] + np.diff(QUALITY)[0] * draws[i, 7]))
    return images


def shifted(images: Tensor, by: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Tensor:
    """Images moved by whole pixels, `by` (N, 2) in [-1, 1] times the farthest; borders repeat."""
    side = images.shape[-1]
    reach = round(SHIFT * side)
    wide = pad(images, (reach,) * 4, mode="replicate")
    starts = reach + np.rint(by * reach).astype(int)
    moved = torch.empty_like(images)
    for image, source, (y, x) in zip(moved, wide, starts, strict=True):
        image.copy_(source[:, y : y + side, x : x + side])
    return moved


def coarser(image: Tensor, share: float) -> Tensor:
    """An image (3, H, H) as a camera with fewer pixels sees it: `share` of the side, and back."""
    side = image.shape[-1]
    small = interpolate(
        image[None], size=max(1, round(share * side)), mode="bilinear", antialias=True
    )
    return interpolate(small, size=side, mode="bilinear")[0].clamp_(-1, 1)


def compressed(image: Tensor, quality: int) -> Tensor:
    """An image (3, H, H) after JPEG of this quality."""
    pixels = ((image + 1) * 127.5).round_().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    again = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    return again.to(image) / 127.5 - 1
