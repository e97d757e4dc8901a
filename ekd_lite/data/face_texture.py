"""The face painted flat: relief and colours on a grid that is later wrapped round the skull.

The grid covers x in -0.8..0.8 and y in -1.05..0.75 of the face seen from the front, and it never
moves: features that do not depend on x or on y are made from rows and columns alone, which makes
dozens of them almost free. Colours are linear light (the camera takes the square root).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.data.face_parameters import Columns

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
    return (1.0 - t * t).clamp_(min=0.0).square_()


def ramp(t: Tensor) -> Tensor:
    """Smooth step: 0 for t <= 0, 1 for t >= 1."""
    t = t.clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def palette(t: Tensor, colours: Sequence[Sequence[float]]) -> Tensor:
    """Colour `(N, 3, 1, 1)` at position t `(N, 1, 1)` in 0..1 of a list of RGB colours."""
    table = torch.tensor(colours, device=t.device)
    at = t[:, None] * (len(colours) - 1)
    hats = [
        (1.0 - (at - k).abs()).clamp(min=0.0) * colour.view(1, 3, 1, 1)
        for k, colour in enumerate(table)
    ]
    return torch.stack(hats).sum(0)


def mix(under: Tensor, over: Tensor, alpha: Tensor) -> Tensor:
    """Lays `over` on `under` in place where `alpha` is 1."""
    return under.add_((over - under).mul_(alpha))


class _Face:
    """Curves shared by relief and paint, each a function of x `(N, 1, C)` or of y `(N, R, 1)`."""

    def __init__(self, who: Columns, how: Columns, grid: Grid):
        x, y, self.texel = grid
        self.x, self.y, self.side, self.ax = x, y, torch.sign(x), x.abs()
        side, ax = self.side, self.ax
        # eyes
        self.eye_x = who.eye_spacing
        self.eye_y = who.eye_height + side * who.asym_eye
        across = (ax - who.eye_spacing) / who.eye_width
        self.eye_across = across
        arch = (1.0 - across.square()).clamp_(min=0.0)
        line = self.eye_y + who.eye_tilt * (ax - who.eye_spacing)
        self.lid_top = line + how.eye_openness * who.eye_open_upper * arch * (
            1.0 + who.eye_peak * across
        )
        self.lid_bottom = line - who.eye_open_lower * arch * (0.55 + 0.45 * how.eye_openness)
        self.eye_line = line
        self.lid_window = (arch * 3.0).clamp_(max=1.0)
        # brows
        along = (ax - who.brow_gap) / who.brow_length
        inside = ((along + 0.02) * 30.0).clamp(0.0, 1.0) * ((1.0 - along) * 30.0).clamp(0.0, 1.0)
        self.brow = (
            self.eye_y + who.brow_height + how.brow_raise + side * who.asym_brow
            + who.brow_tilt * (ax - who.brow_gap - 0.5 * who.brow_length)
            + who.brow_arch * (2.4 * along * (1.3 - along))
            - 0.035 * how.frown * (1.0 - along)
        )  # fmt: skip
        taper = ((along + 0.12) * 4.0).clamp(0.0, 1.0) * (1.0 - 0.8 * along * along)
        self.brow_half = 0.62 * who.brow_thickness * taper.clamp(min=0.0) * inside
        # nose
        self.tip_y = who.eye_height - who.nose_length
        self.nose_x = x - who.asym_nose * ramp((who.eye_height - y) / who.nose_length)
        # mouth: never closer to the nose than an upper lip needs
        self.mouth_y = torch.minimum(who.mouth_height, self.tip_y - 0.215)
        smile = how.smile
        self.mouth_half = who.mouth_width * (1.0 + 0.10 * smile)
        across = x / self.mouth_half
        self.mouth_across = across
        flat = (1.0 - across.square()).clamp_(min=0.0)
        middle = (
            self.mouth_y + (who.lip_curve + 0.042 * smile) * (across.square() - 0.45)
            + who.asym_mouth * x
        )  # fmt: skip
        gap = how.mouth_open * flat
        bow = who.cupid_bow * (bump((ax - 0.055) / 0.07) - bump(x / 0.05))
        self.upper_in = middle + 0.15 * gap
        self.lower_in = middle - 0.85 * gap
        self.upper_out = self.upper_in + who.lip_upper * flat * (1.0 - 0.35 * across.abs()) + bow
        self.lower_out = self.lower_in - who.lip_lower * flat * (1.0 - 0.15 * across.square())

    def below(self, curve: Tensor) -> Tensor:
        """Coverage of what lies below a curve y = curve(x), one texel soft: `(N, R, C)`."""
        return ((curve - self.y) / self.texel + 0.5).clamp_(0.0, 1.0)

    def band(self, top: Tensor, bottom: Tensor) -> Tensor:
        """Coverage between two curves; a band thinner than a texel covers it in part."""
        return self.below(top).sub_(self.below(bottom)).clamp_(min=0.0)


def _relief(face: _Face, who: Columns, how: Columns, hairs: Tensor, beard: Tensor) -> Tensor:
    """Height over the bare skull `(N, R, C)`, as a share of the skull's radius."""
    x, y, ax = face.x, face.y, face.ax
    age = how.age
    height = beard * (0.022 + 0.006 * hairs)

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
    def ridge(size: Tensor, curve: Tensor, half: Tensor | float, window: Tensor) -> None:
        half = half if isinstance(half, Tensor) else max(half, 1.2 * face.texel)
        height.add_(bump((y - curve) / half).mul_(window * size))

    closed = (1.0 - face.mouth_across.square()).clamp_(min=0.0)
    upper = 0.5 * (face.upper_in + face.upper_out)
    lower = 0.5 * (face.lower_in + face.lower_out)
    ridge(0.25 * who.lip_upper + 0.008, upper, 0.65 * who.lip_upper + 0.025, closed)
    ridge(0.30 * who.lip_lower + 0.010, lower, 0.60 * who.lip_lower + 0.020, closed)
    fine = min(1.0, 0.03 / face.texel)
    lids = face.lid_window * fine
    ridge(0.014 + 0.0 * age, face.lid_top + 0.5 * who.lid_fold, 0.5 * who.lid_fold + 0.012, lids)
    ridge(-0.012 - 0.004 * age, face.lid_top + who.lid_fold + 0.01, 0.020, lids)
    bags = who.eye_bags + 0.008 * age
    ridge(bags, face.lid_bottom - 0.05, 0.050, lids)
    ridge(-0.5 * bags, face.lid_bottom - 0.105, 0.035, lids)
    brow_window = bump(x / 0.52) * fine
    lift = (how.brow_raise * 8.0).clamp(min=0.0)
    for level, bend in ((0.36, 0.10), (0.45, 0.06), (0.54, 0.03)):
        line = level + bend * (0.3 - ax.square() * 3.0) * 0.3 + 0.02 * who.asym_brow
        ridge(-0.0065 * (age - 0.25 + lift).clamp(0.0, 1.0), line, 0.026, brow_window)
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


