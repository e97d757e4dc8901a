"""The tables of studies/decisive.py: every method on the test people, and what EKD gains.

    python studies/decisive_report.py          writes data/results/decisive*.csv

`decisive.csv` has the mean TPR of the final students of every row, with 95 % intervals over seeds
and people. `decisive_gains.csv` compares every form of EKD with the best of all rivals of its
regime, the best chosen anew in every draw, and adjusts the p-values of a regime by Holm's method.
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

LEVELS, RESAMPLES = (1e-3, 1e-4), 4000
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


def is_ekd(row: str) -> bool:
    """Whether a row is a form of EKD that takes its targets from the teacher."""
    return any(part.startswith("ekd") and "labels" not in part for part in row.split("+"))


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
    table, gains = [], []
    for (regime, row, setting), found in results.items():
        interval = found.estimate, found.low, found.high
        table.append(
            {"regime": regime, "row": row, "setting": setting, **percents("tpr", interval)}
        )
    for regime in dict.fromkeys(key[0] for key in results):
        rivals = [r for (of, row, _), r in results.items() if of == regime and not is_ekd(row)]
        ours = {key: r for key, r in results.items() if key[0] == regime and is_ekd(key[1])}
        if not rivals or not ours:
            continue
        best = best_of(rivals)
        p = holm(torch.stack([difference_p_value(r, best) for r in ours.values()]).flatten())
        for k, ((_, row, setting), found) in enumerate(ours.items()):
            line = {"regime": regime, "row": row, "setting": setting, "rivals": len(rivals)}
            line |= percents("gain", paired_difference(found, best))
            line |= {f"p@{level}": f"{float(p[2 * k + m]):.4f}" for m, level in enumerate(NAMES)}
            gains.append(line)
    write(decisive.RUNS.with_name("decisive.csv"), table)
    write(decisive.RUNS.with_name("decisive_gains.csv"), gains)


if __name__ == "__main__":
    main()
