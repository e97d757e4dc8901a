"""Tables and figure of a study: test numbers, and differences whose sides validation named."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from ekd_lite.data import FaceSet
from ekd_lite.evaluate import (
    BootstrapResult,
    UndefinedMetricWarning,
    bootstrap_tpr_at_fpr,
    count_pairs,
    paired_difference,
)
from ekd_lite.experiments.plan import StudyConfig, has_ekd, single_settings
from ekd_lite.experiments.report import profile_runs, run_row
from ekd_lite.experiments.runner import FPRS, load_embeddings
from ekd_lite.experiments.tables import (
    level,
    markdown_table,
    mean_and_spread,
    over_seeds,
    percents,
    save_figure,
    verdicts,
    write_table,
)
from ekd_lite.files import write_atomically
from ekd_lite.plots import MethodScores, plot_methods
from ekd_lite.train import TrainConfig

ALONE = "student alone"
DRAWN = (1e-3, 1e-4)


def write_study(
    config: StudyConfig,
    out: Path,
    plan: Mapping[str, TrainConfig],
    final: Mapping[str, str],
    scores: Mapping[str, Sequence[float]],
    test: FaceSet,
    *,
    resamples: int,
) -> Path:
    """Write study.csv, differences.csv, study.md and study.png; print the tables.

    Args:
        config: the study.
        out: folder of the runs.
        plan: the final runs by name, with the teacher.
        final: method -> setting it is tested with; "none" is the student alone.
        scores: method -> validation score of every seed.
        test: the test faces.
        resamples: draws of the bootstrap.

    Returns:
        Path of study.csv.
    """
    measured = {
        name: _bootstrap(load_embeddings(out / name), test.labels, resamples)
        for name in tqdm(plan, desc="intervals", disable=None)
    }
    profiles = profile_runs(out, plan)
    method_of = {setting: name for name, setting in final.items()}
    seeds: dict[str, list[BootstrapResult]] = {name: [] for name in final}
    rows: list[dict[str, object]] = []
    for name, run in plan.items():
        row = run_row(out / name, run, profiles[run.backbone], measured[name])
        method, score = "teacher", None
        if name != "teacher":
            method = method_of[run.method]
            score = round(scores[method][config.seeds.index(run.seed)], 3)
            seeds[method].append(measured[name])
        setting = "" if run.method == "none" else run.method
        rows.append({"method": shown(method), "setting": setting, **row, "validation": score})
    order = ["teacher", *map(shown, final)]
    rows.sort(key=lambda row: order.index(str(row["method"])))
    write_table(out / "study.csv", rows)

    means = {name: sum(values) / len(values) for name, values in scores.items()}
    pairs = comparisons(means)
    write_table(out / "differences.csv", [_difference(*pair, seeds) for pair in pairs])
    text = _markdown(final, scores, seeds, measured["teacher"], pairs, test)
    edges = at_edge(config, final)
    if edges:
        text += (
            f"\nChosen at the edge of their weights, where the next one might be better: {edges}.\n"
        )
    write_atomically(out / "study.md", text.encode())
    _figure(seeds, out / "study.png")
    print(f"\n{text}\nwritten to {out}/: study.csv differences.csv weights.csv study.md study.png")
    return out / "study.csv"


def shown(method: str) -> str:
    """The name of a method in tables."""
    return ALONE if method == "none" else method


def at_edge(config: StudyConfig, final: Mapping[str, str]) -> str:
    """The single methods whose chosen weight is the least or the largest that was tried."""
    settings = single_settings(config)
    return ", ".join(final[n] for n, row in settings.items() if final[n] in (row[0], row[-1]))


def comparisons(scores: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """(first, second, what second is): the differences that a study reports.

    Every method against the student alone; every method against the best single one without EKD;
    every combination with EKD against the best without it, and the best with EKD against every one
    without it; every combination against each of its parts. Best is what has the largest score.

    Args:
        scores: method -> mean validation score, "none" among them.
    """
    methods = [name for name in scores if name != "none"]
    singles = [name for name in methods if "+" not in name and not has_ekd(name)]
    plain = [name for name in methods if "+" in name and not has_ekd(name)]
    joined = [name for name in methods if "+" in name and has_ekd(name)]
    pairs = [(name, "none", ALONE) for name in methods]
    if singles:
        best = max(singles, key=scores.__getitem__)
        pairs += [(n, best, "best single without EKD") for n in methods if n != best]
    if plain and joined:
        best = max(plain, key=scores.__getitem__)
        top = max(joined, key=scores.__getitem__)
        pairs += [(name, best, "best combination without EKD") for name in joined]
        pairs += [(top, name, "combination without EKD") for name in plain if name != best]
    known = {(first, second) for first, second, _ in pairs}
    parts = [(n, part) for n in plain + joined for part in n.split("+") if part in scores]
    pairs += [(*pair, "part of it") for pair in parts if pair not in known]
    return pairs


def _bootstrap(embeddings: Tensor, labels: Tensor, resamples: int) -> BootstrapResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # the table says it
        return bootstrap_tpr_at_fpr(embeddings, labels, FPRS, num_resamples=resamples)


def _difference(
    first: str, second: str, role: str, seeds: Mapping[str, Sequence[BootstrapResult]]
) -> dict[str, object]:
    """A row of differences.csv: of the means over seeds, and how it varies from seed to seed."""
    found = paired_difference(over_seeds(seeds[first]), over_seeds(seeds[second]))
    by_seed = [a.estimate - b.estimate for a, b in zip(seeds[first], seeds[second], strict=True)]
    spread = (
        torch.stack(by_seed).std(0) if len(by_seed) > 1 else torch.full_like(by_seed[0], torch.nan)
    )
    return {
        "first": shown(first),
        "second": shown(second),
        "second_is": role,
        **percents("difference", FPRS, found),
        **{
            f"seed_std@{level(fpr)}": round(100 * value, 2)
            for fpr, value in zip(FPRS, spread.tolist(), strict=True)
        },
    }


def _markdown(
    final: Mapping[str, str],
    scores: Mapping[str, Sequence[float]],
    seeds: Mapping[str, Sequence[BootstrapResult]],
    teacher: BootstrapResult,
    pairs: Sequence[tuple[str, str, str]],
    test: FaceSet,
) -> str:
    heads = [f"TPR at {level(fpr)}" for fpr in FPRS]
    cells = [["teacher", "", "1", "", *_tpr_cells([teacher])]]
    cells += [
        [
            shown(name),
            "" if name == "none" else setting,
            str(len(seeds[name])),
            mean_and_spread(scores[name]),
            *_tpr_cells(seeds[name]),
        ]
        for name, setting in final.items()
    ]
    num_genuine, num_impostor = count_pairs(test.labels)
    lines = [
        *markdown_table(["method", "weights", "seeds", "validation", *heads], cells),
        "",
        f"TPR in percent over all pairs of {len(test):,} test images of {test.num_identities:,} "
        f"identities: {num_genuine:,} genuine and {num_impostor:,} impostor pairs. ± is the "
        "standard deviation over seeds, in brackets the 95 % interval of a bootstrap over "
        "identities. Validation is the score by which weights and the best are chosen.",
        "",
    ]
    cells = [
        [
            shown(first),
            shown(second),
            role,
            *verdicts(*paired_difference(over_seeds(seeds[first]), over_seeds(seeds[second]))),
        ]
        for first, second, role in pairs
    ]
    lines += [
        *markdown_table(["first", "minus", "which is", *heads], cells),
        "",
        "Differences of the means over seeds, with the 95 % interval of a paired bootstrap over "
        "test identities (it does not cover the choice of seeds). **Bold**: the interval excludes "
        "zero. Best is named by validation, not by these numbers.",
    ]
    return "\n".join(lines) + "\n"


def _tpr_cells(results: Sequence[BootstrapResult]) -> list[str]:
    """Mean, spread and interval at every level."""
    mean = over_seeds(results)
    percent = (100 * torch.stack([r.estimate for r in results], 1)).tolist()
    ends = (100 * torch.stack([mean.low, mean.high], 1)).tolist()
    return [
        f"{mean_and_spread(values)} [{low:.1f}, {high:.1f}]"
        if low == low  # not NaN
        else mean_and_spread(values)
        for values, (low, high) in zip(percent, ends, strict=True)
    ]


def _figure(seeds: Mapping[str, Sequence[BootstrapResult]], path: Path) -> None:
    """A panel a level; the student alone, single methods, combinations, each by mean TPR."""
    groups: list[list[str]] = [["none"], [], []]
    for name in seeds:
        if name != "none":
            groups[2 if "+" in name else 1].append(name)
    place = FPRS.index(DRAWN[0])
    means = {name: over_seeds(results) for name, results in seeds.items()}
    for group in groups:
        group.sort(key=lambda name: -float(means[name].estimate[place].nan_to_num()))
    figure = Figure(figsize=(10, 1.2 + 0.28 * len(seeds)), layout="constrained")
    panels = figure.subplots(1, len(DRAWN), sharey=True)
    for panel, fpr in zip(panels, DRAWN, strict=True):
        place = FPRS.index(fpr)
        plot_methods(
            [
                {
                    shown(name): MethodScores(
                        tuple(100 * float(r.estimate[place]) for r in seeds[name]),
                        100 * float(means[name].low[place]),
                        100 * float(means[name].high[place]),
                    )
                    for name in group
                }
                for group in groups
                if group
            ],
            panel,
            reference=ALONE,
            xlabel=f"TPR at FPR {level(fpr)}, percent",
        )
    figure.suptitle("Diamonds: means over seeds on their 95 % intervals; circles: single seeds")
    save_figure(figure, path)
