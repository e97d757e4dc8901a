"""Open a set of faces whatever its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ekd_lite.data import checksums
from ekd_lite.data.decode import DecodedFaces
from ekd_lite.data.folder import ImageFolder, Nested
from ekd_lite.data.mapped import map_array
from ekd_lite.data.names import is_foreign, printable
from ekd_lite.data.packed import PackedFaces
from ekd_lite.data.recordio import RecordIO
from ekd_lite.data.shards import ARCHIVES, Shards, is_pattern, shards_in
from ekd_lite.files import UNFINISHED, check_regular

PIXELS, LABELS, ABOUT = "images.npy", "labels.npy", "faces.json"


def open_faces(
    path: str | Path,
    *,
    image_size: int = 112,
    nested: Nested = None,
    label: str | None = None,
    max_bad_fraction: float = 0.0,
) -> DecodedFaces | PackedFaces:
    """Open a folder of identity/image.jpg, a .rec file, WebDataset shards, or a packed set.

    Args:
        path: the folder or file. A folder with a .rec file in it, of any name, is that file's; one
            with .tar files and no other folder in it is those shards', and so is a pattern such as
            faces-{000..127}.tar.
        image_size: side of the images, pixels; a packed set must have it.
        nested: whose the images in deeper folders are, "first" or "last" (`ImageFolder`).
        label: where the labels of shards are (`Shards`).
        max_bad_fraction: share of images that may be undecodable and left out, as for
            `ImageFolder`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is none of these, or damaged, or it takes no `nested` or `label` and one is
            given.
    """
    path = Path(path)
    check_regular(path)
    if (path / UNFINISHED).exists():
        raise ValueError(f"{path} is not finished: what wrote it was killed; run that again")
    options: dict[str, Any] = {"image_size": image_size, "max_bad_fraction": max_bad_fraction}
    record = path if _is_file(path, ".rec") else record_file(path)
    is_packed = (path / PIXELS).is_file()
    is_shards = record is None and not is_packed and _holds_shards(path)
    if nested is not None and (path.is_file() or record is not None or is_packed or is_shards):
        raise ValueError(f"{path} is no folder of images: `nested` is for those")
    if label is not None and not is_shards:
        raise ValueError(f"{path} holds no shards (.tar): `label` is for those")
    if is_shards:
        return Shards(path, label=label, **options)
    if record is not None:
        return RecordIO(record, **options)
    if is_packed:
        return _packed_of_size(path, image_size)
    if _is_file(path, ".bin"):
        raise ValueError(
            f"{path} holds pairs to be told apart, not people: `ekd-lite evaluate --model MODEL "
            f"--faces {path}` measures a net on it"
        )
    if path.is_file():
        raise ValueError(
            f"{path}: expected a folder of identity/image.jpg, a .rec file, a .tar of images and "
            "labels, or a packed set"
        )
    return ImageFolder(path, nested=nested, **options)


def _holds_shards(path: Path) -> bool:
    if path.is_dir():
        return bool(shards_in(path))
    return path.name.lower().endswith(ARCHIVES) or is_pattern(path)


def _is_file(path: Path, suffix: str) -> bool:
    return path.suffix.lower() == suffix and path.is_file()


def _packed_of_size(path: Path, image_size: int) -> PackedFaces:
    packed = open_packed(path)
    if packed.image_size != image_size:
        raise ValueError(
            f"{path} holds images of {packed.image_size} pixels, asked for are {image_size}: "
            "convert the set it was made from again, or ask for its size"
        )
    return packed


def record_file(folder: Path) -> Path | None:
    """The .rec file of a folder: train.rec, or the only one.

    Raises:
        ValueError: there are several and none of them is train.rec.
    """
    if (folder / "train.rec").is_file():
        return folder / "train.rec"
    records = []
    if folder.is_dir():
        records = [
            file
            for file in folder.iterdir()
            if file.suffix.lower() == ".rec" and file.is_file() and not is_foreign(file.name)
        ]
    if len(records) > 1:
        names = ", ".join(sorted(printable(file.name) for file in records))
        raise ValueError(f"{folder} holds {len(records)} .rec files: name one of {names}")
    return records[0] if records else None


def open_any_size(path: str | Path) -> DecodedFaces | PackedFaces:
    """Open a set for its labels and names: one that is packed at the size that it has.

    Raises:
        FileNotFoundError, ValueError: as `open_faces`.
    """
    return open_packed(path) if (Path(path) / PIXELS).is_file() else open_faces(path)


def open_packed(folder: str | Path, *, check: bool = True) -> PackedFaces:
    """Open what `convert` packed.

    Args:
        folder: its folder.
        check: compare the checksums first (a second for a gigabyte).

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a file is damaged or missing, by name, or the conversion did not finish.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such packed set: {folder}")
    if not (folder / checksums.NAME).is_file() or (folder / UNFINISHED).exists():
        raise ValueError(f"{folder} has no {checksums.NAME}: its conversion did not finish")
    found = checksums.faults(folder) if check else []
    if found:
        raise ValueError("; ".join(found) + ": convert the set again")
    try:
        images, labels = map_array(folder / PIXELS), np.array(map_array(folder / LABELS))
    except ValueError as error:
        raise ValueError(f"{folder} is damaged: {error}") from error
    return PackedFaces(images, torch.from_numpy(labels), identities=_identities(folder))


def _identities(folder: Path) -> list[str] | None:
    """The names in a packed set's description; None for one that has none."""
    try:
        names = json.loads((folder / ABOUT).read_bytes())["identities"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) and names else None
