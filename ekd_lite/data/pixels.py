"""Pixels on their way to a net: to red, green and blue, upright, square, and floats in [-1, 1]."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ekd_lite.ops import fresh

_SLACK = 0.004  # about half of one of the 255 steps from -1 to 1
TOGETHER = 32  # images turned into floats at once: few enough to be in the cache still
_ORIENTATION = 0x0112  # EXIF's tag: how the camera was held
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where Pillow keeps what may hold an orientation; most images have none, and lose no time.
EXIF = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type APP1")


def to_rgb(image: Image.Image) -> Image.Image:
    """Red, green and blue of 8 bits; of 16 bits the upper 8, as Pillow itself does for colours."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would cut off at 255
        grey = np.asarray(image) >> 8
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """The pixels turned and mirrored as the orientation in the image's EXIF block says."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # the block is damaged, the pixels are not: as every viewer shows them
        return pixels
    turn = _TURNED.get(orientation) if isinstance(orientation, int) else None
    return pixels if turn is None else pixels.transpose(turn)


def to_square(pixels: Image.Image, size: int, name: Callable[[], str]) -> Image.Image:
    """Scaled to size x size by the bicubic filter, with a warning if it was no square."""
    if pixels.size == (size, size):
        return pixels
    width, height = pixels.size
    if width != height:
        warnings.warn(
            f"{name()} is {width} x {height} pixels, not square: squeezed to {size} x {size}. Nets "
            "expect aligned crops (ekd_lite.data.align)",
            stacklevel=2,
        )
    return pixels.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)


def to_floats(
    pictures: Iterable[np.ndarray[Any, Any]], *, count: int, size: int, channels: int
) -> Tensor:
    """Bytes to floats, x / 127.5 - 1, some images at a time.

    Args:
        pictures: `count` images, (size, size, channels) uint8.
        count: number of images, B.
        size: their side, pixels.
        channels: red, green, blue, and perhaps one more, which is left out.

    Returns:
        (B, 3, size, size) float32 in [-1, 1].
    """
    if not count:
        return torch.empty(0, 3, size, size)
    images = fresh(count, 3, size, size)
    pixels = np.empty((min(TOGETHER, count), size, size, channels), np.uint8)
    given = iter(pictures)
    for first in range(0, count, TOGETHER):
        part = min(TOGETHER, count - first)
        for place in range(part):
            pixels[place] = next(given)
        colours = torch.from_numpy(pixels[:part, ..., :3]).permute(0, 3, 1, 2)
        images[first : first + part].copy_(colours).div_(127.5).sub_(1)
    return images


def as_bytes(image: Any, *, name: str) -> np.ndarray[Any, Any]:
    """A PIL image, an array or a tensor as height x width x 3 bytes, or a ValueError.

    Tensors are channels first, of bytes or of floats in [-1, 1]; arrays are channels last, of
    bytes. Grey is made red, green and blue.
    """
    if isinstance(image, Image.Image):
        return np.asarray(upright(to_rgb(image), image))
    shape = tuple(getattr(image, "shape", ()))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise ValueError(
                f"{name} is an array of {image.dtype}: expected bytes (uint8), or a tensor of "
                "floats in [-1, 1]"
            )
        grey = len(shape) == 2 or shape[2:] == (1,)
        if 0 in shape or not (grey or shape[2:] == (3,)):
            raise ValueError(
                f"{name} is an array of shape {shape}: expected (height, width, 3), red, green and "
                "blue, or (height, width)"
            )
        pixels = image.reshape(*shape[:2], -1)
    elif isinstance(image, Tensor):
        if len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape:
            raise ValueError(
                f"{name} is a tensor of shape {shape}: expected (3, height, width), red, green and "
                "blue, or (1, height, width)"
            )
        pixels = _bytes_of_tensor(image.detach().cpu(), name).permute(1, 2, 0).numpy()
    else:
        raise ValueError(
            f"{name} is a {type(image).__name__}: expected a PIL image, an array of bytes "
            "(height, width, 3), or a tensor (3, height, width) of bytes or of floats in [-1, 1]"
        )
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _bytes_of_tensor(image: Tensor, name: str) -> Tensor:
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise ValueError(f"{name} is a tensor of {image.dtype}: expected uint8, or floats")
    low, high = (float(value) for value in image.aminmax())
    if not (low >= -1 - _SLACK and high <= 1 + _SLACK):  # NaN too
        raise ValueError(
            f"{name} has pixels from {low:g} to {high:g}: expected floats in [-1, 1]; "
            "x / 127.5 - 1 makes that of 0 to 255, 2 x - 1 of 0 to 1, and another mean and "
            "deviation are to be left out"
        )
    return ((image.float() + 1) * 127.5).round_().clamp_(0, 255).byte()