def _beard(face: _Face, who: Columns, how: Columns) -> tuple[Tensor, Tensor]:
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


def paint(who: Columns, how: Columns, hair: Tensor, light: Tensor, grid: Grid,
          noise: Tensor) -> Tensor:  # fmt: skip
    """Paints the faces of a batch.

    Args:
        who: identity columns of N faces.
        how: nuisance columns of the same faces.
        hair: linear colour `(N, 3, 1, 1)` of hair, brows and beard.
        light: x and y `(N, 2, 1, 1)` of the direction of the main light, seen from the head.
        grid: where the texels are.
        noise: smooth noise `(N, 2, R, C)` of mean 0 and deviation 1, fixed to the identity.

    Returns:
        `(N, 8, R, C)`: linear red, green, blue; height and its slopes in x and y; ambient
        occlusion; gloss.
    """
    face = _Face(who, how, grid)
    x, y, ax, texel = face.x, face.y, face.ax, grid.texel
    spots, hairs = noise[:, 0], noise[:, 1]
    grown, hidden = _beard(face, who, how)
    height = _relief(face, who, how, hairs, grown)

    # skin: tone, rosy parts, freckles, moles
    skin = skin_colour(who)
    shade = (spots * 0.035 + 1.0).unsqueeze(1)
    colour = skin * shade
    rosy = bump((ax - 0.40) / 0.26) * bump((y + 0.20) / 0.24) * (0.25 + 0.55 * how.blush)
    rosy += bump(face.nose_x / 0.17) * bump((y - face.tip_y) / 0.14) * 0.45
    rosy += bump(x / 0.2) * bump((y + 0.8) / 0.16) * 0.2
    colour[:, 1].mul_(1.0 - 0.20 * rosy)
    colour[:, 2].mul_(1.0 - 0.16 * rosy)
    tired = bump((ax - face.eye_x) / 0.20) * bump((y - face.eye_y + 0.05) / 0.15)
    colour.mul_((1.0 - (0.14 + 0.10 * how.age) * tired).unsqueeze(1))
    freckled = bump(x / 0.62) * bump((y + 0.12) / 0.34) * who.freckles
    freckled = ((spots - 0.55) * 1.6).clamp(0.0, 1.0) * freckled
    mix(colour, skin * skin.new_tensor([0.62, 0.48, 0.40]).view(1, 3, 1, 1), freckled[:, None])
    for mole_x, mole_y, size in (
        (who.mole_1_x, who.mole_1_y, who.mole_1_size),
        (who.mole_2_x, who.mole_2_y, who.mole_2_size),
        (who.mole_3_x, who.mole_3_y, who.mole_3_size),
    ):
        far = ((x - mole_x).square() + (y - mole_y).square()).sqrt_()
        mole = ((size - far) / texel + 0.5).clamp_(0.0, 1.0)
        mole.mul_((size / (0.5 * texel)).clamp(max=1.0).square() * 0.75)
        mix(colour, skin * 0.25, mole[:, None])

    # hair on the face
    density = (0.85 + 0.16 * hairs).mul_(hidden).clamp_(0.0, 1.0)
    mix(colour, hair * 0.85, density[:, None])
    brow = face.band(face.brow + face.brow_half, face.brow - face.brow_half)
    brow = brow.mul_((0.82 + 0.16 * hairs) * who.brow_density).clamp_(0.0, 1.0)
    mix(colour, hair * 0.45 + 0.002, brow[:, None])

    gloss = _mouth(face, who, how, colour, skin)
    gloss += 0.35 + 0.35 * bump(face.nose_x / 0.12) * bump((y + 0.10) / 0.30)
    gloss += 0.25 * bump(x / 0.45) * bump((y - 0.45) / 0.25)
    gloss *= 1.0 - 0.8 * hidden

    nostril_x = (face.nose_x.abs() - 0.47 * who.nose_width) / (who.nostril * 1.15)
    nostril_y = (y - face.tip_y + 0.070 - 0.5 * who.nose_upturn) / (who.nostril * 0.50)
    nostril = (1.15 - nostril_x.square_() - nostril_y.square()).mul_(0.4 * who.nostril / texel)
    mix(colour, skin * 0.10, nostril.clamp_(0.0, 0.75)[:, None])
    _eyes(face, who, how, colour, gloss, skin, light)

    slope_x = F.pad(height[:, :, 2:] - height[:, :, :-2], (1, 1)).mul_(0.5 / texel)
    slope_y = F.pad(height[:, :-2] - height[:, 2:], (0, 0, 1, 1)).mul_(0.5 / texel)
    return torch.stack(
        [*colour.unbind(1), height, slope_x, slope_y, _occlusion(height), gloss], dim=1
    )


