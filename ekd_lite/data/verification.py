"""Pairs of faces to be told apart: InsightFace's `.bin` files, and lists of pairs as text.

LFW, CFP-FP, AgeDB-30, CALFW and CPLFW are shared as `lfw.bin` and so on: a pickle of 2n encoded
images and n booleans, pair k made of images 2k and 2k + 1. Nothing in it is executed here
(`ekd_lite.data.safe_pickle`).
"""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ekd_lite.data.decode import VERSION, DecodedFaces
from ekd_lite.data.faceset import FaceSet
from ekd_lite.data.indexing import int64_tensor, tensor_of
from ekd_lite.data.names import printable
from ekd_lite.data.safe_pickle import load_plain

MAX_BYTES = 4 << 30  # the published files have 50 to 250 MB


@dataclass(frozen=True)
class VerificationSet:
    """n pairs of faces.

    Attributes:
        left: the first face of every pair, n images.
        right: the second face of every pair, n images.
        is_genuine: (n,) bool, whether both are one person.
        fold: (n,) int64, the fold of every pair if the list names one.

    The labels of a set read from a `.bin` are not identities, which the file does not know: they
    are equal exactly within a genuine pair.
    """

    left: FaceSet
    right: FaceSet
    is_genuine: Tensor
    fold: Tensor | None = None

    def __post_init__(self) -> None:
        is_genuine = tensor_of(self.is_genuine, "is_genuine")
        if is_genuine.ndim != 1 or not ((is_genuine == 0) | (is_genuine == 1)).all():
            raise ValueError("is_genuine must be one truth value a pair, of shape (n,)")
        if not len(self.left) == len(self.right) == len(is_genuine):
            raise ValueError(
                f"{len(self.left)} left and {len(self.right)} right images for "
                f"{len(is_genuine)} pairs"
            )
        object.__setattr__(self, "is_genuine", is_genuine.bool())
        if self.fold is not None:
            object.__setattr__(self, "fold", int64_tensor(self.fold, "fold", len(is_genuine)))

    def __len__(self) -> int:
        return len(self.is_genuine)


class EncodedFaces(DecodedFaces):
    """Encoded images in memory, decoded when asked for.

    Args:
        images: the encoded images.
        labels: (N,) int64.
        names: what messages call them.
        image_size: side of the square images given out, a multiple of 16.
    """

    def __init__(
        self, images: Sequence[bytes], labels: Tensor, names: Sequence[str], *, image_size: int
    ) -> None:
        super().__init__(image_size)
        if not len(images) == len(labels) == len(names):
            raise ValueError(f"{len(images)} images, {len(labels)} labels, {len(names)} names")
        self._images, self._names = images, names
        self.labels = int64_tensor(labels, "labels", len(images))

    def source(self, index: int) -> bytes:
        """An encoded image."""
        return self._images[index]

    def name(self, index: int) -> str:
        """What messages call an image."""
        return self._names[index]

    def parameters(self) -> dict[str, object]:
        """What the pixels depend on, for the cache: a hash over all images."""
        digest = hashlib.sha256()
        for image in self._images:
            digest.update(len(image).to_bytes(8, "little"))
            digest.update(image)
        sha256 = digest.hexdigest()
        kind = {"kind": "encoded", "decoder": VERSION, "image_size": self.image_size}
        return kind | {"sha256": sha256}


def read_verification_bin(path: str | Path, *, image_size: int = 112) -> VerificationSet:
    """Read a `.bin` verification set; images are decoded when asked for.

    Args:
        path: the file.
        image_size: side of the square images given out, a multiple of 16.

    Raises:
        FileNotFoundError: no such file.
        ValueError: larger than 4 GiB, not a pickle of images and booleans, or not two images for
            every boolean.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such verification set: {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}")
    try:
        images, is_genuine = _parts(load_plain(path.read_bytes()))
    except ValueError as error:
        raise ValueError(
            f"{path} is no verification set: expected a pickle of 2n encoded images and n "
            f"booleans. {error}"
        ) from error
    number = torch.arange(len(is_genuine))
    right_labels = torch.where(is_genuine, number, number + len(is_genuine))
    sides, shown = [], printable(str(path))
    for side, labels in enumerate((number, right_labels)):
        names = [f"{shown}, image {2 * pair + side}" for pair in range(len(is_genuine))]
        sides.append(EncodedFaces(images[side::2], labels, names, image_size=image_size))
    return VerificationSet(sides[0], sides[1], is_genuine)


def _parts(content: Any) -> tuple[list[bytes], Tensor]:
    if not isinstance(content, list) or len(content) != 2:
        raise ValueError("It does not hold two lists")
    images, flags = content
    if not isinstance(images, list) or not isinstance(flags, list | np.ndarray):
        raise ValueError("It does not hold two lists")
    if isinstance(flags, np.ndarray):
        flags = flags.tolist()
    if len(images) != 2 * len(flags) or not flags:
        raise ValueError(f"It holds {len(images)} images for {len(flags)} booleans")
    for number, flag in enumerate(flags):
        if not isinstance(flag, bool | int | float) or flag not in (0, 1):
            raise ValueError(f"Entry {number} of the booleans is {reprlib.repr(flag)}")
    encoded = []
    copies: dict[int, bytes] = {}  # by id: one array may be listed a million times
    for number, image in enumerate(images):
        if isinstance(image, np.ndarray) and image.dtype.itemsize == 1:
            if id(image) not in copies:
                copies[id(image)] = image.tobytes()
            image = copies[id(image)]
        if not isinstance(image, bytes):
            raise ValueError(f"Image {number} is of type {type(image).__name__}, expected bytes")
        encoded.append(image)
    return encoded, torch.tensor([bool(flag) for flag in flags])
