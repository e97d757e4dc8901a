"""What the processes do that work on data. Imported by the warm server, like `jobs.py`."""

import contextlib
import json
import os
import time
import warnings
from pathlib import Path

from ekd_lite.data import (
    ImageFolder,
    SyntheticFaces,
    cache,
    cache_faces,
    convert,
    read_verification_bin,
)
from ekd_lite.data.archives import unpack_faces
from ekd_lite.data.download import fetch
from ekd_lite.experiments import demo, study
from ekd_lite.files import write_atomically
from ekd_lite.train import TrainConfig
from ekd_lite.train.checkpoint import read_checkpoint
from ekd_lite.train.model_file import load_backbone, load_model
from ekd_lite.train.state import build_state
from tests.fakes import ColourFaces
from tests.faults.jobs import SMALL, Numbers, command, train
from tests.memory import peak_mb
from tests.processes import wait_until


def tree(folder):
    """Every file, hidden ones too, and its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Gate:
    """Says that the work goes on, and waits until somebody opens the gate."""

    def __init__(self, path, numbers):
        self.path, self.numbers = str(path), str(numbers)

    def __call__(self, *_):
        Numbers(self.numbers)[0] += 1
        assert wait_until(Path(self.path).exists, 60)


def experiment_at_a_gate(arguments, gate):
    """`demo` or `study`, whose work is to wait and to write a file; the rest is real."""

    def work(config, out=None, *_):
        gate()
        path = (config.out if out is None else out) / "table"
        path.write_text(str(os.getpid()))
        return path

    demo._run = study._run = work
    return command(arguments)


def work(kind, source, out, numbers):
    """One piece of work on data; numbers: begun, done, nanoseconds."""
    told = Numbers(numbers)
    source, out = Path(source), Path(out)
    told[0], begin = 1, time.monotonic_ns()
    WORK[kind](source, out)
    told[2] = time.monotonic_ns() - begin
    told[1] = 1


def _download(source, out):
    url, sha256 = json.loads((source / "download.json").read_text())
    fetch(url, out / "faces.tar", sha256=sha256, max_bytes=1 << 30)


def _convert(source, out, to):
    convert(ImageFolder(source / "faces", image_size=32), out, to=to, progress=False)


def _cache(workers):
    def work(_, out):
        cache._IMAGES_PER_TASK = 32  # of 160
        cache_faces(SyntheticFaces(10, 16), out, workers=workers, progress=False)

    return work


WORK = {
    "packed": lambda source, out: _convert(source, out, "packed"),
    "rec": lambda source, out: _convert(source, out, "rec"),
    "unpack": lambda source, out: unpack_faces(source / "faces.tar", out),
    "cache": _cache(1),
    "cache, 2 workers": _cache(2),
    "download": _download,
    # What export, embed and the teacher's cache end with.
    "one file": lambda _, out: write_atomically(out / "net.safetensors", bytes(8_000_000)),
}


def _read_bin(path):
    read_verification_bin(path, image_size=16)


def _read_checkpoint(path):
    state = build_state(TrainConfig(**SMALL), ColourFaces().num_identities, None, "cpu")
    state.resume(read_checkpoint(path))


READERS = {
    "bin": _read_bin,
    "model": load_model,
    "backbone": load_backbone,
    "checkpoint": _read_checkpoint,
}


def read_hostile(kind, good, folder, result):
    """Read the files of a folder; for each: what came of it, CPU seconds, MB of memory more.

    The process works in an empty folder of its own, where a file would show that code ran.
    """
    import resource  # here, since Windows lacks it

    read = READERS[kind]
    read(Path(good))  # what is imported and made once belongs to none of the files
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    size = pages * resource.getpagesize()
    # A bomb shall stop this process, not the machine.
    resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 30),) * 2)
    found = {}
    for path in sorted(Path(folder).iterdir()):
        with contextlib.suppress(OSError):  # else a larger one before it would hide this one
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        before, begin = peak_mb(), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(path)
                outcome = "read"
            except ValueError as error:
                outcome = "refused" if "\n" not in str(error) else f"lines: {error}"
            except BaseException as error:  # MemoryError and the like are what is looked for
                outcome = f"{type(error).__name__}: {error}"[:300]
        seconds = time.process_time() - begin
        found[path.name] = outcome, seconds, peak_mb() - before
    Path(result).write_text(json.dumps(found), encoding="utf-8")


def train_at_the_gate(out, gate=None, **options):
    """One run, whose second step waits at a gate."""

    def on_step(state, metrics):
        if gate is not None and state.step == 2:
            gate()

    try:
        train(out, on_step=on_step, **options)
    except ValueError as error:
        print(f"refused: {error}", flush=True)
        return 2
