"""Things worn or held before the face: glasses, a surgical mask, something in the hand."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.data.renderer.geometry import Hit, Vector, View
from ekd_lite.data.renderer.light import Surface
from ekd_lite.data.renderer.parameters import Columns
from ekd_lite.data.renderer.texture import palette, ramp, skin_colour

_FRAMES = ((0.010, 0.010, 0.011), (0.060, 0.025, 0.012), (0.16, 0.15, 0.14), (0.22, 0.14, 0.05),
           (0.10, 0.012, 0.018), (0.02, 0.035, 0.09))  # fmt: skip
_MASKS = ((0.30, 0.48, 0.60), (0.68, 0.69, 0.69), (0.020, 0.021, 0.024), (0.42, 0.56, 0.50),
          (0.50, 0.32, 0.36))  # fmt: skip
_OBJECTS = ((0.02, 0.02, 0.023), (0.50, 0.48, 0.45), (0.30, 0.05, 0.045), (0.08, 0.16, 0.30),
            (0.25, 0.28, 0.10))  # fmt: skip


def wear_glasses(picture: Surface, who: Columns, how: Columns, view: View, head: Hit) -> Tensor:
    """Puts glasses on; returns the coverage of the frames `(N, H, W)`.

    The rims lie in a plane before the eyes, so they shift against the face as it turns.
    """
    o, d = view.origin, view.towards
    pixel = view.pixel
    plane = who.head_depth + 0.5 * who.nose_root - 0.03
    distance = (plane - o.z) / d.z.clamp(max=-0.2)
    p = view.along(distance)
    size = 0.85 + 0.35 * how.frame_size
    half_x, half_y = 0.178 * size, (0.085 + 0.065 * how.frame_shape) * size
    corner = half_y * (0.35 + 0.65 * how.frame_shape)
    middle_y = who.eye_height - 0.02
    from_x, from_y = p.x.abs() - who.eye_spacing - 0.012, p.y - middle_y
    qx = (from_x.abs() - half_x + corner).clamp_(min=0.0)
    qy = (from_y.abs() - half_y + corner).clamp_(min=0.0)
    inner = torch.maximum(from_x.abs() - half_x, from_y.abs() - half_y) + corner
    rim = (qx.square() + qy.square()).sqrt_() + inner.clamp_(max=0.0) - corner

    def line(width: Tensor, off: Tensor) -> Tensor:
        return ((width - off) / pixel + 0.5).clamp(0.0, 1.0) - ((-width - off) / pixel + 0.5).clamp(
            0.0, 1.0
        )

    thick = 0.009 + 0.014 * (how.frame_colour * 3.0 % 1.0)
    frame = line(thick, rim)
    bridge = line(thick, from_y - 0.25 * half_y)
    bridge = bridge * ((who.eye_spacing + 0.012 - half_x - p.x.abs()) / pixel + 0.5).clamp(0, 1)
    frame = torch.maximum(frame, bridge)

    # the arm on the side that is turned to the camera
    side = -torch.sign(d.x + 1e-6)
    wall = who.head_width * 1.03 * side
    reach = (wall - o.x) / (d.x - side * 1e-3)
    q = view.along(reach)
    arm = line(thick * 0.9, q.y - middle_y - 0.25 * half_y)
    arm = arm * ((q.z * 12.0 + 0.5).clamp(0.0, 1.0)) * ((plane - q.z) * 20.0 + 0.5).clamp(0.0, 1.0)
    frame = torch.maximum(frame, arm * ((head.distance - reach) * 20.0 + 0.8).clamp(0.0, 1.0))

    lens = (0.5 - rim / pixel).clamp(0.0, 1.0)
    dark = ((how.mask_hue - 0.85) * 40.0).clamp(0.0, 1.0)  # a few are sunglasses
    glare = ramp(1.0 - (from_x + from_y * 0.7 - 0.05).abs() * 9.0) * 0.16 + 0.05
    up = Vector(*(view.axes[2][k] * 0.8 + view.axes[1][k] * 0.6 for k in range(3)))
    tint = palette(how.frame_hue, ((0.02, 0.02, 0.022), (0.045, 0.03, 0.015)))
    ones = torch.ones_like(lens)
    picture.cover(Surface.of(tint, up, ones, 0.5, 0.0), lens * dark * 0.9)
    white = tint.new_tensor([0.62, 0.66, 0.70]).view(1, 3, 1, 1)
    picture.cover(Surface.of(white, up, ones, 0.6, 0.0), lens * glare)
    colour = palette(how.frame_colour, _FRAMES)
    picture.cover(Surface.of(colour, up, ones, 1.4, 0.0), frame)
    return frame


def wear_mask(picture: Surface, who: Columns, how: Columns, view: View, head: Hit) -> Tensor:
    """Hides nose, mouth and chin behind cloth; returns its coverage `(N, H, W)`."""
    p, pixel = head.point, view.pixel
    top = who.eye_height - 0.115 - 0.10 * ramp(p.x.abs() / 0.18) - 0.25 * p.x.square()
    cloth = ((top - p.y) / pixel + 0.5).clamp(0.0, 1.0)
    edge = 0.575 * who.head_width / 0.70 - 0.10 * (p.y + 0.45).square()
    cloth = cloth * ((edge - p.x.abs()) / (1.3 * pixel) + 0.5).clamp(0.0, 1.0)
    cloth = cloth * ((p.z * 6.0).clamp(0.0, 1.0))
    strap = (0.012 - (p.y - top + 0.06 + (p.x.abs() - 0.5) * -0.25).abs()) / pixel + 0.5
    strap = strap.clamp(0.0, 1.0) * ((p.x.abs() - edge) * 40.0).clamp(0.0, 1.0) * (p.y < 0.1)
    alpha = torch.maximum(cloth, strap) * head.coverage
    # cloth is stretched over the relief: it keeps the nose and loses the lips
    flat = Vector(p.x * 2.1, p.y * 1.0, p.z * 1.5 + 0.1).unit()
    keep = ramp((p.y + 0.40) * 4.0) * 0.55
    pleat = ((p.y * 11.0).remainder(1.0) - 0.5) * 0.35 * ramp((-0.22 - p.y) * 6.0)
    normal = Vector(
        flat.x + (head.normal.x - flat.x) * keep,
        flat.y + (head.normal.y - flat.y) * keep + pleat,
        flat.z + (head.normal.z - flat.z) * keep,
    ).unit()
    open_ = 0.80 + 0.2 * ((top - p.y) * 6.0).clamp(0.0, 1.0)
    colour = palette(how.mask_hue, _MASKS)
    picture.cover(Surface.of(colour, normal, open_, 0.15, 0.0), alpha)
    return alpha


def hold_object(picture: Surface, who: Columns, how: Columns, view: View, head: Hit) -> Tensor:
    """A hand, a cup or a telephone that hides a part; returns its coverage `(N, H, W)`."""
    side = torch.sign(how.object_side - 0.5 + 1e-6)
    # most come from below on one side
    x = (view.screen_x * side - 0.62 + 0.35 * how.object_size) / (0.26 + 0.16 * how.object_size)
    y = (view.screen_y + 0.85) / (0.42 + 0.22 * how.object_size)
    x = x + 0.3 * y
    boxy = (how.object_hue > 0.35).float()
    far = x.square() + y.square()
    far = far + (x.square().square() + y.square().square() - far) * 0.7 * boxy
    alpha = ((1.0 - far.sqrt()) * (0.30 / view.pixel) + 0.5).clamp_(0.0, 1.0)
    nz = (1.15 - 0.75 * far).clamp_(min=0.1).sqrt_()
    normal = view.to_head(x * side * (0.75 - 0.4 * boxy), y * 0.5, nz).unit()
    thing = palette(((how.object_hue - 0.35) * 1.54).clamp(0.0, 1.0), _OBJECTS)
    skin = skin_colour(who)
    colour = skin + (thing - skin) * boxy[:, None]
    picture.cover(Surface.of(colour, normal, torch.ones_like(alpha), 0.5, 0.0), alpha)
    return alpha
