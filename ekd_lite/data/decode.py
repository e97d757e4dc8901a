"""From the bytes of an image file to pixels: the one place that decodes, and the one policy.

A damaged image is never replaced by another one, by noise or by black. By default the first one
stops the program and is named. A set opened with `max_bad_fraction > 0` is read once from end to
end; the images that cannot be decoded are left out, counted and named in a warning, and if they are
more than that fraction the set is refused.

Images come out as their files say they shall be seen: the EXIF orientation is honoured, and of 16
bits a channel the upper 8 are kept. Only regular files are opened; a pipe might never answer.

What this cannot see: a JPEG has no checksum, and most flipped bits in one decode without complaint
(of 300 flips 213 in Pillow). Against those there is SHA256SUMS (`ekd_lite.data.checksums`).
"""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import math
import os
import stat
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from ekd_lite.data.fast_jpeg import fast_jpeg
from ekd_lite.data.indexing import Indices, index_tensor, one_index
from ekd_lite.data.pixels import EXIF, to_floats, to_rgb, to_square, upright
from ekd_lite.ops import are_numbers, check_image_size

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
SUFFIXES = (".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp")
VERSION = 2  # of the pixels that come out: part of a cache's key
BUFFER = 1 << 16  # bytes read at a time
WHOLE = 100_000  # images whose bytes all go into a digest; of larger sets every so many-th
MAX_PIXELS = 50_000_000  # 150 MB decoded; a file of some kB can announce far more
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def decode_image(source: Any, *, name: str, image_size: int | None = None) -> Tensor:
    """Decode one image to RGB, upright, scaled to a square if a size is given.

    Args:
        source: the encoded bytes, or the path of the file.
        name: what an error calls it.
        image_size: side of the result, pixels; None keeps the size of the file.

    Returns:
        uint8 (3, H, W).

    Raises:
        ValueError: not an image, cut off, of another format than `FORMATS`, too large, or no
            regular file.
    """
    if isinstance(source, bytearray | memoryview):
        source = bytes(source)
    if not isinstance(source, bytes | str | os.PathLike):
        raise ValueError(
            f"{name}: an image is decoded from bytes or from the path of a file, got "
            f"{type(source).__name__}"
        )
    encoded = source if isinstance(source, bytes) else os.fspath(source)
    pixels = _rgbx(encoded, name=lambda: name, image_size=image_size)
    return torch.from_numpy(pixels[:, :, :3].copy()).permute(2, 0, 1)


def _rgbx(
    source: bytes | str | Path, *, name: Callable[[], str], image_size: int | None
) -> np.ndarray[Any, Any]:
    """Red, green, blue and a byte of no meaning, (H, W, 4), as Pillow keeps them: a plain copy.

    The name is asked for when there is something to say.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, so that a cut image would become half a "
            "face without a word: set it to False"
        )
    file: Any = source
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else open_regular(source)
        # A larger file is no crop, and Pillow need not have it in memory as a whole.
        whole = isinstance(file, io.BytesIO)
        fast = fast_jpeg(file.getvalue(), max_pixels=MAX_PIXELS) if whole else None
        if fast is not None and (image_size is None or fast.shape[:2] == (image_size,) * 2):
            return fast
        pixels = _by_pillow(file) if fast is None else Image.fromarray(fast[..., :3].copy())
    except (MemoryError, FileNotFoundError):
        raise
    except Exception as error:  # decoders of hostile bytes raise whatever they come upon
        text = str(error).replace(f" {file!r}", "")
        raise ValueError(f"cannot read {name()} as an image: {text}") from error
    if image_size is not None:
        pixels = to_square(pixels, image_size, name)
    width, height = pixels.size
    return np.frombuffer(pixels.tobytes("raw", "RGBX"), np.uint8).reshape(height, width, 4)


def _by_pillow(file: BinaryIO) -> Image.Image:
    """An image of any of the formats, red, green and blue, upright."""
    with file, Image.open(file, formats=FORMATS) as image:
        if math.prod(image.size) > MAX_PIXELS:
            raise ValueError(f"{image.size[0]} x {image.size[1]} pixels, more than 50 million")
        # Image.open reads only the header; load() decodes, and raises on missing data.
        image.load()
        pixels: Image.Image = image if image.mode == "RGB" else to_rgb(image)
        return upright(pixels, image) if any(key in image.info for key in EXIF) else pixels


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file that is neither a pipe, which may never answer, nor a device without an end."""
    handle = os.open(path, _FLAGS)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > BUFFER:
            return os.fdopen(os.dup(handle), "rb", BUFFER)
        # A whole crop at once: Pillow reads a header in thirty small steps.
        return io.BytesIO(os.read(handle, status.st_size))
    finally:
        os.close(handle)


