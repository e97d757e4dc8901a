"""The colours of a face on the flat texture: skin, lips, eyes, brows, beard, moles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.data.renderer.curves import EYE_ROWS, MOUTH_ROWS, FaceCurves
from ekd_lite.data.renderer.parameters import Columns
from ekd_lite.data.renderer.relief import grow_beard, occlusion, sculpt
from ekd_lite.data.renderer.texture import IRIS, Grid, bump, mix, palette, ramp, skin_colour


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
    face = FaceCurves(who, how, grid)
    x, y, ax, texel = face.x, face.y, face.ax, grid.texel
    spots, hairs = noise[:, 0], noise[:, 1]
    grown, hidden = grow_beard(face, who, how)
    height = sculpt(face, who, how, hairs, grown)

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
        # (size^2 - far^2) / (2 size) is size - far near the rim, without a root
        least = size.clamp(min=0.3 * texel)
        far = ((x - mole_x).square() - least.square()) + (y - mole_y).square()
        mole = far.mul_(-0.5 / (least * texel)).add_(0.5).clamp_(0.0, 1.0)
        mole.mul_((size / (0.5 * texel)).clamp(max=1.0).square() * 0.75)
        mix(colour, skin * 0.25, mole[:, None])

    # hair on the face
    density = (0.86 + 0.15 * hairs).mul_(hidden).clamp_(0.0, 1.0)
    mix(colour, hair * 0.85, density[:, None])
    window, part = face.rows(0.62, 0.05)
    brow = part.band(part.brow + part.brow_half, part.brow - part.brow_half)
    brow = brow.mul_((0.82 + 0.16 * hairs[:, window]) * who.brow_density).clamp_(0.0, 1.0)
    mix(colour[:, :, window], hair * 0.45 + 0.002, brow[:, None])

    gloss = 0.35 + 0.35 * bump(face.nose_x / 0.12) * bump((y + 0.10) / 0.30)
    window, part = face.rows(*MOUTH_ROWS)
    _mouth(part, who, how, colour[:, :, window], gloss[:, window], skin)
    gloss += 0.25 * bump(x / 0.45) * bump((y - 0.45) / 0.25)
    gloss *= 1.0 - 0.8 * hidden

    window, part = face.rows(-0.12, -0.62)
    nostril_x = (part.nose_x.abs() - 0.47 * who.nose_width) / (who.nostril * 1.15)
    nostril_y = (part.y - face.tip_y + 0.070 - 0.5 * who.nose_upturn) / (who.nostril * 0.50)
    nostril = (1.15 - nostril_x.square_() - nostril_y.square()).mul_(0.4 * who.nostril / texel)
    mix(colour[:, :, window], skin * 0.10, nostril.clamp_(0.0, 0.75)[:, None])
    window, part = face.rows(*EYE_ROWS)
    _eyes(part, who, how, colour[:, :, window], gloss[:, window], skin, light)

    slope_x = F.pad(height[:, :, 2:] - height[:, :, :-2], (1, 1)).mul_(0.5 / texel)
    slope_y = F.pad(height[:, :-2] - height[:, 2:], (0, 0, 1, 1)).mul_(0.5 / texel)
    return torch.stack(
        [*colour.unbind(1), height, slope_x, slope_y, occlusion(height), gloss], dim=1
    )


def _mouth(
    face: FaceCurves, who: Columns, how: Columns, colour: Tensor, gloss: Tensor, skin: Tensor
) -> None:
    """Paints the lips into `colour` and `gloss`."""
    redness = (0.50 + 0.50 * who.lip_red)[:, None]
    natural = skin * (1.0 - redness * skin.new_tensor([0.22, 0.62, 0.55]).view(1, 3, 1, 1))
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
    gloss.add_((lower * 0.5 + upper * 0.25).mul_(1.0 + 0.8 * how.lipstick))


def _eyes(face: FaceCurves, who: Columns, how: Columns, colour: Tensor, gloss: Tensor,
          skin: Tensor, light: Tensor) -> None:  # fmt: skip
    """Paints lids, lashes and eyeballs into `colour` and `gloss`."""
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
    lidded = 1.0 - 0.60 * ((y - face.lid_top) / 0.06 + 1.0).clamp_(0.0, 1.0)
    white = colour.new_tensor([0.60, 0.57, 0.55]).view(1, 3, 1, 1) + 0.08 * skin
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
    ball.add_((spark * (1.5 * (0.020 / size) ** 2)).unsqueeze(1))
    mix(colour, ball, opening[:, None])
    gloss.add_(opening * 0.3)

    # lashes: the upper ones are a dark line that thickens outwards
    thick = 0.010 + 0.016 * who.lashes * (0.6 + 0.4 * face.eye_across) + 0.01 * how.eye_shadow
    lash = face.band(face.lid_top + thick, face.lid_top - 0.006).mul_(window)
    mix(colour, skin * 0.05, lash[:, None] * 0.9)
    lower = face.band(face.lid_bottom + 0.004, face.lid_bottom - 0.010).mul_(window)
    mix(colour, skin * 0.30, lower[:, None] * 0.6)
