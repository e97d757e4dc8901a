"""Images as a net of others was trained on: its size, its colour order, its scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ekd_lite.data import FaceSet
from ekd_lite.data.faceset import at_size
from ekd_lite.ops import are_numbers

if TYPE_CHECKING:
    from ekd_lite.train.teacher import Teacher

DEFAULTS: dict[str, Any] = {
    "input_size": None,
    "colour": "rgb",
    "pixel_range": (-1.0, 1.0),
    "mean": 0.0,
    "std": 1.0,
}


class Pixels(nn.Module):
    """Turns images of this library, RGB (N, 3, H, H) in [-1, 1], into what a net takes.

    They are resized (bicubic with antialiasing), put into the net's colour order and scaled:

        v = low + (x + 1) / 2 · (high - low)        input = (v - mean) / std

    Args:
        input_size: side of the images that it takes, pixels; None takes them as they come.
        colour: order of its channels; OpenCV's is "bgr".
        pixel_range: its black and its white, before mean and standard deviation are taken off;
            (0, 255), (0, 1) and (-1, 1) are usual.
        mean: taken off the scaled pixels: a number, or three in the order of the net's channels.
        std: and divided by.

    Raises:
        ValueError: a value that cannot be.

    Example:
        >>> Pixels(colour="bgr", pixel_range=(0, 255))(torch.ones(1, 3, 2, 2)).max()
        tensor(255.)
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        *,
        input_size: int | None = None,
        colour: Literal["rgb", "bgr"] = "rgb",
        pixel_range: tuple[float, float] = (-1.0, 1.0),
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        if colour not in ("rgb", "bgr"):
            raise ValueError(f"colour must be 'rgb' or 'bgr', got {colour!r}")
        is_size = are_numbers(input_size, whole=True)
        if input_size is not None and not (is_size and input_size >= 1):
            raise ValueError(f"input_size must be a number of pixels, got {input_size!r}")
        self.input_size, self.colour = input_size, colour
        mean, std = _plain(mean), _plain(std)
        scale, shift = _affine(pixel_range, mean, std)
        # None of it: pixels stay as they are, to the bit.
        self._is_plain = bool((scale == 1).all() and (shift == 0).all())
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.levels = {"pixel_range": tuple(pixel_range), "mean": mean, "std": std}
        given: dict[str, Any] = {"input_size": input_size, "colour": colour} | self.levels
        self.said = {name: value for name, value in given.items() if value != DEFAULTS[name]}

    def forward(self, images: Tensor) -> Tensor:
        """The images as the net wants them, (N, 3, H', H')."""
        size = self.input_size
        if size is not None and images.shape[-2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
            images = images.clamp(-1, 1)  # bicubic shoots beyond the range at edges
        if self.colour == "bgr":
            images = images.flip(1)
        return images if self._is_plain else images * self.scale + self.shift

    def same_levels(self, other: Pixels) -> bool:
        """Whether both scale pixels alike."""
        return torch.equal(self.scale, other.scale) and torch.equal(self.shift, other.shift)


def side_to_read(size: int) -> int:
    """Side at which images are read for a net of this input size, as sets have it: 16, 32, 48, ...

    The net resizes what lies between by itself.
    """
    return 16 * -(-size // 16)


def seen_by(teacher: Teacher, faces: FaceSet) -> FaceSet:
    """A set as a teacher is shown it: at its own size if that is larger, and can be had.

    A student's crop of 32 pixels, enlarged to 112, shows a teacher nothing new. The images are
    read, or drawn, a second time at the teacher's size instead.
    """
    size = teacher.input_size
    if size is None or size <= faces.image_size:
        return faces
    return at_size(faces, side_to_read(size)) or faces


def _plain(value: Any) -> Any:
    """A number or a tuple of numbers, of a tensor, an array or a list."""
    values = value.tolist() if isinstance(value, Tensor | np.ndarray) else value
    return tuple(values) if isinstance(values, list) else values


def _affine(pixel_range: Any, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift (3, 1, 1) that take pixels from [-1, 1] to what the net wants."""
    try:
        low, high = (float(x) for x in pixel_range)
        parts = [torch.as_tensor(x, dtype=torch.float64).expand(3) for x in (mean, std)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            "expected pixel_range as two numbers, mean and std as one number or three, got "
            f"{pixel_range!r}, {mean!r}, {std!r}"
        ) from error
    (average, spread), finite = parts, torch.tensor([low, high]).isfinite().all()
    if not (low < high and finite and average.isfinite().all() and (spread > 0).all()):
        raise ValueError(
            "pixel_range must rise, and std be positive, got "
            f"{pixel_range!r}, mean {mean!r}, std {std!r}"
        )
    scale = (high - low) / 2 / spread
    shift = ((high + low) / 2 - average) / spread
    return scale.float().view(3, 1, 1), shift.float().view(3, 1, 1)
