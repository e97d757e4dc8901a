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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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

SplitName = Literal["validation", "test"]
# Read by glibc when a process starts: keep freed memory instead of giving it back. Page faults of
# fresh tensors took a fifth of a student's step (book/scaling.md).
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}


@dataclass(frozen=True)
class Workspace:
    """Where the runs of a plan leave their results, and what all of them share.

    Attributes:
        out: folder with one sub-folder a run.
        faces: folder of real faces, or None for the procedural ones.
        image_size: side of the images, pixels.
        splits: sets that every net embeds when it is trained; runs between which something is
            chosen must not see the test set.
        people: procedural training identities.
    """

    out: Path
    faces: Path | None
    image_size: int
    splits: tuple[SplitName, ...] = ("test",)
    people: int = 1000


def print_splits(splits: Splits) -> None:
    """Print how many images and people there are."""
    for name in ("train", "validation", "test"):
        faces = getattr(splits, name)
        print(f"  {name}: {len(faces):,} images of {faces.num_identities:,} identities")


def print_tpr(
    name: str,
    tprs: Sequence[float],
    *,
    people: str = "unseen",
    write: Callable[..., None] = tqdm.write,
) -> None:
    """Print a net's line: TPR at every level, in percent."""
    numbers = "  ".join(
        f"{100 * tpr:5.1f} % at {fpr:.0e}" for tpr, fpr in zip(tprs, FPRS, strict=True)
    )
    write(f"{name:16} TPR on {people} identities: {numbers}", file=sys.stdout)
    sys.stdout.flush()


def load_embeddings(folder: Path, split: SplitName = "test") -> torch.Tensor:
    """The embeddings of a set that a run left behind."""
    return load_file(folder / f"{split}.safetensors")["embeddings"]


def is_finished(folder: Path, run: TrainConfig, splits: tuple[SplitName, ...]) -> bool:
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
    return all((folder / f"{split}.safetensors").exists() for split in splits)


class Runner:
    """Start runs in processes of their own, as many at a time as there are cores.

    Args:
        workspace: what all runs share.
        plan: the runs by name; those with a method wait for the one called teacher.
        label: of the progress bar.
        processes: runs at the same time; by default one for each core.
    """

    def __init__(
        self,
        workspace: Workspace,
        plan: dict[str, TrainConfig],
        label: str,
        *,
        processes: int | None = None,
    ) -> None:
        self.workspace = workspace
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
                if is_finished(self.workspace.out / name, run, self.workspace.splits):
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
            args=(name, self.plan[name], self.workspace, self.messages),
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
            last = self.workspace.splits[-1]
            people = "unseen" if last == "test" else last
            print_tpr(name, value, people=people, write=self.bar.write)
        else:
            raise RuntimeError(f"run {name!r} failed:\n{value}")


def _exit_on_sigterm(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _run_one(name: str, run: TrainConfig, workspace: Workspace, messages: Any) -> None:
    """Train one net and embed the sets with it: what one of the processes does."""
    parent = os.getppid()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # arithmetic with numbers below 1e-38 is slow and pointless

    def on_step(state: TrainState, metrics: dict[str, float]) -> None:
        if state.step % 10 == 0:
            messages.put((name, "step", state.step))
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)  # the runner is gone: save and stop

    # The parent or the table says it once; every run would say it again.
    warnings.filterwarnings("ignore", message="the first batch has too few impostor pairs")
    warnings.filterwarnings("ignore", message=".*eyes are not where aligned faces have them")
    warnings.simplefilter("ignore", UndefinedMetricWarning)
    try:
        splits = load_splits(
            workspace.faces,
            image_size=workspace.image_size,
            people=workspace.people,
            workers=1,
            progress=False,
        )
        out = workspace.out / name
        net = load_model(
            fit(run, splits.train, out, progress=False, on_step=on_step),
            device=pick_device(run.device),
        )
        if name == "teacher":  # once for all students
            path = out / "train.safetensors"
            if not path.exists():
                cache_teacher(net, splits.train, flip=run.flip, path=path, progress=False)
        for split in workspace.splits:
            path = out / f"{split}.safetensors"
            if not path.exists():
                rows = embed(net.backbone, getattr(splits, split))
                write_atomically(path, save({"embeddings": rows}))
        labels = getattr(splits, split).labels  # of the last one
        tpr = all_pairs_tpr_at_fpr(load_embeddings(out, split), labels, FPRS).tolist()
        messages.put((name, "done", tpr))
    except Exception:
        text = traceback.format_exc()
        write_atomically(workspace.out / name / "error.txt", text.encode())
        messages.put((name, "failed", text))
