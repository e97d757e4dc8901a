"""Where the students of `studies/real_faces.py` fail, in numbers: no picture is shown or kept.

Pairs of test people are put into thirds by a condition, and each net is asked at its own threshold
for FPR 1e-2 over all pairs: which share of the genuine (TPR) and of the impostor pairs (FPR) of a
third does it accept? Conditions, from the index and the crops:

    turn        difference of the heads' turn: how far the nose lies off the middle of the eyes,
                along the line through them, in eye distances
    light       difference of the crops' mean brightness
    detector    the lower of the two detector scores
    face size   the smaller of the two distances between the eyes, pixels of the photographs
    teacher     whether the teacher accepts the pair
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from lfw import Row, read_index
from real_faces_plan import PHONE
from torch import Tensor
from torch.nn.functional import normalize

from ekd_lite.ops import false_accepts_at

if TYPE_CHECKING:
    from real_faces_tables import Nets

FAIL_AT = 1e-2
TEACHER = "SFace"


def failures(nets: Nets) -> Iterator[Row]:
    """Shares accepted of groups of pairs, at each net's own threshold for one FPR over all."""
    labels = nets.test.images.labels
    i, j = torch.triu_indices(len(labels), len(labels), offset=1)
    genuine = labels[i] == labels[j]
    groups: dict[tuple[str, str], Tensor] = {}
    for by, value in conditions(nets).items():
        gap = (
            (value[i] - value[j]).abs()
            if by in ("turn", "light")
            else torch.minimum(value[i], value[j])
        )
        low, high = np.quantile(gap[genuine].numpy(), [1 / 3, 2 / 3])
        names = (
            ("alike", "between", "unlike") if by in ("turn", "light") else ("low", "middle", "high")
        )
        thirds = gap <= low, (gap > low) & (gap <= high), gap > high
        groups |= {(by, name): third for name, third in zip(names, thirds, strict=True)}
    accepted = {TEACHER: [_accepted(nets.rows(None), i, j, genuine)]}
    for row, runs in nets.methods().items():
        accepted[row] = [_accepted(nets.rows(run), i, j, genuine) for run in runs]
    for run in nets.runs:
        if run.backbone == PHONE:
            name = f"{run.row}, MobileFaceNet at {run.size}"
            accepted.setdefault(name, []).append(_accepted(nets.rows(run), i, j, genuine))
    groups |= {
        ("teacher", "accepts"): accepted[TEACHER][0],
        ("teacher", "refuses"): ~accepted[TEACHER][0],
    }
    for row, decisions in accepted.items():
        for (by, group), members in groups.items():
            for kind, side in (("genuine", genuine), ("impostor", ~genuine)):
                asked = members & side
                if int(asked.sum()):
                    share = sum(float(d[asked].float().mean()) for d in decisions) / len(decisions)
                    head = {"row": row, "by": by, "group": group, "pairs": kind}
                    yield head | {"count": str(int(asked.sum())), "accepted": f"{100 * share:.2f}"}


def _accepted(rows: Tensor, i: Tensor, j: Tensor, genuine: Tensor) -> Tensor:
    unit = normalize(rows, dim=1)
    scores = (unit @ unit.T)[i, j]
    allowed = false_accepts_at(FAIL_AT, int((~genuine).sum()))
    return scores > scores[~genuine].topk(allowed + 1).values[-1]


def conditions(nets: Nets) -> dict[str, Tensor]:
    """Turn of the head, light, detector's score and size of the face by image."""
    index = {row["file"]: row for row in read_index(nets.data)}
    lines = [index[file] for file in nets.test.files]
    points = np.array([[[float(r[f"{c}{k}"]) for c in "xy"] for k in (1, 2, 3)] for r in lines])
    axis = points[:, 1] - points[:, 0]
    nose = points[:, 2] - (points[:, 0] + points[:, 1]) / 2
    turn = (nose * axis).sum(1) / (axis * axis).sum(1)
    return {
        "turn": torch.from_numpy(turn),
        "light": nets.test.images.batch(range(len(lines))).mean(dim=(1, 2, 3)).double(),
        "detector": torch.tensor(
            [float(row["detector_score"]) for row in lines], dtype=torch.float64
        ),
        "face size": torch.from_numpy(np.hypot(*axis.T)),
    }
