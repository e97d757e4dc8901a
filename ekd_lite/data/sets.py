"""Convert a set of faces, and prove that it is undamaged."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

from ekd_lite.data import checksums
from ekd_lite.data.cache import write_pixels
from ekd_lite.data.decode import DecodedFaces, fault_of
from ekd_lite.data.folder import ImageFolder, Nested
from ekd_lite.data.names import printable
from ekd_lite.data.opening import ABOUT, LABELS, PIXELS, open_faces, open_packed
from ekd_lite.data.record_writer import write_recordio
from ekd_lite.data.shards import Shards
from ekd_lite.data.verification import read_verification_bin
from ekd_lite.files import (
    UNFINISHED,
    remove_leftovers,
    replacing,
    unfinished,
    write_atomically,
)


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


_WRITTEN = (PIXELS, LABELS, ABOUT, "train.rec", "train.idx", checksums.NAME)


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
        write_pixels(faces, out / PIXELS, progress=progress)
        with replacing(out / LABELS) as file:
            np.save(file, faces.labels.numpy())
    about = {
        "images": len(faces),
        "identities": [str(name) for name in getattr(faces, "identities", [])],
        "image_size": faces.image_size if to == "packed" else None,
        "left_out": list(faces.bad),
    }
    write_atomically(out / ABOUT, json.dumps(about, indent=1).encode())
    # Last: a folder without checksums is a conversion that did not finish.
    checksums.write_sums(out, [out / name for name in _WRITTEN if (out / name).is_file()])


def verify(
    path: str | Path, *, nested: Nested = None, label: str | None = None
) -> tuple[int, list[str]]:
    """Read a whole set and name everything that is damaged.

    Files are compared with SHA256SUMS where it is beside them; images are decoded, one by one,
    where there are any. Without checksums damage that decodes cannot be seen.

    Args:
        path: a folder of faces, a .rec file or its folder, shards, a .bin file, or a packed set.
        nested: as for `open_faces`.
        label: as for `open_faces`.

    Returns:
        The number of images and files looked at, and one line for every damaged one.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it cannot be read at all.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    is_bin, is_packed = _is_bin(path), (path / PIXELS).is_file()
    if (is_bin or is_packed) and (nested is not None or label is not None):
        raise ValueError(f"{path}: `nested` and `label` are for folders of images and shards")
    found, named = [], set()
    if (folder / checksums.NAME).is_file():
        damaged = checksums.damaged(folder)
        named = {printable(str(folder / name)) for name in damaged}
        found = [f"{printable(str(folder / name))}: {what}" for name, what in damaged.items()]
    if is_bin:
        pairs = read_verification_bin(path)
        sides = [side for side in (pairs.left, pairs.right) if isinstance(side, DecodedFaces)]
    elif is_packed:
        return len(checksums.read_sums(path)), found or _packed_faults(path)
    else:
        try:
            opened = open_faces(path, nested=nested, label=label)
            if isinstance(opened, Shards):
                opened.check()
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


def _is_bin(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".bin"


def _packed_faults(path: Path) -> list[str]:
    try:
        open_packed(path, check=False)
    except ValueError as error:
        return [str(error)]
    return []


def write_checksums(path: str | Path, *, nested: Nested = None) -> int:
    """Write SHA256SUMS of a folder of faces as it is now; returns the number of files.

    Args:
        path: the folder.
        nested: as for `open_faces`.

    Raises:
        ValueError: an image cannot be decoded, by name: checksums are for undamaged sets.
    """
    path = Path(path)
    faces = ImageFolder(path, nested=nested)
    faults = [fault for i in range(len(faces)) if (fault := fault_of(faces, i)) is not None]
    if faults:
        raise ValueError("; ".join(faults[:10]) + f" ({len(faults)} in all): mend or remove them")
    checksums.write_sums(path, faces.files)
    return len(faces)
