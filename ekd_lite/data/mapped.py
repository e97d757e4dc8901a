"""Arrays that lie in files: shared by all processes, each of which maps them for itself."""

from __future__ import annotations

import mmap
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ekd_lite.data.indexing import tensor_of
from ekd_lite.files import check_regular
from ekd_lite.ops import one_line


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


def map_array(path: Path) -> np.memmap[Any, Any]:
    """Map a plain array that `np.save` wrote; its copy is `np.array` of that.

    Raises:
        ValueError: a pipe, no plain array, or another number of bytes than its header says.
    """
    check_regular(path)
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # numpy reads the header as Python: a damaged one raises anything
        # Numpy's own words would advise to load it unsafely.
        is_plain = "pickle" not in str(error) and "Python object" not in str(error)
        raise ValueError(one_line(error) if is_plain else "it holds no plain array") from error
    if not isinstance(array, np.memmap):
        array.close()
        raise ValueError("it holds several arrays, expected one, as np.save writes it")
    said, size = array.offset + array.nbytes, os.path.getsize(path)
    if said != size:
        raise ValueError(f"its header claims {said:,} bytes, the file has {size:,}")
    return array


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
