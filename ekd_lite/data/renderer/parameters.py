"""Who a face is (identity) and how it was photographed (nuisance): two tables of parameters.

Lengths are in head units: the skull reaches from y = -1 (chin) to y = +1 (crown); x points to the
right of the picture, y up, z to the camera. Angles are in radians, colours in 0..1.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Parameter(NamedTuple):
    """One row of a table: a normal number with `mean` and `std`, cut to `low`..`high`.

    `law` says what is made of it: "normal" takes it as it is, "log" its exponential (a factor),
    "rank" its rank among standard normal numbers (uniform in 0..1 when std is 1).
    """

    name: str
    mean: float
    std: float
    low: float
    high: float
    law: str = "normal"


# fmt: off
IDENTITY_PARAMETERS: Sequence[Parameter] = (
    # skull
    Parameter("head_width", 0.70, 0.030, 0.60, 0.80),      # half width at the cheekbones
    Parameter("head_depth", 0.80, 0.030, 0.70, 0.90),      # nose root to centre of the skull
    Parameter("chin_length", 0.95, 0.035, 0.84, 1.06),     # centre to chin
    Parameter("jaw_taper", 0.13, 0.055, 0.00, 0.30),       # how much narrower the jaw is
    Parameter("jaw_square", 0.45, 0.170, 0.00, 0.90),     # 0 oval, 0.7 square
    Parameter("temple_narrow", 0.03, 0.030, -0.02, 0.11),
    Parameter("cheekbone", 0.035, 0.016, -0.01, 0.08),
    Parameter("cheekbone_height", -0.10, 0.035, -0.20, 0.00),
    Parameter("cheek_fullness", 0.000, 0.022, -0.055, 0.065),  # hollow .. chubby
    Parameter("chin_size", 0.050, 0.022, 0.00, 0.11),
    Parameter("chin_width", 0.20, 0.035, 0.12, 0.30),
    Parameter("chin_cleft", -0.004, 0.007, 0.00, 0.014),
    Parameter("forehead", 0.010, 0.012, -0.02, 0.04),
    Parameter("brow_ridge", 0.022, 0.014, 0.00, 0.06),
    # eyes
    Parameter("eye_spacing", 0.285, 0.018, 0.23, 0.34),    # centre of an eye from the middle
    Parameter("eye_height", 0.085, 0.022, 0.03, 0.15),
    Parameter("eye_width", 0.142, 0.011, 0.115, 0.172),    # half length of the opening
    Parameter("eye_open_upper", 0.066, 0.011, 0.036, 0.096),
    Parameter("eye_open_lower", 0.034, 0.007, 0.016, 0.055),
    Parameter("eye_tilt", 0.08, 0.085, -0.14, 0.30),       # outer corner up
    Parameter("eye_peak", 0.00, 0.250, -0.55, 0.55),       # highest point inside .. outside
    Parameter("lid_fold", 0.040, 0.014, 0.008, 0.075),     # crease above the eye
    Parameter("eye_socket", 0.050, 0.016, 0.01, 0.09),
    Parameter("eye_bags", 0.003, 0.004, 0.00, 0.016),
    Parameter("iris_size", 0.071, 0.004, 0.062, 0.081),
    Parameter("iris_tone", 0.00, 0.667, -3.00, 3.00, "rank"),  # brown .. hazel .. green .. blue
    Parameter("lashes", 0.50, 0.250, 0.05, 1.00),
    # brows
    Parameter("brow_height", 0.165, 0.022, 0.11, 0.24),    # above the eye
    Parameter("brow_thickness", 0.042, 0.012, 0.016, 0.076),
    Parameter("brow_length", 0.190, 0.020, 0.14, 0.24),
    Parameter("brow_tilt", 0.05, 0.100, -0.20, 0.30),
    Parameter("brow_arch", 0.035, 0.018, -0.01, 0.085),
    Parameter("brow_gap", 0.115, 0.022, 0.05, 0.17),       # inner end from the middle
    Parameter("brow_density", 0.80, 0.150, 0.35, 1.00),
    # nose
    Parameter("nose_height", 0.215, 0.030, 0.14, 0.30),    # how far the tip stands out
    Parameter("nose_length", 0.345, 0.033, 0.26, 0.44),    # eye line to tip
    Parameter("nose_width", 0.150, 0.020, 0.10, 0.215),    # half width at the wings
    Parameter("nose_bridge", 0.075, 0.016, 0.03, 0.12),    # half width of the bridge
    Parameter("nose_root", 0.060, 0.024, 0.00, 0.12),      # height between the eyes
    Parameter("nose_hook", 0.000, 0.024, -0.055, 0.065),   # saddle .. hump
    Parameter("nose_bulb", 0.030, 0.015, 0.00, 0.075),
    Parameter("nose_upturn", 0.000, 0.025, -0.05, 0.065),
    Parameter("nostril", 0.034, 0.006, 0.02, 0.05),
    Parameter("nose_wing", 0.070, 0.020, 0.02, 0.12),
    # mouth
    Parameter("mouth_height", -0.525, 0.030, -0.60, -0.45),
    Parameter("mouth_width", 0.255, 0.026, 0.19, 0.33),    # half width
    Parameter("lip_upper", 0.056, 0.014, 0.024, 0.095),
    Parameter("lip_lower", 0.078, 0.016, 0.038, 0.125),
    Parameter("lip_curve", 0.000, 0.020, -0.045, 0.05),    # corners down .. up
    Parameter("cupid_bow", 0.014, 0.008, -0.004, 0.034),
    Parameter("lip_red", 0.50, 0.220, 0.05, 1.00),
    Parameter("muzzle", 0.045, 0.016, 0.00, 0.09),         # how far the mouth stands out
    Parameter("philtrum", 0.50, 0.300, 0.00, 1.20),
    # ears
    Parameter("ear_size", 0.185, 0.018, 0.14, 0.24),
    Parameter("ear_out", 0.060, 0.022, 0.01, 0.12),        # how far they stick out
    Parameter("ear_height", -0.02, 0.030, -0.10, 0.06),
    # skin; the tone and the hair colour become uniform: every shade is equally frequent
    Parameter("skin_tone", 0.00, 0.667, -3.00, 3.00, "rank"),   # light .. dark
    Parameter("skin_red", 0.00, 0.500, -1.50, 1.50),       # olive .. rosy
    Parameter("freckles", -0.15, 0.400, 0.00, 1.00),
    Parameter("mottle_x", 0.00, 1.000, -3.00, 3.00),       # where freckles and beard hairs sit
    Parameter("mottle_y", 0.00, 1.000, -3.00, 3.00),
    Parameter("nasolabial", 0.35, 0.200, 0.00, 1.00),      # fold from nose to mouth
    # hair
    Parameter("hair_tone", 0.00, 0.667, -3.00, 3.00, "rank"),   # black .. brown .. red .. blond
    Parameter("hair_red", 0.00, 1.000, -2.50, 2.50),
    Parameter("hair_line", 0.67, 0.050, 0.54, 0.80),       # height of the hairline
    Parameter("hair_recess", 0.03, 0.050, -0.05, 0.18),    # bald corners above the temples
    Parameter("widow_peak", 0.02, 0.020, -0.01, 0.08),
    Parameter("hair_length", 0.00, 0.667, -3.00, 3.00, "rank"), # bald, shaved, short, long
    Parameter("hair_volume", 0.10, 0.035, 0.03, 0.22),
    Parameter("hair_curl", 0.00, 0.667, -3.00, 3.00, "rank"),   # straight .. wavy .. frizzy
    Parameter("fringe", 0.00, 0.667, -3.00, 3.00, "rank"),      # none .. swept .. to the brows
    Parameter("parting", 0.00, 0.250, -0.55, 0.55),        # x of the parting
    Parameter("bun", 0.00, 0.667, -3.00, 3.00, "rank"),         # a few tie their hair up
    Parameter("beard", 0.00, 0.667, -3.00, 3.00, "rank"),       # none .. stubble .. full
    Parameter("moustache", 0.00, 0.667, -3.00, 3.00),
    Parameter("beard_line", -0.42, 0.060, -0.55, -0.28),   # how high it grows on the cheek
    # asymmetry: half the difference between the right and the left side of the picture
    Parameter("asym_eye", 0.000, 0.010, -0.025, 0.025),
    Parameter("asym_brow", 0.000, 0.014, -0.035, 0.035),
    Parameter("asym_mouth", 0.000, 0.040, -0.10, 0.10),
    Parameter("asym_nose", 0.000, 0.016, -0.04, 0.04),
    # three moles: place and size (many have none)
    Parameter("mole_1_x", 0.00, 0.250, -0.55, 0.55),
    Parameter("mole_1_y", -0.30, 0.250, -0.80, 0.45),
    Parameter("mole_1_size", -0.002, 0.014, 0.00, 0.028),
    Parameter("mole_2_x", 0.00, 0.250, -0.55, 0.55),
    Parameter("mole_2_y", -0.20, 0.300, -0.80, 0.50),
    Parameter("mole_2_size", -0.008, 0.014, 0.00, 0.026),
    Parameter("mole_3_x", 0.00, 0.250, -0.55, 0.55),
    Parameter("mole_3_y", -0.10, 0.300, -0.80, 0.55),
    Parameter("mole_3_size", -0.014, 0.014, 0.00, 0.022),
)

# `std` is the standard deviation at nuisance strength 1; a strength of 0 leaves the mean.
NUISANCE_PARAMETERS: Sequence[Parameter] = (
    # pose
    Parameter("yaw", 0.00, 0.239, -1.05, 1.05),             # one picture in five: 1.7 times more
    Parameter("pitch", 0.00, 0.124, -0.60, 0.60),
    Parameter("roll", 0.00, 0.107, -0.50, 0.50),
    Parameter("shift_x", 0.00, 0.033, -0.16, 0.16),        # error of the face detector's crop
    Parameter("shift_y", 0.00, 0.033, -0.16, 0.16),
    Parameter("zoom", 1.00, 0.041, 0.80, 1.22),
    # expression
    Parameter("mouth_open", -0.03, 0.062, 0.00, 0.20),
    Parameter("smile", 0.10, 0.371, -0.60, 1.20),
    Parameter("brow_raise", 0.00, 0.029, -0.06, 0.10),
    Parameter("frown", 0.00, 0.412, 0.00, 1.20),
    Parameter("eye_openness", 1.00, 0.165, 0.10, 1.35),    # blink, squint, stare
    Parameter("gaze_x", 0.00, 0.025, -0.07, 0.07),
    Parameter("gaze_y", 0.00, 0.012, -0.03, 0.03),
    # body
    Parameter("age", 0.15, 0.330, 0.00, 1.30),
    Parameter("weight", 0.00, 0.015, -0.05, 0.05),
    Parameter("hair_grow", 0.00, 0.247, -1.20, 1.20),
    Parameter("hair_ruffle", 0.00, 0.025, -0.08, 0.10),
    Parameter("hair_shift", 0.00, 0.206, -0.60, 0.60),     # parting moved
    Parameter("beard_grow", 0.00, 0.412, -1.50, 1.50),
    Parameter("lipstick", -0.30, 0.577, 0.00, 1.00),
    Parameter("eye_shadow", -0.40, 0.577, 0.00, 1.00),
    Parameter("blush", 0.35, 0.289, 0.00, 1.20),
    # light
    Parameter("light_x", -0.28, 0.429, -1.60, 1.60),       # direction: tangents to the view
    Parameter("light_y", 0.55, 0.297, -0.60, 1.80),
    Parameter("light_strength", 0.00, 0.181, -0.80, 0.80, "log"),
    Parameter("light_warmth", 0.25, 0.454, -1.50, 1.60),   # blue sky .. candle
    Parameter("fill_strength", 0.00, 0.231, -1.00, 0.80, "log"),
    Parameter("fill_warmth", -0.35, 0.454, -1.60, 1.50),
    Parameter("rim_strength", 0.25, 0.371, 0.00, 1.80),
    Parameter("rim_side", 0.70, 0.742, -1.50, 1.50),
    Parameter("skin_gloss", 0.50, 0.289, 0.05, 1.60),
    # camera
    Parameter("exposure", 0.00, 0.124, -0.55, 0.50, "log"),
    Parameter("gamma", 0.00, 0.107, -0.45, 0.45),
    Parameter("contrast", 1.00, 0.091, 0.60, 1.40),
    Parameter("tint_red", 0.00, 0.029, -0.12, 0.12),
    Parameter("tint_blue", 0.00, 0.033, -0.14, 0.14),
    Parameter("saturation", 1.00, 0.165, 0.30, 1.50),
    Parameter("blur", -0.12, 0.314, 0.00, 1.00),           # share of a 3x3 binomial, twice
    Parameter("noise", 0.00, 0.023, 0.00, 0.09),           # standard deviation of a pixel
)

# 1 with the given probability at strength 1 (times the strength elsewhere), otherwise 0.
NUISANCE_EVENTS: dict[str, float] = {
    "hard_pose": 0.165, "glasses": 0.116, "mask": 0.033, "object": 0.041, "hat": 0.041,
    "grey": 0.049, "low_resolution": 0.083, "blocks": 0.124,
}

# Choices without a natural middle, uniform in 0..1; all of them 0.5 in a studio portrait.
NUISANCE_CHOICES: Sequence[str] = (
    "cloth_hue", "cloth_value", "cloth_kind", "back_x", "back_y", "back_scale", "back_stretch",
    "back_hue", "back_hue_2", "back_value", "back_value_2", "back_kind", "frame_shape",
    "frame_colour", "frame_size", "frame_hue", "mask_hue", "object_side", "object_size",
    "object_hue", "hair_x", "hair_y", "noise_x", "noise_y", "hat_hue",
)
# fmt: on


class Columns:
    """Named columns of a `(N, K)` table, each served as `(N, 1, ..., 1)` ready to broadcast."""

    def __init__(self, names: Sequence[str], values: Tensor, *, trailing: int = 2):
        self._index = {name: k for k, name in enumerate(names)}
        self._columns = values.t().contiguous().view(*values.t().shape, *([1] * trailing)).unbind()

    def pick(self, rows: Tensor) -> Columns:
        """The same columns for some rows only, given by their int64 numbers."""
        part = copy.copy(self)
        part._columns = tuple(column.index_select(0, rows) for column in self._columns)
        return part

    def __getattr__(self, name: str) -> Tensor:
        # Only called for what is not a real attribute; copying asks for dunder methods.
        index: dict[str, int] = self.__dict__.get("_index", {})
        if name not in index:
            raise AttributeError(f"there is no face parameter named {name!r}")
        column: Tensor = self._columns[index[name]]
        return column


def identity_names() -> list[str]:
    """Names of the identity parameters, in the order of `identity_table`'s columns."""
    return [row.name for row in IDENTITY_PARAMETERS]


TURNED = ("yaw", "pitch", "roll")


def nuisance_names() -> list[str]:
    """Names of the nuisance parameters, in the order of `nuisance_table`'s columns."""
    names = [row.name for row in NUISANCE_PARAMETERS] + [*NUISANCE_EVENTS, *NUISANCE_CHOICES]
    turned = [f"{function}_{angle}" for function in ("sin", "cos") for angle in TURNED]
    return [*names, *turned, "outside"]
