"""Run a study: weights, combinations, the students that are tested; every run only once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ekd_lite.data import load_splits
from ekd_lite.data.renderer.render import RENDERER_VERSION
from ekd_lite.evaluate import UndefinedMetricWarning, all_pairs_tpr_at_fpr, count_pairs
from ekd_lite.experiments.folders import record_options
from ekd_lite.experiments.plan import (
    Stage,
    StudyConfig,
    at_edge,
    choose,
    combinations_stage,
    final_stage,
    weights_stage,
)
from ekd_lite.experiments.report import measure_plan, write_report
from ekd_lite.experiments.runner import (
    Runner,
    SplitName,
    Workspace,
    load_embeddings,
    print_splits,
)
from ekd_lite.experiments.tables import FPRS, level, write_table
from ekd_lite.files import locked_folder
from ekd_lite.ops import false_accepts_at
from ekd_lite.train import TrainConfig

if TYPE_CHECKING:  # the command starts without matplotlib
    from matplotlib.figure import Figure


def run_study(config: StudyConfig, out: Path, *, resamples: int = 1000) -> Path:
    """Do it all, going on where an earlier call stopped, and return the path of study.csv.

    Methods and weights may join a folder later: what is finished stays as it is.

    Args:
        config: the study.
        out: folder of the runs and the tables.
        resamples: bootstrap resamples behind every interval.

    Raises:
        ValueError: results of other options in `out`, another process that is writing there, or a
            validation set too small to choose on.
        RuntimeError: a run failed; its own message and trace are in its folder.
    """
    with locked_folder(out):
        return _run(config, out, resamples)


def _run(config: StudyConfig, out: Path, resamples: int) -> Path:
    """`run_study`, alone in its folder."""
    shared = {
        "faces": None if config.faces is None else str(config.faces.resolve()),
        "image_size": config.student.image_size,
        "people": config.people,
        "renderer": RENDERER_VERSION,
    }
    record_options(out, shared)
    splits = load_splits(config.faces, image_size=config.student.image_size, people=config.people)
    print_splits(splits)
    labels = splits.validation.labels
    _check_levels(config, labels)

    chosen, rows = _select(config, out, labels, weights_stage(config))
    more_chosen, more_rows = _select(config, out, labels, combinations_stage(config, chosen))
    chosen |= more_chosen
    write_table(out / "weights.csv", rows + more_rows)

    stage = final_stage(config, chosen)
    plan = _train(config, out, stage, ("validation", "test"))
    settings = {name: setting for name, (setting,) in stage.tried.items()}
    scores = {
        name: [_score(config, rows, labels) for rows in _validation_rows(out, stage, setting)]
        for name, setting in settings.items()
    }
    labels = splits.test.labels
    methods = measure_plan(out, plan, settings, labels, resamples=resamples, scores=scores)
    edges = ", ".join(at_edge(config, chosen))
    note = f"Chosen at the edge of their weights, where the next one might be better: {edges}."
    results = {name: row.results for name, row in methods.items() if name != "teacher"}

    def draw() -> dict[str, Figure]:
        from ekd_lite.experiments.figures import study_figure

        return {"study.png": study_figure(results)}

    return write_report(out, "study", methods, labels, draw, notes=[note] if edges else [])


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
    config: StudyConfig, out: Path, labels: Tensor, stage: Stage
) -> tuple[dict[str, str], list[dict[str, object]]]:
    """Train students of every setting, measure them on validation, choose one for each method."""
    if not stage.tried:
        return {}, []
    _train(config, out, stage, ("validation",))
    settings = [setting for row in stage.tried.values() for setting in row]
    rows = {setting: _validation_rows(out, stage, setting) for setting in settings}
    scores = {s: [_score(config, e, labels) for e in seeds] for s, seeds in rows.items()}
    chosen = choose(stage.tried, scores)
    table: list[dict[str, object]] = [
        {
            "method": name,
            "setting": setting,
            "seed": seed,
            **_validation_columns(embeddings, labels),
            "score": round(score, 3),
            "chosen": "yes" if chosen[name] == setting else "no",
        }
        for name, row in stage.tried.items()
        for setting in row
        for seed, embeddings, score in zip(stage.seeds, rows[setting], scores[setting], strict=True)
    ]
    return chosen, table


def _train(
    config: StudyConfig, out: Path, stage: Stage, splits: tuple[SplitName, ...]
) -> dict[str, TrainConfig]:
    """Train what is not finished yet, and return the plan."""
    plan = stage.runs(config, out)
    print(f"{stage.name}: {len(plan) - 1} students", flush=True)
    workspace = Workspace(out, config.faces, config.student.image_size, splits, config.people)
    Runner(workspace, plan, stage.name, processes=config.processes).run()
    return plan


def _validation_rows(out: Path, stage: Stage, setting: str) -> list[Tensor]:
    """The validation embeddings of a setting's students."""
    return [load_embeddings(out / stage.run_of(setting, s), "validation") for s in stage.seeds]


def _score(config: StudyConfig, embeddings: Tensor, labels: Tensor) -> float:
    """What is chosen by: the mean TPR at `choose_at`, in percent."""
    return 100 * float(all_pairs_tpr_at_fpr(embeddings, labels, config.choose_at).mean())


def _validation_columns(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # the cell says it
        tprs = all_pairs_tpr_at_fpr(embeddings, labels, FPRS).tolist()
    return {f"tpr@{level(fpr)}": round(100 * tpr, 2) for fpr, tpr in zip(FPRS, tprs, strict=True)}
