"""Light on a surface: one coloured lamp, sky and ground, a rim light, and the skin's softness."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ekd_lite.data.renderer.geometry import Vector, View
from ekd_lite.data.renderer.parameters import Columns


class Surface(NamedTuple):
    """What is visible at each pixel: nine planes `(N, H, W)`."""

    red: Tensor  # linear colour
    green: Tensor
    blue: Tensor
    normal_x: Tensor  # in the head's frame
    normal_y: Tensor
    normal_z: Tensor
    open: Tensor  # share of the light that gets there
    gloss: Tensor
    fibre: Tensor  # 1 hair, 0 everything else

    @staticmethod
    def of(colour: Tensor, normal: Vector, open_: Tensor, gloss: Tensor | float,
           fibre: Tensor | float) -> Surface:  # fmt: skip
        """Puts a surface together; `colour` is `(N, 3, H or 1, W or 1)`."""
        like = open_.new_full((1, 1, 1), 1.0)
        gloss = gloss if isinstance(gloss, Tensor) else like * gloss
        red, green, blue = colour.unbind(1)
        return Surface(red, green, blue, *normal, open_, gloss, like * fibre)

    def spread(self) -> Surface:
        """The same with every plane `(N, H, W)` and writable."""
        return Surface(*(torch.empty_like(self.open).copy_(plane) for plane in self))

    def cover(self, over: Surface, alpha: Tensor) -> None:
        """Lays another surface over this one, in place, where `alpha` `(N, H, W)` is 1."""
        for mine, other in zip(self, over, strict=True):
            mine.add_((other - mine).mul_(alpha))


def pick(value: Any, rows: Tensor) -> Any:
    """Rows of a tensor, or of every tensor in a nest of tuples, as copies."""
    if isinstance(value, Tensor):
        return value.index_select(0, rows)
    parts = [pick(part, rows) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


class Lights(NamedTuple):
    """Directions in the head's frame and linear colours `(N, 3, 1, 1)`."""

    key: Vector
    half: Vector  # between key light and camera
    rim: Vector
    up: Vector
    view: Vector
    key_colour: Tensor
    sky: Tensor
    ground: Tensor
    rim_colour: Tensor


def _warm(warmth: Tensor, amount: float) -> Tensor:
    """White turned towards candle light (positive) or blue sky (negative)."""
    turn = warmth.new_tensor([1.0, 0.05, -1.0]).view(1, 3, 1, 1)
    return 1.0 + warmth[:, None] * amount * turn


def set_lights(how: Columns, view: View) -> Lights:
    """Places the lights: fixed to the room, so they move over a turning head."""
    one = torch.ones_like(how.light_x)
    key = view.to_head(how.light_x, how.light_y, one).unit()
    eye = view.axes[2]
    half = Vector(key.x + eye.x, key.y + eye.y, key.z + eye.z).unit()
    side = torch.sign(how.rim_side + 1e-6)
    rim = view.to_head(-side * 1.0, how.rim_side.abs() * 0.5, one * -0.55).unit()
    fill = _warm(how.fill_warmth, 0.16) * how.fill_strength[:, None]
    return Lights(
        key, half, rim, view.axes[1], eye,
        key_colour=_warm(how.light_warmth, 0.15) * how.light_strength[:, None] * 1.10,
        sky=fill * 0.36, ground=_warm(-how.fill_warmth, 0.10) * how.fill_strength[:, None] * 0.20,
        rim_colour=_warm(how.fill_warmth, 0.25) * how.rim_strength[:, None] * 0.55,
    )  # fmt: skip


def shade(surface: Surface, lights: Lights, how: Columns) -> Tensor:
    """Linear picture `(N, 3, H, W)`."""
    normal = Vector(surface.normal_x, surface.normal_y, surface.normal_z).unit()
    towards = normal.dot(lights.key)
    fibre = surface.fibre
    upward = normal.dot(lights.up).mul_(0.5).add_(0.5)
    grazing = 1.0 - normal.dot(lights.view).clamp_(0.0, 1.0)
    rim = normal.dot(lights.rim).clamp_(min=0.0).mul_((grazing * surface.open).square_())
    rim.mul_(1.0 - 0.75 * fibre)

    # highlight: (n.h)^2^k by squaring; hair shines across its strands instead
    middle = normal.dot(lights.half).clamp_(0.0, 1.0)
    spark = middle.square().square_().square_()
    tight = spark.square().square_()
    skin_shine = (0.08 * spark + 0.32 * tight) * how.skin_gloss * surface.gloss
    along = (lights.half.y - normal.y * middle) * (1.06 - normal.y.square()).clamp_(
        min=0.06
    ).rsqrt_()
    across = (1.0 - (along - 0.12).square()).clamp_(min=0.0).square_().square_().square_()
    hair_shine = across * (towards + 0.35).clamp(0.0, 1.0) * (0.008 + 0.42 * surface.green)
    shine = (skin_shine + (hair_shine - skin_shine) * fibre).mul_(surface.open)

    planes = []
    reached = (surface.open * 0.6).add_(0.4)
    albedo = (surface.red, surface.green, surface.blue)
    # Red light travels farther inside skin, so shadows end in a soft reddish border.
    for channel, wrap in enumerate((0.32, 0.24, 0.20)):
        lit = (towards + wrap).mul_(1.0 / (1.0 + wrap)).clamp_(min=0.0)
        lit.mul_((lit * 0.65).add_(0.35)).mul_(reached)
        sky, ground = lights.sky[:, channel], lights.ground[:, channel]
        light = (upward * (sky - ground)).add_(ground).mul_(surface.open)
        light.addcmul_(lit, lights.key_colour[:, channel])
        light.addcmul_(rim, lights.rim_colour[:, channel]).mul_(albedo[channel])
        planes.append(light.addcmul_(shine, lights.key_colour[:, channel]))
    return torch.stack(planes, 1)
