"""The main job: train a teacher, students alone and distilled, and compare them on unseen people.

Every net is one run, in a process of its own with one thread, so that the numbers do not depend on
how many cores there are; a run that was interrupted goes on where it was, a finished one is not
done again.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import queue
import signal
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from tqdm import tqdm

from ekd_lite.data import Splits, load_splits
from ekd_lite.evaluate import UndefinedMetricWarning, all_pairs_tpr_at_fpr
from ekd_lite.evaluate.embed import embed
from ekd_lite.files import write_atomically
from ekd_lite.report import write_report
from ekd_lite.train import TrainConfig, TrainState, cache_teacher, fit, load_model

FPRS = (1e-2, 1e-3, 1e-4, 1e-5)
VIEWS = ("embeddings", "mirrored")
METHODS = ("none", "kd", "fitnet", "ekd", "ekd+fitnet")


@dataclass(frozen=True)
class DemoConfig:
    """The default experiment. On two cores it takes about ten minutes."""

    out: Path = Path("runs/demo")
    """Folder of the results. Calling again with the same options goes on where it stopped."""
    faces: Path | None = None
    """Folder of real faces (identity/image.jpg) instead of the procedural ones."""
    methods: tuple[str, ...] = METHODS
    """Distillation methods; none is the student alone."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One student per method and seed. The teacher has the first."""
    image_size: int = 32
    """Side of the images, pixels."""
    teacher_steps: int = 2000
    """Training steps of the teacher."""
    student_steps: int = 1500
    """Training steps of every student."""
    teacher: str = "tiny_teacher"
    """Backbone of the teacher."""
    student: str = "tiny_student"
    """Backbone of the students."""
    resamples: int = 1000
    """Bootstrap resamples behind every interval."""
    processes: int | None = None
    """Runs at the same time; by default one for each core."""

    def __post_init__(self) -> None:
        """Check what TrainConfig does not see."""
        if not self.methods or not self.seeds:
            raise ValueError("give at least one method and one seed")
        if len(set(self.methods)) < len(self.methods) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a method or seed stands twice: {self.methods}, {self.seeds}")
        if self.resamples < 1 or (self.processes is not None and self.processes < 1):
            raise ValueError("resamples and processes must be at least 1")
        if self.faces is not None and not self.faces.is_dir():
            raise FileNotFoundError(f"no such folder of faces: {self.faces}")
        runs(self, flip=False)  # every training configuration checks itself

    def run(self) -> None:
        """Do it all."""
        run_demo(self)


def runs(config: DemoConfig, *, flip: bool) -> dict[str, TrainConfig]:
    """The training configuration of every run, by name; the teacher first."""
    common: dict[str, Any] = {"image_size": config.image_size, "flip": flip, "device": "cpu"}
    teacher = TrainConfig(
        backbone=config.teacher, steps=config.teacher_steps, seed=config.seeds[0], **common
    )
    result = {"teacher": teacher}
    for method in config.methods:
        for seed in config.seeds:
            result[f"{file_name(method)}-{seed}"] = TrainConfig(
                backbone=config.student,
                steps=config.student_steps,
                method=method,
                teacher=None if method == "none" else str(config.out / "teacher"),
                seed=seed,
                **common,
            )
    return result


def file_name(method: str) -> str:
    """A method as part of a folder's name."""
    return "alone" if method == "none" else method.replace(":", "")


