"""What the processes of the fault tests do. Imported by the warm server: keep it free of effects.

As a program it is one rank of a run under torchrun: `jobs.py OUT OPTIONS`, with options of `train`
as JSON; `"kill": [rank, step, seconds]` is for the first start alone.
"""

import json
import mmap
import os
import random
import signal
import struct
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.utils.data import get_worker_info

import ekd_lite.__main__
from ekd_lite.files import remove_leftovers
from ekd_lite.parallel import rank
from ekd_lite.train import TrainConfig, fit, loop
from ekd_lite.train.checkpoint import save_checkpoint
from ekd_lite.train.step import BadBatchError, train_step
from tests.fakes import ColourFaces
from tests.processes import die_with_parent

SMALL: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 16,
    "steps": 40,
    "general": 8,
    "identities": 4,
    "images_per_identity": 3,
    "log_every": 3,
    "checkpoint_every": 5,
    "device": "cpu",
    "rank_timeout": 30.0,
}


def train(out, *, on_step=None, faces=None, **changes):
    """One run on coloured squares."""
    config = TrainConfig(**{**SMALL, **changes})
    fit(config, faces or ColourFaces(), Path(out), progress=False, on_step=on_step)


def make_teacher(out):
    train(out, backbone="tiny_teacher", steps=20)


def command(arguments):
    """The command line, in this process."""
    return ekd_lite.__main__.main(arguments)


class Numbers:
    """Some integers shared through a file, so that they outlive a killed writer."""

    def __init__(self, path, count=8):
        Path(path).touch()
        with Path(path).open("r+b") as file:
            file.truncate(8 * count)
            self._map = mmap.mmap(file.fileno(), 8 * count)

    def __getitem__(self, index):
        return struct.unpack_from("q", self._map, 8 * index)[0]

    def __setitem__(self, index, value):
        struct.pack_into("q", self._map, 8 * index, value)


@dataclass
class SignalAt:
    """Send a signal to this process when a step is done."""

    step: int
    number: int
    rank: int = 0

    def __call__(self, state, metrics):
        if state.step == self.step and rank() == self.rank:
            os.kill(os.getpid(), self.number)


@dataclass
class KillSoonAfter:
    """SIGKILL for this process some time after a step is done, whatever it does then."""

    step: int
    rank: int
    seconds: float

    def __call__(self, state, metrics):
        if state.step == self.step and rank() == self.rank:
            print(f"killed {time.time()}", flush=True)
            threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


@dataclass
class Tell:
    """Write the number of the last step where a test can see it, and take a moment for each."""

    path: str
    seconds: float = 0.0

    def __call__(self, state, metrics):
        Numbers(self.path)[rank()] = state.step
        time.sleep(self.seconds)


def save_forever(folder, path):
    """Save states of 8 MB; numbers: inside a save, last complete step, stale files, starts."""
    numbers = Numbers(path)
    remove_leftovers(Path(folder))
    numbers[2] = len(list(Path(folder).glob("*.tmp")))
    numbers[3] += 1
    for step in range(numbers[1] + 1, 1 << 30):
        state = {"step": step, "x": torch.full((1_000_000,), step)}
        numbers[0] = 1
        save_checkpoint(state, Path(folder) / "checkpoint.pt")
        numbers[0] = 0
        numbers[1] = step


def command_with_little_space(arguments, largest_file):
    """The command line, where no file may become larger than so many bytes."""
    import resource  # here, since Windows lacks it

    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    return command(arguments)


def train_slowly(out, path):
    """A run whose first step never ends, as the command line runs it."""

    def step(state, *batches):
        Numbers(path)[0] = 1
        time.sleep(3600)

    vars(loop)["train_step"] = step
    try:
        train(out)
    except KeyboardInterrupt:
        return 130


def train_as_the_command_line_would(out, **options):
    """One run; errors of use are one line, as `ekd_lite.__main__` has it."""
    real = tyro.cli
    tyro.cli = lambda *_, **__: _Command(out, options)
    try:
        return ekd_lite.__main__.main([])
    finally:
        tyro.cli = real


@dataclass
class _Command:
    out: str
    options: dict

    def run(self):
        train(self.out, **self.options)


class BadLater(ColourFaces):
    """One image has a NaN once all were looked at."""

    def __init__(self, image):
        super().__init__()
        self.image, self.calls = image, 0

    def batch(self, indices):
        self.calls += 1
        images = super().batch(indices)
        if self.calls > 1:
            images = images.clone()
            images[torch.as_tensor(indices) == self.image, 0, 3, 3] = float("nan")
        return images


