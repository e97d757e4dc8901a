"""Run a study: weights, combinations, the students that are tested; every run only once."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ekd_lite.data import SyntheticFaces, load_splits
from ekd_lite.data.renderer.render import RENDERER_VERSION
from ekd_lite.evaluate import UndefinedMetricWarning, all_pairs_tpr_at_fpr, count_pairs
from ekd_lite.experiments.demo import describe_splits
from ekd_lite.experiments.folders import keep_options
from ekd_lite.experiments.plan import (
    StudyConfig,
    choose,
    combined_settings,
    run_name,
    single_settings,
    students,
)
from ekd_lite.experiments.runner import FPRS, Job, Part, Runner, load_embeddings
from ekd_lite.experiments.study_report import write_study
from ekd_lite.experiments.tables import level, write_table
from ekd_lite.ops import false_accepts_at
from ekd_lite.train import TrainConfig
from ekd_lite.train.distributed import pick_device
from ekd_lite.train.estimate import Estimate, estimate

SELECTION, FINAL = "weights", "final"


def run_study(config: StudyConfig, out: Path, *, resamples: int = 1000) -> Path:
    """Do it all, going on where an earlier call stopped, and return the path of study.csv.

    Methods and weights may join a folder later: what is finished stays as it is.

    Args:
        config: the study.
        out: folder of the runs and the tables.
        resamples: bootstrap resamples behind every interval.

    Raises:
        ValueError: results of other options in `out`, or a validation set too small to choose on.
        RuntimeError: a run failed; its own message and trace are in its folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    shared = {
        "faces": None if config.faces is None else str(config.faces.resolve()),
        "image_size": config.student.image_size,
        "people": config.people,
        "renderer": RENDERER_VERSION,
    }
    keep_options(out, shared)
    splits = load_splits(config.faces, image_size=config.student.image_size, people=config.people)
    describe_splits(splits)
    labels = splits.validation.labels
    _check_levels(config, labels)

    singles = single_settings(config)
    chosen, rows = _select(config, out, labels, "weights", singles)
    combined = combined_settings(config, chosen)
    more_chosen, more_rows = _select(config, out, labels, "combinations", combined)
    chosen, rows = {**chosen, **more_chosen}, [*rows, *more_rows]
    write_table(out / "weights.csv", rows)

    final = {"none": "none", **chosen}
    plan = students(
        config, out, FINAL, final.values(), seeds=config.seeds, steps=config.student.steps
    )
    _train(config, out, plan, "final students", ("validation", "test"))
    scores = {
        name: [
            _score(
                config, load_embeddings(out / run_name(FINAL, setting, seed), "validation"), labels
            )
            for seed in config.seeds
        ]
        for name, setting in final.items()
    }
    return write_study(config, out, plan, final, scores, splits.test, resamples=resamples)


def _check_levels(config: StudyConfig, labels: Tensor) -> None:
    """Refuse levels that the validation set cannot show, before anything is trained."""
    num_impostor = count_pairs(labels)[1]
    for fpr in config.choose_at:
        if not false_accepts_at(fpr, num_impostor):
            raise ValueError(
                f"the {num_impostor:,} impostor pairs of the validation set cannot show FPR "
                f"{level(fpr)}: give choose_at larger rates"
            )


def _select(
    config: StudyConfig,
    out: Path,
    labels: Tensor,
    label: str,
    candidates: Mapping[str, Sequence[str]],
) -> tuple[dict[str, str], list[dict[str, object]]]:
    """Train students of every setting, measure them on validation, choose one for each method."""
    settings = [setting for row in candidates.values() for setting in row]
    plan = students(
        config,
        out,
        SELECTION,
        settings,
        seeds=config.selection_seeds,
        steps=config.selection_steps,
    )
    if not settings:
        return {}, []
    _train(config, out, plan, label, ("validation",))
    rows: dict[str, list[Tensor]] = {
        setting: [
            load_embeddings(out / run_name(SELECTION, setting, seed), "validation")
            for seed in config.selection_seeds
        ]
        for setting in settings
    }
    scores = {s: [_score(config, e, labels) for e in seeds] for s, seeds in rows.items()}
    chosen = choose(candidates, scores)
    table: list[dict[str, object]] = [
        {
            "method": name,
            "setting": setting,
            "seed": seed,
            **_validation(embeddings, labels),
            "score": round(score, 3),
            "chosen": "yes" if chosen[name] == setting else "no",
        }
        for name, row in candidates.items()
        for setting in row
        for seed, embeddings, score in zip(
            config.selection_seeds, rows[setting], scores[setting], strict=True
        )
    ]
    return chosen, table