def skin_colour(who: Columns) -> Tensor:
    """Linear colour `(N, 3, 1, 1)` of the skin."""
    red = who.skin_red[:, None] * who.skin_red.new_tensor([0.03, -0.05, -0.10]).view(1, 3, 1, 1)
    return palette(who.skin_tone, SKIN) * (1.0 + red)


def _occlusion(height: Tensor) -> Tensor:
    """Light that reaches a hollow: less the deeper it lies under its blurred surroundings."""
    rows, columns = height.shape[1:]
    occlusion = torch.ones_like(height)
    for pieces, weight in ((8, 3.0), (16, 4.5)):
        cell = columns // pieces
        coarse = F.avg_pool2d(height[:, None], cell)
        around = F.interpolate(coarse, (rows, columns), mode="bilinear", align_corners=False)
        occlusion.sub_((around[:, 0] - height).mul_(weight))
    return occlusion.clamp_(0.35, 1.12)


def _mouth(face: _Face, who: Columns, how: Columns, colour: Tensor, skin: Tensor) -> Tensor:
    """Paints the mouth into `colour`; returns its gloss `(N, R, C)`."""
    redness = (0.50 + 0.50 * who.lip_red)[:, None]
    natural = skin * (1.0 - redness * skin.new_tensor([0.26, 0.56, 0.50]).view(1, 3, 1, 1))
    stick = skin.new_tensor([0.36, 0.035, 0.05]).view(1, 3, 1, 1) + 0.12 * skin
    painted = (how.lipstick * (1.0 - 0.9 * ((who.beard - 0.4) * 4.0).clamp(0.0, 1.0)))[:, None]
    lips = natural + (stick - natural) * painted * 0.8
    upper = face.band(face.upper_out, face.upper_in)
    lower = face.band(face.lower_in, face.lower_out)
    corner = (1.0 - face.mouth_across.square()).clamp(min=0.0)
    upper.mul_((corner * 4.0).clamp_(max=1.0))
    mix(colour, lips * 0.72, upper[:, None] * 0.95)
    mix(colour, lips * 0.95, lower[:, None] * 0.9)
    inside = face.band(face.upper_in, face.lower_in)
    teeth = face.band(face.upper_in - 0.006, torch.maximum(face.lower_in, face.upper_in - 0.055))
    mix(colour, colour.new_tensor([0.055, 0.018, 0.016]).view(1, 3, 1, 1), inside[:, None])
    white = (0.45 + 0.6 * how.smile).clamp(0.1, 1.0)
    mix(colour, colour.new_tensor([0.60, 0.55, 0.47]).view(1, 3, 1, 1), (teeth * white)[:, None])
    seam = face.band(face.upper_in + 0.007, face.upper_in - 0.010) * (corner + 0.25)
    mix(colour, skin * 0.13, (seam * (face.mouth_across.abs() < 1.05))[:, None] * 0.8)
    return (lower * 0.9 + upper * 0.4).mul_(1.0 + (0.8 * how.lipstick))