def stop_command_at(arguments, step):
    """The command line, told to end when a step is done."""

    def one_step(state, *batches):
        metrics = train_step(state, *batches)
        if state.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return metrics

    vars(loop)["train_step"] = one_step
    return command(arguments)


class BadInWorker(ColourFaces):
    """One image ends, breaks or stops the process that reads it ahead."""

    def __init__(self, image, kind):
        super().__init__()
        self.image, self.kind = image, kind

    def batch(self, indices):
        if get_worker_info() is not None and self.image in torch.as_tensor(indices).tolist():
            if self.kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "exit":
                os._exit(0)
            if self.kind == "hang":
                time.sleep(3600)
            raise OSError("the disk has gone")
        return super().batch(indices)


def train_and_tell_how_it_failed(out, times, **options):
    """Type and text of what `fit` raised, and the time since the last step, as JSON."""
    last = time.monotonic()

    def on_step(state, metrics):
        nonlocal last
        last = time.monotonic()

    try:
        train(out, on_step=on_step, **options)
    except Exception as error:
        told = {
            "type": type(error).__name__,
            "seconds": time.monotonic() - last,
            "text": str(error),
            "bases": [base.__name__ for base in type(error).__mro__],
        }
        Path(times).write_text(json.dumps(told), encoding="utf-8")
        return 2
    return 0


def train_with_injections(out, plan, **options):
    """Make numbers bad at some steps of some ranks, and look at what every step changes.

    Args:
        plan: step -> (kind, rank, value).
    """
    seen: list = []

    def everything(state):
        momenta = [t for s in state.optimizer.state.values() for t in s.values()]
        shared, sharded = state.parameters()
        modules = (state.backbone, state.head, state.distillers)
        buffers = [buffer for module in modules for buffer in module.buffers()]
        return [*shared, *sharded, *buffers, *momenta]

    def step(state, *batches):
        before = [tensor.detach().clone() for tensor in everything(state)]
        kind, who, value = plan.get(state.step, ("none", -1, 0.0))
        handle = None
        if who == rank():
            batches, handle = spoil(state, batches, kind, value)
        try:
            metrics = train_step(state, *batches)
        except BadBatchError as error:
            after = everything(state)
            # More entries than before would be an optimizer that had begun.
            same = len(before) == len(after) and all(map(torch.equal, before, after))
            seen.append({"step": state.step, "same": same, "record": error.record,
                         "text": str(error), "index": batches[0].index.tolist()})  # fmt: skip
            raise
        finally:
            if handle is not None:
                handle.remove()
        assert all(bool(t.isfinite().all()) for t in everything(state))
        assert all(bool(value.isfinite()) for value in metrics.values())
        return metrics

    vars(loop)["train_step"] = step
    try:
        train(out, **options)
    finally:
        (Path(out) / f"seen.{rank_from_environment()}.json").write_text(json.dumps(seen))


def rank_from_environment():
    return int(os.environ.get("RANK", "0"))


def spoil(state, batches, kind, value):
    """The batches to use, and a hook to remove afterwards."""
    (batch,) = batches
    row = random.Random(state.step).randrange(len(batch.images))  # noqa: S311
    if kind == "input":
        images = batch.images.clone()
        images[row, 1, 2, 3] = value
        return (replace(batch, images=images),), None
    if kind == "teacher":
        embeddings = batch.teacher_embeddings.clone()
        embeddings[row, 5] = value
        return (replace(batch, teacher_embeddings=embeddings),), None
    if kind == "loss":

        def hook(module, args, losses):
            return {**losses, "loss": losses["loss"] * value}

        return batches, state.objective.register_forward_hook(hook)
    parameters = state.parameters()[0]
    return batches, parameters[state.step % len(parameters)].register_hook(lambda g: g * value)


if __name__ == "__main__":
    die_with_parent()  # torchrun's, whose own end would leave the ranks waiting for one another
    torch.set_num_threads(1)
    out, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    kill, first = options.pop("kill", None), not out.exists()
    tell = options.pop("tell", None)
    if kill and first:
        options["on_step"] = KillSoonAfter(kill[1], kill[0], kill[2])
    elif tell:
        options["on_step"] = Tell(*tell)
    train(out, **options)
