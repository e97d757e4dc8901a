"""Faces rendered once and kept: a memory-mapped file, a checksum, and nothing pickled."""

from __future__ import annotations

import errno
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from tqdm import tqdm

from ekd_lite.data.checksums import sha256_of
from ekd_lite.data.faceset import CacheableFaceSet, FaceSet, digest_of
from ekd_lite.data.packed import PackedFaces
from ekd_lite.data.processes import capped_workers, cores, map_in_processes
from ekd_lite.files import (
    CACHE_VARIABLE,
    locked,
    remove_leftovers,
    remove_lock,
    replacing,
    user_cache,
    write_atomically,
)

_IMAGES_PER_TASK = 512
_MIN_IMAGES_PER_WORKER = 2000  # starting a process takes about as long as rendering so many


def cache_key(parameters: dict[str, Any]) -> str:
    """Name of a set's cache: a hash of its parameters, whatever their order."""
    return digest_of(parameters)[:20]


def cache_faces(
    dataset: CacheableFaceSet,
    directory: str | Path | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> PackedFaces:
    """Renders a set once, and afterwards reads it from the disk.

    The files `<key>.npy` (pixels) and `<key>.json` (parameters, checksum) appear complete or not
    at all; a checksum is compared at every opening, and a damaged file is rendered anew with a
    warning. Of several processes that cache the same set one renders it, and the others wait.
    Programs need no `if __name__ == "__main__"`: the workers do not run the script again.

    Args:
        dataset: what to render; its `parameters()` decide the key.
        directory: where to keep the files; made if it is not there. By default `faces` in
            $EKD_LITE_CACHE or else in the user's cache folder (`ekd_lite.files.user_cache`).
        workers: processes that render; by default one for each core for sets large enough.
        progress: show a bar, on a terminal.

    Returns:
        The set, bit for bit as `dataset` renders it on the CPU.

    Raises:
        ValueError: `workers` is less than 1, or pixels are not in [-1, 1].
        OSError: the disk is full or the directory cannot be written; nothing is left behind.
    """
    workers = _checked_workers(workers, len(dataset))
    folder = user_cache() / "faces" if directory is None else Path(directory)
    parameters = dataset.parameters()
    pixels_path = folder / f"{cache_key(parameters)}.npy"
    note_path = pixels_path.with_suffix(".json")

    def is_good() -> bool:
        if not (pixels_path.exists() and note_path.exists()):
            return False
        fault = _fault(pixels_path, note_path, dataset)
        if fault is not None:
            text = f"{pixels_path}: {fault}; rendering the faces again"
            warnings.warn(text, stacklevel=3)
        return fault is None

    if is_good():
        remove_lock(pixels_path)  # of a process that was killed when all was written
        return _open(pixels_path, dataset)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        with locked(pixels_path):
            # Another process may have rendered it while this one waited.
            if not (pixels_path.exists() and note_path.exists()) or _fault(
                pixels_path, note_path, dataset
            ):
                sha256 = write_pixels(dataset, pixels_path, workers=workers, progress=progress)
                note = {"parameters": parameters, "sha256": sha256}
                text = json.dumps(note, indent=1, sort_keys=True)
                write_atomically(note_path, text.encode())
    except PermissionError as error:
        raise PermissionError(
            error.errno,
            f"the cache of faces cannot be written: name another folder, or set {CACHE_VARIABLE}",
            str(folder),
        ) from error
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
        ValueError: `workers` is less than 1, or pixels are not in [-1, 1].
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
            f"directory (by its argument or by {CACHE_VARIABLE})",
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
        return max(1, min(cores(), num_images // _MIN_IMAGES_PER_WORKER))
    return capped_workers(workers)


def _open(path: Path, dataset: CacheableFaceSet) -> PackedFaces:
    pixels = np.load(path, allow_pickle=False, mmap_mode="r")
    names = getattr(dataset, "identities", None)
    return PackedFaces(pixels, dataset.labels, identities=names, source=dataset)


def _fault(pixels_path: Path, note_path: Path, dataset: CacheableFaceSet) -> str | None:
    """What is wrong with a cached file, or None."""
    try:
        note = json.loads(note_path.read_bytes())
        expected = note["sha256"]
        known = note["parameters"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"its description {note_path.name} is damaged ({error})"
    if known != dataset.parameters():
        return f"its description {note_path.name} is of another set"
    if sha256_of(pixels_path) != expected:
        return "the file is damaged (its checksum differs)"
    return None


def _render_part(dataset: FaceSet, start: int, stop: int) -> np.ndarray[Any, Any]:
    images = dataset.batch(range(start, stop))
    size = dataset.image_size
    if images.shape != (stop - start, 3, size, size):
        raise ValueError(
            f"the set gives images of shape {tuple(images.shape)}, expected "
            f"{(stop - start, 3, size, size)}"
        )
    levels = ((images + 1.0) * 127.5).round_()
    inside = ((levels >= 0) & (levels <= 255)).flatten(1).all(dim=1)  # false for NaN too
    if not bool(inside.all()):
        row = int((~inside).nonzero()[0])
        low, high = float(images[row].min()), float(images[row].max())
        raise ValueError(
            f"image {start + row} of the set has pixels from {low:g} to {high:g}, expected -1 to "
            "1: x / 127.5 - 1 makes that of 0 to 255, 2 x - 1 of 0 to 1"
        )
    return levels.to(torch.uint8).numpy()


def _render_parts(dataset: FaceSet, workers: int) -> Iterator[np.ndarray[Any, Any]]:
    starts = range(0, len(dataset), _IMAGES_PER_TASK)
    parts = [(start, min(start + _IMAGES_PER_TASK, len(dataset))) for start in starts]
    return map_in_processes(_render_part, dataset, parts, workers=workers)
