"""Files that are whole or not there, whatever stops the program while it writes."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new binary file that takes the place of `path` once it is complete and on the disk.

    An exception inside the block (a full disk, Ctrl-C) leaves the old file as it was and nothing
    beside it; a killed process leaves a `.tmp` file that `remove_leftovers` deletes. Several
    processes may write the same path at once: one of them wins, whole.
    """
    # Beside the target, since a rename is atomic only within a file system. Not tempfile: its files
    # are readable by their owner alone, and a shared cache would be of no use to anyone else.
    name = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
    handle = os.open(name, flags, 0o666)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException as error:
        name.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # "No space left on device" alone does not say where
        raise
    _sync_folder(path.parent)


def check_output(path: Path, *sources: Path) -> None:
    """Raise a ValueError unless `path` can be written without touching what is read.

    Args:
        path: the file to write.
        sources: files and folders that the command reads.

    Raises:
        ValueError: `path` is a folder, is one of the sources, or is the model in one of them.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file to write")
    for source in sources:
        read = [source, source / "model.safetensors"] if source.is_dir() else [source]
        if any(_same_file(path, file) for file in read):
            raise ValueError(f"{path} is what is read here, and would be lost: write another file")


def _same_file(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(
            other
        )  # also by a link, or in other letters on a disk that ignores case
    return path.resolve() == other.resolve()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that after a crash the old or the new content is there, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(data)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of a process that was killed while writing."""
    for leftover in folder.glob("*.tmp"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut (Windows has no such call)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
