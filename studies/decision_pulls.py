"""Which pairs EKD by decisions pulls, and how many are wrong: data/results/decision_pulls.csv.

    python studies/decision_pulls.py [FOLDER]

Batches of the regime without labels are shown to a student that FitNet has trained there (seed 1 of
`ekd-lite compare --recipe study`, in runs/study if no folder is named). Pairs are counted by the
student's cosine a, in bins of 0.02, apart by what the teacher decides and by whether it is right.
Beside the counts stand the slopes |dL/da| of three losses on one pair, each for a pair that shall
be accepted and for one that shall not:

    ekd      soft ranks over the student's own thresholds A_m, |2 (R(a) - L or 0) R'(a)|
    hinge    a contrastive loss with its margins at A, the student's threshold at 1e-4
    gap      the mean of |2 (a - b)|, b the teacher's cosine: the squared gap of Eq. 7

Only shapes count: every loss has a weight of its own.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from ekd_lite.data import NeighbourSampler
from ekd_lite.distill import FineEKDLoss
from ekd_lite.evaluate import embed
from ekd_lite.experiments import load_study
from ekd_lite.experiments.study import read_runs_table, teacher_rows
from ekd_lite.experiments.study_plan import Run
from ekd_lite.ops import unit_rows
from ekd_lite.train import load_model

BATCHES, WIDTH = 400, 0.02
GROUPS = ("accepted_right", "accepted_wrong", "rejected_right", "rejected_wrong")


def student_of_fitnet(out: Path) -> Path:
    """The folder of the FitNet student of seed 1."""
    for line in read_runs_table(out):
        key = (line["regime"], line["row"], line["stage"], line["seed"])
        if key == ("none", "fitnet:32", "final", "1"):
            return out / Run("none", line["row"], line["setting"], "final", 1).name
    raise SystemExit(f"the FitNet student of seed 1 has not been trained in {out} yet")


def main() -> None:
    """Count and write."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/study")
    folder, faces = student_of_fitnet(out), load_study("study").sets["new"].faces(32)
    teacher = load_file(teacher_rows(out, "new"))["embeddings"]
    labels, student = faces.labels, embed(load_model(folder).backbone, faces)
    threshold = float((out / "threshold.txt").read_text(encoding="utf-8").split("\n")[0])
    loss = FineEKDLoss(student.shape[1], teacher.shape[1], targets="decisions", threshold=threshold)
    sampler = NeighbourSampler(teacher, threshold, seed=1, num_steps=BATCHES)
    bins = round(2 / WIDTH)
    counts = torch.zeros(len(GROUPS), bins, dtype=torch.float64)
    gaps = torch.zeros_like(counts)
    for step in range(BATCHES):
        index = torch.as_tensor(sampler.batch(step))
        loss(student[index], teacher[index], None)
        i, j = torch.triu_indices(len(index), len(index), offset=1)
        s, t = unit_rows(student[index]), unit_rows(teacher[index])
        a, b = (s @ s.T)[i, j], (t @ t.T)[i, j]
        is_accepted, is_same = b >= threshold, labels[index][i] == labels[index][j]
        group = 2 * (~is_accepted).long() + (is_accepted != is_same).long()
        place = group * bins + ((a + 1) / WIDTH).long().clamp(0, bins - 1)
        counts.view(-1).index_add_(0, place, torch.ones_like(a, dtype=torch.float64))
        gaps.view(-1).index_add_(0, place, (2 * (a - b)).abs().double())
    levels, _ = loss.thresholds(loss.fprs)
    margin = float(loss.thresholds([1e-4])[0])
    centres = (torch.arange(bins) + 0.5) * WIDTH - 1
    soft = torch.sigmoid((centres[:, None] - levels) / loss.temperature)
    slope = (soft * (1 - soft)).sum(1) / loss.temperature
    rank = soft.sum(1)
    path = Path("data/results/decision_pulls.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        forces = ("ekd_accept", "ekd_reject", "hinge_accept", "hinge_reject")
        table.writerow(["cosine", *GROUPS, *(f"{g}_gap" for g in GROUPS), *forces, "margin"])
        for k, centre in enumerate(centres.tolist()):
            pulls = 2 * (len(levels) - rank[k]) * slope[k], 2 * rank[k] * slope[k]
            hinges = float(centre < margin), float(centre > margin)
            mean_gaps = (gaps[:, k] / counts[:, k].clamp(min=1)).tolist()
            table.writerow(
                [
                    f"{centre:.2f}",
                    *(f"{n:.0f}" for n in counts[:, k].tolist()),
                    *(f"{gap:.4f}" for gap in mean_gaps),
                    *(f"{float(x):.4f}" for x in (*pulls, *hinges)),
                    f"{margin:.4f}",
                ]
            )
    print(f"wrote {path}; thresholds {[round(x, 3) for x in levels.tolist()]}")


if __name__ == "__main__":
    main()
