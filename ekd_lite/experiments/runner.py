"""Training runs in processes of their own, as many at a time as there are cores.

One thread each, so that the numbers do not depend on how many cores there are; a run that was
interrupted goes on where it was, a finished one is not done again.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save
from tqdm import tqdm

from ekd_lite.data import Splits, load_splits
from ekd_lite.evaluate import UndefinedMetricWarning, all_pairs_tpr_at_fpr, embed
from ekd_lite.experiments.tables import FPRS
from ekd_lite.files import write_atomically
from ekd_lite.train import TrainConfig, TrainState, cache_teacher, fit, load_model
from ekd_lite.train.config import read_config
from ekd_lite.train.distributed import pick_device

# Read by glibc when a process starts: keep freed memory instead of giving it back. Page faults of
# fresh tensors took a fifth of a student's step (book/scaling.md).
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
TEST = "test.safetensors"  # a net's embeddings of the test people
OnStep = Callable[[TrainState, dict[str, float]], None]


class Work(Protocol):
    """What is to be done with every run of a plan; it is sent to the processes."""

    @property
    def out(self) -> Path:
        """Folder of all runs."""
        ...

    def is_finished(self, name: str, run: TrainConfig) -> bool:
        """Whether nothing is left to do for a run."""
        ...

    def do(self, name: str, run: TrainConfig, on_step: OnStep) -> Any:
        """Train a net and measure it, in a process of its own; what `say` is told of it."""
        ...

    def say(self, name: str, found: Any, write: Callable[..., None]) -> None:
        """Take note of a finished run, where the runner is."""
        ...


@dataclass(frozen=True)
class Workspace:
    """The work of a demo: train a net on the training people, embed the test people with it.

    Attributes:
        out: folder with one sub-folder a run.
        faces: folder of real faces, or None for the procedural ones.
        image_size: side of the images, pixels.
    """

    out: Path
    faces: Path | None
    image_size: int

    def is_finished(self, name: str, run: TrainConfig) -> bool:
        """Whether a run is trained and has embedded the test people.

        Raises:
            ValueError: its folder holds a run of another configuration.
        """
        folder = self.out / name
        if not (folder / "config.json").exists():
            return False
        other = read_config(folder / "config.json").differences(run)
        if other:
            raise ValueError(
                f"{folder} holds a run of other options (there, then here; {'; '.join(other)}): "
                "choose another --out, or delete it"
            )
        return (folder / TEST).exists()

    def do(self, name: str, run: TrainConfig, on_step: OnStep) -> list[float]:
        """The TPR at `FPRS`; the teacher embeds the training people too, once for all students."""
        # The parent or the table says it once; every run would say it again.
        warnings.filterwarnings("ignore", message="the first batch has too few impostor pairs")
        warnings.filterwarnings("ignore", message=".*eyes are not where aligned faces have them")
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        splits = load_splits(self.faces, image_size=self.image_size, workers=1, progress=False)
        out = self.out / name
        net = load_model(
            fit(run, splits.train, out, progress=False, on_step=on_step),
            device=pick_device(run.device),
        )
        if name == "teacher":
            path = out / "train.safetensors"
            if not path.exists():
                cache_teacher(net, splits.train, flip=run.flip, path=path, progress=False)
        if not (out / TEST).exists():
            rows = embed(net.backbone, splits.test)
            write_atomically(out / TEST, save({"embeddings": rows}))
        return all_pairs_tpr_at_fpr(load_embeddings(out), splits.test.labels, FPRS).tolist()

    def say(self, name: str, found: list[float], write: Callable[..., None]) -> None:
        """Print a net's line."""
        print_tpr(name, found, write=write)


def print_splits(splits: Splits) -> None:
    """Print how many images and people there are."""
    for name in ("train", "validation", "test"):
        faces = getattr(splits, name)
        print(f"  {name}: {len(faces):,} images of {faces.num_identities:,} identities")


def print_tpr(name: str, tprs: Sequence[float], *, write: Callable[..., None] = tqdm.write) -> None:
    """Print a net's line: TPR in percent at every level that the people can show."""
    numbers = "  ".join(
        f"{100 * tpr:5.1f} % at {fpr:.0e}"
        for tpr, fpr in zip(tprs, FPRS, strict=True)
        if not math.isnan(tpr)
    )
    write(f"{name:16} TPR on unseen identities: {numbers}", file=sys.stdout)
    sys.stdout.flush()


