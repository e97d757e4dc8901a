"""The members of a tar file and where their bytes lie, without reading them.

Python's tarfile reads the headers. It stops without a word where a header is damaged or the file
was cut between two members, reads headers of any length into memory, and may walk in a circle; so
whoever uses it for random access has to look at these himself.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

_MAX_HEADER = 1 << 16  # bytes that tarfile may read at once: a header has 512, long names some more
_BLOCK = tarfile.BLOCKSIZE
_PACKED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz"}


class Member(NamedTuple):
    """A plain file in a tar: its name, and where in the tar its bytes are."""

    name: str
    start: int
    size: int


def walk_tar(file: BinaryIO, path: Path) -> Iterator[Member]:
    """The plain files of a tar in its order; between two of them `file` may be read and moved.

    Args:
        file: the open tar.
        path: what errors call it.

    Raises:
        ValueError: no tar, or a compressed one; a damaged header, a file that is cut off or has
            bytes behind its end; a link, a device, a file with holes, or a name that leads outside.
    """
    start = file.read(2)
    if start in _PACKED:
        raise ValueError(
            f"{path} is compressed, so that no image of it can be read without all before it: "
            f"`{_PACKED[start]} {path.name}` once, or unpack it (ekd_lite.data.unpack_faces)"
        )
    size = file.seek(0, 2)
    file.seek(0)
    try:
        archive: Any = tarfile.open(fileobj=cast(Any, _Headers(file)), mode="r:")  # noqa: SIM115
        end = 0
        while (member := archive.next()) is not None:
            archive.members.clear()  # or all of them would be kept
            # A negative size would send the walk back, for ever.
            if member.size < 0 or member.offset < end:
                raise ValueError(f"{path}: the header of {member.name!r} is damaged")
            end = member.offset_data + (0 if member.islnk() else member.size)
            if member.isdir():
                continue
            _check(member, path)
            if end > size:
                raise ValueError(
                    f"{path} is cut off: {member.name!r} would end at byte {end:,} of {size:,}"
                )
            yield Member(member.name, member.offset_data, member.size)
    except (tarfile.TarError, RecursionError, OverflowError, UnicodeError) as error:
        raise ValueError(f"{path} is no tar file, or damaged: {error}") from error
    _check_end(file, archive.offset, path)


class _Headers:
    """A file for tarfile, which reads nothing but headers from it."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._read(size)


def leads_out(name: str) -> bool:
    """Whether a member's name points outside of the archive, or is no name at all."""
    inside = PurePosixPath(name)
    return inside.is_absolute() or ".." in inside.parts or "\\" in name or "\0" in name


def _check(member: tarfile.TarInfo, path: Path) -> None:
    if not member.isreg():
        raise ValueError(f"{path}: {member.name!r} is a link or a device: not read")
    # The bytes of its holes are not in the tar: what follows would be read in their place.
    if member.issparse():
        raise ValueError(f"{path}: {member.name!r} is a file with holes: not read")
    if leads_out(member.name):
        raise ValueError(f"{path}: {member.name!r} leads out of the archive: not read")


def _check_end(file: BinaryIO, end: int, path: Path) -> None:
    file.seek(end)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise ValueError(
            f"{path} is cut off at byte {end:,}: the empty block that ends a tar is missing"
        )
    if any(block):
        raise ValueError(f"{path} is damaged: there is no header at byte {end:,}")
    position = end + _BLOCK
    while block := file.read(1 << 20):
        if any(block):
            raise ValueError(
                f"{path} goes on behind its end at byte {end:,}, after byte {position:,}: two tars "
                "in one file? Name them apart"
            )
        position += len(block)
