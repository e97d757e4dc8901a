"""SHA256SUMS: what every file of a set must hash to.

The only guard against damage that decodes: a JPEG has no checksum of its own. The file has the
form of coreutils, so that `sha256sum -c SHA256SUMS` checks it without this package.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ekd_lite.data.names import printable
from ekd_lite.files import write_atomically

NAME = "SHA256SUMS"
_LINE = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](.+)", re.DOTALL)
_CODES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}


def sha256_of(path: Path) -> str:
    """Hash of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_sums(folder: Path, files: Iterable[Path]) -> None:
    """Write SHA256SUMS of some files of a folder, in the order of their names."""
    sums = sorted((file.relative_to(folder).as_posix(), sha256_of(file)) for file in files)
    write_atomically(folder / NAME, b"".join(_line(name, sha256) for name, sha256 in sums))


def read_sums(folder: Path) -> dict[str, str]:
    """Hash by name.

    Raises:
        ValueError: a line of another form, or a name that leads out of the folder.
    """
    sums = {}
    lines = (folder / NAME).read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        where = f"{folder / NAME}, line {number}"
        match = _LINE.fullmatch(line.removesuffix(b"\r"))
        if match is None:
            raise ValueError(f"{where}: expected a hash and a name")
        name = os.fsdecode(_unescaped(match[3]) if match[1] else match[3])
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{where}: {name!r} is not inside the folder")
        sums[name] = match[2].decode()
    if not sums:
        raise ValueError(f"{folder / NAME} is empty: expected a hash and a name a line")
    return sums


def _line(name: str, sha256: str) -> bytes:
    """A line as coreutils writes it; one that begins with a stroke has a name with codes in it."""
    raw = os.fsencode(name)
    coded = b"".join(_CODES.get(raw[i : i + 1], raw[i : i + 1]) for i in range(len(raw)))
    return (b"\\" if coded != raw else b"") + sha256.encode() + b"  " + coded + b"\n"


def _unescaped(coded: bytes) -> bytes:
    codes = {code: byte for byte, code in _CODES.items()}
    return re.sub(rb"\\.", lambda match: codes.get(match[0], match[0]), coded, flags=re.DOTALL)


def damaged(folder: Path) -> dict[str, str]:
    """What does not agree with SHA256SUMS: by name, what is wrong with the file."""
    found = {}
    for name, expected in read_sums(folder).items():
        path = folder / name
        if not path.is_file():
            found[name] = "missing"
        elif sha256_of(path) != expected:
            found[name] = f"damaged (its checksum differs from {NAME})"
    return found


def faults(folder: Path) -> list[str]:
    """The same as lines to be printed."""
    return [f"{printable(str(folder / name))}: {what}" for name, what in damaged(folder).items()]