class DecodedFaces:
    """A face set whose images are decoded when asked for; its kinds say where the bytes are.

    Attributes:
        labels: (N,) int64, 0..num_identities - 1.
        image_size: side of the square images given out, pixels.
        bad: names of the images left out because they cannot be decoded.
        reads_ahead: another thread may read the images (`ekd_lite.data.ahead`).
    """

    labels: Tensor
    bad: Sequence[str] = ()
    reads_ahead = True

    def __init__(self, image_size: int) -> None:
        check_image_size(image_size)
        self.image_size = image_size

    def source(self, index: int) -> bytes | str:
        """The encoded image as it is stored, or the path of its file."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """What messages call an image: its file, or its record and offset."""
        raise NotImplementedError

    def parameters(self) -> dict[str, object]:
        """Everything the pixels depend on, as plain values: the key of a cache."""
        raise NotImplementedError

    def digest(self, *, whole: bool = False) -> str:
        """The sha256 of the encoded images in their order.

        Reading, not decoding: a second for some 10,000 files. Of a set of more than `WHOLE` images
        the bytes of that many, evenly spaced, and the sizes of all, unless it shall be `whole`.
        """
        digest = hashlib.sha256(f"{self.image_size} pixels, decoder {VERSION}".encode())
        step = 1 if whole else max(1, len(self) // WHOLE)
        for index in range(0, len(self), step):
            source = self.source(index)
            data = Path(source).read_bytes() if isinstance(source, str) else source
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        if step > 1:
            digest.update(np.asarray(self.sizes(), np.int64).data)
        return digest.hexdigest()

    def sizes(self) -> Sequence[int]:
        """Bytes of every encoded image, (N,)."""
        sources = (self.source(index) for index in range(len(self)))
        return [os.stat(s).st_size if isinstance(s, str) else len(s) for s in sources]

    def at_size(self, image_size: int) -> DecodedFaces:
        """The same images, read from the same files at another size."""
        check_image_size(image_size)
        other = copy.copy(self)
        other.image_size = image_size
        return other

    @property
    def num_identities(self) -> int:
        """One more than the largest label."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        position = one_index(index, len(self))
        return self.batch([position])[0], int(self.labels[position])

    def batch(self, indices: Indices) -> Tensor:
        """Images in [-1, 1], (B, 3, image_size, image_size) float32.

        Raises:
            IndexError: an index that is none of this set.
            ValueError: an image cannot be decoded; it is named.
        """
        rows = index_tensor(indices, len(self)).tolist()
        return to_floats(
            map(self._picture, rows), count=len(rows), size=self.image_size, channels=4
        )

    def byte_batch(self, indices: Indices) -> Tensor:
        """The same images as bytes, (B, 3, image_size, image_size) uint8."""
        rows = index_tensor(indices, len(self)).tolist()
        pixels = np.empty((len(rows), self.image_size, self.image_size, 3), np.uint8)
        for place, row in enumerate(rows):
            pixels[place] = self._picture(row)[..., :3]
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _picture(self, index: int) -> np.ndarray[Any, Any]:
        """Red, green, blue and a byte of no meaning, (H, W, 4)."""
        name = functools.partial(self.name, index)
        return _rgbx(self.source(index), name=name, image_size=self.image_size)


def find_bad(faces: DecodedFaces, max_bad_fraction: float) -> list[int]:
    """Indices of the images that cannot be decoded: the policy of this module.

    Args:
        faces: the set; every image of it is decoded once, unless the fraction is 0.
        max_bad_fraction: share of bad images up to which they may be left out, 0 to 1.

    Returns:
        The indices; always empty for a fraction of 0, where reading stops at the first one.

    Raises:
        ValueError: an impossible fraction, or more bad images than it allows; the first are named.
    """
    if not are_numbers(max_bad_fraction) or not 0 <= max_bad_fraction <= 1:
        raise ValueError(f"max_bad_fraction must be 0 to 1, got {max_bad_fraction!r}")
    if max_bad_fraction == 0:
        return []
    bad = [index for index in range(len(faces)) if fault_of(faces, index) is not None]
    if not bad:
        return []
    names = ", ".join(faces.name(index) for index in bad[:10]) + (", ..." if bad[10:] else "")
    found = f"{len(bad)} of {len(faces)} images cannot be decoded"
    if len(bad) > max_bad_fraction * len(faces):
        raise ValueError(f"{found}, more than max_bad_fraction = {max_bad_fraction}: {names}")
    warnings.warn(f"{found} and are left out: {names}", stacklevel=3)
    return bad


def fault_of(faces: DecodedFaces, index: int) -> str | None:
    """Why an image cannot be decoded, or None."""
    try:
        decode_image(faces.source(index), name=faces.name(index))
    except (ValueError, OSError) as error:
        return str(error)
    return None