def run_demo(config: DemoConfig) -> Path:
    """Do it all, and return the path of the table.

    Raises:
        ValueError: bad options, an unusable folder of faces, or results of other options in `out`.
        RuntimeError: a run failed; its own message and trace are in `out`.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    keep_config(config)
    print(f"faces: {config.faces or 'procedural'}, {config.image_size}x{config.image_size}")
    splits = load_splits(config.faces, image_size=config.image_size)
    describe_splits(splits)
    plan = runs(config, flip=splits.flip)
    with tqdm(
        total=sum(run.steps for run in plan.values()),
        desc="training",
        unit="step",
        disable=None,
        smoothing=0.05,
    ) as bar:
        Runner(config, plan, bar).run()
    embeddings = {name: load_embeddings(config.out / name) for name in plan}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # the table says it
        return write_report(config.out, plan, embeddings, splits, FPRS, config.resamples)


def keep_config(config: DemoConfig) -> None:
    """Write config.json, and refuse to mix results of different options in one folder."""
    path = config.out / "config.json"
    mine = {
        field.name: _plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in ("out", "processes", "resamples", "methods", "seeds")
    }
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        other = [
            f"{k}: {theirs.get(k)!r}, now {v!r}" for k, v in mine.items() if theirs.get(k) != v
        ]
        if other:
            raise ValueError(
                f"{config.out} holds results of other options ({'; '.join(other)}): "
                "choose another --out, or delete it"
            )
    write_atomically(path, json.dumps(mine, indent=2).encode())


def _plain(value: Any) -> Any:
    return str(value.resolve()) if isinstance(value, Path) else value


def describe_splits(splits: Splits) -> None:
    """Print how many images and people there are, and how fine an FPR the test pairs can show."""
    for name in ("train", "validation", "test"):
        faces = getattr(splits, name)
        print(f"  {name}: {len(faces):,} images of {faces.num_identities:,} identities")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    write_atomically(path, save(tensors))


def load_views(folder: Path) -> list[torch.Tensor]:
    """The teacher's embeddings of the training images, and of the mirrored ones if there are."""
    tensors = load_file(folder / "train.safetensors")
    return [tensors[view] for view in VIEWS if view in tensors]


def load_embeddings(folder: Path) -> torch.Tensor:
    """The test embeddings a run left behind."""
    return load_file(folder / "test.safetensors")["embeddings"]


class Runner:
    """Start runs in processes of their own, as many at a time as there are cores."""

    def __init__(self, config: DemoConfig, plan: dict[str, TrainConfig], bar: tqdm[Any]) -> None:
        self.config = config
        self.plan = plan
        self.bar = bar
        self.context = multiprocessing.get_context("spawn")
        self.messages: Any = self.context.Queue()
        self.processes: dict[str, Any] = {}
        self.steps = dict.fromkeys(plan, 0)

    def run(self) -> None:
        """Run everything; an interrupt lets every process save its state first."""
        before = signal.signal(signal.SIGTERM, _exit_on_sigterm)
        waiting = list(self.plan)
        limit = self.config.processes or os.cpu_count() or 1
        try:
            while waiting or self.processes:
                teacher_ready = self.steps["teacher"] < 0
                ready = [n for n in waiting if teacher_ready or self.plan[n].method == "none"]
                for name in ready[: max(0, limit - len(self.processes))]:
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
            args=(name, self.plan[name], self.config, self.messages),
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
            self.bar.write(f"{name:16} TPR on unseen identities: {numbers}", file=sys.stdout)
            sys.stdout.flush()
        else:
            raise RuntimeError(f"run {name!r} failed:\n{value}")


def _exit_on_sigterm(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _run_one(name: str, run: TrainConfig, config: DemoConfig, messages: Any) -> None:
    """Train one net and embed the test faces with it; what a process of the demo does."""
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
        splits = load_splits(config.faces, image_size=config.image_size, workers=1, progress=False)
        out = config.out / name
        views = None if run.method == "none" else load_views(config.out / "teacher")
        model = fit(
            run,
            splits.train,
            out,
            teacher_embeddings=views,
            progress=False,
            on_step=on_step,
        )
        if not (out / "test.safetensors").exists():
            net = load_model(model)
            if name == "teacher":  # once for all students
                made = cache_teacher(net, splits.train, flip=run.flip, progress=False)
                write_tensors(out / "train.safetensors", dict(zip(VIEWS, made, strict=False)))
            made_test = embed(net.backbone, splits.test)
            write_tensors(out / "test.safetensors", {"embeddings": made_test})
        embeddings = load_embeddings(out)
        tpr = all_pairs_tpr_at_fpr(embeddings, splits.test.labels, FPRS).tolist()
        messages.put((name, "done", tpr))
    except Exception:
        text = traceback.format_exc()
        write_atomically(config.out / name / "error.txt", text.encode())
        messages.put((name, "failed", text))
