"""Training runs in processes of their own, as many at a time as there are cores.

One thread each, so that the numbers do not depend on how many cores there are; a run that was
interrupted goes on where it was, a finished one is not done again.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save
from tqdm import tqdm

from ekd_lite.data import load_splits
from ekd_lite.evaluate import UndefinedMetricWarning, all_pairs_tpr_at_fpr, embed
from ekd_lite.files import write_atomically
from ekd_lite.train import TrainConfig, TrainState, cache_teacher, fit, load_model
from ekd_lite.train.config import read_config
from ekd_lite.train.distributed import pick_device

Part = Literal["validation", "test"]
FPRS = (1e-2, 1e-3, 1e-4, 1e-5)
# Read by glibc when a process starts: keep freed memory instead of giving it back. Page faults of
# fresh tensors took a fifth of a student's step (book/scaling.md).
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}


@dataclass(frozen=True)
class Job:
    """What all runs of a comparison share.

    Attributes:
        out: folder with one sub-folder a run.
        faces: folder of real faces, or None for the procedural ones.
        image_size: side of the images, pixels.
        parts: sets that every net embeds when it is trained; runs between which something is chosen
            must not see the test set.
        people: procedural training identities.
    """

    out: Path
    faces: Path | None
    image_size: int
    parts: tuple[Part, ...] = ("test",)
    people: int = 1000


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    write_atomically(path, save(tensors))


def load_embeddings(folder: Path, part: Part = "test") -> torch.Tensor:
    """The embeddings of a set that a run left behind."""
    return load_file(folder / f"{part}.safetensors")["embeddings"]


def is_finished(folder: Path, run: TrainConfig, parts: tuple[Part, ...]) -> bool:
    """Whether a run is trained and has embedded these sets.

    Raises:
        ValueError: the folder holds a run of another configuration.
    """
    if not (folder / "config.json").exists():
        return False
    other = read_config(folder / "config.json").differences(run)
    if other:
        raise ValueError(
            f"{folder} holds a run of other options (there, then here; {'; '.join(other)}): "
            "choose another --out, or delete it"
        )
    return all((folder / f"{part}.safetensors").exists() for part in parts)


class Runner:
    """Start runs in processes of their own, as many at a time as there are cores."""

    def __init__(
        self,
        job: Job,
        plan: dict[str, TrainConfig],
        bar: tqdm[Any],
        *,
        processes: int | None = None,
    ) -> None:
        self.job = job
        self.limit = processes or os.cpu_count() or 1
        self.plan = plan
        self.bar = bar
        self.context = multiprocessing.get_context("spawn")
        self.messages: Any = self.context.Queue()
        self.processes: dict[str, Any] = {}
        self.steps = dict.fromkeys(plan, 0)

    def run(self) -> None:
        """Run everything; an interrupt lets every process save its state first."""
        for name, value in KEEP_MEMORY.items():
            os.environ.setdefault(name, value)  # of the processes that are started
        waiting = []
        for name, run in self.plan.items():
            if is_finished(self.job.out / name, run, self.job.parts):
                self.bar.update(run.steps)
                self.steps[name] = -1
            else:
                waiting.append(name)
        before = signal.signal(signal.SIGTERM, _exit_on_sigterm)
        try:
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
            signal.signal(signal.SIGTERM, before)

    def _start(self, name: str) -> None:
        process = self.context.Process(
            target=_run_one,
            args=(name, self.plan[name], self.job, self.messages),
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
            numbers = "  ".join(
                f"{100 * tpr:5.1f} % at {fpr:.0e}" for tpr, fpr in zip(value, FPRS, strict=True)
            )
            part = "unseen" if self.job.parts[-1] == "test" else self.job.parts[-1]
            self.bar.write(f"{name:16} TPR on {part} identities: {numbers}", file=sys.stdout)
            sys.stdout.flush()
        else:
            raise RuntimeError(f"run {name!r} failed:\n{value}")


def _exit_on_sigterm(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _run_one(name: str, run: TrainConfig, job: Job, messages: Any) -> None:
    """Train one net and embed the job's sets with it; what a process of the demo does."""
    parent = os.getppid()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # arithmetic with numbers below 1e-38 is slow and pointless

    def on_step(state: TrainState, metrics: dict[str, float]) -> None:
        if state.step % 10 == 0:
            messages.put((name, "step", state.step))
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)  # the demo is gone: save and stop

    # Said once by the demo itself or in its table; every run would say it again.
    warnings.filterwarnings("ignore", message="the first batch has too few impostor pairs")
    warnings.filterwarnings("ignore", message=".*eyes are not where aligned faces have them")
    warnings.simplefilter("ignore", UndefinedMetricWarning)
    try:
        splits = load_splits(
            job.faces, image_size=job.image_size, people=job.people, workers=1, progress=False
        )
        out = job.out / name
        net = load_model(
            fit(run, splits.train, out, progress=False, on_step=on_step),
            device=pick_device(run.device),
        )
        if name == "teacher":  # once for all students
            path = out / "train.safetensors"
            if not path.exists():
                cache_teacher(net, splits.train, flip=run.flip, path=path, progress=False)
        for part in job.parts:
            path = out / f"{part}.safetensors"
            if not path.exists():
                rows = embed(net.backbone, getattr(splits, part))
                write_tensors(path, {"embeddings": rows})
        labels = getattr(splits, job.parts[-1]).labels
        embeddings = load_embeddings(out, job.parts[-1])
        tpr = all_pairs_tpr_at_fpr(embeddings, labels, FPRS).tolist()
        messages.put((name, "done", tpr))
    except Exception:
        text = traceback.format_exc()
        write_atomically(job.out / name / "error.txt", text.encode())
        messages.put((name, "failed", text))
