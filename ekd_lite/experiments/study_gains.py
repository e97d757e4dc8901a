"""What forms of EKD gain: differences from rivals and controls, and p-values of the claims.

Every form of EKD that takes its targets from the teacher is compared

- with the best of its rivals, the best chosen anew in every draw: a form alone with every single
  method, a combination with all. These are the claims, whose p-values are adjusted by Holm's method
  in two families: the forms and levels of one regime (p@), and those of all regimes (p_all@);
- with FitNet alone; with the labels' form in its place (the control without a teacher's rank or
  decision); and with Eq. 7's squared gap (`ekd_l2`), on the pairs of `ekd_fine`;
- where no label is used, with FitNet that learns from the same people with all labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ekd_lite.evaluate import (
    BootstrapResult,
    best_of,
    difference_p_value,
    holm,
    paired_difference,
)
from ekd_lite.experiments.study_plan import StudyPlan, method_of
from ekd_lite.experiments.tables import level, percents

BEST, LABELLED = "the best rival", "fitnet with labels"
CONTROLS = ("ekd_labels", "ekd_l2")
Found = TypeVar("Found")
Interval = tuple[Tensor, Tensor, Tensor]
Gain = tuple[dict[str, Any], Interval]  # a line of gains.csv, and its difference


def is_ekd(row: str) -> bool:
    """Whether a row has a form of EKD that takes ranks or decisions from the teacher."""
    return row.startswith("ekd") and not row.startswith(CONTROLS)


def opponents(row: str, of: Mapping[str, Found]) -> dict[str, list[Found]]:
    """Whom a form of EKD is compared with, by name, of the rows of one regime."""
    partner = row.split("+")[1:]
    single = {name for name in of if "+" not in name}
    rivals = [name for name in of if not name.startswith("ekd") and (partner or name in single)]
    pairs = {BEST: rivals, "fitnet alone": [n for n in of if method_of(n) == "fitnet"]}
    for control in CONTROLS:
        twins = [n for n in of if n.startswith(control) and n.split("+")[1:] == partner]
        pairs[control if not partner else f"{control} beside FitNet"] = twins
    found = {name: [of[row] for row in rows] for name, rows in pairs.items()}
    return {name: results for name, results in found.items() if results}


def labelled_twins(plan: StudyPlan) -> dict[str, str]:
    """Regime without labels -> the one in which all labels of the same people are known."""
    return {
        name: other
        for name, regime in plan.regimes.items()
        for other, twin in plan.regimes.items()
        if not regime.labels
        and twin.labels
        and not twin.wrong_labels
        and twin.people == regime.people
    }


def gains_of(
    by_regime: Mapping[str, Mapping[str, BootstrapResult]],
    twins: Mapping[str, str],
) -> list[Gain]:
    """The lines of gains.csv, with their differences.

    Args:
        by_regime: regime -> row -> its mean over runs; all with the same draws.
        twins: regime without labels -> the one with them.
    """
    gains: list[Gain] = []
    claims: list[tuple[dict[str, Any], list[str], Tensor]] = []
    for regime, of in by_regime.items():
        labelled = by_regime.get(twins.get(regime, ""), {})
        for row in filter(is_ekd, of):
            names = [level(fpr) for fpr in of[row].fprs]
            others = opponents(row, of)
            if fitnet := [labelled[name] for name in labelled if method_of(name) == "fitnet"]:
                others[LABELLED] = fitnet
            for name, found in others.items():
                best = best_of(found)
                gain = paired_difference(of[row], best)
                line: dict[str, Any] = {"regime": regime, "row": row, "minus": name}
                line |= {"of": len(found), **columns("gain", of[row].fprs, gain)}
                line |= {f"{p}@{n}": "" for p in ("p", "p_all") for n in names}
                if name == BEST:
                    claims.append((line, names, difference_p_value(of[row], best)))
                gains.append((line, gain))
    for regime in by_regime:
        _adjust("p", [claim for claim in claims if claim[0]["regime"] == regime])
    _adjust("p_all", claims)
    return gains


def _adjust(column: str, claims: Sequence[tuple[dict[str, Any], list[str], Tensor]]) -> None:
    """Write p-values of a family into its lines; a level that shows nothing is no claim."""
    cells = [
        (line, f"{column}@{name}", p)
        for line, names, values in claims
        for name, p in zip(names, values.tolist(), strict=True)
        if p == p
    ]
    adjusted = holm(torch.tensor([p for *_, p in cells], dtype=torch.float64)).tolist()
    for (line, name, _), value in zip(cells, adjusted, strict=True):
        line[name] = f"{value:.4f}"


def columns(name: str, fprs: Sequence[float], interval: Interval) -> dict[str, str]:
    """Columns of a number and of the ends of its interval, with two decimals each."""
    return {column: f"{value:.2f}" for column, value in percents(name, fprs, interval).items()}
