"""Verification accuracy on a list of pairs: the protocol of LFW, as insightface computes it.

The pairs are cut into folds. On all folds but one the squared distance that tells genuine from
impostor pairs best is searched on a grid of 0, 0.01, ... 3.99 (the smallest of equals; a pair is
accepted below it, strictly); on the fold left out the share of right answers is counted. The mean
over the folds is the accuracy that papers print for LFW, CFP-FP, AgeDB-30, CALFW and CPLFW.

Same numbers, bit for bit, as `recognition/arcface_torch/eval/verification.py` of insightface
(float64 distances), which asks every pair about every threshold. Here each distance is filed once
under the first threshold above it, and cumulative sums of the counts answer for all thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.inputs import Array, Levels, as_flags, as_level, as_levels, as_tensor
from ekd_lite.evaluate.lfw_grid import (
    accuracies_of_folds,
    check_rows,
    squared_distances,
    tar_at_far,
)
from ekd_lite.evaluate.roc import tpr_from_split
from ekd_lite.evaluate.scores import STEPS
from ekd_lite.ops import nearest_name


@dataclass(frozen=True)
class SetSize:
    """Size of a public set: pairs, images (two a pair, repeats counted), folds."""

    num_pairs: int
    num_images: int
    num_folds: int = 10


VERIFICATION_SETS = {
    "lfw": SetSize(6000, 12000),
    "cfp_fp": SetSize(7000, 14000),
    "agedb_30": SetSize(6000, 12000),
    "calfw": SetSize(6000, 12000),
    "cplfw": SetSize(6000, 12000),
}
"""The sets by the names of their files; in each, half of the pairs are genuine."""


@dataclass(frozen=True)
class VerificationResult:
    """What F folds say.

    Attributes:
        accuracy: mean over the folds, in [0, 1].
        accuracy_std: standard deviation over the folds (divided by F, as papers print it). The
            folds share people and training pairs: it is no standard error.
        fold_accuracies: (F,) float64.
        fold_thresholds: cosine above which each fold accepted, (F,): 1 - d / 2 of the grid's
            squared distance d.
        tar: mean over the folds of the share of genuine pairs accepted at the threshold at which
            the other folds have a false-accept rate of `far_target`, interpolated. Where scores
            tie no threshold has that rate, and `far` tells it: a collapsed net has 1 in both.
        tar_std: its standard deviation over the folds.
        far: mean false-accept rate that was really met at those thresholds.
        fprs: levels of `tpr`.
        tpr: TPR at FPR over all pairs at once, exact, conservative, (L,) float64; the score is the
            cosine in steps of 2^-30, and equal pairs tie.
        scores: these cosines, (P,) float64.
    """

    accuracy: float
    accuracy_std: float
    fold_accuracies: Tensor
    fold_thresholds: Tensor
    tar: float
    tar_std: float
    far: float
    fprs: tuple[float, ...]
    tpr: Tensor
    scores: Tensor


def verification_accuracy(
    left: Array,
    right: Array,
    is_genuine: Array,
    *,
    mirrored: tuple[Array, Array] | None = None,
    folds: int | Array = 10,
    far_target: float = 1e-3,
    fprs: Levels = (1e-1, 1e-2, 1e-3),
    name: str | None = None,
) -> VerificationResult:
    """Accuracy of telling genuine from impostor pairs, threshold chosen on the other folds.

    Args:
        left: embeddings of the first images of P pairs, (P, D), not necessarily normalised.
        right: embeddings of the second images, (P, D).
        is_genuine: True where both show one person, (P,).
        mirrored: embeddings of the same images flipped left to right, added before normalising
            (insightface's habit; left out, single embeddings are compared).
        folds: number of folds, cut in the order of the list; or the fold of each pair, (P,).
        far_target: level of the cross-validated TAR.
        fprs: levels of the TPR over all pairs.
        name: one of `VERIFICATION_SETS`, whose size is then insisted upon.

    Returns:
        A `VerificationResult`.

    Raises:
        ValueError: wrong shapes, not finite, a fold without a pair of either kind, a wrong size.
    """
    levels = as_levels(fprs)
    far_target = as_level("far_target", far_target)
    flags = as_flags("is_genuine", is_genuine).cpu().numpy()
    if flags.ndim != 1:
        raise ValueError(f"expected is_genuine (P,), got {flags.shape}")
    fold, counts = split_folds(folds, flags)
    if mirrored is not None and (not isinstance(mirrored, tuple | list) or len(mirrored) != 2):
        raise ValueError("mirrored must be two tables, of the left and of the right images")
    sides = (left, right), (None, None) if mirrored is None else mirrored
    checked = [check_rows(*side, len(flags)) for side in zip(*sides, strict=True)]
    distances, steps = squared_distances(*checked)
    if name is not None:
        _check_named(name, flags, counts.shape[1])
    accuracies, thresholds = accuracies_of_folds(distances, flags, fold, counts)
    tar, far = tar_at_far(distances, flags, fold, counts, far_target)
    score = torch.from_numpy(steps)
    return VerificationResult(
        accuracy=float(accuracies.mean()),
        accuracy_std=float(accuracies.std()),
        fold_accuracies=torch.from_numpy(accuracies),
        fold_thresholds=1 - torch.from_numpy(thresholds) / 2,
        tar=float(tar.mean()),
        tar_std=float(tar.std()),
        far=float(far.mean()),
        fprs=tuple(levels),
        tpr=tpr_from_split(score[flags], score[~flags], levels),
        scores=score.double() / STEPS,
    )


def split_folds(folds: int | Array, flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fold of each pair (P,), and the impostor and genuine pairs in each fold, (2, F).

    Raises:
        ValueError: fewer than two folds, or one without a pair of either kind.
    """
    fold = _fold_of_each(folds, len(flags))
    num_folds = int(fold.max()) + 1
    counts = np.stack([np.bincount(fold[flags == x], minlength=num_folds) for x in (False, True)])
    if not counts.all():
        side, bad = (int(x[0]) for x in np.nonzero(counts == 0))
        raise ValueError(
            f"fold {bad} has no {('impostor', 'genuine')[side]} pair; order the list so that every "
            "fold holds both kinds, or give the fold of each pair"
        )
    return fold, counts


def _fold_of_each(folds: int | Array, num_pairs: int) -> np.ndarray:
    """The fold 0..F-1 of each pair; a number cuts the list in order, the first folds longer."""
    given = as_tensor("folds", folds)  # type: ignore[arg-type]
    if given.ndim:
        if given.shape != (num_pairs,) or given.is_floating_point():
            raise ValueError(f"expected one integer fold for each of {num_pairs} pairs")
        numbered: np.ndarray = np.unique(given.cpu().numpy(), return_inverse=True)[1].reshape(-1)
    else:
        if given.is_floating_point() or not 2 <= int(given) <= num_pairs:
            raise ValueError(f"expected 2 to {num_pairs} folds of {num_pairs} pairs, got {folds}")
        folds = int(given)
        parts = np.array_split(np.arange(num_pairs), folds)
        numbered = np.repeat(np.arange(folds), [len(part) for part in parts])
    if numbered.max(initial=0) < 1:
        raise ValueError("a threshold is chosen on the other folds: two folds or more are needed")
    return numbered


def _check_named(name: str, flags: np.ndarray, num_folds: int) -> None:
    """Raise a ValueError unless the list has the size of a public set."""
    if name not in VERIFICATION_SETS:
        raise ValueError(f"unknown set {name!r}{nearest_name(name, VERIFICATION_SETS)}")
    known = VERIFICATION_SETS[name]
    got = (len(flags), int(flags.sum()), num_folds)
    if got != (known.num_pairs, known.num_pairs // 2, known.num_folds):
        raise ValueError(
            f"{name} has {known.num_pairs} pairs, half of them genuine, in {known.num_folds} "
            f"folds; got {got[0]} pairs, {got[1]} genuine, in {got[2]} folds. "
            "Leave `name` out for a list of your own"
        )
