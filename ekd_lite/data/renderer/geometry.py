"""Where each pixel's line of sight meets the head: rotation, rays, skull and relief.

The camera looks along -z without perspective. Rays are turned into the head's own frame, where the
skull is an ellipsoid whose half width depends on the height (cheekbones, jaw) and whose radius is
scaled by one plus the relief of the texture. So the nose really hides the far cheek.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.data.renderer.parameters import Columns
from ekd_lite.data.renderer.texture import X_HALF, Y_HEIGHT, Y_TOP, ramp

HALF_FIELD = 0.97  # half the height of the picture at zoom 1, in head units
_CENTRE_Y = -0.08  # what the middle of a straight portrait shows
_ANCHOR = (0.0, -0.10, 0.45)  # between eyes and mouth: what the face detector centres
_SHELLS = (0.28, 0.15, 0.05)  # relief heights at which rays look for the surface


class Vector(NamedTuple):
    """Three coordinates, each a tensor that broadcasts with `(N, H, W)`."""

    x: Tensor
    y: Tensor
    z: Tensor

    def dot(self, other: Vector) -> Tensor:
        """Scalar product."""
        return torch.addcmul(torch.addcmul(self.x * other.x, self.y, other.y), self.z, other.z)

    def unit(self) -> Vector:
        """The same direction at length 1."""
        scale = self.dot(self).clamp(min=1e-8).rsqrt_()
        return Vector(self.x * scale, self.y * scale, self.z * scale)


class View(NamedTuple):
    """Lines of sight, and how to turn between the camera's frame and the head's."""

    axes: tuple[Vector, Vector, Vector]  # camera's x, y, z axis in the head's frame, (N, 1, 1)
    screen_x: Tensor  # (N, H, W), head units in the camera's frame, y up
    screen_y: Tensor
    origin: Vector  # a point of each ray in the head's frame, (N, H, W)
    towards: Vector  # direction of sight in the head's frame, (N, 1, 1)
    pixel: Tensor  # width of a pixel in head units, (N, 1, 1)

    def to_head(self, x: Tensor, y: Tensor, z: Tensor) -> Vector:
        """Turns a camera-frame direction into the head's frame."""
        a, b, c = self.axes
        given = Vector(x, y, z)
        columns = (Vector(a[k], b[k], c[k]) for k in range(3))
        return Vector(*(given.dot(column) for column in columns))

    def along(self, distance: Tensor) -> Vector:
        """Points of the rays at these distances."""
        o, d = self.origin, self.towards
        return Vector(
            torch.addcmul(o.x, distance, d.x),
            torch.addcmul(o.y, distance, d.y),
            torch.addcmul(o.z, distance, d.z),
        )


def look(how: Columns, size: int) -> View:
    """Sets up the camera for pictures of `size` pixels."""
    sy, cy, sp, cp = how.sin_yaw, how.cos_yaw, how.sin_pitch, how.cos_pitch
    sr, cr = how.sin_roll, how.cos_roll
    # rows of Rz(roll) Rx(pitch) Ry(yaw): the camera's axes seen from the head
    right = Vector(cr * cy - sr * sp * sy, -sr * cp, cr * sy + sr * sp * cy)
    up = Vector(sr * cy + cr * sp * sy, cr * cp, sr * sy - cr * sp * cy)
    back = Vector(-cp * sy, sp, cp * cy)
    field = HALF_FIELD / how.zoom
    step = 2.0 / size
    grid = torch.arange(size, device=sy.device) * step + (0.5 * step - 1.0)
    anchor = Vector(*(sy.new_full((1, 1, 1), value) for value in _ANCHOR))
    x = grid.view(1, 1, -1) * field + (right.dot(anchor) + how.shift_x)
    y = -grid.view(1, -1, 1) * field + (up.dot(anchor) - _ANCHOR[1] + _CENTRE_Y + how.shift_y)
    shape = (len(x), size, size)
    x, y = x.expand(shape).contiguous(), y.expand(shape).contiguous()
    origin = Vector(x * right.x + y * up.x, x * right.y + y * up.y, x * right.z + y * up.z)
    towards = Vector(-back.x, -back.y, -back.z)
    return View((right, up, back), x, y, origin, towards, field * step)


class Hit(NamedTuple):
    """A surface as the camera sees it, every tensor `(N, H, W)`."""

    point: Vector
    normal: Vector  # unit, in the head's frame
    coverage: Tensor  # share of the pixel that the surface covers
    distance: Tensor  # along the ray: smaller is nearer


