"""MegaFace challenge 1: find the other photo of a person among a million strangers.

Every ordered pair of different probe images of one person is a search: the one looks, the other is
hidden among the distractors. Rank 1 is reached when it scores above all of them. Verification
takes the same genuine pairs against all (probe, distractor) pairs.

The cleaned ("R", refined) version drops known label noise, as insightface's `remove_noises.py`
does: a noisy probe is replaced by the unit vector of the sum of its person's clean embeddings (plus
noise of 0.001), and every vector gets one more number, 0 but for noisy distractors, where it is
100: they point elsewhere and match nobody. Mind what that rewards: the replaced probes sit on
their class centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ekd_lite.data.pair_forms import list_text
from ekd_lite.evaluate.identify import BLOCK, check_rows, check_widths
from ekd_lite.evaluate.inputs import (
    Array,
    as_flags,
    as_level,
    as_rows,
    check_finite,
    check_seed,
)
from ekd_lite.evaluate.roc import warn_if_undefined
from ekd_lite.evaluate.scores import NOBODY, block_scores, fixed_rows, pair_scores
from ekd_lite.ops import false_accepts_at, largest, unit_rows


@dataclass(frozen=True)
class MegaFaceResult:
    """Rank-1 rate and TPR at FPR among distractors.

    Attributes:
        rank1: share of genuine ordered pairs that outscore every distractor.
        fpr: the level.
        tpr: largest TPR with FPR <= fpr; NaN with a warning where the pairs cannot show it.
        num_genuine: genuine ordered pairs.
        num_impostor: probes times distractors.
    """

    rank1: float
    fpr: float
    tpr: float
    num_genuine: int
    num_impostor: int


def megaface_rates(
    probes: Array,
    labels: Array,
    distractors: Array,
    *,
    fpr: float = 1e-6,
    progress: bool = False,
) -> MegaFaceResult:
    """Rank-1 and TPR@FPR, exact; memory grows with the distractors only as their embeddings do.

    Args:
        probes: (Q, D), not necessarily normalised: f(x) + f(mirrored x) in published numbers.
        labels: identities, (Q,) int64.
        distractors: people who are none of the probes', (M, D).
        fpr: level of the verification number; k = floor(Q M fpr) scores are held.
        progress: show a bar on a terminal.

    Raises:
        ValueError: wrong shapes, NaN, no genuine pair, a level outside (0, 1].
    """
    fpr = as_level("fpr", fpr)
    probes, labels = check_rows("probes", probes, labels)
    distractors = as_rows("distractors", distractors)
    check_widths("probes", probes, "distractors", distractors)
    i, j = (labels[:, None] == labels).fill_diagonal_(fill_value=False).nonzero(as_tuple=True)
    if not len(i):
        raise ValueError("no two probes show one person: there is nothing to find")
    if not len(distractors):
        raise ValueError("there is no distractor: distractors (M, D) needs at least one row")
    rows = fixed_rows("probes", probes)
    check_finite("distractors", distractors)
    num_impostor = len(rows) * len(distractors)
    warn_if_undefined([fpr], len(i), num_impostor)
    allowed = false_accepts_at(fpr, num_impostor)
    best = np.full(len(rows), NOBODY, dtype=np.int32)
    top = torch.zeros(0, dtype=torch.int32)
    starts = range(0, len(distractors), BLOCK)
    for start in tqdm(starts, desc="distractors", disable=None if progress else True):
        scores = block_scores(rows, fixed_rows("distractors", distractors[start : start + BLOCK]))
        best = np.maximum(best, scores.max(axis=1))
        scores = scores.ravel()
        if len(top) > allowed:  # the list is full: only what beats its end can enter
            scores = scores[scores > int(top[-1])]
        together = torch.cat([top, torch.from_numpy(scores)])
        top = largest(together, min(allowed + 1, len(together)))
    genuine = pair_scores(rows, rows, i, j)
    threshold = int(top[allowed]) if allowed < num_impostor else NOBODY
    return MegaFaceResult(
        rank1=float((genuine > best[i.numpy()]).mean()),
        fpr=fpr,
        tpr=float((genuine > threshold).mean()) if allowed else float("nan"),
        num_genuine=len(i),
        num_impostor=num_impostor,
    )


def refine(
    probes: Array,
    labels: Array,
    is_noisy_probe: Array,
    distractors: Array,
    is_noisy_distractor: Array,
    *,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Take known label noise out, the way the refined MegaFace numbers are made.

    Args:
        probes: embeddings, scaled to length one here, (Q, D).
        labels: identities, (Q,).
        is_noisy_probe: (Q,) bool.
        distractors: (M, D), scaled to length one here.
        is_noisy_distractor: (M,) bool.
        seed: of the noise in [-0.001, 0.001] on replaced probes.

    Returns:
        Probes (Q, D + 1) and distractors (M, D + 1) for `megaface_rates`.

    Raises:
        ValueError: wrong shapes, or a noisy probe whose person has no clean image.
    """
    probes, labels = check_rows("probes", probes, labels)
    distractors, _ = check_rows("distractors", distractors, is_noisy_distractor)
    is_noisy_probe = as_flags("is_noisy_probe", is_noisy_probe).cpu()
    is_noisy = as_flags("is_noisy_distractor", is_noisy_distractor).cpu()
    if is_noisy_probe.shape != labels.shape:
        raise ValueError(f"expected one flag for each of {len(labels)} probes")
    unit = fixed_rows("probes", probes).unit()
    others = fixed_rows("distractors", distractors).unit()
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    clean = unit.clone()
    for row in is_noisy_probe.nonzero().flatten().tolist():
        mates = (labels == labels[row]) & ~is_noisy_probe
        if not mates.any():
            raise ValueError(f"probe {row} is noisy and identity {int(labels[row])} has none clean")
        noise = torch.rand(unit.shape[1], generator=generator, dtype=unit.dtype) * 0.002 - 0.001
        clean[row] = unit_rows(unit[mates].sum(dim=0) + noise, eps=1e-12)
    extra = 100.0 * is_noisy[:, None].to(others.dtype)
    return torch.cat([clean, torch.zeros_like(clean[:, :1])], 1), torch.cat([others, extra], 1)


def read_noise_list(path: str | Path) -> set[str]:
    """Names in `facescrub_noises.txt` or `megaface_noises.txt`.

    A line is a name, or a number, a tab and a name; # begins a comment; blank lines are left out.
    """
    names = set()
    for text in list_text(Path(path)).splitlines():
        line = text.strip()
        if line and not line.startswith("#"):
            fields = line.split("\t")
            names.add(fields[1] if len(fields) > 1 else fields[0])
    if not names:
        raise ValueError(f"{path} names no image")
    return names
