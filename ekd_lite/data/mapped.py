"""Arrays that lie in files: shared by all processes, each of which maps them for itself."""

from __future__ import annotations

import mmap
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ekd_lite.data.indexing import tensor_of


def pixels_of(images: Any) -> Tensor:
    """An array as a tensor that shares its memory."""
    if isinstance(images, Tensor):
        return images
    if not isinstance(images, np.ndarray):
        return tensor_of(images, "images")
    with warnings.catch_warnings():
        # torch warns that a read-only map must not be written to; nothing here writes.
        warnings.filterwarnings("ignore", message=".*not writable.*", category=UserWarning)
        try:
            return torch.from_numpy(images)
        except (TypeError, ValueError) as error:
            raise ValueError(f"images must be an array of uint8: {error}") from error


@dataclass(frozen=True)
class MappedFile:
    """Where in a file the bytes of a memory map are, so that another process can map them too."""

    path: str
    offset: int
    shape: tuple[int, ...]
    stamp: tuple[int, int | None]

    @staticmethod
    def of(images: Any) -> MappedFile | None:
        """The place of an array; None unless it is a map of a file, without gaps."""
        path, base = getattr(images, "filename", None), getattr(images, "_mmap", None)
        if not isinstance(images, np.memmap) or base is None or path is None:
            return None
        if images.mode == "c" or not images.flags.c_contiguous:
            return None  # changed in memory, or a selection that the map itself does not hold
        # A slice keeps the offset that the whole map has, so that its own is found by its address.
        start = images.offset - images.offset % mmap.ALLOCATIONGRANULARITY
        inside = images.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
        place = str(path), start + inside, images.shape
        return MappedFile(*place, _stamp(str(path), timed=images.mode == "r"))

    def open(self) -> np.ndarray[Any, Any]:
        """Map it again.

        Raises:
            ValueError: the file is another one by now.
        """
        timed = self.stamp[1] is not None
        if not os.path.exists(self.path) or _stamp(self.path, timed=timed) != self.stamp:
            raise ValueError(f"{self.path} was changed or removed after the set had been opened")
        return np.memmap(self.path, np.uint8, "r", self.offset, self.shape)


def _stamp(path: str, *, timed: bool) -> tuple[int, int | None]:
    """Size and time of a file; the time not of a writable map, which changes when it is written."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns if timed else None
