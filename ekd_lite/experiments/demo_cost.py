"""What a demo will take, before it starts: its runs, and the core hours of what is not done yet."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ekd_lite.experiments.given_teacher import ROWS
from ekd_lite.experiments.plan import ALONE
from ekd_lite.experiments.runner import TEST
from ekd_lite.train import Teacher, TrainConfig
from ekd_lite.train.estimate import duration, estimate

SMALL = 32  # pixels; up to here a demo is a matter of minutes


def describe_plan(
    plan: Mapping[str, TrainConfig],
    out: Path,
    labels: Sequence[Tensor],
    *,
    teacher: Teacher | None = None,
    size: int = 0,
    processes: int | None = None,
) -> str:
    """Say how many runs a demo still takes, and what they cost on this machine.

    A few steps of every kind of run are timed with random images, by the processor's time of one
    thread, as the runs have it: what others do at the same time is not counted.

    Args:
        plan: the runs by name.
        out: the demo's folder; what is finished there is not counted.
        labels: of training, validation and test people.
        teacher: one that is there already; its rows of the images are made too.
        size: of the images that it sees, pixels.
        processes: runs at the same time; by default one for each core.
    """
    left = {name: run for name, run in plan.items() if not (out / name / TEST).exists()}
    kinds = {(run.backbone, run.method): run for run in left.values()}
    people, flips = int(labels[0].max()) + 1, any(run.flip for run in plan.values())
    seconds: dict[tuple[str, str], float] = {}
    rows, images = 0.0, 0  # of the teacher: seconds
    if kinds:
        text = f"timing a step of {len(kinds)} kinds of runs with random images"
        print(text, file=sys.stderr, flush=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for kind, run in kinds.items():
            seconds[kind] = _seconds_a_step(run, people)
        if teacher is not None and not (out / "teacher" / ROWS).exists():
            images = len(labels[0]) * (2 if flips else 1) + len(labels[2])
            rows = images * _seconds_an_image(teacher, size)
    finally:
        torch.set_num_threads(threads)
    hours = rows / 3600
    lines = []
    if images:
        lines.append(f"{'teacher':20} its rows of {images:,} images: {duration(rows / 3600)}")
    for (backbone, method), cost in seconds.items():
        runs = [run for run in left.values() if (run.backbone, run.method) == (backbone, method)]
        here = cost * sum(run.steps for run in runs) / 3600
        hours += here
        what = ALONE if method == "none" else method
        what = "teacher" if runs[0] is plan.get("teacher") else what
        lines.append(
            f"{what:20} {len(runs)} x {runs[0].steps:,} steps of {backbone} at "
            f"{1000 * cost:,.0f} ms: {duration(here)}"
        )
    at_once, done = processes or os.cpu_count() or 1, len(plan) - len(left)
    lines.append(
        f"{'in all':20} {duration(hours)} of a core beside {done} runs that are finished, about "
        f"{duration(hours / at_once)} with {at_once} runs at a time; measured on this cpu with "
        "random images: reading, testing and figures come on top"
    )
    return "\n".join(lines)


def _seconds_a_step(run: TrainConfig, people: int) -> float:
    """A whole batch of small images tells the cost of pairs too; of large ones it takes long."""
    probe, repeats = (96, 3) if run.image_size <= SMALL else (8, 1)
    cost = estimate(
        run,
        num_identities=people,
        device=torch.device("cpu"),
        repeats=repeats,
        probe=probe,
        clock=time.process_time,
    )
    return cost.step_seconds


def _seconds_an_image(teacher: Teacher, size: int) -> float:
    images = torch.randn(2, 3, size, size).clamp(-1, 1)
    teacher(images)
    start = time.process_time()
    teacher(images)
    return (time.process_time() - start) / len(images)
