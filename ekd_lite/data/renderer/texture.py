"""The texture's grid, and the tools to paint on it.

The grid covers x in -0.8..0.8 and y in -1.05..0.75 of the face seen from the front, and it never
moves: shapes that do not depend on x or on y are made from rows and columns alone, which makes
dozens of them almost free. Colours are linear light (the camera takes the square root).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ekd_lite.data.renderer.parameters import Columns

X_HALF, Y_TOP, Y_HEIGHT = 0.8, 0.75, 1.8

# Linear-light palettes, walked from the first colour to the last.
SKIN = ((0.82, 0.56, 0.44), (0.70, 0.43, 0.30), (0.54, 0.30, 0.19), (0.36, 0.185, 0.105),
        (0.20, 0.098, 0.056), (0.088, 0.042, 0.026))  # fmt: skip
HAIR = ((0.012, 0.010, 0.010), (0.025, 0.016, 0.012), (0.060, 0.032, 0.018),
        (0.13, 0.066, 0.032), (0.27, 0.15, 0.065), (0.46, 0.31, 0.15))  # fmt: skip
IRIS = ((0.030, 0.014, 0.008), (0.075, 0.034, 0.014), (0.15, 0.085, 0.03), (0.13, 0.15, 0.075),
        (0.10, 0.17, 0.24), (0.19, 0.25, 0.30))  # fmt: skip


class Grid(NamedTuple):
    """Coordinates of the texture: `x` `(1, 1, C)`, `y` `(1, R, 1)`, and the width of a texel."""

    x: Tensor
    y: Tensor
    texel: float

    @staticmethod
    def of(size: int, device: torch.device) -> Grid:
        """The grid for images of `size` pixels: about 0.8 texels a pixel, 9/8 as high as wide."""
        columns, rows = size, size * 9 // 8
        x = (torch.arange(columns, device=device) + 0.5) * (2 * X_HALF / columns) - X_HALF
        y = Y_TOP - (torch.arange(rows, device=device) + 0.5) * (Y_HEIGHT / rows)
        return Grid(x.view(1, 1, -1), y.view(1, -1, 1), 2 * X_HALF / columns)


def bump(t: Tensor) -> Tensor:
    """(1 - t^2)^2 inside -1..1, 0 outside: a hill of compact support, cheaper than exp(-t^2)."""
    return t.square().neg_().add_(1.0).clamp_(min=0.0).square_()


def ramp(t: Tensor) -> Tensor:
    """Smooth step: 0 for t <= 0, 1 for t >= 1."""
    t = t.clamp(0.0, 1.0)
    return (t * -2.0).add_(3.0).mul_(t).mul_(t)


def palette(t: Tensor, colours: Sequence[Sequence[float]]) -> Tensor:
    """Colour `(N, 3, 1, 1)` at position t `(N, 1, 1)` in 0..1 of a list of RGB colours."""
    table = torch.tensor(colours, device=t.device)
    hats = (t * (len(colours) - 1) - torch.arange(len(colours), device=t.device)).abs_()
    # at most two hats are not 0, so the order of summing cannot matter
    mixed = ((1.0 - hats).clamp_(min=0.0).transpose(1, 2) * table).sum(1)
    return mixed[..., None, None]


def mix(under: Tensor, over: Tensor, alpha: Tensor) -> Tensor:
    """Lays `over` on `under` in place where `alpha` is 1."""
    return under.add_((over - under).mul_(alpha))


def skin_colour(who: Columns) -> Tensor:
    """Linear colour `(N, 3, 1, 1)` of the skin."""
    red = who.skin_red[:, None] * who.skin_red.new_tensor([0.03, -0.05, -0.10]).view(1, 3, 1, 1)
    return palette(who.skin_tone, SKIN) * (1.0 + red)
