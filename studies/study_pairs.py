"""Differences of the decisive study that its own tables do not have: row against row.

    python studies/study_pairs.py data/results/decisive_pairs.csv

Made of the draws in data/study_draws.npz, so that nothing is trained. A line is one row of one
regime minus another row, or the same one, of the same regime or another:

- every row minus FitNet alone of its regime, and, without labels, minus FitNet *with* labels;
- every form of EKD minus every single method, a form beside FitNet minus every row beside FitNet;
- every row minus itself with right labels of new people.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch

from ekd_lite.evaluate import BootstrapResult, over_runs, paired_difference
from ekd_lite.experiments.study_report import run_draws
from ekd_lite.experiments.tables import percents, write_table

DRAWS, TABLE = Path("data/study_draws.npz"), Path("data/results/decisive.csv")
LEVELS = (1e-3, 1e-4)
FITNET = "fitnet:32"
Key = tuple[str, str]  # regime and row


def read_means(draws: Path, table: Path) -> dict[Key, BootstrapResult]:
    """The mean over seeds of every row of every regime, with the draws of seeds and people."""
    with table.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    unknown = torch.full((len(LEVELS),), torch.nan)
    found: dict[Key, BootstrapResult] = {}
    with np.load(draws, allow_pickle=False) as kept:
        for line in lines:
            start = f"{line['regime']}/{line['setting'].replace(':', '')}-"
            seeds = [name for name in kept.files if name.rpartition("-")[0] == start[:-1]]
            rows = [torch.from_numpy(kept[name]).double() for name in sorted(seeds, key=_seed)]
            runs = [BootstrapResult(LEVELS, r[0], unknown, unknown, r[1:]) for r in rows]
            people = len(runs[0].samples)
            found[line["regime"], line["row"]] = over_runs(runs, repeats=run_draws(people))
    return found


def _seed(name: str) -> int:
    return int(name.rpartition("-")[2])


def pairs_of(known: list[Key]) -> Iterator[tuple[Key, Key]]:
    """Which rows are compared, as the head of this file says."""
    for (regime, row), (other_regime, other) in product(known, known):
        is_same = regime == other_regime
        if row == other:
            is_wanted = other_regime == "new" and not is_same
        elif other == FITNET:
            is_wanted = is_same or (regime, other_regime) == ("none", "new")
        else:
            is_like = ("+" in row) == ("+" in other) and other != "none"
            is_wanted = is_same and row.startswith("ekd") and is_like
        if is_wanted:
            yield (regime, row), (other_regime, other)


def main(path: Path) -> None:
    """Write the table."""
    means = read_means(DRAWS, TABLE)
    lines = []
    for first, second in pairs_of(list(means)):
        cells = percents("gain", LEVELS, paired_difference(means[first], means[second]))
        names = dict(zip(("regime", "row"), first, strict=True))
        names |= dict(zip(("minus_regime", "minus"), second, strict=True))
        lines.append(names | {column: f"{value:.2f}" for column, value in cells.items()})
    write_table(path, lines)
    print(f"{len(lines)} differences in {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
