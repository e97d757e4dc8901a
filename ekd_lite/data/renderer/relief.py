"""The relief of a face over the bare skull: brow, nose, cheeks, lips, folds, beard."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.data.renderer.curves import EYE_ROWS, MOUTH_ROWS, FaceCurves
from ekd_lite.data.renderer.parameters import Columns
from ekd_lite.data.renderer.texture import bump, ramp


def sculpt(face: FaceCurves, who: Columns, how: Columns, hairs: Tensor, beard: Tensor) -> Tensor:
    """Height over the bare skull `(N, R, C)`, as a share of the skull's radius."""
    x, y, ax = face.x, face.y, face.ax
    age = how.age
    height = beard * (0.022 + 0.004 * hairs)

    def hill(size: Tensor | float, across: Tensor, along: Tensor) -> None:
        height.addcmul_(across * size, along)

    hill(who.forehead, bump(x / 0.7), bump((y - 0.5) / 0.45))
    hill(who.brow_ridge + 0.012, bump((ax - 0.22) / 0.30), bump((y - who.eye_height - 0.13) / 0.13))
    hill(-who.eye_socket, bump((ax - 0.25) / 0.25), bump((y - face.eye_y) / 0.19))
    hill(0.026, bump((ax - face.eye_x) / 0.16), bump((y - face.eye_y) / 0.12))
    hill(who.cheekbone + 0.01, bump((ax - 0.45) / 0.28), bump((y - who.cheekbone_height) / 0.24))
    cheek = who.cheek_fullness + how.weight - 0.012 * age
    hill(cheek, bump((ax - 0.42) / 0.32), bump((y + 0.50) / 0.38))
    apple = 0.016 * (how.smile.clamp(min=0.0) + 0.3)  # a smile lifts the cheeks
    hill(apple, bump((ax - 0.33) / 0.20), bump((y + 0.24) / 0.20))
    hill(who.muzzle, bump(x / 0.36), bump((y - face.mouth_y) / 0.30))
    chin_y = -0.80 - 0.6 * how.mouth_open
    hill(who.chin_size, bump(x / (who.chin_width + 0.10)), bump((y - chin_y) / 0.19))
    hill(-who.chin_cleft, bump(x / 0.07), bump((y - chin_y) / 0.10))
    hill(-0.018, bump(x / 0.22), bump((y - face.mouth_y + 0.16) / 0.075))
    hill(-0.007 * who.philtrum, bump(x / 0.04), bump((y - face.mouth_y - 0.10) / 0.07))
    hill(0.012 * age, bump((ax - 0.47) / 0.16), bump((y + 0.70) / 0.16))  # jowls

    # The nose: a ridge that widens and rises to the tip, and falls under it.
    root_y = who.eye_height + 0.05
    t = ((root_y - y) / (root_y - face.tip_y)).clamp(0.0, 1.0)
    profile = who.nose_root + (who.nose_height - who.nose_root) * t * (0.6 + 0.4 * t)
    profile = profile + who.nose_hook * 4.0 * t * (1.0 - t)
    profile = profile * ramp((root_y + 0.16 - y) / 0.18)
    profile = profile * ramp((y - face.tip_y + 0.130) / 0.150)
    width = who.nose_bridge + 0.055 + (who.nose_width * 0.92 - who.nose_bridge - 0.055) * t * t
    height += bump(face.nose_x / width).mul_(profile)
    tip = who.nose_bulb * bump((y - face.tip_y - 0.3 * who.nose_upturn) / 0.085)
    height += bump(face.nose_x / 0.095).mul_(tip)
    wing = who.nose_wing * bump((y - face.tip_y + 0.035) / 0.080)
    height += bump((face.nose_x.abs() - 0.74 * who.nose_width) / 0.075).mul_(wing)

    # Lips, lid folds and wrinkles follow curves. A groove is never narrower than a texel.
    def ridge(
        where: tuple[slice, FaceCurves],
        size: Tensor,
        curve: Tensor,
        half: Tensor | float,
        window: Tensor,
    ) -> None:
        half = half if isinstance(half, Tensor) else max(half, 1.2 * face.texel)
        height[:, where[0]].add_(bump((where[1].y - curve) / half).mul_(window * size))

    eyes, mouth, brow = face.rows(*EYE_ROWS), face.rows(*MOUTH_ROWS), face.rows(0.68, 0.25)

    closed = (1.0 - face.mouth_across.square()).clamp_(min=0.0)
    upper = 0.5 * (face.upper_in + face.upper_out)
    lower = 0.5 * (face.lower_in + face.lower_out)
    ridge(mouth, 0.25 * who.lip_upper + 0.008, upper, 0.65 * who.lip_upper + 0.025, closed)
    ridge(mouth, 0.30 * who.lip_lower + 0.010, lower, 0.60 * who.lip_lower + 0.020, closed)
    fine = min(1.0, 0.03 / face.texel)
    lids = face.lid_window * fine
    crease = 0.5 * who.lid_fold
    ridge(eyes, 0.014 + 0.0 * crease, face.lid_top + crease, crease + 0.012, lids)
    ridge(eyes, -0.012 - 0.004 * age, face.lid_top + who.lid_fold + 0.01, 0.020, lids)
    bags = who.eye_bags + 0.008 * age
    ridge(eyes, bags, face.lid_bottom - 0.05, 0.050, lids)
    ridge(eyes, -0.5 * bags, face.lid_bottom - 0.105, 0.035, lids)
    brow_window = bump(x / 0.52) * fine
    lift = (how.brow_raise * 8.0).clamp(min=0.0)
    for level, bend in ((0.36, 0.10), (0.45, 0.06), (0.54, 0.03)):
        line = level + bend * (0.3 - ax.square() * 3.0) * 0.3 + 0.02 * who.asym_brow
        ridge(brow, -0.0065 * (age - 0.25 + lift).clamp(0.0, 1.0), line, 0.026, brow_window)
    between = bump((y - who.eye_height - 0.14) / 0.10)
    frown = -0.008 * (how.frown + 0.6 * age - 0.2).clamp(0.0, 1.5) * fine
    hill(frown, bump((ax - 0.05) / max(0.025, 1.2 * face.texel)), between)
    # nasolabial fold: from the wing of the nose outwards and down past the mouth's corner
    fold_x = who.nose_width + 0.03 - 0.42 * (y - face.tip_y + 0.01)
    fold = 0.016 * (who.nasolabial * 0.6 + 0.7 * age + 0.45 * how.smile - 0.15).clamp(0.0, 1.4)
    window = bump((y - face.mouth_y - 0.07) / 0.21) * fold * fine
    beside = (ax - fold_x) / max(0.05, 1.2 * face.texel)
    height += bump(beside - 0.7).sub_(bump(beside)).mul_(window)
    return height


