"""Whole runs: the demo from nothing to its figures, and training in several processes."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.backbones import student_step
from benchmarks.timing import REPEATS, Row, Variants, interleave, peak_mb
from ekd_lite.experiments import METHODS, DemoConfig
from ekd_lite.heads import ArcFace
from ekd_lite.models import build_backbone
from ekd_lite.parallel import world_size
from ekd_lite.train import Batch, Model, TrainConfig, build_state, state, train_step, undo
from ekd_lite.train.distributed import process_group

ROOT = Path(__file__).parent.parent
IDENTITIES = 20_000
MS1MV2 = 85_742


def bench_whole(*, quick: bool) -> Iterator[Row]:
    """The demo once, processes and all; the bound is its training steps, shared by the cores."""
    demo = DemoConfig(
        seeds=(0,) if quick else (0, 1, 2),
        teacher_steps=20 if quick else 2000,
        student_steps=20 if quick else 1500,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the demo's processes have it
    steps: Variants = {method: student_step(method) for method in METHODS}
    steps["teacher"] = teacher_step()
    ms = interleave(steps)
    torch.set_num_threads(threads)
    students = len(demo.seeds) * demo.student_steps * sum(ms[method] for method in METHODS)
    bound = (students + demo.teacher_steps * ms["teacher"]) / (os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(  # noqa: S603
            [
                sys.executable, "-m", "ekd_lite", "demo", "--out", str(Path(folder) / "demo"),
                "--seeds", *map(str, demo.seeds), "--teacher-steps", str(demo.teacher_steps),
                "--student-steps", str(demo.student_steps),
            ],
            cwd=ROOT, check=True, capture_output=True,
        )  # fmt: skip
        ours = 1000 * (time.perf_counter() - start)
    runs = f"{demo.teacher_steps} + {len(METHODS) * len(demo.seeds)} x {demo.student_steps} steps"
    yield Row("demo", runs, {"ours": ours, "bound": bound}, note=f"{ours / 6e4:.1f} min, once")


def teacher_step() -> Callable[[], object]:
    """A training step of the demo's teacher."""
    config = TrainConfig(backbone="tiny_teacher", device="cpu", steps=100_000)
    state = build_state(config, 1000, None, "cpu")
    images = torch.randn(96, 3, 32, 32).to(memory_format=torch.channels_last)
    return lambda: train_step(state, Batch(images, torch.arange(96) // 4))


# name: method, identities, share of the split prototypes (0: the ordinary head on every process)
CASES = {
    "alone": ("none", 1000, 0.0),
    "fitnet": ("fitnet", 1000, 0.0),
    "ekd": ("ekd", 1000, 0.0),
    "20k identities": ("none", IDENTITIES, 0.0),
    "20k identities, split": ("none", IDENTITIES, 1.0),
    "20k identities, split, a tenth": ("none", IDENTITIES, 0.1),
}


def bench_ranks(*, quick: bool) -> Iterator[Row]:
    """Two processes of a thread each; bound: one with as many images, peer: one with all."""
    for name in list(CASES)[:1] if quick else CASES:
        seconds: dict[str, list[float]] = {"ours": [], "peer": [], "bound": []}
        for _ in range(1 if quick else 3):  # in turns: each is a process of its own
            seconds["ours"].append(launch(name, 2, 96))
            seconds["bound"].append(launch(name, 1, 96))
            seconds["peer"].append(launch(name, 1, 192))
        ms = {variant: statistics.median(values) for variant, values in seconds.items()}
        yield Row(
            f"2 processes, {name}", "96 images each", ms,
            note="peer/ours is the speed-up, ours/bound what talking costs",
        )  # fmt: skip


def bench_tables(*, quick: bool) -> Iterator[Row]:
    """Methods with a table of 85,742 people, 512 dimensions; peer: all of it copied and sent."""
    for method in ("adadistill",) if quick else ("adadistill", "margin"):
        for processes in (1, 2):
            found = ask(f"tables {method}", processes, 96)
            size = f"C=85k, {processes} process{'es' if processes > 1 else ''}"
            yield Row(
                f"student's step, {method}", size, found["ms"], found["mb"],
                note="CPU time; peer: every table copied before the step and sent at the forward "
                "pass",
            )  # fmt: skip


def launch(case: str, processes: int, images: int) -> float:
    """Median ms of a step with so many images a process."""
    return float(ask(case, processes, images)["ms"])


def ask(case: str, processes: int, images: int) -> dict[str, Any]:
    """What the first of so many processes found."""
    done = subprocess.run(  # noqa: S603
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            "--nproc-per-node", str(processes), "-m", "benchmarks.runs", case, str(images),
        ],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if found["processes"] != processes:
        raise RuntimeError(
            f"{processes} processes were started, and {found['processes']} found one another"
        )
    return found


def main(case: str, count: int) -> None:
    """One of the processes; the first prints what it found."""
    with process_group(torch.device("cpu")):
        kind, _, method = case.partition(" ")
        found = time_tables(method, count) if kind == "tables" else {"ms": time_step(case, count)}
        if int(os.environ["RANK"]) == 0:
            print(json.dumps(found | {"processes": world_size()}), flush=True)


def time_step(case: str, count: int) -> float:
    """Median ms; every process takes as many steps."""
    method, people, share = CASES[case]
    torch.manual_seed(0)
    teacher = None
    if method != "none":
        backbone = build_backbone("tiny_teacher", embedding_dim=128, image_size=32)
        teacher = Model(backbone, ArcFace(128, people, scale=28.0), {"embedding_dim": 128})
    config = TrainConfig(
        method=method, teacher=None if teacher is None else "in memory", device="cpu",
        steps=100_000, embedding_dim=512 if people == IDENTITIES else 128, partial_fc=share,
    )  # fmt: skip
    state = build_state(config, people, teacher, "cpu")
    images = torch.randn(count, 3, 32, 32).to(memory_format=torch.channels_last)
    batch = Batch(images, torch.arange(count) // 4, torch.randn(count, 128))
    seconds = []
    for _ in range(3 + 2 * REPEATS):
        start = time.perf_counter()
        train_step(state, batch)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[3:])


def time_tables(method: str, count: int, *, people: int = MS1MV2) -> dict[str, Any]:
    """Median CPU ms and peak MB of a step with and without copies.

    The processes take turns alike. CPU time, since copies take it, and the time spent waiting for a
    process that another program keeps from running is no part of the question.
    """
    steps = {
        "ours": table_step(method, count, people),
        "peer": table_step(method, count, people, whole=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(2 + REPEATS):
        for name, step in steps.items():
            start = time.process_time()
            step()
            seconds[name] += [time.process_time() - start] * (turn >= 2)
    ms = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    return {"ms": ms, "mb": peak_mb(steps)}


def table_step(
    method: str, count: int, people: int, *, whole: bool = False
) -> Callable[[], object]:
    """A step of the tiny student with embeddings of 512 numbers; `whole` copies and sends all."""
    torch.manual_seed(0)
    backbone = build_backbone("tiny_teacher", embedding_dim=512, image_size=32)
    teacher = Model(backbone, ArcFace(512, people, scale=28.0), {"embedding_dim": 512})
    config = TrainConfig(
        method=method, teacher="in memory", device="cpu", steps=100_000, embedding_dim=512,
        identity_weight=0.0,
    )  # fmt: skip

    def as_wanted() -> contextlib.AbstractContextManager[object]:
        if not whole:
            return contextlib.nullcontext()
        stack = contextlib.ExitStack()
        stack.enter_context(mock.patch.object(undo, "tables", return_value=([], [])))
        stack.enter_context(mock.patch.object(state, "not_sent", return_value=[]))
        return stack

    with as_wanted():
        run = build_state(config, people, teacher, "cpu")
    images = torch.randn(count, 3, 32, 32).to(memory_format=torch.channels_last)
    batch = Batch(images, torch.arange(count) * 13 % people, torch.randn(count, 512))

    def step() -> None:
        with as_wanted():
            train_step(run, batch)

    return step


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
