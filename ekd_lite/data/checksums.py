"""SHA256SUMS: what every file of a set must hash to.

The only guard against damage that decodes: a JPEG has no checksum of its own. The file has the
form of coreutils, so that `sha256sum -c SHA256SUMS` checks it without this package.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from ekd_lite.files import write_atomically

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def sha256_of(path: Path) -> str:
    """Hash of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_sums(folder: Path, files: Iterable[Path]) -> None:
    """Write SHA256SUMS of some files of a folder, in the order of their names."""
    lines = [f"{sha256_of(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    write_atomically(folder / NAME, "".join(sorted(lines, key=lambda line: line[66:])).encode())


def read_sums(folder: Path) -> dict[str, str]:
    """Hash by name.

    Raises:
        ValueError: a line of another form, or a name that leads out of the folder.
    """
    sums = {}
    text = (folder / NAME).read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{folder / NAME}, line {number}: expected a hash and a name")
        name = match[2]
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{folder / NAME}, line {number}: {name!r} is not inside the folder")
        sums[name] = match[1]
    if not sums:
        raise ValueError(f"{folder / NAME} is empty: expected a hash and a name a line")
    return sums


def faults(folder: Path) -> list[str]:
    """What does not agree with SHA256SUMS: a line for every damaged or missing file."""
    found = []
    for name, expected in read_sums(folder).items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path}: missing")
        elif sha256_of(path) != expected:
            found.append(f"{path}: damaged (its checksum differs from {NAME})")
    return found