def grow_beard(face: FaceCurves, who: Columns, how: Columns) -> tuple[Tensor, Tensor]:
    """Where hair grows on the lower face, and how much of the skin it hides: `(N, R, C)` each."""
    ax, y = face.ax, face.y
    rarely = 0.25 * ramp((who.hair_length - 0.6) * 4.0)  # with long hair
    amount = who.beard + 0.10 * how.beard_grow - rarely
    line = who.beard_line + 0.35 * (ax - 0.42) + 1.6 * (ax - 0.52).clamp(min=0.0)
    full = ((amount - 0.70) * 6.0).clamp(0.0, 1.0)
    stubble = ((amount - 0.48) * 5.0).clamp(0.0, 1.0)
    area = ((line - y) / 0.13 + 0.5).clamp_(0.0, 1.0)
    goatee = bump((ax - face.mouth_half - 0.02) / 0.09) * bump((y - face.mouth_y) / 0.22)
    area = torch.maximum(area, goatee)
    lip = (who.moustache - rarely + 0.10 * how.beard_grow + 0.6 * (amount - 0.5) - 0.70) * 5.0
    lip = lip.clamp(0.0, 1.0)
    above = ((y - face.upper_out) / 0.05 + 0.6).clamp_(0.0, 1.0)
    above = above * ((face.tip_y - 0.085 - y) / 0.06 + 0.5).clamp_(0.0, 1.0)
    above = above * ((face.mouth_half + 0.03 - ax) / 0.08).clamp(0.0, 1.0)
    hidden = torch.maximum(area * (0.42 * stubble + 0.58 * full), above * (0.85 * lip))
    return torch.maximum(area * full, above * lip), hidden


def occlusion(height: Tensor) -> Tensor:
    """Light that reaches a hollow: less the deeper it lies under its blurred surroundings."""
    rows, columns = height.shape[1:]
    light = torch.ones_like(height)
    for pieces, weight in ((8, 3.0), (16, 4.5)):
        cell = columns // pieces
        coarse = F.avg_pool2d(height[:, None], cell)
        around = F.interpolate(coarse, (rows, columns), mode="bilinear", align_corners=False)
        light.sub_((around[:, 0] - height).mul_(weight))
    return light.clamp_(0.35, 1.12)
