"""Where the students of `studies/lfw_distil.py` fail, in numbers: no picture is shown or kept.

    python studies/lfw_failures.py --data ../shared/data --work /tmp/lfw_distil

Pairs of the test people are put into groups by what differs between the two images, and each net is
asked at its own threshold for FPR 1e-2 over all pairs: which share of the genuine (TPR) and of the
impostor pairs (FPR) of a group does it accept? The groups:

    turn    difference of the heads' turn: how far the nose lies off the middle of the eyes, along
            the line through them, in eye distances; terciles of the genuine pairs
    light   difference of the crops' mean brightness; terciles of the genuine pairs
    people  genuine pairs of the two people with the most images, and of everybody else

`lfw_distil_failures.csv` has the mean over the seeds, and `lfw_distil_people.csv` says how many
people have how many images.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from lfw_distil import OUT, Row, Table, read_faces, read_index, run_of, split_people
from torch import Tensor
from torch.nn.functional import normalize

from ekd_lite.ops import false_accepts_at

LEVEL = 1e-2


def turns(index: list[Row]) -> dict[str, float]:
    """How far each head is turned aside: 0 from the front, negative and positive to the sides."""
    found = {}
    for row in index:
        x = np.array([[float(row[f"x{k}"]), float(row[f"y{k}"])] for k in (1, 2, 3)])
        axis = x[1] - x[0]
        found[row["file"]] = float((x[2] - (x[0] + x[1]) / 2) @ axis / (axis @ axis))
    return found


def accepted_pairs(embeddings: Tensor, genuine: Tensor) -> Tensor:
    """Which of all pairs are accepted at the level, (P,)."""
    i, j = torch.triu_indices(len(embeddings), len(embeddings), offset=1)
    unit = normalize(embeddings.float(), dim=1)
    scores = (unit @ unit.T)[i, j]
    allowed = false_accepts_at(LEVEL, int((~genuine).sum()))
    return scores > scores[~genuine].topk(allowed + 1).values[-1]


def groups_of(data: Path, work: Path) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
    """Which pairs are genuine, (P,), and for each group which pairs are in it, (P,)."""
    faces = read_faces(data, work, "test")
    turn = turns(read_index(data))
    values = {
        "turn": torch.tensor([turn[file] for file in faces.files]),
        "light": faces.images.batch(range(len(faces.files))).mean(dim=(1, 2, 3)),
    }
    labels = faces.images.labels
    i, j = torch.triu_indices(len(labels), len(labels), offset=1)
    genuine = labels[i] == labels[j]
    groups: dict[tuple[str, str], Tensor] = {}
    for by, value in values.items():
        gap = (value[i] - value[j]).abs()
        low, high = np.quantile(gap[genuine].numpy(), [1 / 3, 2 / 3])
        groups |= {
            (by, "alike"): gap <= low,
            (by, "between"): (gap > low) & (gap <= high),
            (by, "unlike"): gap > high,
        }
    famous = torch.bincount(labels).topk(2).indices
    is_famous = torch.isin(labels[i], famous) & genuine
    groups |= {("people", "two most photographed"): is_famous}
    groups |= {("people", "everybody else"): genuine & ~is_famous}
    return genuine, groups


def failures(table: Table, data: Path, work: Path) -> list[Row]:
    """The rows of the table of failures."""
    genuine, groups = groups_of(data, work)
    final = [row for row in table.rows if row["stage"] == "final"]
    teacher = None
    rows = []
    for key in dict.fromkeys((row["method"], row["labels"]) for row in final):
        runs = [row for row in final if (row["method"], row["labels"]) == key]
        names = ["SFace" if key[0] == "SFace" else run_of(row).name for row in runs]
        rates: dict[tuple[str, str, str], list[float]] = {}
        for name in names:
            embeddings = np.load(work / name / "test.npz", allow_pickle=False)["embeddings"]
            accepted = accepted_pairs(torch.from_numpy(embeddings), genuine)
            teacher = accepted if teacher is None else teacher
            asked = groups | {("teacher", "accepts"): teacher, ("teacher", "refuses"): ~teacher}
            for (by, group), members in asked.items():
                for kind, side in (("genuine", genuine), ("impostor", ~genuine)):
                    if bool((members & side).any()):
                        rate = float(accepted[members & side].float().mean())
                        rates.setdefault((by, group, kind), []).append(rate)
        for (by, group, kind), values in rates.items():
            side = genuine if kind == "genuine" else ~genuine
            count = int((asked[by, group] & side).sum())
            row = {"method": key[0], "labels": key[1], "by": by, "group": group, "pairs": kind}
            rows.append(row | {"count": str(count), "accepted": f"{100 * np.mean(values):.2f}"})
    return rows


def people(data: Path) -> list[Row]:
    """How many people of each part have how many images."""
    index = read_index(data)
    images = Counter(row["identity"] for row in index)
    rows = []
    for part, names in split_people(index).items():
        counts = Counter(images[name] for name in names)
        rows += [{"part": part, "images": str(n), "people": str(counts[n])} for n in sorted(counts)]
    return rows


def write(path: Path, rows: list[Row]) -> None:
    """Write a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")


def main() -> None:
    """Read the arguments and write both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the LFW files")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--table", type=Path, default=OUT, help="the table of the runs")
    options = parser.parse_args()
    data = options.data.resolve()
    torch.set_num_threads(1)
    out = options.table.parent
    write(out / "lfw_distil_people.csv", people(data))
    rows = failures(Table(options.table), data, options.work.resolve())
    write(out / "lfw_distil_failures.csv", rows)


if __name__ == "__main__":
    main()
