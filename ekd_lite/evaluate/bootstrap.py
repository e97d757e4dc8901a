"""Error bars for TPR at FPR: resample identities, not pairs.

Ten images of 250 people make 11,250 genuine and 3,112,500 impostor pairs, but there are only 250
people: pairs that share a face rise and fall together. Drawing *pairs* anew treats them as
independent and gives intervals several times too narrow. Here identities are drawn with
replacement; an identity drawn w times gives weight w to each of its genuine pairs and w * v to each
impostor pair with an identity drawn v times (copies of one person are not compared with each
other).
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.inputs import (
    Array,
    Levels,
    as_levels,
    check_by,
    check_false_accepts,
    check_resampling,
)
from ekd_lite.evaluate.resample import Draw, Genuine, impostors_from_the_top
from ekd_lite.evaluate.roc import UndefinedMetricWarning, warn_if_undefined
from ekd_lite.evaluate.tiles import count_pairs, sorted_rows
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
        by: whether every genuine "pair" or every "person" weighs the same.
        drawn: a digest of people, their images and the seed, by which `paired_difference` knows
            that two results belong together; "" in results put together by hand.
        runs: which runs `over_runs` has drawn, and how; "" for a single model.
    """

    fprs: tuple[float, ...]
    estimate: Tensor
    low: Tensor
    high: Tensor
    samples: Tensor
    by: Literal["pair", "person"] = "pair"
    drawn: str = ""
    runs: str = ""


def bootstrap_tpr_at_fpr(
    embeddings: Array,
    labels: Array,
    fprs: Levels,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    min_false_accepts: int = 10,
    by: Literal["pair", "person"] = "pair",
) -> BootstrapResult:
    """All-pairs TPR at FPR with percentile intervals from an identity-level bootstrap.

    Args:
        embeddings: (N, D), not necessarily normalised; scored as in `all_pairs_tpr_at_fpr`.
        labels: identities, (N,), whole numbers.
        fprs: false-positive rates in (0, 1], L of them.
        num_resamples: R, how often the identities are drawn anew.
        confidence: share of resamples inside the interval.
        seed: of the draws. The same seed and the same people give the same draws, and so the same
            result to the bit in any order of the images. People are drawn by their place in the
            order of labels: other numbers for them are other draws.
        min_false_accepts: with fewer false accepts at a level, the threshold hangs on a handful of
            pairs, which resampling cannot make more: the estimate stands, its interval is NaN.
        by: as in `all_pairs_tpr_at_fpr`; by person, an identity drawn w times counts w times in the
            mean over people.

    Returns:
        A `BootstrapResult`; levels that the impostor pairs cannot show are NaN. NaN comes with an
        `UndefinedMetricWarning`. Memory is bounded: some 400 MB beside the embeddings and the
        samples, however many scores are equal. Time grows with num_resamples times
        the highest level times the impostor pairs: 1,000 of them for 20,000 images take a
        minute at 1e-2 and half an hour at 1e-1.

    Raises:
        ValueError: wrong shapes, NaN in an embedding, fewer than two identities, bad options.
    """
    levels = as_levels(fprs)
    check_by(by)
    check_resampling(num_resamples, confidence, seed)
    check_false_accepts(min_false_accepts)
    rows, labels, _ = sorted_rows(embeddings, labels)
    _, identity, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise ValueError("resampling identities needs at least two of them, got one")
    num_genuine, num_impostor = count_pairs(labels)
    warn_if_undefined(levels, num_genuine, num_impostor)

    counts = [false_accepts_at(level, num_impostor) for level in levels]
    too_few = [m for m, k in enumerate(counts) if 0 < k < min_false_accepts]
    if too_few:
        message = (
            f"an interval needs {min_false_accepts} false accepts; FPR "
            f"{[levels[m] for m in too_few]} allow {[counts[m] for m in too_few]}: NaN there"
        )
        warnings.warn(message, UndefinedMetricWarning, stacklevel=2)
    weights = draw_weights(len(sizes), num_resamples, seed)
    genuine = Genuine.of(rows, labels, sizes, by)
    draws = [Draw(w, levels, sizes.numpy(), genuine) for w in weights]
    pending = draws if num_genuine and num_impostor else []
    for chunk in impostors_from_the_top(rows, identity, 2 * max(levels)):
        pending = [draw for draw in pending if not draw.advance(chunk)]
        if not pending:
            break
    for draw in pending:
        draw.finish()
    samples = torch.from_numpy(np.stack([draw.tpr for draw in draws]))
    estimate, samples = samples[0].clone(), samples[1:].clone()
    samples[:, too_few] = torch.nan
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = samples.quantile(tails, dim=0)
    return BootstrapResult(tuple(levels), estimate, low, high, samples, by, digest_of(labels, seed))


def digest_of(labels: Tensor, seed: int) -> str:
    """What `BootstrapResult.drawn` is for int64 labels, in any order, and a seed."""
    people = labels.sort().values.numpy().tobytes()
    return hashlib.sha256(people + repr(seed).encode()).hexdigest()


def draw_weights(num_identities: int, num_resamples: int, seed: int) -> list[np.ndarray]:
    """How often each identity was drawn; first of all the set itself, each once."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, num_identities, num_identities) for _ in range(num_resamples))
    return [
        np.ones(num_identities, dtype=np.uint16),
        *(np.bincount(d, minlength=num_identities).astype(np.uint16) for d in drawn),
    ]