def _eyes(face: _Face, who: Columns, how: Columns, colour: Tensor, gloss: Tensor,
          skin: Tensor, light: Tensor) -> None:  # fmt: skip
    """Paints lids, lashes and eyeballs into `colour` and their gloss into `gloss`."""
    y, ax, texel = face.y, face.ax, face.texel
    window = face.lid_window
    lid = face.band(face.lid_top + who.lid_fold + 0.02, face.lid_top) * window
    shadow = palette(who.iris_tone, ((0.10, 0.04, 0.05), (0.07, 0.05, 0.12), (0.05, 0.08, 0.09)))
    mix(colour, skin * 0.74, lid[:, None] * 0.55)
    mix(colour, shadow + 0.2 * skin, lid[:, None] * how.eye_shadow[:, None] * 0.6)
    crease = face.lid_top + who.lid_fold
    fold = face.band(crease + 0.012, crease - 0.008) * window
    mix(colour, skin * 0.35, fold[:, None] * 0.6)

    opening = face.below(face.lid_top).sub_(1.0).add_(1.0 - face.below(face.lid_bottom))
    opening = opening.clamp_(min=0.0).mul_((face.eye_across.abs() < 1.0).float())
    # the white of the eye: rounder towards the corners, shadowed by the upper lid
    corner = 1.0 - 0.45 * face.eye_across.square()
    lidded = 1.0 - 0.55 * ((y - face.lid_top) / 0.06 + 1.0).clamp_(0.0, 1.0)
    white = colour.new_tensor([0.74, 0.70, 0.68]).view(1, 3, 1, 1) + 0.08 * skin
    ball = white * (corner * lidded).unsqueeze(1)
    centre_x = face.eye_x + face.side * (how.gaze_x)
    centre_y = face.eye_y + how.gaze_y + 0.012
    far = ((ax - centre_x).square() + (y - centre_y).square()).sqrt_()
    iris = ((who.iris_size - far) / texel + 0.5).clamp_(0.0, 1.0)
    rim = 1.15 - 0.75 * ramp((far / who.iris_size - 0.62) / 0.38)
    low = 1.0 + 0.5 * ((centre_y - y) / who.iris_size).clamp(-1.0, 1.0)  # lit from above: glows
    tone = palette(who.iris_tone * (1.0 - 0.7 * who.skin_tone.square()), IRIS) * (
        rim * low * lidded
    ).unsqueeze(1)
    mix(ball, tone, iris[:, None])
    pupil = ((0.42 * who.iris_size - far) / texel + 0.5).clamp_(0.0, 1.0)
    mix(ball, colour.new_full((1, 3, 1, 1), 0.004), pupil[:, None])
    size = max(0.020, 0.55 * texel)
    spark_x = centre_x + face.side * 0.028 * light[:, 0]
    spark_y = centre_y + 0.012 + 0.020 * light[:, 1]
    spark = bump(((ax - spark_x).square() + (y - spark_y).square()).sqrt_() / size)
    ball.add_((spark * (1.5 * 0.020 / size)).unsqueeze(1))
    mix(colour, ball, opening[:, None])
    gloss.add_(opening * 0.3)

    # lashes: the upper ones are a dark line that thickens outwards
    thick = 0.010 + 0.016 * who.lashes * (0.6 + 0.4 * face.eye_across) + 0.01 * how.eye_shadow
    lash = face.band(face.lid_top + thick, face.lid_top - 0.006).mul_(window)
    mix(colour, skin * 0.05, lash[:, None] * 0.9)
    lower = face.band(face.lid_bottom + 0.004, face.lid_bottom - 0.010).mul_(window)
    mix(colour, skin * 0.30, lower[:, None] * 0.6)
