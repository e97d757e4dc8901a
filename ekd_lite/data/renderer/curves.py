"""The lines of a face: lids, brows, nose and lips, shared by relief and paint."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ekd_lite.data.renderer.parameters import Columns
from ekd_lite.data.renderer.texture import Y_HEIGHT, Y_TOP, Grid, bump, ramp

EYE_ROWS = (0.52, -0.18)  # heights between which the eyes are, whatever the parameters
MOUTH_ROWS = (-0.28, -1.05)


class FaceCurves:
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
        self.mouth_half = who.mouth_width * (1.0 + 0.14 * smile)
        across = x / self.mouth_half
        self.mouth_across = across
        flat = (1.0 - across.square()).clamp_(min=0.0)
        middle = (
            self.mouth_y + (who.lip_curve + 0.058 * smile) * (across.square() - 0.45)
            + who.asym_mouth * x
        )  # fmt: skip
        gap = how.mouth_open * flat
        bow = who.cupid_bow * (bump((ax - 0.055) / 0.07) - bump(x / 0.05))
        self.upper_in = middle + 0.15 * gap
        self.lower_in = middle - 0.85 * gap
        self.upper_out = self.upper_in + who.lip_upper * flat * (1.0 - 0.35 * across.abs()) + bow
        self.lower_out = self.lower_in - who.lip_lower * flat * (1.0 - 0.15 * across.square())

    def rows(self, top: float, bottom: float) -> tuple[slice, FaceCurves]:
        """The same curves on the rows between two heights: features cost only where they are."""
        count = self.y.shape[1]
        first = int((Y_TOP - top) / Y_HEIGHT * count)
        last = int((Y_TOP - bottom) / Y_HEIGHT * count) + 1
        part = copy.copy(self)
        window = slice(first, min(last, count))
        part.y, part.nose_x = self.y[:, window], self.nose_x[:, window]
        return window, part

    def below(self, curve: Tensor) -> Tensor:
        """Coverage of what lies below a curve y = curve(x), one texel soft: `(N, R, C)`."""
        return ((curve - self.y) / self.texel + 0.5).clamp_(0.0, 1.0)

    def band(self, top: Tensor, bottom: Tensor) -> Tensor:
        """Coverage between two curves; a band thinner than a texel covers it in part."""
        return self.below(top).sub_(self.below(bottom)).clamp_(min=0.0)
