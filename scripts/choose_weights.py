"""TPR on validation identities for several weights of several methods, as CSV on standard output.

ekd-lite train --out runs/teacher --backbone tiny_teacher --steps 2000
python scripts/choose_weights.py --teacher runs/teacher kd:4 kd:8 fitnet:16 ekd:32+fitnet:16
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import torch

from ekd_lite.data import load_splits
from ekd_lite.evaluate import all_pairs_tpr_at_fpr
from ekd_lite.evaluate.embed import embed
from ekd_lite.train import TrainConfig, fit, load_model

FPRS = (1e-2, 1e-3, 1e-4)


def run(task: tuple[str, int, int, str]) -> list[object]:
    """Train one student and measure it on the validation identities."""
    method, seed, steps, teacher = task
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    splits = load_splits(workers=1, progress=False)
    config = TrainConfig(
        method=method,
        seed=seed,
        steps=steps,
        teacher=None if method == "none" else teacher,
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(fit(config, splits.train, Path(folder), progress=False))
    rows = embed(model.backbone, splits.validation)
    tpr = all_pairs_tpr_at_fpr(rows, splits.validation.labels, FPRS)
    return [method, seed, *(round(100 * value, 2) for value in tpr.tolist())]


def main() -> None:
    """Read the arguments, run every method with every seed, print as results come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="+", help="for example kd:4, ekd:32+fitnet:16, none")
    parser.add_argument("--teacher", required=True, help="run folder of the teacher")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    load_splits()  # render once, before the processes ask for it
    common = (arguments.steps, arguments.teacher)
    tasks = [(m, s, *common) for m in arguments.methods for s in arguments.seeds]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["method", "seed", "tpr@1e-2", "tpr@1e-3", "tpr@1e-4"])
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for row in pool.imap_unordered(run, tasks):
            writer.writerow(row)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
