"""Hair: a shell round the skull, with an opening for the face.

The shell is an ellipsoid that hangs down as a cylinder where hair is long. A ray meets it twice:
in front, where it may pass through the opening, and at the back, which is seen inside the opening
on both sides of the neck.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.data.renderer.geometry import Vector, View, _pierce
from ekd_lite.data.renderer.parameters import Columns
from ekd_lite.data.renderer.texture import HAIR, bump, palette, ramp

_WOOL = ((0.03, 0.03, 0.035), (0.25, 0.05, 0.05), (0.08, 0.13, 0.22), (0.40, 0.36, 0.28),
         (0.10, 0.14, 0.08))  # fmt: skip


class HairStyle(NamedTuple):
    """What identity and the day make of the hair, each `(N, 1, 1)`."""

    length: Tensor  # rank: 0 bald .. 1 down to the chest
    there: Tensor  # 0 bald .. 1 hair
    curl: Tensor
    bottom: Tensor  # y where it ends at the sides
    fringe: Tensor  # how far it hangs over the forehead
    sweep: Tensor  # slope of the fringe
    parting: Tensor
    covers_ears: Tensor
    hat: Tensor  # 1 where a woollen hat is worn
    radius: Vector  # of the shell
    colour: Tensor  # linear, (N, 3, 1, 1)


def style_hair(who: Columns, how: Columns) -> HairStyle:
    """Works out the hair style of each picture."""
    length = (who.hair_length + 0.13 * how.hair_grow).clamp(0.0, 1.0)
    there = ramp((length - 0.05) / 0.05)
    curl = ramp((who.hair_curl - 0.45) / 0.5)
    full = ramp((length - 0.10) / 0.25)
    volume = (who.hair_volume + how.hair_ruffle + 0.05 * curl).clamp(min=0.02) * full
    volume = volume + how.hat * (0.07 - 0.6 * volume)
    bottom = -0.10 - 3.0 * (length - 0.52).clamp(min=0.0)
    long = ramp((length - 0.52) / 0.15)
    tied = (who.bun > 0.86).float()
    bottom = bottom + tied * (-0.15 - bottom)
    fringe_rank = who.fringe
    fringe = full * (
        0.10 * ramp((fringe_rank - 0.50) / 0.2) + 0.20 * ramp((fringe_rank - 0.72) / 0.15)
    ) * (1.0 - tied)  # fmt: skip
    sweep = (0.30 - 0.9 * (fringe_rank - 0.5).abs()) * torch.sign(who.parting + 1e-6) * full
    side = 1.035 + 0.35 * volume + 0.05 * long * (1.0 - tied) + 0.25 * volume * curl
    radius = Vector(
        who.head_width * side * 1.02, 1.02 + 0.85 * volume, who.head_depth * (1.03 + 0.45 * volume)
    )
    grey = ramp((how.age - 0.35) / 0.7) * 0.85
    red = who.hair_red[:, None] * who.hair_red.new_tensor([0.10, -0.04, -0.16]).view(1, 3, 1, 1)
    colour = palette(who.hair_tone * (1.0 - 0.75 * who.skin_tone.square()), HAIR) * (1.0 + red)
    silver = colour.new_tensor([0.30, 0.295, 0.285]).view(1, 3, 1, 1)
    colour = colour + (silver - colour) * grey[:, None]
    parting = who.parting + how.hair_shift * 0.6
    covers_ears = ramp((length - 0.535) / 0.04) * (1.0 - tied)
    return HairStyle(
        length, there, curl, bottom, fringe, sweep, parting, covers_ears, how.hat, radius, colour
    )


def _meet(style: HairStyle, view: View) -> tuple[Vector, Vector, Tensor, Vector]:
    """Front and back point of the shell on each ray, the nearest distance, and the scale."""
    hang = ramp((style.length - 0.5) / 0.2)
    y = view.origin.y - 0.0
    point = back = Vector(y, y, y)
    nearest = y
    scale = style.radius
    for _ in range(2):
        down = (-3.0 * y).clamp_(0.0, 1.0) * hang
        top = 1.0 / style.radius.y
        scale = Vector(1.0 / style.radius.x, top * (1.0 - 0.80 * down), 1.0 / style.radius.z)
        middle, half, nearest = _pierce(view, scale, torch.ones_like(style.length))
        point, back = view.along(middle - half), view.along(middle + half)
        y = point.y
    return point, back, nearest, scale


def _nape(style: HairStyle, ahead: Tensor) -> tuple[Tensor, Tensor]:
    """Where the hair ends at the sides and behind, and how far a direction is beside the face."""
    beside = ramp((0.56 - ahead) * 3.2)
    return style.bottom - 0.30 * ramp((-ahead - 0.05) * 2.5), beside


def _ahead(style: HairStyle, p: Vector) -> Tensor:
    """Direction of a point seen from above: 1 in front, 0 at the ear, -1 behind."""
    across, deep = p.x / style.radius.x, p.z / style.radius.z
    return deep * (across.square() + deep.square() + 1e-6).rsqrt_()


def hairline(who: Columns, style: HairStyle, p: Vector, jag: Tensor) -> Tensor:
    """How far a point of the shell lies inside the hair, in head units: `(N, H, W)`."""
    ahead = _ahead(style, p)
    front = who.hair_line - style.fringe - (style.sweep * 0.25 / style.radius.x) * p.x
    front = front + (who.hair_recess * (1.0 - 2.0 * style.fringe)) * bump((ahead - 0.80) / 0.25)
    front = front - who.widow_peak * bump(p.x / 0.10) - 0.45 * (1 - ahead).clamp(0, 0.3)
    nape, opened = _nape(style, ahead)
    line = front + (nape - front) * opened
    # the line falls steeply at the sides: divided by its slope, the height becomes a distance
    steep = 1.0 + 13.0 * (front - nape).clamp_(min=0.0) * opened * (1.0 - opened)
    return (p.y - line + jag) / steep


class Hair(NamedTuple):
    """Layers for the picture: `(N, H, W)` masks, colours `(N, 3, H, W)`, normals."""

    front: Tensor
    back: Tensor
    colour: Tensor
    normal: Vector
    back_colour: Tensor
    open: Tensor  # light that gets to it
    fibre: Tensor  # 0 where a hat covers it
    shade: Tensor  # how much of the light the hair lets through to the skin at each pixel


def _strands(style: HairStyle, p: Vector, how: Columns, tile: Tensor) -> Tensor:
    """Noise `(N, 2, H, W)` drawn out along the strands, which fall from the parting."""
    from_parting = p.x - style.parting * 0.6
    depth = (p.z + 0.25).clamp(min=0.0)
    around = from_parting / ((from_parting.square() + depth.square() + 0.02).sqrt_() + depth + 0.1)
    u = around * (1.25 + 0.4 * style.curl) + how.hair_x * 8.0
    v = p.y * (0.10 + 0.85 * style.curl) + how.hair_y * 8.0 + 0.25 * around.square()
    return F.grid_sample(
        tile.expand(len(u), -1, -1, -1), torch.stack([u, v], -1),
        padding_mode="reflection", align_corners=False,
    )  # fmt: skip


def comb(
    who: Columns, how: Columns, style: HairStyle, view: View, skin: Vector, tile: Tensor
) -> Hair:
    """Lays the hair over the head.

    Args:
        who: identity columns.
        how: nuisance columns.
        style: from `style_hair`.
        view: the lines of sight.
        skin: points of the head's surface, for the shadow that hair throws on it.
        tile: `(1, 2, T, T)` noise, coarse and fine, mean 0 and deviation 1.
    """
    point, back, nearest, scale = _meet(style, view)
    noise = _strands(style, point, how, tile)
    coarse, fine = noise[:, 0], noise[:, 1]
    rough = 0.008 + 0.024 * style.curl
    size = 1.0 + rough * coarse
    soft = (view.pixel * 1.3).clamp(min=0.022)
    outline = ((size - nearest.clamp(min=0.0).sqrt_()) * 0.75 / soft + 0.5).clamp_(0.0, 1.0)
    jag = coarse * (0.014 + 0.010 * style.curl) + fine * 0.008
    inside = hairline(who, style, point, jag)
    shaved = style.there * (0.55 + 0.45 * ramp((style.length - 0.11) / 0.12))
    front = (inside / (soft * 1.2) + 0.5).clamp_(0.0, 1.0).mul_(outline).mul_(shaved)
    nape, beside = _nape(style, _ahead(style, back))
    behind = back.y - nape + jag - 2.0 * (1.0 - beside)
    hidden = (behind / soft + 0.5).clamp_(0.0, 1.0).mul_(outline).mul_(shaved)

    strand = (0.80 + 0.13 * coarse + (0.16 + 0.10 * style.curl) * fine).clamp_(0.25, 1.7)
    open_ = 0.70 + 0.30 * ramp(inside * 5.0)
    colour = style.colour * strand.unsqueeze(1)
    above_hat = point.y - who.eye_height - 0.34 - 0.10 * point.z
    hat = (above_hat / soft + 0.5).clamp_(0.0, 1.0) * style.hat
    ribs = 0.85 + 0.25 * ((point.x * 9.0).remainder(1.0) - 0.5).abs() + 0.06 * fine
    knitted = palette(how.hat_hue, _WOOL) * (
        ribs * (1.15 - 0.35 * ramp(above_hat * 60.0 - 7.5))
    ).unsqueeze(1)
    colour = colour + (knitted - colour) * hat.unsqueeze(1)
    front = torch.maximum(front, hat * outline)
    back_colour = style.colour * (0.30 + 0.08 * coarse).unsqueeze(1)
    normal = Vector(
        point.x * scale.x.square(), point.y * scale.y.square(), point.z * scale.z.square()
    ).unit()
    lumps = 0.16 * style.curl
    normal = Vector(normal.x + lumps * fine, normal.y + lumps * coarse, normal.z).unit()
    above = hairline(who, style, skin, jag * 0.3)
    above = torch.maximum(above, (skin.y - who.eye_height - 0.40) * style.hat - (1.0 - style.hat))
    shade = 1.0 - 0.62 * torch.maximum(style.there, style.hat) * ramp(above * 2.0 + 0.62)
    return Hair(front, hidden, colour, normal, back_colour, open_, 1.0 - hat, shade)
