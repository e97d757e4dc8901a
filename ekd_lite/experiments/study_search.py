"""How the weights of a study are found, and which runs come next.

Every row has the same search: the weight of its first method times every number of the grid,
students of the search seeds at the final number of steps, judged on validation people. While the
best stands at an end, a weight more is tried there, half the least or twice the largest, as often
as the study allows. Then students of the final seeds are trained at the best weight. A row without
a weight, or a grid of one number, leaves nothing to choose and has final students only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ekd_lite.experiments.study_plan import Run, StudyPlan

Lines = Sequence[Mapping[str, str]]  # of runs.csv: what is finished


def scaled(row: str, factor: float) -> str:
    """The row with the weight of its first method multiplied."""
    first, *others = row.split("+")
    name, _, weight = first.partition(":")
    return "+".join([f"{name}:{float(weight) * factor:g}", *others]) if weight else row


def is_searched(row: str) -> bool:
    """Whether a row has a weight to be searched for: its first method's."""
    return ":" in row.split("+")[0]


def wanted(plan: StudyPlan, lines: Lines) -> list[Run]:
    """The runs that can start now: of every row its search, or what that chose."""
    return [
        run
        for name, regime in plan.regimes.items()
        for row in regime.rows
        for run in _of_row(plan, name, row, lines)
    ]


def _of_row(plan: StudyPlan, regime: str, row: str, lines: Lines) -> list[Run]:
    """The runs of one row that can start now; none if it is finished."""
    here = [x for x in lines if x["regime"] == regime]
    done = {(x["setting"], int(x["seed"])) for x in here}
    scores: dict[str, list[float]] = {}
    for x in here:
        if x["row"] == row and x["stage"] == "search":
            scores.setdefault(x["setting"], []).append(float(x["score"]))

    def missing(settings: Sequence[str], stage: str, seeds: Sequence[int]) -> list[Run]:
        return [
            Run(regime, row, setting, stage, seed)
            for setting in settings
            for seed in seeds
            if (setting, seed) not in done
        ]

    factors = sorted(plan.grid) if is_searched(row) else [1.0]
    if len(factors) == 1:
        return missing([scaled(row, factors[0])], "final", plan.final_seeds)
    most = len(factors) + plan.extensions
    while True:
        settings = [scaled(row, factor) for factor in factors]
        if open_ones := missing(settings, "search", plan.search_seeds):
            return open_ones
        means = [sum(found) / len(found) for found in (scores[x] for x in settings)]
        best = max(range(len(means)), key=means.__getitem__)
        at_end = best in (0, len(factors) - 1)
        if not at_end or len(factors) == most:
            return missing([settings[best]], "final", plan.final_seeds)
        factors = [factors[0] / 2, *factors] if best == 0 else [*factors, factors[-1] * 2]


def students_of(plan: StudyPlan, row: str) -> tuple[int, int]:
    """How many students a row takes, at least and at most."""
    tested = len(plan.final_seeds)
    if not is_searched(row) or len(plan.grid) == 1:
        return tested, tested
    least, searched = len(plan.grid), len(plan.search_seeds)
    return least * searched + tested, (least + plan.extensions) * searched + tested


def students_left(plan: StudyPlan, lines: Lines) -> dict[tuple[str, str], tuple[int, int]]:
    """(regime, row) -> how many students it still takes, at least and at most."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for name, regime in plan.regimes.items():
        for row in regime.rows:
            now = len(_of_row(plan, name, row, lines))
            done = sum(x["regime"] == name and x["row"] == row for x in lines)
            least, most = (max(now, total - done) if now else 0 for total in students_of(plan, row))
            found[name, row] = least, most
    return found
