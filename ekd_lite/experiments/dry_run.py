"""What a study will take, before it starts: its runs, their steps, hours and disk."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import torch
from tqdm import tqdm

from ekd_lite.data import SyntheticFaces
from ekd_lite.experiments.plan import (
    ALONE,
    Stage,
    StudyConfig,
    combinations_stage,
    final_stage,
    weights_stage,
)
from ekd_lite.train import TrainConfig
from ekd_lite.train.distributed import pick_device
from ekd_lite.train.estimate import Estimate, estimate

IMAGES_PER_PERSON = 24  # procedural training images


def describe_study(config: StudyConfig) -> str:
    """Say how many runs and steps a study has, and what they cost on this machine.

    Nothing is trained or written; a few steps of every method are timed with random images.
    """
    device = pick_device(config.student.device)
    size = config.student.image_size
    # A whole batch of small images tells the cost of pairs too; of large ones it takes too long.
    probe, repeats = (96, 5) if size <= 32 else (8, 1)
    runs: dict[str, TrainConfig] = {ALONE: config.student}
    for name in [*config.weights, *config.combinations]:
        runs[name] = dataclasses.replace(config.student, method=name)
    runs["teacher"] = config.teacher
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the runs
    try:
        costs = {
            name: estimate(
                run, num_identities=config.people, device=device, repeats=repeats, probe=probe
            )
            for name, run in tqdm(runs.items(), disable=None)
        }
        render = 0.0 if config.faces is not None else _seconds_an_image(size)
    finally:
        torch.set_num_threads(threads)
    return "\n".join(_lines(config, costs, render, str(device)))


def _lines(
    config: StudyConfig, costs: Mapping[str, Estimate], render: float, device: str
) -> list[str]:
    """The text of a dry run."""
    lines, total, disk = [config.about, ""], 0.0, 0.0
    for stage in _stages(config):
        runs = {name: len(row) * len(stage.seeds) for name, row in stage.tried.items()}
        hours = sum(costs[n].step_seconds * k for n, k in runs.items()) * stage.steps / 3600
        total += hours
        for name, count in runs.items():  # the model and two checkpoints: weights, moments
            cost = costs[name]
            weights = 4 * (cost.parameters + cost.prototype_parameters)
            disk += count * (weights + 2 * cost.state_bytes)
        lines.append(
            f"{stage.name:15} {sum(runs.values()):4} runs of {stage.steps:6,} steps "
            f"{60 * hours:8.1f} minutes"
        )
    images = config.people * IMAGES_PER_PERSON
    faces = (
        f", {3 * config.student.image_size**2 * images / 2**30:.1f} GiB of faces, rendered once: "
        f"{images * render / 60:.0f} minutes on one core"
    )
    steps = sorted((cost.step_seconds, name) for name, cost in costs.items())
    return [
        *lines,
        f"{'in all':15} {60 * total:.0f} minutes, one run at a time on this {device}, measured "
        "with random images; reading, rendering and testing come on top",
        f"{'disk':15} {disk / 2**30:.1f} GiB of runs{faces if render else ''}",
        "",
        "milliseconds a step: " + ", ".join(f"{name} {1000 * s:.0f}" for s, name in steps),
    ]


def _stages(config: StudyConfig) -> list[Stage]:
    """All stages, as if the first setting of every method were the chosen one."""
    singles = weights_stage(config)
    first = {name: row[0] for name, row in singles.tried.items()}
    combined = combinations_stage(config, first)
    first |= {name: row[0] for name, row in combined.tried.items()}
    teacher = Stage("teacher", "", {"teacher": ["none"]}, [0], config.teacher.steps)
    return [teacher, singles, combined, final_stage(config, first)]


def _seconds_an_image(size: int) -> float:
    faces = SyntheticFaces(4, 8, image_size=size)
    start = time.perf_counter()
    faces.batch(range(32))
    return (time.perf_counter() - start) / 32
