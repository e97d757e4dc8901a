"""Open a set of faces whatever its form, convert it, and prove that it is undamaged."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch

from ekd_lite.data import checksums
from ekd_lite.data.cache import write_pixels
from ekd_lite.data.decode import DecodedFaces, fault_of
from ekd_lite.data.folder import ImageFolder
from ekd_lite.data.names import is_foreign, printable
from ekd_lite.data.packed import PackedFaces
from ekd_lite.data.record_writer import write_recordio
from ekd_lite.data.recordio import RecordIO
from ekd_lite.data.verification import read_verification_bin
from ekd_lite.files import (
    UNFINISHED,
    remove_leftovers,
    replacing,
    unfinished,
    write_atomically,
)

_PIXELS, _LABELS, _ABOUT = "images.npy", "labels.npy", "faces.json"


def open_faces(
    path: str | Path, *, image_size: int = 112, max_bad_fraction: float = 0.0
) -> DecodedFaces | PackedFaces:
    """Open a folder of identity/image.jpg, a .rec file or its folder, or a packed set.

    Args:
        path: the folder or file. A folder with a .rec file in it, of any name, is that file's.
        image_size: side of the images, pixels; a packed set must have it.
        max_bad_fraction: share of images that may be undecodable and left out, as for
            `ImageFolder`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is none of these, or damaged.
    """
    path = Path(path)
    options = {"image_size": image_size, "max_bad_fraction": max_bad_fraction}
    if path.is_file() and path.suffix.lower() == ".rec":
        return RecordIO(path, **options)  # type: ignore[arg-type]
    if path.is_file() and path.suffix.lower() == ".bin":
        raise ValueError(
            f"{path} holds pairs to be told apart, not people: `ekd-lite evaluate --model MODEL "
            f"--faces {path}` measures a net on it"
        )
    if path.is_file():
        raise ValueError(
            f"{path}: expected a folder of identity/image.jpg, a .rec file, or a packed set"
        )
    if (path / UNFINISHED).exists():
        raise ValueError(f"{path} is not finished: what wrote it was killed; run that again")
    record = record_file(path)
    if record is not None:
        return RecordIO(record, **options)  # type: ignore[arg-type]
    if not (path / _PIXELS).is_file():
        return ImageFolder(path, **options)  # type: ignore[arg-type]
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


def convert(
    faces: DecodedFaces, out: str | Path, *, to: str = "packed", progress: bool = True
) -> None:
    """Write a set as one that opens at once, with a checksum of every file.

    "packed" writes the decoded pixels, to be memory-mapped (37,632 bytes an image of 112 pixels);
    "rec" writes the encoded images as they are into train.rec and train.idx.

    A conversion that was killed leaves a folder that says so and that nothing opens; the next one
    starts again in it, with a warning.

    Args:
        faces: the set; a damaged image stops the conversion unless the set was opened with
            `max_bad_fraction`, which leaves it out.
        out: folder to write into; made if it is not there.
        to: "packed" or "rec".
        progress: show a bar on a terminal.

    Raises:
        ValueError: an unknown form, a damaged image, or a folder that is not empty.
    """
    out = Path(out)
    if to not in ("packed", "rec"):
        raise ValueError(f"to must be 'packed' or 'rec', got {to!r}")
    half = (out / UNFINISHED).exists()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not half)):
        raise ValueError(f"{out} is there already: name a new or an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    with unfinished(out) as earlier:
        if earlier:
            _remove_half(out)
        try:
            _convert(faces, out, to, progress)
        except Exception:
            _remove_written(out)
            raise


_WRITTEN = (_PIXELS, _LABELS, _ABOUT, "train.rec", "train.idx", checksums.NAME)


def _remove_half(out: Path) -> None:
    """Delete what a conversion that was killed has left, and nothing else."""
    remove_leftovers(out)
    foreign = {file.name for file in out.iterdir()} - {*_WRITTEN, UNFINISHED}
    if foreign:
        some = ", ".join(sorted(map(printable, foreign))[:5])
        raise ValueError(f"{out} holds half a conversion and files of others ({some}): empty it")
    warnings.warn(f"{out} holds half a conversion, which was killed: starting again", stacklevel=4)
    _remove_written(out)


def _remove_written(out: Path) -> None:
    for name in _WRITTEN:
        (out / name).unlink(missing_ok=True)


def _convert(faces: DecodedFaces, out: Path, to: str, progress: bool) -> None:
    if to == "rec":
        write_recordio(faces, out / "train.rec")
    else:
        write_pixels(faces, out / _PIXELS, progress=progress)
        with replacing(out / _LABELS) as file:
            np.save(file, faces.labels.numpy())
    about = {
        "images": len(faces),
        "identities": [str(name) for name in getattr(faces, "identities", [])],
        "image_size": faces.image_size if to == "packed" else None,
        "left_out": list(faces.bad),
    }
    write_atomically(out / _ABOUT, json.dumps(about, indent=1).encode())
    # Last: a folder without checksums is a conversion that did not finish.
    checksums.write_sums(out, [out / name for name in _WRITTEN if (out / name).is_file()])


def open_packed(folder: str | Path, *, check: bool = True) -> PackedFaces:
    """Open what `convert` packed.

    Args:
        folder: its folder.
        check: compare the checksums first (a second for a gigabyte).

    Raises:
        ValueError: a file is damaged or missing, by name, or the conversion did not finish.
    """
    folder = Path(folder)
    if not (folder / checksums.NAME).is_file() or (folder / UNFINISHED).exists():
        raise ValueError(f"{folder} has no {checksums.NAME}: its conversion did not finish")
    found = checksums.faults(folder) if check else []
    if found:
        raise ValueError("; ".join(found) + ": convert the set again")
    try:
        images = np.load(folder / _PIXELS, allow_pickle=False, mmap_mode="r")
        labels = np.load(folder / _LABELS, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ValueError(f"{folder} is damaged: {error}") from error
    return PackedFaces(images, torch.from_numpy(labels), identities=_identities(folder))


def _identities(folder: Path) -> list[str] | None:
    """The names in a packed set's description; None for one that has none."""
    try:
        names = json.loads((folder / _ABOUT).read_bytes())["identities"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) and names else None


