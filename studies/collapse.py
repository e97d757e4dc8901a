"""What became of students whose only loss looks at pairs: data/results/decisive_collapse.csv.

    python studies/collapse.py runs/study

For the students without labels and without FitNet (`ekd-lite compare --recipe study`, regime none):
the effective rank of their embeddings of the validation people, exp of the entropy of the
eigenvalues' shares, and the shares of impostor pairs whose cosine is
above 0.9 or below -0.9. A net that sends every image to one of two opposite points has rank 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ekd_lite.experiments import load_study
from ekd_lite.experiments.study import read_runs_table
from ekd_lite.experiments.study_plan import Run
from ekd_lite.experiments.study_report import EMBEDDINGS
from ekd_lite.experiments.tables import write_table
from ekd_lite.ops import unit_rows

TABLE = Path("data/results/decisive_collapse.csv")


def main(out: Path) -> None:
    """Read the embeddings and write a line for every final student."""
    plan = load_study("study")
    labels = plan.sets["validation"].faces(plan.student.image_size).labels
    stranger = labels[:, None] != labels
    lines: list[dict[str, Any]] = []
    for line in read_runs_table(out):
        if line["regime"] != "none" or "+" in line["row"] or line["stage"] != "final":
            continue
        run = Run(line["regime"], line["row"], line["setting"], "final", int(line["seed"]))
        if not (out / run.name / EMBEDDINGS).exists():
            continue  # restored without its embeddings
        rows = unit_rows(load_file(out / run.name / EMBEDDINGS)["validation"].double())
        cosines = (rows.float() @ rows.float().T)[stranger]
        shares = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp_min(1e-15)
        rank = torch.exp(-(shares * shares.log()).sum())  # the eigenvalues of unit rows sum to 1
        lines.append(
            {
                "row": run.row,
                "setting": run.setting,
                "seed": run.seed,
                "effective_rank": f"{rank:.2f}",
                "above": f"{100 * (cosines > 0.9).double().mean():.1f}",
                "below": f"{100 * (cosines < -0.9).double().mean():.1f}",
            }
        )
    write_table(TABLE, sorted(lines, key=lambda line: (line["row"], line["seed"])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
