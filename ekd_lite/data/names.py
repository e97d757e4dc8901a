"""Names of files: in one block of memory, in the order a person expects, fit to be printed."""

from __future__ import annotations

import itertools
import os
import re
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

# What systems and programs put between the images of others.
_FOREIGN = frozenset(
    [
        *("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN"),
        *("System Volume Information", "Thumbs.db", "desktop.ini"),
    ]
)


def is_foreign(name: str) -> bool:
    """Whether a file or folder is hidden or the system's own: .DS_Store, ._1.jpg, Thumbs.db."""
    return name.startswith(".") or name in _FOREIGN


def natural(name: str) -> tuple[str, str]:
    """A key that sorts names as a person would: 1, 2, 10. Without digits it is the text itself."""
    # Each number is led by its length, so that the text order of the keys is that of the numbers.
    return re.sub("[0-9]+", lambda digits: _with_length(digits[0]), name), name


def _with_length(digits: str) -> str:
    number = digits.lstrip("0")
    return f"{len(number):03}{number}"


def printable(name: str) -> str:
    """A name for messages: a line break, an escape character or a byte that is no text as a code.

    Raw, the name of a file could end the line or command the terminal.
    """
    if name.isprintable():  # nearly always, and asked for every image that is read
        return name
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


class FileNames(Sequence[Path]):
    """Paths below a folder, kept as one block of bytes.

    A list of N strings is N objects, and each reader process that looks at one writes its reference
    count: page by page the whole list is copied into every reader (pytorch issue 13246). A block is
    one object and stays shared.

    Args:
        root: the folder.
        names: relative to it.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = root
        self._start = os.path.join(root, "")
        encoded = [os.fsencode(name) for name in names]
        self._bytes = b"".join(encoded)
        self._ends = array("q", itertools.accumulate(map(len, encoded)))

    def relative(self, index: int) -> str:
        """One name as it was given, relative to the root, with "/" between its parts."""
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]])

    def path(self, index: int) -> str:
        """One path as text: no `Path`, whose parts Python keeps in a table of its own for ever."""
        return self._start + self.relative(index)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return self.root / self.relative(range(len(self))[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]
