"""TPR at FPR and the ROC curve, by counting.

A *score* is larger when two faces are more alike; a pair is accepted iff `score >= threshold`. With
G genuine scores g and n impostor scores s,

    FPR(t) = #{s >= t} / n,      TPR(t) = #{g >= t} / G.

Names elsewhere: FPR = FMR (ISO 19795-1) = FAR (IJB, insightface); TPR = 1 - FNMR = TAR = VR.
"""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from ekd_lite.evaluate.inputs import Array, Levels, as_flags, as_levels, as_tensor
from ekd_lite.evaluate.nearest import nearest_tpr
from ekd_lite.ops import false_accepts_at, largest


class UndefinedMetricWarning(UserWarning):
    """The data cannot show the number that was asked for; NaN was returned instead."""


def tpr_from_split(genuine: Tensor, impostor: Tensor, levels: list[float]) -> Tensor:
    """The largest TPR with FPR <= level, for each level.

    At most k = floor(n * level) impostors may pass, so the threshold has to lie above the (k+1)-th
    largest impostor score; the lowest such threshold accepts every genuine score above that one.
    """
    counts = [false_accepts_at(fpr, impostor.numel()) for fpr in levels]
    top = largest(impostor, min(max(counts) + 1, impostor.numel()))
    tpr = torch.full((len(levels),), float("nan"), dtype=torch.float64)
    for m, count in enumerate(counts):
        if count >= impostor.numel() > 0:
            tpr[m] = 1.0
        elif count > 0 and genuine.numel() > 0:
            tpr[m] = (genuine > top[count]).sum().item() / genuine.numel()
    warn_if_undefined(levels, genuine.numel(), impostor.numel())
    return tpr


def warn_if_undefined(levels: list[float], num_genuine: int, num_impostor: int) -> None:
    """Say which levels the pairs at hand cannot show, and why."""
    if num_genuine == 0 or num_impostor == 0:
        side = "genuine" if num_genuine == 0 else "impostor"
        warnings.warn(f"no {side} pair: TPR at FPR is NaN", UndefinedMetricWarning, stacklevel=3)
        return
    too_fine = [fpr for fpr in levels if false_accepts_at(fpr, num_impostor) == 0]
    if too_fine:
        message = (
            f"{num_impostor} impostor pairs cannot show an FPR of {too_fine}: "
            f"the finest level is {1 / num_impostor:.2g}; TPR is NaN there"
        )
        warnings.warn(message, UndefinedMetricWarning, stacklevel=3)


def split_scores(scores: Array, is_genuine: Array) -> tuple[Tensor, Tensor]:
    """Check scores (P,) and flags (P,), and return (genuine scores, impostor scores)."""
    scores, is_genuine = as_tensor("scores", scores), as_tensor("is_genuine", is_genuine)
    if scores.ndim != 1 or scores.shape != is_genuine.shape:
        raise ValueError(
            "scores and is_genuine must be 1-D and of one length, "
            f"got shapes {tuple(scores.shape)} and {tuple(is_genuine.shape)}"
        )
    # NaN or infinity spoils the sum. Large finite scores may too: only then all are looked at.
    if not scores.sum().isfinite() and not scores.isfinite().all():
        bad = int((~scores.isfinite()).sum())
        raise ValueError(f"scores must be finite, got {bad} NaN or infinite of {scores.numel()}")
    is_genuine = as_flags("is_genuine", is_genuine)
    if scores.device.type != "cpu" or is_genuine.device.type != "cpu":
        return scores[is_genuine], scores[~is_genuine]
    # On the CPU by numpy, whose choice by booleans is many times faster and lists no indices.
    if scores.dtype == torch.bfloat16:
        scores = scores.float()  # numpy has no such type; float32 holds the same numbers
    array, flags = scores.detach().numpy(), is_genuine.numpy()
    return torch.from_numpy(array[flags]), torch.from_numpy(array[~flags])


def roc(
    scores: Array, is_genuine: Array, *, drop_intermediate: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The ROC curve, one point for every distinct score.

    Args:
        scores: larger means more alike, shape (P,).
        is_genuine: True where the two faces are of one identity, shape (P,).
        drop_intermediate: leave out points on a straight line between their neighbours, as
            scikit-learn does by default. It changes the picture by nothing and the nearest-point
            rule of `tpr_at_fpr` by up to some 1e-4.

    Returns:
        fpr, tpr, thresholds: float64 tensors of one length, fpr and tpr rising from 0 to 1; the
        first threshold is infinite. A side with no pair gives NaN and an `UndefinedMetricWarning`.
    """
    genuine, impostor = split_scores(scores, is_genuine)
    warn_if_undefined([1.0], genuine.numel(), impostor.numel())
    thresholds = torch.unique(torch.cat([genuine, impostor]).double()).flip(0)
    counts = []
    for side in (impostor, genuine):
        ascending = side.double().sort().values
        # How many scores are >= each threshold.
        counts.append(side.numel() - torch.searchsorted(ascending, thresholds, right=False))
    fp, tp = counts
    if drop_intermediate and fp.numel() > 2:
        bends = (fp.diff(n=2) != 0) | (tp.diff(n=2) != 0)
        keep = torch.cat([bends.new_ones(1), bends, bends.new_ones(1)])
        fp, tp, thresholds = fp[keep], tp[keep], thresholds[keep]
    fp, tp = (torch.cat([count.new_zeros(1), count]) for count in (fp, tp))
    thresholds = torch.cat([thresholds.new_full((1,), float("inf")), thresholds])
    nan = float("nan")
    fpr = fp.double() / (impostor.numel() or nan)
    tpr = tp.double() / (genuine.numel() or nan)
    return fpr, tpr, thresholds


def tpr_at_fpr(
    scores: Array,
    is_genuine: Array,
    fprs: Levels,
    *,
    convention: Literal["conservative", "nearest"] = "conservative",
) -> Tensor:
    """True-positive rate at given false-positive rates, exact.

    Args:
        scores: larger means more alike, shape (P,).
        is_genuine: True where the two faces are of one identity, shape (P,).
        fprs: false-positive rates in (0, 1], L of them.
        convention: "conservative" takes the largest TPR with FPR <= level. "nearest" takes the
            point of the thinned ROC whose FPR is nearest to the level, which may lie above it; so
            do insightface's `eval_ijbc.py` and the papers that use it.

    Returns:
        TPR in [0, 1], shape (L,), float64. A level below 1/n, which n impostor pairs cannot show,
        is NaN with an `UndefinedMetricWarning`; so is everything when one side has no pair.

    Raises:
        ValueError: shapes differ, a score is not finite, or a level lies outside (0, 1].
    """
    levels = as_levels(fprs)
    genuine, impostor = split_scores(scores, is_genuine)
    if convention == "conservative":
        return tpr_from_split(genuine, impostor, levels)
    if convention != "nearest":
        raise ValueError(f'convention must be "conservative" or "nearest", got {convention!r}')
    warn_if_undefined(levels, genuine.numel(), impostor.numel())
    if not genuine.numel() or not impostor.numel():
        return torch.full((len(levels),), float("nan"), dtype=torch.float64)
    picked = nearest_tpr(genuine, impostor, levels)
    can_show = [false_accepts_at(level, impostor.numel()) > 0 for level in levels]
    return torch.where(torch.tensor(can_show), picked, float("nan"))
