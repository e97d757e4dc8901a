"""Real faces through the whole of `ekd_lite.evaluate`: LFW under the cached SFace teacher.

    python studies/lfw_reference.py --data DIR

DIR holds `lfw_index.csv` (identity, file, dev_split), `lfw_sface_embeddings.npy` (a row of it
each), `lfw_pairs_view2.csv` and `lfw_pairs_devtest.csv` (file1, file2, is_genuine, fold). No face
and no embedding is copied: `data/results/lfw_sface.csv` holds numbers, and `lfw_sface.json` beside
it says where they come from.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ekd_lite.evaluate import (  # noqa: E402
    VerificationResult,
    bootstrap_tpr_at_fpr,
    count_pairs,
    verification_accuracy,
)

FILES = (
    "lfw_index.csv",
    "lfw_sface_embeddings.npy",
    "lfw_pairs_view2.csv",
    "lfw_pairs_devtest.csv",
)
LEVELS = (1e-2, 1e-3, 1e-4, 1e-5)
OUT = ROOT / "data" / "results" / "lfw_sface.csv"


def main(arguments: list[str] | None = None) -> int:
    """Make the table; 2 if the data are not there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the LFW files")
    parser.add_argument("--out", type=Path, default=OUT, help="the table to write")
    parser.add_argument("--resamples", type=int, default=1000, help="of the identity bootstrap")
    options = parser.parse_args(arguments)
    missing = [name for name in FILES if not (options.data / name).is_file()]
    if missing:
        print(
            f"lfw_reference: {options.data} lacks {', '.join(missing)}. These files are made from "
            "LFW and are not part of this repository (data/README.md).",
            file=sys.stderr,
        )
        return 2
    rows = reference_rows(options.data, options.resamples)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    note = provenance(options.resamples)
    options.out.with_suffix(".json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"), end="")
    return 0


def reference_rows(data: Path, resamples: int) -> list[dict[str, str]]:
    """The rows of the table: two pair lists, and all pairs of the development test people."""
    with (data / "lfw_index.csv").open(encoding="utf-8") as file:
        index = list(csv.DictReader(file))
    embeddings = torch.from_numpy(np.load(data / "lfw_sface_embeddings.npy", allow_pickle=False))
    if len(embeddings) != len(index):
        raise ValueError(f"{len(index)} rows in the index, {len(embeddings)} embeddings")
    embeddings = embeddings.float()
    number = {row["file"]: i for i, row in enumerate(index)}
    rows = []
    for split, name in (("view2", "lfw"), ("devtest", None)):
        result, left_out, pairs = on_pairs(
            data / f"lfw_pairs_{split}.csv", number, embeddings, name
        )
        protocol = f"{split}: {pairs} pairs, 10 folds" + (
            f", {left_out} left out" if left_out else ""
        )
        low_high = ("", "")
        rows.append(as_row(protocol, "accuracy", result.accuracy, low_high, result.accuracy_std))
        rows.append(as_row(protocol, "TAR at FAR 1e-3", result.tar, low_high, result.tar_std))
    is_test = torch.tensor([row["dev_split"] == "test" for row in index])
    names = {name: i for i, name in enumerate(sorted({row["identity"] for row in index}))}
    labels = torch.tensor([names[row["identity"]] for row in index])[is_test]
    interval = bootstrap_tpr_at_fpr(
        embeddings[is_test], labels, LEVELS, num_resamples=resamples, seed=0
    )
    genuine, impostor = count_pairs(labels)
    protocol = f"devtest people: all pairs, {genuine} genuine, {impostor} impostor"
    for m, level in enumerate(LEVELS):
        ends = tuple(f"{float(x[m]):.4f}" for x in (interval.low, interval.high))
        rows.append(as_row(protocol, f"TPR at FPR {level:.0e}", float(interval.estimate[m]), ends))
    return rows


@dataclass(frozen=True)
class PairList:
    """Pairs by the numbers of their images, (P,) each; how many of the list were left out."""

    left: Tensor
    right: Tensor
    is_genuine: Tensor
    folds: Tensor
    left_out: int


def read_pairs(path: Path, number: dict[str, int]) -> PairList:
    """A list of pairs in ten folds, without those that name a missing image."""
    with path.open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    kept = [row for row in listed if row["file1"] in number and row["file2"] in number]
    left, right = (torch.tensor([number[row[side]] for row in kept]) for side in ("file1", "file2"))
    folds = torch.tensor([int(row["fold"]) for row in kept])
    is_genuine = torch.tensor([int(row["is_genuine"]) for row in kept])
    if bool((folds == folds[0]).all()):  # View 1 has one list: deal its halves out to ten folds
        order = torch.cat([torch.arange(int(n)) for n in torch.bincount(1 - is_genuine)])
        folds = order % 10
    return PairList(left, right, is_genuine, folds, len(listed) - len(kept))


def on_pairs(
    path: Path, number: dict[str, int], embeddings: Tensor, name: str | None
) -> tuple[VerificationResult, int, int]:
    """The 10-fold result of a pair list; pairs that name a missing image are left out, counted."""
    pairs = read_pairs(path, number)
    left, right = embeddings[pairs.left], embeddings[pairs.right]
    result = verification_accuracy(
        left, right, pairs.is_genuine, folds=pairs.folds, name=name, fprs=(1e-1,)
    )
    return result, pairs.left_out, len(pairs.left)


def as_row(
    protocol: str, metric: str, value: float, ends: tuple[str, ...], std: float | None = None
) -> dict[str, str]:
    """One line of the table."""
    row = {"model": "SFace (OpenCV Zoo, int8bq), no flip", "protocol": protocol, "metric": metric}
    row |= {"value": f"{value:.4f}", "low_95": ends[0], "high_95": ends[1]}
    return row | {"std_over_folds": "" if std is None else f"{std:.4f}"}


def provenance(resamples: int) -> dict[str, str]:
    """Where and when the numbers were made."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "command": f"python studies/lfw_reference.py --data DIR --resamples {resamples}",
        "commit": commit or "unknown",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "hardware": f"{platform.machine()}, CPU, torch {torch.__version__}",
        "data": "LFW, 13,232 images aligned to 112x112, and SFace embeddings of them, float16",
        "intervals": "95 %, percentile bootstrap over identities, seed 0",
        "terms": "LFW is a research benchmark of news photographs, mostly male, mostly "
        "light-skinned, mostly US news; some labels are wrong. No commercial conclusions.",
    }


if __name__ == "__main__":
    sys.exit(main())
