"""Where MobileFaceNet fails, by person and with intervals: a table of `real_faces_tables.py`.

Test images are put into thirds by what the index and the crops say of them, and pairs by the
groups of their two images. Cells and threshold (for FPR 1e-2 over all pairs, the same for every
group and in every draw) are those of the library's `group_rates`:

    detector    YuNet's score; of the two images the one in the lower third counts
    face size   distance between the eyes, pixels of the photograph; likewise
    light       mean brightness of the crop; alike: in one third, unlike: in the first and the last
    teacher     SFace's own cosine of the two images: thirds of the genuine pairs, everybody's pairs
                together weighing the same; impostor pairs as SFace refuses or accepts them

TPR is counted by person: the mean, over people who have genuine pairs in a group, of the share of
them that passes. FPR is that of the impostor pairs. `gap` is the last group minus the first.
Intervals are of the draws of people (and of seeds, if there are several) that all tables share.
The net of the longest run stands there too, under its number of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from lfw import Row, read_index
from real_faces_phone import (
    DRAWS,
    TEACHER,
    cells,
    difference_of,
    ends_of,
    mean_of,
    percent,
    phones,
)
from real_faces_plan import PHONE, Run
from torch import Tensor
from torch.nn.functional import normalize

from ekd_lite.evaluate import BootstrapResult
from ekd_lite.evaluate.bootstrap import draw_weights
from ekd_lite.evaluate.scores import block_scores, fixed_rows
from ekd_lite.ops import false_accepts_at

if TYPE_CHECKING:
    from real_faces_tables import Nets

FAIL_AT = 1e-2
WORSE = np.minimum.outer(range(3), range(3))  # of two thirds the lower
APART = np.abs(np.subtract.outer(range(3), range(3)))
KINDS = ("genuine", "impostor")


@dataclass(frozen=True)
class Condition:
    """Groups of pairs: their names, and each pair's number, (N, N) int8, for either kind."""

    names: tuple[str, ...]
    genuine: np.ndarray | None
    impostor: np.ndarray | None


