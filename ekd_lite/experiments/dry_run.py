"""What a study will take, before it starts: its runs, hours and disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from ekd_lite.data import SyntheticFaces
from ekd_lite.experiments.study import read_runs_table
from ekd_lite.experiments.study_plan import OWN, Run, StudyPlan, method_of
from ekd_lite.experiments.study_search import Lines, students_left
from ekd_lite.train import TrainConfig
from ekd_lite.train.distributed import pick_device
from ekd_lite.train.estimate import Estimate, estimate

TEACHER = "teacher"
Costs = Mapping[tuple[str, str], Estimate]  # (regime, row) -> of one student


def describe_study(plan: StudyPlan, out: Path) -> str:
    """Say how many students a study still takes, and what they cost on this machine.

    Nothing is trained or written; a few steps of every method are timed with random images.

    Args:
        plan: the study.
        out: its folder; what is finished there is not counted.
    """
    device, size = pick_device(plan.student.device), plan.student.image_size
    # A whole batch of small images tells the cost of pairs too; of large ones it takes too long.
    probe, repeats = (96, 5) if size <= 32 else (8, 1)
    # Core hours: what others do on a CPU at the same time is not counted.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    lines = read_runs_table(out)
    configs: dict[tuple[str, str], TrainConfig] = {
        (name, row): plan.config_of(Run(name, row, row, "", 0), threshold=0.5)
        for name, row in students_left(plan, lines)
    }
    people = {key: plan.sets[plan.regimes[key[0]].people].people for key in configs}
    if isinstance(plan.teacher, TrainConfig):
        configs["", TEACHER], people["", TEACHER] = plan.teacher, plan.sets[OWN].people
    kinds: dict[tuple[TrainConfig, int], Estimate] = {}  # the same in several regimes
    if configs:  # at once, and where the bar is not shown: a step of large images takes a while
        count = len({(config, people[key]) for key, config in configs.items()})
        text = f"timing steps of {count} kinds, {probe} images of {size} pixels each, on {device}"
        print(text, file=sys.stderr, flush=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the runs
    try:
        for key, config in tqdm(configs.items(), desc="timing", disable=None):
            if (kind := (config, people[key])) not in kinds:
                kinds[kind] = estimate(
                    config,
                    num_identities=people[key],
                    device=device,
                    repeats=repeats,
                    probe=probe,
                    clock=clock,
                )
        render = _seconds_an_image(size)
    finally:
        torch.set_num_threads(threads)
    costs = {key: kinds[config, people[key]] for key, config in configs.items()}
    return "\n".join(_lines(plan, lines, costs, render, str(device)))


def _lines(plan: StudyPlan, done: Lines, costs: Costs, render: float, device: str) -> list[str]:
    """The text of a dry run."""
    left, disk = students_left(plan, done), 0.0
    lines, least, most, hours = [plan.about, ""], 0, 0, 0.0
    for name in plan.regimes:
        counts = {key: count for key, count in left.items() if key[0] == name}
        if not counts:
            continue
        few, many = (sum(count[k] for count in counts.values()) for k in (0, 1))
        here = sum(costs[key].step_seconds * count[1] for key, count in counts.items())
        here *= plan.student.steps / 3600
        for key, (_, count) in counts.items():  # the model and two checkpoints: weights, moments
            weights = 4 * (costs[key].parameters + costs[key].prototype_parameters)
            disk += count * (weights + 2 * costs[key].state_bytes)
        least, most, hours = least + few, most + many, hours + here
        lines.append(
            f"{name:10} {len(counts):3} rows {few:5} to {many:4} students {here:8.1f} core hours"
        )
    if isinstance(plan.teacher, TrainConfig):
        here = costs["", TEACHER].step_seconds * plan.teacher.steps / 3600
        hours += here
        lines.append(f"{TEACHER:10} {plan.teacher.steps:,} steps {here:34.1f} core hours")
    images = sum(people.people * people.images for people in plan.sets.values())
    steps = {method_of(row): cost.step_seconds for (_, row), cost in costs.items()}
    return [
        *lines,
        f"{'in all':10} {least} to {most} students of {plan.student.steps:,} steps beside "
        f"{len(done)} that are finished: at most {hours:.1f} core hours on this {device}, measured "
        "with random images; reading, rendering and testing come on top",
        f"{'disk':10} {disk / 2**30:.1f} GiB of runs, "
        f"{3 * plan.student.image_size**2 * images / 2**30:.1f} GiB of faces, rendered once: "
        f"{images * render / 60:.0f} minutes on one core",
        "",
        "milliseconds a step: "
        + ", ".join(
            f"{name} {1000 * s:.0f}" for name, s in sorted(steps.items(), key=lambda x: x[1])
        ),
    ]


def _seconds_an_image(size: int) -> float:
    faces = SyntheticFaces(4, 8, image_size=size)
    start = time.process_time()
    faces.batch(range(32))
    return (time.process_time() - start) / 32
