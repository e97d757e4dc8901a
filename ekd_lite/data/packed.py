"""Faces rendered once and kept as bytes: a memory-mapped file, a checksum, and nothing pickled."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ekd_lite.data.checksums import sha256_of
from ekd_lite.data.faceset import CacheableFaceSet, FaceSet
from ekd_lite.data.indexing import index_tensor, one_index
from ekd_lite.files import replacing, write_atomically
from ekd_lite.ops import fresh

_IMAGES_PER_TASK = 512
_MIN_IMAGES_PER_WORKER = 2000  # starting a process takes about as long as rendering so many


class PackedFaces:
    """Images in one memory-mapped array of bytes, with their labels.

    Args:
        images: uint8 array or tensor `(N, 3, H, W)`, usually a memory map.
        labels: int64 `(N,)` identity numbers from 0.

    Attributes:
        labels: int64 tensor `(N,)`.
        image_size: height and width in pixels.
        num_identities: one more than the largest label.

    Raises:
        ValueError: the shapes or types are not these.
    """

    def __init__(self, images: np.ndarray[Any, Any] | Tensor, labels: Tensor):
        with warnings.catch_warnings():
            # torch warns that a read-only map must not be written to; nothing here writes.
            warnings.filterwarnings("ignore", message=".*not writable.*", category=UserWarning)
            pixels = torch.as_tensor(images)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(
                f"images must be uint8 of shape (N, 3, H, W), got {pixels.dtype} "
                f"{tuple(pixels.shape)}"
            )
        if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
            raise ValueError(
                f"labels must be int64 of shape ({len(pixels)},), got {labels.dtype} "
                f"{tuple(labels.shape)}"
            )
        self._shape = pixels.shape[1:]
        self._rows = pixels.reshape(len(pixels), -1)  # a view: rows gather faster than images
        self.labels = labels
        self.image_size = int(pixels.shape[-1])
        self.num_identities = int(labels.max()) + 1 if len(labels) else 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One picture, float `(3, H, W)` in [-1, 1], and its label.

        Raises:
            IndexError: the index is not an integer, or not one of this set.
        """
        position = one_index(index, len(self))
        return self.batch([position])[0], int(self.labels[position])

    def batch(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Pictures as float32 `(B, 3, H, W)` in [-1, 1], on the CPU.

        Raises:
            IndexError: an index is not an integer, or not one of this set.
        """
        rows = self._rows.index_select(0, index_tensor(indices, len(self)))
        return fresh(*rows.shape).copy_(rows).div_(127.5).sub_(1.0).view(-1, *self._shape)


def cache_key(parameters: dict[str, Any]) -> str:
    """Name of a set's cache: a hash of its parameters, whatever their order."""
    text = json.dumps(parameters, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def cache_faces(
    dataset: CacheableFaceSet,
    directory: str | Path,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> PackedFaces:
    """Renders a set once, and afterwards reads it from the disk.

    The files `<key>.npy` (pixels) and `<key>.json` (parameters, checksum) appear complete or not
    at all; a checksum is compared at every opening, and a damaged file is rendered anew with a
    warning. Several processes may cache the same set at once.

    Args:
        dataset: what to render; its `parameters()` decide the key.
        directory: where to keep the files; made if it is not there.
        workers: processes that render; by default one for each core for sets large enough.
        progress: show a bar, on a terminal.

    Returns:
        The set, bit for bit as `dataset` renders it on the CPU.

    Raises:
        ValueError: `workers` is less than 1.
        OSError: the disk is full or the directory cannot be written; nothing is left behind.
    """
    workers = _checked_workers(workers, len(dataset))
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    parameters = dataset.parameters()
    pixels_path = folder / f"{cache_key(parameters)}.npy"
    note_path = pixels_path.with_suffix(".json")
    if pixels_path.exists() and note_path.exists():
        fault = _fault(pixels_path, note_path, dataset)
        if fault is None:
            return _open(pixels_path, dataset)
        warnings.warn(f"{pixels_path}: {fault}; rendering the faces again", stacklevel=2)

    sha256 = write_pixels(dataset, pixels_path, workers=workers, progress=progress)
    note = {"parameters": parameters, "sha256": sha256}
    write_atomically(note_path, json.dumps(note, indent=1, sort_keys=True).encode())
    return _open(pixels_path, dataset)


def write_pixels(
    dataset: FaceSet, path: Path, *, workers: int | None = None, progress: bool = True
) -> str:
    """Write the pixels of a set as a uint8 array (N, 3, H, W) in numpy's .npy form.

    Args:
        dataset: the set.
        path: the file, complete or not there; its folder exists.
        workers: processes, as for `cache_faces`.
        progress: show a bar, on a terminal.

    Returns:
        The sha256 of the file, in hexadecimal.

    Raises:
        ValueError: `workers` is less than 1.
        OSError: the disk is full; nothing is left behind.
    """
    workers = _checked_workers(workers, len(dataset))
    shape = (len(dataset), 3, dataset.image_size, dataset.image_size)
    bar = tqdm(
        total=len(dataset), desc="rendering faces", unit="img", leave=False,
        disable=None if progress else True,
    )  # fmt: skip
    digest = hashlib.sha256()
    try:
        with bar, replacing(path) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(_Hashed(file, digest), header)
            for part in _render_parts(dataset, workers):
                data = part.tobytes()
                digest.update(data)
                file.write(data)
                bar.update(len(part))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        need = int(np.prod(shape)) / 1e6
        raise OSError(
            errno.ENOSPC,
            f"no space left for {need:.0f} MB of rendered faces: free some, or choose another "
            "directory",
            str(path.parent),
        ) from error
    return digest.hexdigest()


class _Hashed:
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO, digest: hashlib._Hash):
        self._file, self._digest = file, digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)


def _checked_workers(workers: int | None, num_images: int) -> int:
    if workers is None:
        return max(1, min(_cores(), num_images // _MIN_IMAGES_PER_WORKER))
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers must be None or at least 1, got {workers!r}")
    return workers


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _open(path: Path, dataset: CacheableFaceSet) -> PackedFaces:
    return PackedFaces(np.load(path, allow_pickle=False, mmap_mode="r"), dataset.labels)


def _fault(pixels_path: Path, note_path: Path, dataset: CacheableFaceSet) -> str | None:
    """What is wrong with a cached file, or None."""
    try:
        note = json.loads(note_path.read_bytes())
        expected = note["sha256"]
        known = note["parameters"]
    except (ValueError, KeyError, TypeError) as error:
        return f"its description {note_path.name} is damaged ({error})"
    if known != dataset.parameters():
        return f"its description {note_path.name} is of another set"
    if sha256_of(pixels_path) != expected:
        return "the file is damaged (its checksum differs)"
    return None


def _render_part(dataset: FaceSet, start: int, stop: int) -> np.ndarray[Any, Any]:
    images = dataset.batch(range(start, stop))
    return ((images + 1.0) * 127.5).round_().to(torch.uint8).numpy()


def _use_one_thread() -> None:
    torch.set_num_threads(1)


def _render_parts(dataset: FaceSet, workers: int) -> Iterator[np.ndarray[Any, Any]]:
    starts = range(0, len(dataset), _IMAGES_PER_TASK)
    stops = [min(start + _IMAGES_PER_TASK, len(dataset)) for start in starts]
    if workers == 1:
        for start, stop in zip(starts, stops, strict=True):
            yield _render_part(dataset, start, stop)
        return
    # Spawned, not forked: a fork would copy the locks of torch's threads in whatever state.
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_use_one_thread
    ) as pool:
        yield from pool.map(_render_part, [dataset] * len(stops), starts, stops)