def load_embeddings(folder: Path) -> torch.Tensor:
    """The embeddings of the test people that a run left behind."""
    return load_file(folder / TEST)["embeddings"]


class Runner:
    """Start runs in processes of their own, as many at a time as there are cores.

    Args:
        work: what is done with each run.
        plan: the runs by name; those with a method wait for the one called teacher.
        label: of the progress bar.
        processes: runs at the same time; by default one for each core.
    """

    def __init__(
        self,
        work: Work,
        plan: dict[str, TrainConfig],
        label: str,
        *,
        processes: int | None = None,
    ) -> None:
        self.work = work
        self.limit = processes or os.cpu_count() or 1
        self.plan = plan
        total = sum(run.steps for run in plan.values())
        self.bar = tqdm(total=total, desc=label, unit="step", disable=None, smoothing=0.05)
        self.context = multiprocessing.get_context("spawn")
        self.messages: Any = self.context.Queue()
        self.processes: dict[str, Any] = {}
        self.steps = dict.fromkeys(plan, 0)

    def run(self) -> None:
        """Run everything; an interrupt lets every process save its state first."""
        for name, value in KEEP_MEMORY.items():
            os.environ.setdefault(name, value)  # of the processes that are started
        before = signal.signal(signal.SIGTERM, _exit_on_sigterm)
        try:
            waiting = []
            for name, run in self.plan.items():
                if self.work.is_finished(name, run):
                    self.bar.update(run.steps)
                    self.steps[name] = -1
                else:
                    waiting.append(name)
            while waiting or self.processes:
                teacher_ready = self.steps.get("teacher", -1) < 0
                ready = [n for n in waiting if teacher_ready or self.plan[n].method == "none"]
                for name in ready[: max(0, self.limit - len(self.processes))]:
                    waiting.remove(name)
                    self._start(name)
                self._listen()
        except BaseException:
            for process in self.processes.values():
                process.terminate()  # SIGTERM: fit saves a checkpoint and exits
            for process in self.processes.values():
                process.join(timeout=30)
            raise
        finally:
            self.bar.close()
            signal.signal(signal.SIGTERM, before)

    def _start(self, name: str) -> None:
        process = self.context.Process(
            target=_run_one,
            args=(name, self.plan[name], self.work, self.messages),
            daemon=True,
        )
        process.start()
        self.processes[name] = process

    def _listen(self) -> None:
        """Take one message: progress, the end of a run, or its failure."""
        try:
            name, kind, value = self.messages.get(timeout=0.5)
        except queue.Empty:
            dead = [n for n, p in self.processes.items() if p.exitcode not in (None, 0)]
            if dead:
                code = self.processes[dead[0]].exitcode
                raise RuntimeError(
                    f"the process of {dead[0]!r} ended with exit code {code} (out of memory?); "
                    "call again to go on where it stopped"
                ) from None
            return
        if kind == "step":
            self.bar.update(value - max(0, self.steps[name]))
            self.steps[name] = value
            active = [f"{n} {self.steps[n]}/{self.plan[n].steps}" for n in self.processes]
            self.bar.set_postfix_str(", ".join(active), refresh=False)
        elif kind == "done":
            self.bar.update(self.plan[name].steps - max(0, self.steps[name]))
            self.steps[name] = -1
            self.processes.pop(name).join()
            self.work.say(name, value, self.bar.write)
        else:
            raise RuntimeError(f"run {name!r} failed:\n{value}")


def _exit_on_sigterm(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _run_one(name: str, run: TrainConfig, work: Work, messages: Any) -> None:
    """Do the work of one run: what one of the processes does."""
    parent = os.getppid()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # arithmetic with numbers below 1e-38 is slow and pointless

    def on_step(state: TrainState, metrics: dict[str, float]) -> None:
        if state.step % 10 == 0:
            messages.put((name, "step", state.step))
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)  # the runner is gone: save and stop

    try:
        messages.put((name, "done", work.do(name, run, on_step)))
    except Exception:
        text = traceback.format_exc()
        write_atomically(work.out / name / "error.txt", text.encode())
        messages.put((name, "failed", text))
