"""A comparison in words: Markdown that is aligned as plain text too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ekd_lite.evaluate import BootstrapResult, count_pairs, paired_difference
from ekd_lite.experiments.folders import Run, method_of
from ekd_lite.experiments.tables import level, markdown_table, mean_and_spread, over_seeds, verdicts


def markdown(
    groups: Mapping[str, list[Run]],
    results: Mapping[str, BootstrapResult],
    fprs: Sequence[float],
    labels: Tensor,
) -> str:
    """What the runs cost, their TPR and the differences to the first, a row a group of seeds.

    Args:
        groups: runs that differ in nothing but the seed, by name.
        results: of the finished runs, by name, with shared resamples.
        fprs: the levels of the results.
        labels: of the test images.
    """
    heads = ["run", "method", "backbone", "seeds", "parameters", "multiply-adds", "steps"]
    costs = [_cost(name, runs) for name, runs in groups.items()]
    lines = markdown_table([*heads, "seconds", "final loss"], costs)
    lines += [
        "",
        "± is the standard deviation over seeds. The final loss is of the last batch in the log, "
        "summed as the method sums it: it compares runs of one method only.",
    ]
    done = {
        name: [results[run.name] for run in runs if run.name in results]
        for name, runs in groups.items()
    }
    done = {name: seeds for name, seeds in done.items() if seeds}
    if done:
        lines += ["", *_tpr_lines(done, fprs, labels)]
    everyone = [run for runs in groups.values() for run in runs]
    notes = [f"- {run.name}: {run.note}" for run in everyone if run.note]
    if notes:
        lines += ["", "Left out of the test:", "", *notes]
    return "\n".join(lines) + "\n"


def _cost(name: str, runs: list[Run]) -> list[str]:
    """A group's cells of the first table."""
    first = runs[0]
    return [
        name,
        method_of(first),
        str(first.about("backbone")),
        " ".join(str(run.about("seed")) for run in runs),
        f"{first.profile.parameters:,}",
        f"{first.profile.macs:,}",
        " ".join(dict.fromkeys(str(run.steps) for run in runs)),
        _mean([run.about("train_seconds") for run in runs], decimals=0),
        _mean([run.final_loss for run in runs if not run.note], decimals=3),
    ]


def _mean(values: Sequence[float | None], *, decimals: int) -> str:
    known = [value for value in values if value is not None]
    return mean_and_spread(known, decimals=decimals) if known else "unknown"


def _tpr_lines(
    done: Mapping[str, list[BootstrapResult]], fprs: Sequence[float], labels: Tensor
) -> list[str]:
    """The table of TPR, and that of the differences to its first row."""
    means = {name: over_seeds(results) for name, results in done.items()}
    heads = [f"TPR at {level(fpr)}" for fpr in fprs]
    cells = []
    for name, results in done.items():
        percent = (100 * torch.stack([r.estimate for r in results], 1)).tolist()
        ends = (100 * torch.stack([means[name].low, means[name].high], 1)).tolist()
        tprs = [mean_and_spread(values) for values in percent]
        ranges = ["" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]" for low, high in ends]
        cells.append([name, str(len(results)), *map("".join, zip(tprs, ranges, strict=True))])
    reference, *others = means
    num_genuine, num_impostor = count_pairs(labels)
    lines = [
        *markdown_table(["run", "seeds", *heads], cells),
        "",
        f"TPR in percent over all pairs of {len(labels):,} test images of "
        f"{int(torch.bincount(labels).count_nonzero()):,} identities: {num_genuine:,} genuine and "
        f"{num_impostor:,} impostor pairs. In brackets the 95 % interval of a bootstrap over "
        "identities.",
    ]
    if others:
        rows = [
            [name, reference, *verdicts(*paired_difference(means[name], means[reference]))]
            for name in others
        ]
        lines += [
            "",
            *markdown_table(["run", "minus", *heads], rows),
            "",
            "Differences of the means over seeds, with the 95 % interval of a paired bootstrap "
            "over identities (it does not cover the choice of seeds). **Bold**: the interval "
            "excludes zero. Plain: this test cannot tell the two apart.",
        ]
    return lines
