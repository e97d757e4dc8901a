"""Images read while the ones before are used, and their bytes for the way to a device."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from ekd_lite.data.faceset import FaceSet
from ekd_lite.data.indexing import Indices
from ekd_lite.ops import fresh

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item], faces: FaceSet) -> Generator[Item, None, None]:
    """The same items; of a set that decodes files, each is made by a thread beside its user's work.

    Decoding does not hold Python's lock, so that a second core does it. Other sets are read when
    asked for: one of your own may draw random numbers, whose order would be a matter of luck.

    Args:
        items: what reads `faces`.
        faces: the set.
    """
    if not reads_ahead(faces):
        yield from items
        return
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, "reads-ahead") as pool:
        coming = pool.submit(next, iterator, end)
        while True:
            item = coming.result()
            if item is end:
                return
            coming = pool.submit(next, iterator, end)
            yield item  # type: ignore[misc]  # it is not `end`


def read_bytes(faces: FaceSet, indices: Indices) -> Tensor:
    """Images as bytes (B, 3, H, W) uint8 of a set that holds bytes, a quarter of its `batch`.

    `as_floats` makes of them what `batch` gives, bit for bit. Other sets give their `batch`.
    """
    source: Any = faces
    images: Tensor = (source.byte_batch if holds_bytes(faces) else source.batch)(indices)
    return images


def holds_bytes(faces: FaceSet) -> bool:
    """Whether `read_bytes` gives bytes of a set."""
    return _beside_batch(faces, "byte_batch")


def as_floats(images: Tensor) -> Tensor:
    """Bytes as floats in [-1, 1], on the device where they are; floats as they are."""
    if images.dtype != torch.uint8:
        return images
    room = (
        fresh(*images.shape)
        if images.device.type == "cpu"
        else torch.empty(images.shape, device=images.device)
    )
    return room.copy_(images).div_(127.5).sub_(1)


def reads_ahead(faces: Any) -> bool:
    """Whether another thread may read a set, as its `reads_ahead` says."""
    return _beside_batch(faces, "reads_ahead") and bool(faces.reads_ahead)


def _beside_batch(faces: Any, name: str) -> bool:
    """Whether the class that defines how `batch` reads says this, too.

    A class of your own may give other images than the one it is made from.
    """
    if "batch" in getattr(faces, "__dict__", {}):
        return False
    return any(
        name in vars(kind) for kind in [k for k in type(faces).__mro__ if "batch" in vars(k)][:1]
    )
