"""Two tables of embeddings from anywhere, no net: TPR at FPR with intervals, and is one better?

    python evaluate_my_embeddings.py new.npy old.npy labels.npy

The tables are (N, D) and (N, D'), one row an image in the same order; labels (N,) are the numbers
of the people. Without arguments the script makes three such files first. For your own data write
them with `numpy.save`; at 1e-4 or below take hundreds of people, or the interval is NaN.
"""

from __future__ import annotations

import sys

import numpy as np

from ekd_lite.evaluate import bootstrap_tpr_at_fpr, count_pairs, paired_difference

FPRS = [1e-2, 1e-3]


def main(new: str, old: str, labels: str) -> None:
    """Print a row for each table, and the difference over the same draws of people."""
    people = np.load(labels)
    genuine, impostor = count_pairs(people)
    print(f"{len(np.unique(people))} people, {genuine:,} genuine and {impostor:,} impostor pairs")
    results = {}
    for path in (new, old):
        # Draws people, not pairs: pairs that share a face are not independent.
        results[path] = bootstrap_tpr_at_fpr(np.load(path), people, FPRS, num_resamples=500)
        found = results[path]
        for fpr, tpr, low, high in zip(FPRS, found.estimate, found.low, found.high, strict=True):
            print(f"{path}: TPR {tpr:.1%} [{low:.1%}, {high:.1%}] at FPR {fpr:.0e}")
    for fpr, gain, low, high in zip(
        FPRS, *paired_difference(results[new], results[old]), strict=True
    ):
        says = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
        points = f"{100 * gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
        print(f"{new} against {old} at FPR {fpr:.0e}: {points}: {says}")


def make_tables() -> list[str]:
    """Files of 80 invented people with 6 images each; the old net has more noise."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(80), 6)
    centres = rng.normal(size=(80, 64))[people]
    np.save("labels.npy", people)
    for name, noise in (("new", 1.2), ("old", 1.3)):
        np.save(f"{name}.npy", centres + noise * rng.normal(size=centres.shape))
    return ["new.npy", "old.npy", "labels.npy"]


if __name__ == "__main__":
    main(*(sys.argv[1:] or make_tables()))
