"""New processes at the price of a fork, and what is left of them afterwards.

Importing torch and the package takes two or three seconds of CPU; the fault tests start some
thousand processes. A server imports once and does nothing else, and every process is forked from
it: a process of its own, with no memory of another run.
"""

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
JOBS = ROOT / "tests" / "faults" / "jobs.py"
PYTHONPATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
# Windows has none; `make quick`, which starts nothing, runs there too.
HAS_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT: Any = multiprocessing.get_context("forkserver" if HAS_SERVER else "spawn")
CONTEXT.set_forkserver_preload(
    ["torch._dynamo", "ekd_lite.__main__", "ekd_lite.export", "tests.server"]
)


def errors_in(output: str) -> list[str]:
    """The lines in which commands say what is wrong; a note is none."""
    return re.findall(r"^.*ekd-lite: (?!note: ).*", output, re.MULTILINE)


STARTED: list[int] = []  # processes of the test that runs


@dataclass
class Running:
    """A started process, leader of a session of its own that its children belong to."""

    process: Any
    log: Path

    @property
    def pid(self):
        return self.process.pid

    @property
    def output(self):
        """What it and its children printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def is_alive(self):
        return self.process.is_alive()

    def wait(self, timeout=60.0):
        """Exit code, negative for a signal; after the timeout everything is killed and it fails."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            os.kill(self.pid, signal.SIGUSR1)  # where is it?
            time.sleep(1)
            self.kill_session()
            self.process.join()
            raise AssertionError(f"still running after {timeout} s: {self.output}")
        self.process.close()
        return code

    def kill_session(self):
        kill_session(self.pid)


def start(function, *args, log, environment=None, cwd=None, **options):
    """Start `function(*args, **options)` in a process forked from the warm server.

    Its exit code is what the function returns, or 1 if it raises.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:  # the server starts with the first process
        patch.setenv("PYTHONPATH", PYTHONPATH)
        process = CONTEXT.Process(
            target=_run, args=(function, args, options, str(log), environment or {}, cwd)
        )
        process.start()
    STARTED.append(process.pid)
    return Running(process, log)


def start_ranks(function, *args, log, ranks=2, **options):
    """Start one process a rank, with the environment that torchrun would give it."""
    if ranks == 1:
        return [start(function, *args, log=log, **options)]
    port = free_port()
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    return [
        start(
            function,
            *args,
            log=log.with_name(f"{log.name}.{rank}"),
            environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            **options,
        )
        for rank in range(ranks)
    ]


def wait_all(running, timeout=60.0):
    """Exit codes, by rank."""
    end = time.monotonic() + timeout
    try:
        return [one.wait(max(0.1, end - time.monotonic())) for one in running]
    except AssertionError:
        for one in running:
            with contextlib.suppress(ValueError):  # closed: it has ended
                one.kill_session()
        raise


def launch(function, *args, log, ranks, timeout=120.0, **options):
    """Run `function(rank, *args, **options)` in as many processes; any that fails is an error."""
    running = [
        start(function, rank, *args, log=log.with_name(f"{log.name}.{rank}"), **options)
        for rank in range(ranks)
    ]
    codes = wait_all(running, timeout)
    assert codes == [0] * ranks, "\n".join(f"rank {k}: {r.output}" for k, r in enumerate(running))


def end_all():
    """Kill what was started and has not ended."""
    for session in STARTED:
        kill_session(session)
    STARTED.clear()


def free_port():
    """Below those that the system deals out, so that nobody gets it before our processes do."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port


def die_with_parent():
    """End with the process that started this one, however that ends; Linux alone can do it.

    A run of the tests that is killed, or runs out of its time, would leave what it had started at
    work for hours otherwise: every process is the leader of a session of its own.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _run(function, args, options, log, environment, cwd):
    die_with_parent()  # the server's, which ends with the tests
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # what an ordinary process has
    handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    faulthandler.register(signal.SIGUSR1)
    os.environ.update(environment)
    if cwd is not None:
        os.chdir(cwd)
    import torch

    torch.set_num_threads(1)
    code = function(*args, **options)
    sys.stdout.flush()
    if code:
        sys.exit(code)


def torchrun(*arguments, log, marker, ranks=2):
    """Start the real torchrun on `jobs.py`; `marker`, NAME=VALUE, will be in every environment."""
    options = ["--standalone", "--nproc-per-node", str(ranks), "--max-restarts", "0"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *options, JOBS, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": PYTHONPATH,
                "OMP_NUM_THREADS": "1",
                **dict([marker.split("=")]),
            },
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def session_members(session):
    """Processes of a session that are still alive, zombies not counted."""
    return [pid for pid, fields in _processes() if int(fields[3]) == session and fields[0] != "Z"]


def kill_session(session):
    """SIGKILL for all of it that is ours: numbers of processes are used again."""
    ours = marked(f"PYTHONPATH={ROOT}")
    for pid in set(session_members(session)) & set(ours):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def marked(marker):
    """Processes whose environment, at their start, held the text."""
    found = []
    for pid, fields in _processes():
        with contextlib.suppress(OSError):
            if fields[0] != "Z" and marker.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def _processes():
    """(pid, what follows the name in /proc/PID/stat: state, parent, group, session, ...)."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                text = (folder / "stat").read_text()
                yield int(folder.name), text[text.rindex(")") + 2 :].split()


def wait_until(condition, timeout=60.0, poll=0.002):
    """Whether the condition comes true in time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(poll)
    return True
