"""What training and evaluation ask of a set of faces; every set of this package offers it."""

from __future__ import annotations

import hashlib
import inspect
import json
import unicodedata
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

SAMPLE = 4096  # images (up to twice as many) that stand for a large set that has no `digest`

# Pixels lie in [-1, 1]. Noise and colour jitter may lead a little beyond; 0..255 or pixels divided
# by a standard deviation lead far.
FARTHEST_PIXEL = 1.5


class FaceSet(Protocol):
    """N images of identities 0 .. num_identities - 1.

    A set may have more, and is then held to it: `identities`, the names of the people by label, by
    which they are compared with a teacher's; `digest(*, whole=False)`, a text that changes where an
    image does (`images_digest` says what is done without it); and `at_size(image_size)`, the same
    images read or drawn at another size, None if they cannot be, for teachers of larger ones.

    Attributes:
        labels: identity of every image, (N,) int64.
        image_size: side of the square images, pixels.
    """

    labels: Tensor
    image_size: int

    @property
    def num_identities(self) -> int:
        """Number of identities."""
        ...

    def __len__(self) -> int:
        """Number N of images."""
        ...

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The images of some indices in [-1, 1], (B, 3, image_size, image_size) float32."""
        ...


class CacheableFaceSet(FaceSet, Protocol):
    """A face set that can say what its pixels depend on."""

    def parameters(self) -> dict[str, Any]:
        """Everything the pixels depend on, as plain values: the key of a cache."""
        ...


def identity_names(faces: FaceSet) -> list[str] | None:
    """The names of the people of a set, by label; None where it gives none.

    Numbers that only repeat the labels, "0", "1", ... in order, name nobody and count as none.

    Raises:
        ValueError: there is not one name for every identity, or two have the same.
    """
    names = getattr(faces, "identities", None)
    if not isinstance(names, list | tuple | np.ndarray | Tensor):
        return None
    listed = names.tolist() if isinstance(names, np.ndarray | Tensor) else names
    # An accented letter is one character or two, depending on the computer that wrote the name.
    texts = [unicodedata.normalize("NFC", str(name)) for name in listed]
    if len(texts) != faces.num_identities:
        raise ValueError(
            f"the set has {faces.num_identities} identities and {len(texts)} names of identities: "
            "expected one name for every label"
        )
    if len(set(texts)) != len(texts):
        twice = next(name for name in texts if texts.count(name) > 1)
        raise ValueError(f"two identities of the set have the name {twice!r}: names must differ")
    return None if texts == [str(label) for label in range(len(texts))] else texts


def people_keys(names: Sequence[str]) -> Tensor:
    """One number for every name, (C,) int64: compares people without keeping their names.

    The first 8 bytes of the BLAKE2b of the name: among ten million people the chance that any two
    share a number is one in a hundred thousand.
    """
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return torch.from_numpy(np.frombuffer(digests, "<i8").astype(np.int64))


def people_of(faces: FaceSet) -> Tensor | None:
    """The numbers of a set's people, (C,) int64; None where it does not name them."""
    names = identity_names(faces)
    return None if names is None else people_keys(names)


def at_size(faces: FaceSet, image_size: int) -> FaceSet | None:
    """The same images at another size, read or drawn again; None where the set cannot do that.

    Args:
        faces: the set; one has to have `at_size` to be able to.
        image_size: side of the images, pixels, a multiple of 16.
    """
    own = getattr(faces, "at_size", None)
    return own(image_size) if callable(own) else None


def images_digest(faces: FaceSet, *, whole: bool = False) -> str | None:
    """A digest of all images of a set in their order; None if it gives others at every reading.

    A set's own `digest` is used where there is one. Otherwise the pixels are read: all of them, or,
    unless `whole`, some thousands of a set of more than `SAMPLE` images, evenly spaced.

    Args:
        faces: the set.
        whole: leave no image out, even if that takes minutes.
    """
    own = getattr(faces, "digest", None)
    if callable(own):
        takes_whole = "whole" in inspect.signature(own).parameters
        return str(own(whole=whole) if takes_whole else own())
    step = 1 if whole else max(1, len(faces) // SAMPLE)
    first, second = (pixels_digest(faces, step) for _ in range(2))
    return first if first == second else None


def pixels_digest(faces: FaceSet, step: int) -> str:
    """The sha256 of the pixels of every `step`-th image of a set."""
    digest = hashlib.sha256()
    for part in torch.split(torch.arange(0, len(faces), step), 256):
        digest.update(faces.batch(part).contiguous().numpy().data)
    return digest.hexdigest()


def digest_of(values: Any) -> str:
    """The sha256 of plain values, whatever the order of a dictionary's keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_pixels(images: Tensor, index: Tensor) -> None:
    """Raise a ValueError unless a set's images are float32 (B, 3, H, W) in about [-1, 1].

    A pixel that is no number, or far out of range, is named with its image.
    """
    batch: Any = images
    if (
        not isinstance(batch, Tensor)
        or batch.dtype != torch.float32
        or batch.ndim != 4
        or batch.shape[:2] != (len(index), 3)
    ):
        raise ValueError(
            f"expected images ({len(index)}, 3, H, W) of float32 in [-1, 1] from the set's batch, "
            f"got {kind_of(batch)}"
        )
    if not len(batch):
        return
    low, high = (float(x) for x in batch.aminmax())
    if low >= -FARTHEST_PIXEL and high <= FARTHEST_PIXEL:  # false for NaN
        return
    bad = (~images.isfinite().flatten(1).all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"image {int(index[bad[0]])} of the set holds NaN or infinite pixels")
    far = (images.flatten(1).abs() > FARTHEST_PIXEL).any(dim=1).nonzero().flatten()
    raise ValueError(
        f"the pixels of image {int(index[far[0]])} are not in [-1, 1]: those of this batch go from "
        f"{low:.4g} to {high:.4g}; pixels of 0..255 are scaled by images / 127.5 - 1"
    )


def check_side(images: Tensor, image_size: int) -> None:
    """Raise a ValueError unless a set's images are as wide and high as it says."""
    if images.shape[-2:] != (image_size, image_size):
        raise ValueError(
            f"the set says that its images are {image_size} pixels wide, and gives "
            f"{tuple(images.shape[1:])}"
        )


def about_range(low: float, high: float, count: int) -> str:
    """What to say of images without a dark pixel, which are probably in [0, 1]; "" of others."""
    if not low >= 0 < high:
        return ""
    return (
        f"no pixel of {count} images is below 0: expected pixels in [-1, 1], and these seem to lie "
        f"in [0, {high:.3g}]; give out 2 * images - 1"
    )


def kind_of(value: Any) -> str:
    """What a message says of a value: shape and type of a tensor, the type of anything else."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} of {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"a numpy array {value.shape} of {value.dtype}"
    return type(value).__name__
