"""JPEGs by simplejpeg where it is installed, twice to three times as fast as by Pillow.

Both call libjpeg-turbo, and the pixels are the same bit for bit: they depend on the file alone, and
caches and digests take no note of which of the two decoded it. That is not taken on trust. The
first time, some images are decoded by both, and if one bit differs (another version of the library)
simplejpeg is not used. Pillow decides whatever is not plain: other colours than YCbCr and grey, an
EXIF or XMP block, which may turn the image, and any file that simplejpeg has something to say
about, be it only a warning.
"""

from __future__ import annotations

import functools
import importlib
import io
import warnings
from typing import Any

import numpy as np
from PIL import Image

_PLAIN = ("YCbCr", "Gray")
_TURNED = (b"Exif", b"http://ns.adobe.com/xap")  # what the blocks begin with


def fast_jpeg(data: bytes, *, max_pixels: int) -> np.ndarray[Any, Any] | None:
    """Red, green, blue and a byte of no meaning, (H, W, 4) uint8; None for what is Pillow's.

    Args:
        data: the encoded image.
        max_pixels: larger ones are Pillow's.
    """
    if not data.startswith(b"\xff\xd8\xff") or (library := _library()) is None:
        return None
    return _decode(library, data, max_pixels)


def _decode(library: Any, data: bytes, max_pixels: int) -> np.ndarray[Any, Any] | None:
    if any(mark in data for mark in _TURNED):
        return None
    try:
        height, width, colours, _ = library.decode_jpeg_header(data)
        if colours not in _PLAIN or height * width > max_pixels:
            return None
        pixels: np.ndarray[Any, Any] = library.decode_jpeg(data, "RGBX")
    except ValueError:  # damaged, or of a kind that it does not know
        return None
    return pixels


@functools.cache
def _library() -> Any:
    """The module simplejpeg if it is there and decodes as Pillow does, else None."""
    try:
        library = importlib.import_module("simplejpeg")
    except ImportError:
        return None
    if all(_agree(library, data) for data in _samples()):
        return library
    warnings.warn(
        "simplejpeg decodes to other pixels than Pillow does, as its libjpeg-turbo is another one: "
        "it is not used",
        stacklevel=2,
    )
    return None


def _agree(library: Any, data: bytes) -> bool:
    pixels = _decode(library, data, 1 << 20)
    with Image.open(io.BytesIO(data)) as image:
        return pixels is not None and np.array_equal(
            pixels[..., :3], np.asarray(image.convert("RGB"))
        )


def _samples() -> list[bytes]:
    """Images of both colours, all usual subsamplings, odd sizes, plain and progressive."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    found = []
    for image in (Image.fromarray(noise).resize((49, 33)), Image.fromarray(noise[..., 0])):
        for subsampling in (0, 1, 2):
            for progressive in (False, True):
                file = io.BytesIO()
                options = {"subsampling": subsampling, "progressive": progressive}
                image.save(file, "JPEG", quality=85, **options)
                found.append(file.getvalue())
    return found