def _train(
    config: StudyConfig,
    out: Path,
    plan: dict[str, TrainConfig],
    label: str,
    parts: tuple[Part, ...],
) -> None:
    """Train what is not finished yet."""
    print(f"{label}: {len(plan) - 1} students", flush=True)
    job = Job(out, config.faces, config.student.image_size, parts, config.people)
    total = sum(run.steps for run in plan.values())
    with tqdm(total=total, desc=label, unit="step", disable=None, smoothing=0.05) as bar:
        Runner(job, plan, bar, processes=config.processes).run()


def _score(config: StudyConfig, embeddings: Tensor, labels: Tensor) -> float:
    """What is chosen by: the mean TPR at `choose_at`, in percent."""
    return 100 * float(all_pairs_tpr_at_fpr(embeddings, labels, config.choose_at).mean())


def _validation(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # an empty cell says it
        tprs = all_pairs_tpr_at_fpr(embeddings, labels, FPRS).tolist()
    return {f"tpr@{level(fpr)}": round(100 * tpr, 2) for fpr, tpr in zip(FPRS, tprs, strict=True)}


def describe_study(config: StudyConfig) -> str:
    """What a dry run prints: runs, steps, and what they cost on this machine."""
    device = pick_device(config.student.device)
    size = config.student.image_size
    # A whole batch of small images tells the cost of pairs too; of large ones it takes too long.
    probe, repeats = (96, 5) if size <= 32 else (8, 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the runs
    try:
        costs = {
            name: estimate(
                dataclasses.replace(config.student, method=name, teacher="stand-in")
                if name != "none"
                else config.student,
                num_identities=config.people,
                device=device,
                repeats=repeats,
                probe=probe,
            )
            for name in tqdm(["none", *config.weights, *config.combinations], disable=None)
        }
        costs["teacher"] = estimate(
            config.teacher,
            num_identities=config.people,
            device=device,
            repeats=repeats,
            probe=probe,
        )
        render = 0.0 if config.faces is not None else _seconds_an_image(size)
    finally:
        torch.set_num_threads(threads)
    return "\n".join(_plan_lines(config, costs, render, str(device)))


def _plan_lines(
    config: StudyConfig, costs: Mapping[str, Estimate], render: float, device: str
) -> list[str]:
    """The text of a dry run."""
    tried, both = len(config.selection_seeds), [*config.weights, *config.combinations]
    stages = {
        "teacher": (["teacher"], 1, config.teacher.steps),
        "weights": (
            [n for n, row in config.weights.items() for _ in row],
            tried,
            config.selection_steps,
        ),
        "combinations": (
            [n for n in config.combinations for _ in config.shares],
            tried,
            config.selection_steps,
        ),
        "final students": (["none", *both], len(config.seeds), config.student.steps),
    }
    lines, total, disk = [config.about, ""], 0.0, 0.0
    for stage, (names, seeds, steps) in stages.items():
        hours = sum(costs[name].step_seconds for name in names) * seeds * steps / 3600
        total += hours
        for name in names:  # the model and two checkpoints: weights, moments
            cost = costs[name]
            weights = 4 * (cost.parameters + cost.prototype_parameters)
            disk += seeds * (weights + 2 * cost.state_bytes)
        lines.append(
            f"{stage:15} {len(names) * seeds:4} runs of {steps:6,} steps {60 * hours:8.1f} minutes"
        )
    images = config.people * 24
    lines += [
        f"{'in all':15} {60 * total:.0f} minutes, one run at a time on this {device}, measured "
        "with random images; reading, rendering and testing come on top",
        f"{'disk':15} {disk / 2**30:.1f} GiB of runs"
        + (
            f", {3 * config.student.image_size**2 * images / 2**30:.1f} GiB of faces, rendered "
            f"once: {images * render / 60:.0f} minutes on one core"
            if render
            else ""
        ),
        "",
        "milliseconds a step: "
        + ", ".join(
            f"{name} {1000 * cost.step_seconds:.0f}"
            for name, cost in sorted(costs.items(), key=lambda item: item[1].step_seconds)
        ),
    ]
    return lines


def _seconds_an_image(size: int) -> float:
    faces = SyntheticFaces(4, 8, image_size=size)
    start = time.perf_counter()
    faces.batch(range(32))
    return (time.perf_counter() - start) / 32