def verify(path: str | Path) -> tuple[int, list[str]]:
    """Read a whole set and name everything that is damaged.

    Files are compared with SHA256SUMS where it is beside them; images are decoded, one by one,
    where there are any. Without checksums damage that decodes cannot be seen.

    Args:
        path: a folder of faces, a .rec file or its folder, a .bin file, or a packed set.

    Returns:
        The number of images and files looked at, and one line for every damaged one.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it cannot be read at all.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    found, named = [], set()
    if (folder / checksums.NAME).is_file():
        damaged = checksums.damaged(folder)
        named = {printable(str(folder / name)) for name in damaged}
        found = [f"{printable(str(folder / name))}: {what}" for name, what in damaged.items()]
    if path.is_file() and path.suffix.lower() == ".bin":
        pairs = read_verification_bin(path)
        sides = [side for side in (pairs.left, pairs.right) if isinstance(side, DecodedFaces)]
    elif (path / _PIXELS).is_file():
        return len(checksums.read_sums(path)), found or _packed_faults(path)
    else:
        try:
            opened = open_faces(path)
        except ValueError as error:
            if not found:
                raise
            return len(checksums.read_sums(folder)), [*found, str(error)]
        sides = [opened] if isinstance(opened, DecodedFaces) else []
    for side in sides:
        for index in range(len(side)):
            fault = None if side.name(index) in named else fault_of(side, index)
            found += [] if fault is None else [fault]
    return sum(map(len, sides)), found


def _packed_faults(path: Path) -> list[str]:
    try:
        open_packed(path, check=False)
    except ValueError as error:
        return [str(error)]
    return []


def write_checksums(path: str | Path) -> int:
    """Write SHA256SUMS of a folder of faces as it is now; returns the number of files.

    Raises:
        ValueError: an image cannot be decoded, by name: checksums are for undamaged sets.
    """
    path = Path(path)
    faces = ImageFolder(path)
    faults = [fault for i in range(len(faces)) if (fault := fault_of(faces, i)) is not None]
    if faults:
        raise ValueError("; ".join(faults[:10]) + f" ({len(faults)} in all): mend or remove them")
    checksums.write_sums(path, faces.files)
    return len(faces)
