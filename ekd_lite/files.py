"""Files that are whole or not there, whatever stops the program while it writes.

A process that is killed cannot tidy up. So whoever writes holds a lock on its temporary file, which
the system takes away when the process ends, however it ends: a temporary file without a lock is a
left-over, and the next start may delete it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

CACHE_VARIABLE = "EKD_LITE_CACHE"
# Names that only this package makes, the last one for links to checkpoints.
_LEFTOVER = re.compile(r"\..+\.(\d+\.[0-9a-f]{8}\.tmp|lock)|.+\.\d+\.tmp")
_POLL = 0.05  # seconds
_PATIENCE = 20  # seconds after which a process says for what it waits
UNFINISHED = ".unfinished"
_WINDOWS = sys.platform == "win32"


def user_cache() -> Path:
    """The folder for what can be made again: $EKD_LITE_CACHE, else the user's cache folder.

    On Linux that is `~/.cache/ekd_lite`, on macOS `~/Library/Caches/ekd_lite`.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs  # here, since most programs never ask

    return Path(platformdirs.user_cache_dir("ekd_lite"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new binary file that takes the place of `path` once it is complete and on the disk.

    An exception inside the block (a full disk, Ctrl-C) leaves the old file as it was and nothing
    beside it; a killed process leaves a `.tmp` file, which goes when this path is written again, or
    by `remove_leftovers`. Several processes may write the same path at once: one of them wins,
    whole.
    """
    remove_leftovers(path.parent, of=path.name)
    name, opened = _temporary(path)
    try:
        with opened as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not _WINDOWS:  # under the lock, or the file could be taken for a left-over
                os.replace(name, path)
        if _WINDOWS:  # which renames no open file, and deletes none either
            os.replace(name, path)
    except BaseException as error:
        name.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # "No space left on device" alone does not say where
        raise
    _sync_folder(path.parent)


def _temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside another one, open and locked."""
    # Beside the target, since a rename is atomic only within a file system. Not tempfile: its files
    # are readable by their owner alone, and a shared cache would be of no use to anyone else.
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
    while True:
        name = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        file: BinaryIO = os.fdopen(os.open(name, flags, 0o666), "w+b")
        _lock(file)
        if _is_still(name, file):  # nobody took it for a left-over before it was locked
            return name, file
        file.close()


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, if it is not there; a ValueError if something else is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"{folder} cannot be a folder, since a file is in its place: name another"
        ) from None


def check_regular(path: Path) -> None:
    """Raise a ValueError if the path is a pipe or a device: reading one may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is no regular file, but a pipe or a device: name a file")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that after a crash the old or the new content is there, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep a folder for this process; it is made if it is not there, and kept unless it is empty.

    The lock is the operating system's on a file `.lock` in the folder, which is gone afterwards.
    It ends with the process, however that ends, so that a killed one does not block the next.

    Raises:
        ValueError: another process has the folder, or a file is in its place.
        OSError: the folder cannot be made or written to.
    """
    is_new = not folder.exists()
    make_folder(folder)
    path = folder / ".lock"
    try:
        with _held(path, wait=False) as file:
            try:
                yield
            finally:
                _remove_held(path, file)
    except _HeldError:
        raise ValueError(
            f"another process is writing to {folder}: wait until it has ended, or name another "
            "folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            if is_new:
                folder.rmdir()  # only if nothing came of it


def remove_leftovers(folder: Path, *, of: str | None = None) -> None:
    """Delete what killed processes left in a folder: temporary and lock files that nobody holds.

    Args:
        folder: the folder.
        of: only the temporary files of the file of this name.
    """
    pattern = _LEFTOVER
    if of is not None:
        pattern = re.compile(rf"\.{re.escape(of)}\.\d+\.[0-9a-f]{{8}}\.tmp")
    for leftover in folder.glob("*"):
        if pattern.fullmatch(leftover.name) and leftover.is_file():
            _remove_unless_held(leftover)


def remove_lock(path: Path) -> None:
    """Delete what a killed process left of `locked(path)`, unless somebody holds it now."""
    _remove_unless_held(_lock_of(path))


def _remove_unless_held(leftover: Path) -> None:
    with contextlib.suppress(OSError):  # gone already, not ours, or open under Windows
        with leftover.open("r+b") as file:
            if _lock(file) and not _WINDOWS:
                leftover.unlink()
        if _WINDOWS:
            leftover.unlink()


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Run the block while no other process runs one for this path; wait for those that do.

    The lock is a file `.NAME.lock` beside `path`, gone when the block has ended. One that a killed
    process left behind keeps nobody out.
    """
    lock = _lock_of(path)
    with _held(lock, wait=True) as file:
        try:
            yield
        finally:
            _remove_held(lock, file)


@contextlib.contextmanager
def unfinished(folder: Path) -> Iterator[bool]:
    """Mark a folder as unfinished until the block has ended.

    Yields whether it bears the mark of an earlier block, which was killed: what is in the folder is
    then half of something. A block that raises an `Exception` has to tidy up itself, and the mark
    goes unless it was there before; Ctrl-C is taken for a kill.

    Raises:
        ValueError: another process is writing into the folder now.
    """
    mark = folder / UNFINISHED
    earlier = mark.exists()
    try:
        with _held(mark, wait=False) as file:
            try:
                yield earlier
            except Exception:
                if not earlier:
                    _remove_held(mark, file)
                raise
            _remove_held(mark, file)
    except _HeldError:
        raise ValueError(f"{folder}: another process is writing into it") from None


class _HeldError(Exception):
    """Another process holds the file."""


_HELD: set[IO[bytes]] = set()


def _let_go() -> None:
    """Close what the parent holds: a forked reader that outlives it would hold it for ever."""
    for file in _HELD:
        file.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):  # not under Windows
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def _held(path: Path, *, wait: bool) -> Iterator[IO[bytes]]:
    """A file, made if it is not there, that no other process holds; it stays there."""
    begin, told = time.monotonic(), False
    while True:
        file = path.open("ab")
        # Another process may have removed the file between our opening and our locking it.
        if _lock(file) is not False and _is_still(path, file):
            break
        busy = _is_still(path, file)
        file.close()
        if busy and not wait:
            raise _HeldError
        if busy and not told and time.monotonic() - begin >= _PATIENCE:
            told = True
            print(f"waiting for another process, which holds {path}", file=sys.stderr)
        time.sleep(_POLL if busy else 0)
    with file:
        _HELD.add(file)
        try:
            yield file
        finally:
            _HELD.discard(file)


def _remove_held(path: Path, file: IO[bytes]) -> None:
    if file.closed:  # a forked process that leaves its parent's block
        return
    if _WINDOWS:  # which deletes no open file
        file.close()
    with contextlib.suppress(OSError):
        path.unlink()


def _is_still(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[bytes]) -> bool | None:
    """Lock an open file until it is closed; False if another one holds it, None if none can."""
    try:
        if sys.platform == "win32":
            place = file.tell()
            file.seek(1 << 40)  # far behind the content, which others could not read otherwise
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(place)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK) else None
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut (Windows has no such call)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
