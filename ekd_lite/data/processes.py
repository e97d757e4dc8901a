"""Work on parts of a set in several processes, from any program, guarded or not.

Python's own pools run the program's script again in every process they spawn. A script without
`if __name__ == "__main__":`, which is how most are written, then starts a pool in each of them, and
dies. To fork instead would copy the locks of torch's threads in whatever state they are. So here a
worker is a plain `python -c` that knows this module and what comes through its pipe: the function
and the set, once, and then the numbers of one part after the other.
"""

from __future__ import annotations

import collections
import contextlib
import operator
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import torch

_PER_CORE = 4  # processes; readers wait for disks, so that some more than the cores are of use
# The first entry of its path is the working folder, which may hold a pickle.py of the user's.
_START = (
    "import sys; del sys.path[0]; import pickle; sys.path[:] = pickle.load(sys.stdin.buffer); "
    f"from {__name__} import serve; serve()"
)


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def capped_workers(workers: int, *, name: str = "workers", least: int = 1) -> int:
    """A number of processes that the machine can carry: at most four a core, with a warning.

    Args:
        workers: how many are asked for.
        name: what the option is called.
        least: the smallest number that makes sense, 0 where it means "in this process".

    Raises:
        ValueError: less than that, or no whole number.
    """
    try:
        number = operator.index(workers)
    except TypeError:
        number = least - 1
    if isinstance(workers, bool) or number < least:
        or_none = "None or " if least else ""
        raise ValueError(f"{name} must be {or_none}at least {least}, got {workers!r}")
    most = _PER_CORE * cores()
    if number > most:
        warnings.warn(
            f"{name} = {number} is more than {_PER_CORE} processes for each of {cores()} cores: "
            f"{most} are used",
            stacklevel=3,
        )
    return min(number, most)


def map_in_processes(
    work: Callable[..., Any], shared: Any, parts: Sequence[tuple[Any, ...]], *, workers: int
) -> Iterator[Any]:
    """`work(shared, *part)` for every part, in their order.

    What `shared` is goes to every process once. If it cannot be sent, as a class that is defined in
    the script itself or a lambda, all is done in this process, with a warning if that was not
    asked for.

    Args:
        work: a function of an importable module.
        shared: its first argument, always the same.
        parts: its other arguments.
        workers: processes; with 1 the work is done in this one.

    Raises:
        RuntimeError: a worker died.
        Exception: what `work` raised.
    """
    workers = min(workers, len(parts))
    message = _packed(work, shared) if workers > 1 else None
    if message is None:
        for part in parts:
            yield work(shared, *part)
        return
    idle: SimpleQueue[_Worker] = SimpleQueue()
    with contextlib.ExitStack() as stack:
        for _ in range(workers):
            idle.put(stack.enter_context(_Worker(message)))
        threads = stack.enter_context(ThreadPoolExecutor(workers))

        def ask(part: tuple[Any, ...]) -> Any:
            worker = idle.get()
            try:
                return worker.ask(part)
            finally:
                idle.put(worker)

        waiting: collections.deque[Future[Any]] = collections.deque()
        try:
            for part in parts:
                waiting.append(threads.submit(ask, part))
                if len(waiting) > 2 * workers:  # the results of few are held at a time
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _packed(work: Callable[..., Any], shared: Any) -> bytes | None:
    try:
        message = pickle.dumps((work, shared))
    except Exception as error:  # whatever an object raises that cannot be pickled
        problem = str(error)
    else:
        if b"__main__" not in message:
            return message
        problem = "a class of it is defined in the script that runs"
    warnings.warn(
        f"{type(shared).__name__} cannot be sent to other processes ({problem}): all is done in "
        "this one",
        stacklevel=5,
    )
    return None


class _Worker:
    """A process that does one part after the other."""

    def __init__(self, message: bytes) -> None:
        # Sent with the first part, so that all processes start at once and not one by one.
        self._unsent = pickle.dumps(sys.path) + message

    def __enter__(self) -> _Worker:
        self._process = subprocess.Popen(  # noqa: S603  (this Python, and the text above)
            [sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it holds nothing to lose
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def ask(self, part: tuple[Any, ...]) -> Any:
        """Have one part done."""
        message, self._unsent = self._unsent, b""
        self._send(message + pickle.dumps(part))
        try:
            # From the pipe of a process that this one has started itself.
            result = pickle.load(self._process.stdout)  # type: ignore[arg-type]  # noqa: S301
        except (EOFError, pickle.UnpicklingError):
            raise self._death() from None
        if isinstance(result, BaseException):
            raise result
        return result

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None

    def _death(self) -> RuntimeError:
        return RuntimeError(
            f"a worker process died (exit status {self._process.wait()}). Out of memory? Use fewer "
            "workers"
        )


def serve() -> None:
    """What a worker does: read the function and the set, then parts until there are no more."""
    torch.set_num_threads(1)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the set may print goes where messages go, not between the results
    source = sys.stdin.buffer
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        work, shared = pickle.load(source)  # noqa: S301  (from the process that started this one)
        while True:
            part = pickle.load(source)  # noqa: S301
            output.write(_answer(work, shared, part))
            output.flush()
    os._exit(0)  # nothing to tidy up, and nobody who listens


def _answer(work: Callable[..., Any], shared: Any, part: tuple[Any, ...]) -> bytes:
    try:
        return pickle.dumps(work(shared, *part), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        try:
            answer = pickle.dumps(error)
            pickle.loads(answer)  # noqa: S301  (some errors can be written and not read again)
        except Exception:
            answer = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        return answer
