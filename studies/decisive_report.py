"""The tables of studies/decisive.py: every method on the test people, and what EKD gains.

    python studies/decisive_report.py          writes data/results/decisive*.csv

`decisive.csv` has the mean TPR of the final students of every row, with 95 % intervals over seeds
and people. `decisive_gains.csv` compares every form of EKD that takes its targets from the teacher:

- with the best of its rivals, the best chosen anew in every draw: a form alone with every single
  method, a combination with all; p-values of a regime are adjusted by Holm's method;
- with FitNet alone; with the labels' form in its place (the control without a teacher's rank or
  decision); and with Eq. 7's squared gap on the same pairs.

The teacher is one, so the intervals are about students of this teacher.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import decisive
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ekd_lite.evaluate import (
    BootstrapResult,
    best_of,
    bootstrap_tpr_at_fpr,
    difference_p_value,
    holm,
    over_runs,
    paired_difference,
)
from ekd_lite.files import write_atomically

LEVELS, RESAMPLES = (1e-3, 1e-4), 1000
NAMES = ("1e-3", "1e-4")


def result_of(folder: Path, labels: Tensor) -> BootstrapResult:
    """The draws of a student's test people, made once and kept beside its embeddings."""
    path = folder / "draws.safetensors"
    if not path.exists():
        rows = load_file(folder / "rows.safetensors")["test"]
        found = bootstrap_tpr_at_fpr(rows, labels, LEVELS, num_resamples=RESAMPLES)
        draws = {"estimate": found.estimate, "samples": found.samples}
        write_atomically(path, save(draws))
    draws = load_file(path)
    nothing = torch.full((len(LEVELS),), torch.nan)
    return BootstrapResult(LEVELS, draws["estimate"], nothing, nothing, draws["samples"])


def by_row() -> dict[tuple[str, str, str], list[BootstrapResult]]:
    """(regime, row, setting) -> the results of its final students, by seed."""
    labels = decisive.faces_of("test").labels
    found: dict[tuple[str, str, str], list[BootstrapResult]] = {}
    lines = [line for line in decisive.finished() if line["stage"] == "final"]
    for line in sorted(lines, key=lambda line: int(line["seed"])):
        folder = (
            decisive.OUT / line["regime"] / f"{line['setting'].replace(':', '')}-{line['seed']}"
        )
        key = (line["regime"], line["row"], line["setting"])
        found.setdefault(key, []).append(result_of(folder, labels))
    return found


CONTROLS = ("ekd_labels", "ekd_l2")


def is_ekd(row: str) -> bool:
    """Whether a row has a form of EKD that takes ranks or decisions from the teacher."""
    return row.startswith("ekd") and not row.startswith(CONTROLS)


def opponents(row: str, of: dict[str, BootstrapResult]) -> dict[str, list[BootstrapResult]]:
    """Whom a form of EKD is compared with, by name, of the rows of one regime."""
    partner = row.split("+")[1:]
    single = {name for name in of if "+" not in name}
    rivals = [name for name in of if not name.startswith("ekd") and (partner or name in single)]
    pairs = {"the best rival": rivals, "fitnet alone": [decisive.FITNET]}
    for control in CONTROLS:
        twins = [n for n in of if n.startswith(control) and n.split("+")[1:] == partner]
        pairs[control if not partner else f"{control} beside FitNet"] = twins
    found = {name: [of[row] for row in rows if row in of] for name, rows in pairs.items()}
    return {name: results for name, results in found.items() if results}


def percents(name: str, values: Iterable[Tensor]) -> dict[str, str]:
    """Columns of a number and of the ends of its interval."""
    return {
        f"{name}@{level}{end}": f"{100 * float(value[k]):.2f}"
        for end, value in zip(("", "_low", "_high"), values, strict=True)
        for k, level in enumerate(NAMES)
    }


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    """A table, if there is something to write."""
    if lines:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(lines)
        print(f"wrote {path}: {len(lines)} lines")


def main() -> None:
    """Write both tables."""
    results = {key: over_runs(runs) for key, runs in by_row().items() if len(runs) > 1}
    table: list[dict[str, Any]] = []
    gains: list[dict[str, Any]] = []
    for (regime, row, setting), found in results.items():
        interval = found.estimate, found.low, found.high
        table.append(
            {"regime": regime, "row": row, "setting": setting, **percents("tpr", interval)}
        )
    for regime in dict.fromkeys(key[0] for key in results):
        of = {row: found for (where, row, _), found in results.items() if where == regime}
        claims: list[tuple[dict[str, Any], Tensor]] = []
        for row in filter(is_ekd, of):
            for name, others in opponents(row, of).items():
                best = best_of(others)
                line: dict[str, Any] = {"regime": regime, "row": row, "minus": name}
                line |= {"of": len(others), **percents("gain", paired_difference(of[row], best))}
                line |= {f"p@{level}": "" for level in NAMES}
                if name == "the best rival":
                    claims.append((line, difference_p_value(of[row], best)))
                gains.append(line)
        if claims:
            adjusted = holm(torch.stack([p for _, p in claims]).flatten()).view(-1, len(NAMES))
            for (line, _), values in zip(claims, adjusted.tolist(), strict=True):
                line |= {f"p@{n}": f"{p:.4f}" for n, p in zip(NAMES, values, strict=True)}
    write(decisive.RUNS.with_name("decisive.csv"), table)
    write(decisive.RUNS.with_name("decisive_gains.csv"), gains)


if __name__ == "__main__":
    main()
