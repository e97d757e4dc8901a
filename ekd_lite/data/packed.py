"""Faces as bytes in one array, usually a file that is memory-mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ekd_lite.data.ahead import as_floats
from ekd_lite.data.faceset import FaceSet, at_size
from ekd_lite.data.indexing import Indices, index_tensor, int64_tensor, one_index
from ekd_lite.data.mapped import MappedFile, pixels_of

_MOST_HASHED = 4 << 30


class PackedFaces:
    """Images in one memory-mapped array of bytes, with their labels.

    Args:
        images: uint8 array or tensor `(N, 3, H, W)`, usually a memory map, which every process maps
            for itself.
        labels: `(N,)` identity numbers from 0, a tensor, array or list.
        identities: names of the identities by label, if they are known.
        source: the set that the images were read from, if that can give them at other sizes.

    Attributes:
        labels: int64 tensor `(N,)`.
        identities: as given, or None.
        image_size: height and width in pixels.
        num_identities: one more than the largest label.

    Raises:
        ValueError: the shapes or types are not these.
    """

    def __init__(
        self,
        images: np.ndarray[Any, Any] | Tensor,
        labels: Tensor | Sequence[int] | Any,
        *,
        identities: Sequence[Any] | None = None,
        source: FaceSet | None = None,
    ) -> None:
        pixels = pixels_of(images)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(
                f"images must be uint8 of shape (N, 3, H, W), got {pixels.dtype} "
                f"{tuple(pixels.shape)}"
            )
        self._shape = pixels.shape[1:]
        self._rows = pixels.flatten(1)  # a view: rows gather faster than images
        self._file = MappedFile.of(images)
        self.labels = int64_tensor(labels, "labels", len(pixels))
        self.identities, self._source = identities, source
        self.image_size = int(pixels.shape[-1])
        self.num_identities = int(self.labels.max()) + 1 if len(self.labels) else 0

    def __getstate__(self) -> dict[str, Any]:
        # A process that is spawned gets the place of the map and opens its own: pickled, all pixels
        # would go through memory.
        state = self.__dict__ | {"_source": None}  # which the process that teaches reads
        if self._file is not None:
            del state["_rows"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._file is not None:
            self._rows = pixels_of(self._file.open()).flatten(1)

    def at_size(self, image_size: int) -> FaceSet | None:
        """The same images at any size, from what they were read from; None if that is gone."""
        if self._source is not None:
            return at_size(self._source, image_size)
        return self if image_size == self.image_size else None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One picture, float `(3, H, W)` in [-1, 1], and its label.

        Raises:
            IndexError: the index is not an integer, or not one of this set.
        """
        position = one_index(index, len(self))
        return self.batch([position])[0], int(self.labels[position])

    def digest(self, *, whole: bool = False) -> str:
        """The sha256 of the pixels, a gigabyte in about a second.

        Of a set of more than `_MOST_HASHED` bytes that many, in whole images evenly spaced, unless
        it shall be `whole`.
        """
        digest = hashlib.sha256(f"{tuple(self._shape)}".encode())
        step = 1 if whole else -(-max(self._rows.numel(), 1) // _MOST_HASHED)
        for part in torch.split(torch.arange(0, len(self), step), 1024):
            digest.update(self._rows[part].numpy().data)
        return digest.hexdigest()

    def batch(self, indices: Indices) -> Tensor:
        """Pictures as float32 `(B, 3, H, W)` in [-1, 1], on the CPU.

        Raises:
            IndexError: an index is not an integer, or not one of this set.
        """
        return as_floats(self.byte_batch(indices))

    def byte_batch(self, indices: Indices) -> Tensor:
        """The same pictures as bytes, uint8 `(B, 3, H, W)`."""
        rows = self._rows.index_select(0, index_tensor(indices, len(self)))
        return rows.view(-1, *self._shape)
