"""Weights of the methods that came after EKD, chosen on validation identities, as CSV.

    python studies/successor_weights.py data/results/successor_weights.csv WORK METHOD:WEIGHT ...

The faces, batches, net and measure of data/results/study_weights.csv, but students of 500 steps
(there 1,500), their teacher is the one that ships with the package, and the embeddings of the
students lie nowhere: WORK only keeps the teacher's. `score` is the mean TPR at 1e-3 and 1e-4 in
percent, over all pairs of the 150 validation identities. Each row is written as soon as it is
known; settings that the table holds already are left out, and `chosen` is set anew.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import warnings
from pathlib import Path

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import load_splits
from ekd_lite.evaluate import UndefinedMetricWarning, all_pairs_tpr_at_fpr, embed
from ekd_lite.train import TrainConfig, fit, load_model

STEPS, SEED = 500, 0
LEVELS = (1e-2, 1e-3, 1e-4, 1e-5)
TPR = [f"tpr@{level:.0e}".replace("e-0", "e-") for level in LEVELS]
COLUMNS = ["method", "setting", "seed", *TPR, "score", "chosen"]


def read(path: Path) -> list[dict[str, str]]:
    """The rows that there are."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """All rows, a method's together, the best setting of each marked."""
    rows.sort(key=lambda row: (row["method"], float(row["setting"].partition(":")[2] or 0)))
    best = {row["method"]: max(_scores(rows, row["method"])) for row in rows}
    for row in rows:
        row["chosen"] = "yes" if float(row["score"]) == best[row["method"]] else "no"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _scores(rows: list[dict[str, str]], method: str) -> list[float]:
    return [float(row["score"]) for row in rows if row["method"] == method]


def main() -> None:
    """Train and measure what is not in the table."""
    path, work = Path(sys.argv[1]), Path(sys.argv[2])
    splits = load_splits(None, image_size=32, people=1000)
    labels = splits.validation.labels
    for setting in sys.argv[3:]:
        rows = read(path)
        if setting in {row["setting"] for row in rows}:
            continue
        config = TrainConfig(
            method=setting,
            teacher=None if setting == "none" else str(DEMO_TEACHER),
            teacher_cache=str(work / "teacher.safetensors"),
            steps=STEPS,
            checkpoint_every=STEPS,
            seed=SEED,
            device="cpu",
        )
        with tempfile.TemporaryDirectory() as out:
            student = load_model(fit(config, splits.train, Path(out), progress=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # the cell says it
            found = 100 * all_pairs_tpr_at_fpr(
                embed(student.backbone, splits.validation), labels, LEVELS
            )
        values = {name: f"{value:.2f}" for name, value in zip(TPR, found.tolist(), strict=True)}
        row = {"method": setting.partition(":")[0], "setting": setting, "seed": str(SEED)}
        write(path, [*rows, row | values | {"score": f"{float(found[1:3].mean()):.3f}"}])
        print(setting, values, flush=True)


if __name__ == "__main__":
    main()
