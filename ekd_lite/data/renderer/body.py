"""What else is in the picture: ears, neck, clothes, background, glasses, masks, objects."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.data.renderer.geometry import Hit, Vector, View
from ekd_lite.data.renderer.parameters import Columns
from ekd_lite.data.renderer.texture import bump, palette, ramp

# Linear colours of walls, wood, foliage, sky, night, brick, sand, sea.
_BACKGROUNDS = ((0.42, 0.40, 0.37), (0.20, 0.13, 0.08), (0.09, 0.15, 0.06), (0.36, 0.46, 0.58),
                (0.035, 0.045, 0.07), (0.24, 0.11, 0.08), (0.50, 0.42, 0.30), (0.10, 0.19, 0.23),
                (0.55, 0.54, 0.53))  # fmt: skip
_CLOTHES = ((0.015, 0.017, 0.03), (0.05, 0.07, 0.14), (0.60, 0.59, 0.57), (0.22, 0.04, 0.05),
            (0.12, 0.13, 0.13), (0.07, 0.13, 0.09), (0.42, 0.33, 0.22), (0.16, 0.25, 0.40),
            (0.48, 0.40, 0.42), (0.30, 0.30, 0.31))  # fmt: skip


def background(how: Columns, view: View, tile: Tensor) -> Tensor:
    """Softly blurred surroundings `(N, 3, H, W)`; studio grey where `outside` is 0."""
    x, y = view.screen_x, view.screen_y
    scale = 0.035 + 0.09 * how.back_scale
    stretch = 0.35 + 1.3 * how.back_stretch
    u = x * scale * stretch + how.back_x * 8.0
    v = y * scale / stretch + how.back_y * 8.0
    noise = F.grid_sample(
        tile.expand(len(u), -1, -1, -1), torch.stack([u, v], -1),
        padding_mode="reflection", align_corners=False,
    )  # fmt: skip
    first = palette(how.back_hue, _BACKGROUNDS) * (0.5 + how.back_value[:, None])
    second = palette(how.back_hue_2, _BACKGROUNDS) * (0.5 + how.back_value_2[:, None])
    blend = (0.5 + 0.55 * noise[:, 0] + 0.35 * (y - 0.1) * (how.back_kind - 0.3)).clamp_(0.0, 1.0)
    scene = first + (second - first) * blend.unsqueeze(1)
    scene *= (1.0 + 0.16 * noise[:, 1]).clamp_(0.4, 1.8).unsqueeze(1)
    studio = scene.new_tensor([0.235, 0.24, 0.25]).view(1, 3, 1, 1)
    studio = studio * (1.10 - 0.22 * (x.square() + (y - 0.1).square())).unsqueeze(1)
    return studio + (scene - studio) * how.outside[:, None]


def ears(who: Columns, view: View) -> tuple[Hit, Tensor]:
    """The ear on each pixel's side of the head, and how dark its hollows are `(N, H, W)`."""
    middle = view.axes[0].z * -0.05
    side = torch.sign(view.screen_x - middle)
    size = who.ear_size
    tilt = 0.25  # the upper end leans out and back
    o, d = view.origin, view.towards
    out = who.head_width * (0.985 + 0.35 * who.ear_out)
    cy = who.ear_height
    x, y, z = o.x * side - out, o.y - cy, o.z + 0.06
    dx = d.x * side
    # the ear's own axes: thin across (a), long along y, deep along z, turned outwards
    turn = 0.35 + 3.0 * who.ear_out
    ax, az = x - 0.12 * y + turn * z, z - 0.6 * turn * x + tilt * y
    dax, daz = dx + turn * d.z - 0.12 * d.y, d.z - 0.6 * turn * dx + tilt * d.y
    ia, ib, ic = 1.0 / (0.055 + 0.3 * who.ear_out), 1.0 / size, 1.0 / (0.60 * size)
    px, py, pz = ax * ia, y * ib, az * ic
    dx2, dy2, dz2 = dax * ia, d.y * ib, daz * ic
    from_middle, sight = Vector(px, py, pz), Vector(dx2, dy2, dz2)
    a = sight.dot(sight)
    b = from_middle.dot(sight) / a
    nearest = from_middle.dot(from_middle).sub_(b.square().mul_(a))
    half = (1.0 - nearest).div_(a).clamp_(min=0.0).sqrt_()
    distance = half.add_(b).neg_()
    coverage = ((1.0 - nearest.clamp(min=0.0).sqrt_()) * (0.09 / view.pixel) + 0.5).clamp_(0, 1)
    qx, qy, qz = px + distance * dx2, py + distance * dy2, pz + distance * dz2
    normal = Vector((qx * ia - 0.3 * qz * ic) * side, qy * ib, qz * ic + turn * qx * ia).unit()
    ring = (qy.square() + qz.square()).sqrt_()
    hollow = bump((ring - 0.45) / 0.40) * 0.55
    return Hit(view.along(distance), normal, coverage, distance), hollow


def neck_and_clothes(
    who: Columns, how: Columns, view: View
) -> tuple[Tensor, Tensor, Tensor, Vector, Tensor]:
    """Neck and shoulders in the camera's frame.

    Returns:
        coverage of the body, share of it that is cloth, cloth colour `(N, 3, 1, 1)`, normal in
        the head's frame, and the darkening under the chin.
    """
    # The body follows the head half-way.
    x = view.screen_x - 0.35 * view.axes[0].z * -0.2 - 0.1 * view.axes[1].x
    y = view.screen_y
    neck = 0.40 * who.head_width / 0.70 + 1.2 * how.weight + 0.5 * who.cheek_fullness
    drop = (-0.93 - y).clamp(min=0.0)
    half = neck * (1.0 + 0.10 * (-0.6 - y).clamp(0.0, 0.4)) + drop * (1.5 + 7.0 * drop)
    coverage = ((half - x.abs()) * (0.8 / view.pixel) + 0.5).clamp_(0.0, 1.0)
    coverage *= ((-0.25 - y) * 20.0).clamp(0.0, 1.0)
    collar = -1.13 + 0.16 * (x / neck).square() * (0.6 + how.cloth_kind)
    collar = collar - 0.10 * ((0.5 - how.cloth_kind) * 4.0).clamp(0.0, 1.0)
    cloth = ((collar - y) / view.pixel + 0.5).clamp_(0.0, 1.0)
    colour = palette(how.cloth_hue, _CLOTHES) * (0.55 + 0.9 * how.cloth_value[:, None])
    nx = (x / half).clamp(-1.0, 1.0) * 0.95
    ny = 0.15 + 0.7 * cloth
    nz = (1.05 - nx.square()).sqrt_()
    normal = view.to_head(nx, ny, nz).unit()
    chin = -who.chin_length * view.axes[1].y - 0.02
    dark = 1.0 - 0.62 * ramp((y - chin) / 0.30 + 0.9) * (1.0 - cloth)
    return coverage, cloth, colour, normal, dark
