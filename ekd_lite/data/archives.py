"""Read images out of a tar or zip archive into memory, and write them out under safe names.

An archive may name files outside of the folder, links, devices, or unpack to a thousand times its
size. So nothing is extracted by the archive's own rules: members are read one by one, as bytes,
regular files whose names stay inside, of a size that is bounded one by one and together. What
`unpack_faces` writes has been decoded, and lies in `folder/identity/`.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import itertools
import lzma
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from ekd_lite.data.decode import SUFFIXES, decode_image
from ekd_lite.data.names import is_foreign, printable
from ekd_lite.data.tar_walk import leads_out
from ekd_lite.files import remove_leftovers, unfinished, write_atomically

MAX_MEMBER = 50_000_000  # bytes of one image
MAX_RATIO = 20  # bytes unpacked for a byte of the archive; images hardly compress at all
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


def read_images(path: str | Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the images of a .tar, .tgz or .zip archive, in its order.

    Yields:
        The member's name, a relative path with "/", and its bytes.

    Raises:
        FileNotFoundError: no such archive.
        ValueError: not an archive, damaged, or with a member that is none of ours: a link, a
            device, a name that leads outside, too large.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such archive: {path}")
    try:
        members = _from_zip(path) if zipfile.is_zipfile(path) else _from_tar(path)
        yield from members
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        OSError,
        EOFError,
    ) as error:
        raise ValueError(f"{path} is no archive, or damaged: {error}") from error
    except (NotImplementedError, RuntimeError) as error:  # encrypted, or an unknown compression
        raise ValueError(f"{path} cannot be read: {error}") from error


def unpack_faces(path: str | Path, folder: str | Path) -> int:
    """Write the images of an archive as `folder/identity/name.jpg`; returns how many.

    The last folder of a member's name is taken for the identity. An image is decoded before it is
    written, and never replaces another one that is there. After an error what was written is taken
    away again. An unpacking that was killed leaves a folder that says so; the next one completes
    it, with a warning.

    Raises:
        ValueError: as `read_images`; an image that cannot be decoded; a name twice.
    """
    path, folder = Path(path), Path(folder)
    images = _faces_in(path)
    first = next(images, None)
    if first is None:
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    with unfinished(folder) as earlier:
        if earlier:
            warnings.warn(
                f"{folder} holds half of an archive, whose unpacking was stopped: completing it",
                stacklevel=2,
            )
            for person in (folder, *(entry for entry in folder.iterdir() if entry.is_dir())):
                remove_leftovers(person)
        written: list[Path] = []
        kept: set[Path] = set()  # by the unpacking that was stopped
        try:
            for place, data in itertools.chain([first], images):
                target = folder / place
                if not target.exists():
                    write_atomically(target, data)
                    written.append(target)
                elif earlier and target not in kept and target.read_bytes() == data:
                    kept.add(target)
                else:
                    raise ValueError(f"{path}: {printable(str(target))} is there already")
        except Exception:
            for target in written:
                target.unlink()
                with contextlib.suppress(OSError):  # there is something else in it
                    target.parent.rmdir()
            raise
        return len(written) + len(kept)


def _faces_in(path: Path) -> Iterator[tuple[Path, bytes]]:
    """`identity/name.jpg` and the bytes of every image of an archive, which have been decoded."""
    for name, data in read_images(path):
        parts = PurePosixPath(name).parts
        if len(parts) < 2:
            raise ValueError(
                f"{path}: {printable(name)} is in no folder, which would be its identity"
            )
        decode_image(data, name=f"{path}: {printable(name)}")
        yield Path(parts[-2]) / parts[-1], data


class _Bounded:
    """An unpacked stream that ends in an error after so many bytes, headers included."""

    def __init__(self, file: IO[bytes], budget: int, path: Path) -> None:
        self._file, self._left, self._path = file, budget, path

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        _check_budget(self._left, self._path)
        return data


def _from_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        unpacked = _OPENERS[start](raw) if start in _OPENERS else raw
        budget = 10_240 + MAX_RATIO * path.stat().st_size
        bounded = _Bounded(unpacked, budget, path)
        # As a stream: nothing is looked at twice, and nothing is held but one member.
        with tarfile.open(fileobj=cast(Any, bounded), mode="r|") as archive:
            for member in archive:
                if member.isdir():
                    continue
                if not member.isreg():
                    raise ValueError(f"{path}: {member.name!r} is a link or a device: not read")
                # Its holes are not in the stream, and would come out of it as bytes all the same.
                if member.issparse():
                    raise ValueError(f"{path}: {member.name!r} is a file with holes: not read")
                file = archive.extractfile(member) if _wanted(path, member) else None
                if file is not None:
                    yield member.name, file.read()


def _from_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    budget = MAX_RATIO * path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            budget -= member.file_size
            _check_budget(budget, path)
            kind = (member.external_attr >> 16) & 0o170000
            if kind not in (0, 0o100000, 0o040000):
                raise ValueError(f"{path}: {member.filename!r} is a link or a device: not read")
            if member.is_dir() or not _wanted(path, member):
                continue
            with archive.open(member) as file:
                # The announced size may be a lie: zipfile never unpacks more than it.
                yield member.filename, file.read()


def _check_budget(budget: int, path: Path) -> None:
    if budget < 0:
        raise ValueError(f"{path} unpacks to more than {MAX_RATIO} times its size: not read")


def _wanted(path: Path, member: tarfile.TarInfo | zipfile.ZipInfo) -> bool:
    if isinstance(member, tarfile.TarInfo):
        name, size = member.name, member.size
    else:
        name, size = member.filename, member.file_size
    inside = PurePosixPath(name)
    if leads_out(name) or ":" in name:
        raise ValueError(f"{path}: {name!r} leads out of the archive: not read")
    if inside.suffix.lower() not in SUFFIXES or any(map(is_foreign, inside.parts)):
        return False
    if size > MAX_MEMBER:
        raise ValueError(f"{path}: {name!r} has {size:,} bytes, more than {MAX_MEMBER:,}")
    return True