class People:
    """The test people, whose images stand side by side, and how often each draw has them."""

    def __init__(self, labels: Tensor) -> None:
        assert bool((labels.diff() >= 0).all())
        self.labels = labels
        self.starts = np.flatnonzero(np.diff(labels.numpy(), prepend=-1))
        self.weights = np.stack(draw_weights(len(self.starts), DRAWS, 0)).astype(np.float32)
        same = labels[:, None] == labels
        self.is_pair = {"genuine": same.triu(1).numpy(), "impostor": (~same).numpy()}

    def table(self, pairs: np.ndarray) -> np.ndarray:
        """Pairs of images as numbers of pairs of people, (P, P)."""
        rows = np.add.reduceat(pairs.astype(np.float32), self.starts, axis=0)
        table: np.ndarray = np.add.reduceat(rows, self.starts, axis=1)
        return table

    def rate(self, kind: str, passed: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Share that passes, of the set itself and of every draw, (1 + R,)."""
        if kind == "impostor":
            share = [((self.weights @ x) * self.weights).sum(1) for x in (passed, asked)]
        else:
            has = asked.diagonal() > 0
            shares = passed.diagonal()[has] / asked.diagonal()[has]
            share = [self.weights[:, has] @ shares, self.weights[:, has].sum(1)]
        with np.errstate(invalid="ignore"):  # NaN where a draw has nobody of a group
            return np.asarray(share[0] / share[1])


def groups(nets: Nets) -> Iterator[Row]:
    """Rates of every group for the teacher and every row of MobileFaceNet, and their gaps."""
    people = People(nets.test.images.labels)
    conditions = conditions_of(nets, people)
    asked = {
        (by, kind): [people.table(people.is_pair[kind] & (of == k)) for k in range(len(c.names))]
        for by, c in conditions.items()
        for kind in KINDS
        if (of := getattr(c, kind)) is not None
    }
    rows: dict[tuple[int, str], list[Run | None]] = {(112, TEACHER): [None]}
    rows |= {key: list(runs) for key, runs in phones(nets).items()}
    rows |= {
        (run.size, f"{run.row}, {run.images:,} images"): [run]
        for run in nets.finished("long")
        if run.backbone == PHONE
    }
    found = {
        key: {run.seed if run else 0: _rates(nets, run, people, conditions, asked) for run in runs}
        for key, runs in rows.items()
    }
    for (size, row), by_seed in found.items():
        alone = found.get((size, "alone"), {}) if row != "alone" else {}
        shared = sorted(by_seed.keys() & alone.keys())
        seeds = "0" if row == TEACHER else str(len(by_seed))
        for (by, kind), tables in asked.items():
            mean = mean_of([by_seed[seed][by, kind] for seed in sorted(by_seed)])
            columns = {"rate": ends_of(mean)}
            if shared:
                sides = [[x[seed][by, kind] for seed in shared] for x in (by_seed, alone)]
                columns["minus_alone"] = difference_of(*sides)
            for k, name in enumerate((*conditions[by].names, "gap")):
                line = {"row": row, "size": str(size), "seeds": seeds, "by": by, "pairs": kind}
                line |= {"group": name} | (_about(kind, tables[k]) if k < len(tables) else {})
                for column, ends in columns.items():
                    line |= cells([end[k : k + 1] for end in ends], [column])
                yield line


def _about(kind: str, table: np.ndarray) -> Row:
    """How many pairs a group has, of how many people, and which share two of them own."""
    if kind == "impostor":
        return {"count": f"{table.sum(dtype=np.float64) / 2:.0f}"}
    own = np.sort(table.diagonal().astype(np.float64))
    two = own[-2:].sum() / own.sum()
    people = str(int((own > 0).sum()))
    return {"count": f"{own.sum():.0f}", "people": people, "largest_two": percent(two)}


def _rates(
    nets: Nets,
    run: Run | None,
    people: People,
    conditions: dict[str, Condition],
    asked: dict[tuple[str, str], list[np.ndarray]],
) -> dict[tuple[str, str], BootstrapResult]:
    """The rates of every group of a net, the gap after them, with their draws."""
    rows = nets.rows(run)
    passes = accepted(rows, people.labels)
    found = {}
    for (by, kind), tables in asked.items():
        own, of = people.is_pair[kind] & passes, getattr(conditions[by], kind)
        rates = [
            people.rate(kind, people.table(own & (of == k)), table)
            for k, table in enumerate(tables)
        ]
        draws = torch.from_numpy(np.stack([*rates, rates[-1] - rates[0]], axis=1)).double()
        low, high = draws[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
        levels = (FAIL_AT,) * draws.shape[1]
        found[by, kind] = BootstrapResult(levels, draws[0], low, high, draws[1:])
    return found


def accepted(rows: Tensor, labels: Tensor) -> np.ndarray:
    """Whether each pair passes at the threshold of the whole set, (N, N)."""
    fixed = fixed_rows("rows", rows)
    scores = block_scores(fixed, fixed)  # whole numbers, as everywhere in the library
    impostor = np.sort(scores[np.triu(labels[:, None] != labels)])
    return np.asarray(scores > impostor[-1 - false_accepts_at(FAIL_AT, len(impostor))])


def conditions_of(nets: Nets, people: People) -> dict[str, Condition]:
    """The groups of all pairs under each condition."""
    index = {row["file"]: row for row in read_index(nets.data)}
    lines = [index[file] for file in nets.test.files]
    points = np.array([[float(line[f"{c}{k}"]) for c in "xy" for k in (1, 2)] for line in lines])
    values = {
        "detector": np.array([float(line["detector_score"]) for line in lines]),
        "face size": np.hypot(points[:, 1] - points[:, 0], points[:, 3] - points[:, 2]),
        "light": nets.test.images.batch(range(len(lines))).mean(dim=(1, 2, 3)).numpy(),
    }
    found = {}
    for by, value in values.items():
        third = thirds(value)
        of, names = (WORSE, ("low", "middle", "high"))
        if by == "light":
            of, names = (APART, ("alike", "between", "unlike"))
        pairs = of[third[:, None], third].astype(np.int8)
        found[by] = Condition(names, pairs, pairs)
    rows = nets.rows(None)
    unit = normalize(rows.double(), dim=1)
    cosines, genuine = (unit @ unit.T).numpy(), people.is_pair["genuine"]
    each = people.table(genuine).diagonal()
    own = cosines[genuine]
    share = 1 / each[people.labels.numpy()[np.nonzero(genuine)[0]]]
    order = np.argsort(own)
    total = np.cumsum(share[order])
    cuts = own[order][np.searchsorted(total, total[-1] * np.array([1 / 3, 2 / 3]))]
    of_pair = np.searchsorted(cuts, cosines).astype(np.int8)
    found["teacher"] = Condition(("low", "middle", "high"), of_pair, None)
    passes = accepted(rows, people.labels)
    found["teacher's decision"] = Condition(("refuses", "accepts"), None, passes.astype(np.int8))
    return found


def thirds(value: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for every image, from the lowest third up."""
    found: np.ndarray = np.searchsorted(np.quantile(value, [1 / 3, 2 / 3]), value, side="left")
    return found
