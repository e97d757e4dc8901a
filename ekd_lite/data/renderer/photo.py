"""The camera: exposure, tone, colour cast, blur, coarse pixels, noise, blocks, 8-bit pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.data.renderer.parameters import Columns


def _binomial(image: Tensor) -> Tensor:
    """Blurs by (1 2 1)/4 along both axes."""
    wide = F.pad(image, (1, 1, 0, 0), mode="replicate")
    image = (wide[..., :-2] + wide[..., 2:]).mul_(0.25).add_(wide[..., 1:-1] * 0.5)
    wide = F.pad(image, (0, 0, 1, 1), mode="replicate")
    return (wide[..., :-2, :] + wide[..., 2:, :]).mul_(0.25).add_(wide[..., 1:-1, :] * 0.5)


def _walsh(blocks: Tensor, dim: int) -> Tensor:
    """Walsh-Hadamard transform of 8 values along `dim`: sums and differences, so exact anywhere."""
    for width in (1, 2, 4):
        shape = (*blocks.shape[:dim], 8 // (2 * width), 2, width, *blocks.shape[dim + 1 :])
        first, second = blocks.reshape(shape).unbind(dim + 1)
        blocks = torch.stack([first + second, first - second], dim + 1).reshape(blocks.shape)
    return blocks


def _compress(image: Tensor) -> Tensor:
    """Loses small detail in blocks of 8x8 pixels, as JPEG does with a cosine transform."""
    n, c, h, w = image.shape
    blocks = image.reshape(n, c, h // 8, 8, w // 8, 8)
    spectrum = _walsh(_walsh(blocks, 3), 5)
    order = torch.tensor([0, 7, 3, 4, 1, 6, 2, 5], device=image.device)  # sign changes of a row
    step = 0.10 * (1.0 + order.view(8, 1, 1) + order)
    spectrum = (spectrum / step).round_() * step
    return (_walsh(_walsh(spectrum, 3), 5) / 64.0).reshape(n, c, h, w)


def _grain(tile: Tensor, how: Columns, rare: Tensor, size: int) -> Tensor:
    """Noise `(n, 3, size, size)`: three windows of the tile, at places drawn for each picture."""
    wrap, steps = tile.shape[0] - 1, torch.arange(size, device=tile.device)
    layer = torch.arange(3, device=tile.device).view(1, 3, 1) * 71
    first_row = (how.noise_y[rare] * tile.shape[0]).long()
    first_column = (how.noise_x[rare] * tile.shape[0]).long()
    rows = (first_row + layer + steps) & wrap
    columns = (first_column + layer + steps) & wrap
    return tile[rows[..., :, None], columns[..., None, :]] * how.noise[rare][:, None]


def photograph(linear: Tensor, how: Columns, events: dict[str, Tensor], grain: Tensor) -> Tensor:
    """Turns linear light into the finished picture.

    Args:
        linear: `(N, 3, H, W)`.
        how: nuisance columns.
        events: for "blur", "low_resolution", "noise" and "blocks", the int64 numbers of the
            pictures they befall: the rest is spared the work.
        grain: `(T, T)` white noise of deviation 1, tiled as film grain.

    Returns:
        float `(N, 3, H, W)` on the 256 levels `k / 127.5 - 1`.
    """
    image = (linear * (1.10 * how.exposure[:, None])).clamp_(0.0, 1.6)
    # a film-like shoulder: highlights fade into white instead of being cut off
    image = image.div_((image * 0.28).add_(1.0)).sqrt_()
    rare = events["blur"]
    if len(rare):
        sharp = image[rare]
        image[rare] = sharp + (_binomial(_binomial(sharp)) - sharp) * how.blur[rare][:, None]
    rare = events["low_resolution"]
    if len(rare):
        small = F.avg_pool2d(image[rare], 2)
        image[rare] = F.interpolate(small, scale_factor=2.0, mode="bilinear")
    luma = (0.30 * image[:, 0]).add_(0.59 * image[:, 1]).add_(0.11 * image[:, 2])[:, None]
    saturation = (how.saturation * (1.0 - how.grey))[:, None]
    tint = torch.stack([how.tint_red, 0.0 * how.tint_red, how.tint_blue], 1) * (
        1.0 - how.grey[:, None]
    )
    # grey + (image - grey) * saturation, tinted, then a curve for gamma and one line for contrast
    image.mul_(saturation * (1.0 + tint)).add_(luma * ((1.0 - saturation) * (1.0 + tint)))
    image.mul_(((1.0 - image) * how.gamma[:, None]).add_(1.0))
    image.mul_(how.contrast[:, None]).add_(0.45 - 0.45 * how.contrast[:, None])
    rare = events["noise"]
    if len(rare):
        image[rare] = image[rare] + _grain(grain, how, rare, image.shape[-1])
    rare = events["blocks"]
    if len(rare):
        image[rare] = _compress(image[rare])
    levels = image.mul_(255.0).round_().clamp_(0.0, 255.0)
    return levels.div_(127.5).sub_(1.0)