def _pierce(view: View, scale: Vector, radius_squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Meets the ellipsoid |p * scale|^2 = radius_squared.

    Returns middle of the chord, half its length (0 where the ray misses), and the squared
    smallest distance from the centre in units of the ellipsoid.
    """
    o, d = view.origin, view.towards
    sx, sy, sz = (s.square() for s in scale)
    a = Vector(sx, sy, sz).dot(Vector(d.x * d.x, d.y * d.y, d.z * d.z))
    scaled = Vector(o.x * sx, o.y * sy, o.z * sz)
    b = scaled.dot(d)
    middle = (b / a).neg_()
    nearest = scaled.dot(o).addcmul_(middle, b)
    half = (radius_squared - nearest).div_(a).clamp_(min=0.0).sqrt_()
    return middle, half, nearest


def _skull_width(who: Columns, y: Tensor) -> Tensor:
    """Half width at height y as a share of the width at the cheekbones."""
    low = ((-0.06 - y) * 1.12).clamp_(0.0, 1.0)
    high = ((y - 0.05) * 1.05).clamp_(0.0, 1.0)
    jaw = low * low
    square = 0.42 * who.jaw_square * jaw * (1.15 - low)
    return 1.0 - who.jaw_taper * jaw + square + high * high * (0.16 * high - who.temple_narrow)


def hit_head(who: Columns, how: Columns, view: View, texture: Tensor) -> tuple[Hit, Tensor]:
    """Finds the skin under each pixel.

    A ray looks for the surface on shells of falling height, so that it stops at the first thing
    in its way: the nose before the cheek behind it.

    Returns:
        The hit, and the texture's channels there, `(N, C, H, W)`.
    """
    width, depth = who.head_width, who.head_depth
    chin = who.chin_length + 0.45 * how.mouth_open
    relief = texture[:, 3:4]
    y = view.origin.y
    height: Tensor = y.new_full((1, 1, 1), _SHELLS[0])
    sz = (1.0 / depth).expand_as(y[:, :1, :1])

    def descend(height: Tensor, y: Tensor) -> tuple[Vector, Tensor, Tensor, Vector]:
        v = y / (1.0 + height)
        sx = 1.0 / (_skull_width(who, v) * width)
        sy = 1.0 + ((-8.0 * v).clamp_(0.0, 1.0)) * (1.0 / chin - 1.0)
        scale = Vector(sx, sy, sz)
        middle, half, nearest = _pierce(view, scale, (1.0 + height).square())
        distance = middle - half
        return view.along(distance), distance, nearest, scale

    for floor in (*_SHELLS[1:], -1.0):
        point, _, _, _ = descend(height, y)
        seen = _sample(relief, point, height)[:, 0]
        seen = seen * (point.z * 4.0).clamp_(0.0, 1.0)  # no face on the back of the head
        height, y = seen.clamp_(min=floor), point.y  # not met yet: sink to the next shell
    point, distance, nearest, scale = descend(height, y)
    size = 1.0 + height
    sample = _sample(texture, point, height)
    coverage = ((size - nearest.clamp(min=0.0).sqrt_()) * (0.75 / view.pixel) + 0.5).clamp_(0, 1)
    base = Vector(
        point.x * scale.x.square(), point.y * scale.y.square(), point.z * scale.z.square()
    ).unit()
    # under the cheekbones the jaw narrows: the surface looks down a little
    lean = who.jaw_taper * 1.4 * ((-0.06 - point.y) * 1.12).clamp(0.0, 1.0)
    facing = ramp(base.z * 2.5).mul_(0.85)
    normal = Vector(
        base.x - sample[:, 4] * facing,
        base.y - sample[:, 5] * facing - lean * base.x.square(),
        base.z,
    ).unit()
    return Hit(point, normal, coverage, distance), sample


def _sample(texture: Tensor, point: Vector, height: Tensor) -> Tensor:
    """Reads texture channels `(N, C, H, W)` at points of the head."""
    shrink = 1.0 / (1.0 + height)
    u = point.x * shrink * (1.0 / X_HALF)
    v = (Y_TOP - point.y * shrink) * (2.0 / Y_HEIGHT) - 1.0
    return F.grid_sample(
        texture, torch.stack([u, v], -1), padding_mode="border", align_corners=False
    )
