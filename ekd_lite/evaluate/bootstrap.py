"""Error bars for TPR at FPR: resample identities, not pairs.

Ten images of 250 people make 11,250 genuine and 3,112,500 impostor pairs, but there are only 250
people: pairs that share a face rise and fall together. Drawing *pairs* anew treats them as
independent and gives intervals several times too narrow. Here identities are drawn with
replacement; an identity drawn w times gives weight w to each of its genuine pairs and w * v to each
impostor pair with an identity drawn v times (copies of one person are not compared with each
other).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.roc import as_levels, warn_if_undefined
from ekd_lite.evaluate.thresholds import impostor_thresholds
from ekd_lite.evaluate.tiles import (
    check_embeddings,
    count_pairs,
    genuine_scores,
    impostor_tiles,
)
from ekd_lite.ops import false_accepts_at


@dataclass(frozen=True)
class BootstrapResult:
    """TPR at FPR with an interval, L levels and R resamples.

    Attributes:
        fprs: the levels, in the order asked for.
        estimate: TPR on the set itself, (L,).
        low: lower end of the interval, (L,).
        high: upper end, (L,).
        samples: TPR of every resample, (R, L). Two results made with one seed from the same labels
            used the same resamples, so `a.samples - b.samples` is the paired difference.
    """

    fprs: tuple[float, ...]
    estimate: Tensor
    low: Tensor
    high: Tensor
    samples: Tensor


def bootstrap_tpr_at_fpr(
    embeddings: Tensor,
    labels: Tensor,
    fprs: Iterable[float] | Tensor,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BootstrapResult:
    """All-pairs TPR at FPR with percentile intervals from an identity-level bootstrap.

    Args:
        embeddings: (N, D), not necessarily normalised.
        labels: identities, (N,) int64.
        fprs: false-positive rates in (0, 1], L of them.
        num_resamples: R, how often the identities are drawn anew.
        confidence: share of resamples inside the interval.
        seed: of the draws; the same seed and labels give the same draws.

    Returns:
        A `BootstrapResult`; levels that the impostor pairs cannot show are NaN.

    Raises:
        ValueError: wrong shapes, NaN in an embedding, fewer than two identities, bad options.
    """
    levels = as_levels(fprs)
    if num_resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            "expected num_resamples >= 1 and 0 < confidence < 1, "
            f"got {num_resamples} and {confidence}"
        )
    unit, labels = check_embeddings(embeddings, labels)
    order = labels.argsort(stable=True)
    unit, labels = unit[order].contiguous(), labels[order]
    _, identity, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise ValueError("resampling identities needs at least two of them, got one")
    num_genuine, num_impostor = count_pairs(labels)
    warn_if_undefined(levels, num_genuine, num_impostor)

    genuine = torch.cat([*genuine_scores(unit, labels), torch.zeros(0, dtype=torch.float64)])
    per_identity = sizes * (sizes - 1) // 2
    owner = torch.repeat_interleave(torch.arange(len(sizes)), per_identity).numpy()
    by_score = np.argsort(-genuine.numpy(), kind="stable")
    genuine_descending, owner = genuine.numpy()[by_score], owner[by_score]

    rng = np.random.default_rng(seed)
    draws = [np.ones(len(sizes))] + [
        np.bincount(rng.integers(0, len(sizes), len(sizes)), minlength=len(sizes)).astype(float)
        for _ in range(num_resamples)
    ]
    rows = np.full((len(draws), len(levels)), np.nan)
    share = min(1.0, 3 * max(levels) + 1000 / max(num_impostor, 1))
    pending = list(range(len(draws)))
    while pending and num_genuine and num_impostor:
        scores, first, second = _top_impostors(unit, identity, share)
        too_short = [
            r
            for r in pending
            if not _resample(
                rows[r], draws[r], levels, sizes.numpy(), genuine_descending, owner,
                scores, first, second, is_complete=share >= 1.0,
            )
        ]  # fmt: skip
        pending, share = too_short, min(1.0, share * 3)

    samples = torch.from_numpy(rows)
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = samples[1:].quantile(tails, dim=0)
    return BootstrapResult(tuple(levels), samples[0].clone(), low, high, samples[1:].clone())


def _top_impostors(
    unit: Tensor, identity: Tensor, share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The highest `share` of the impostor scores, descending, with the two identities of each."""
    num_impostor = count_pairs(identity)[1]
    count = false_accepts_at(share, num_impostor)
    cut = -2.0
    if count < num_impostor:
        cut = float(impostor_thresholds(unit, identity, [count])[0])
    labels = identity.numpy()
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for r, c, scores, mask in impostor_tiles(unit, identity):
        i, j = np.nonzero(scores >= cut if mask is None else mask & (scores >= cut))
        parts.append((scores[i, j], labels[r + i], labels[c + j]))
    values, first, second = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-values, kind="stable")
    return values[order].astype(np.float64), first[order], second[order]


def _resample(
    out: np.ndarray,
    weights: np.ndarray,
    levels: list[float],
    sizes: np.ndarray,
    genuine: np.ndarray,
    owner: np.ndarray,
    impostor: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    is_complete: bool,
) -> bool:
    """Fill one row of weighted TPRs; False if the impostor list ends above a threshold."""
    images = weights * sizes
    num_impostor = round((images.sum() ** 2 - (images**2).sum()) / 2)
    accepted_impostors = (weights[first] * weights[second]).cumsum()
    accepted_genuine = np.concatenate([[0.0], weights[owner].cumsum()])
    for m, level in enumerate(levels):
        allowed = false_accepts_at(level, num_impostor)
        if allowed == 0 or accepted_genuine[-1] == 0:
            continue  # this draw cannot show the level
        # The first impostor that must not pass: one more than allowed would be accepted with it.
        position = int(np.searchsorted(accepted_impostors, allowed, side="right"))
        if position == len(impostor):
            if not is_complete:
                return False
            out[m] = 1.0
            continue
        passed = int(np.searchsorted(-genuine, -impostor[position], side="left"))
        out[m] = accepted_genuine[passed] / accepted_genuine[-1]
    return True


def paired_difference(
    first: BootstrapResult, second: BootstrapResult, *, confidence: float = 0.95
) -> tuple[Tensor, Tensor, Tensor]:
    """How much higher the first model's TPR is, with an interval from the same resamples.

    Args:
        first: result of one model.
        second: result of another, made with the same labels, levels, seed and number of resamples.
        confidence: share of resamples inside the interval.

    Returns:
        difference, low, high, each (L,). An interval that excludes 0 says that one model is
        better on identities such as these.
    """
    if first.fprs != second.fprs or first.samples.shape != second.samples.shape:
        raise ValueError("the two results differ in levels or number of resamples: not paired")
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = (first.samples - second.samples).quantile(tails, dim=0)
    return first.estimate - second.estimate, low, high
