"""Was one net made from another? Whether two nets see the same resemblances in the same images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.bootstrap import draw_weights
from ekd_lite.evaluate.inputs import Array, as_labels, as_rows, check_resampling
from ekd_lite.evaluate.scores import STEPS, Rows, block_scores, fixed_rows

TILE = 1024
MAX_UNDEFINED = 0.02  # share of draws, such as those of one person only, that an interval forgives
NAMES = ("sac", "pearson", "pearson_impostors")


def relation_agreement(
    a: Array,
    b: Array,
    labels: Array | None = None,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """How alike two nets' cosines are on the same images, with intervals over identities.

    With A_ij and B_ij the cosines of images i and j in the two nets::

        sac                 mean over all N^2 entries (i, j) of |A_ij - B_ij| / 2
        pearson             correlation of A_ij and B_ij over the pairs i < j
        pearson_impostors   the same over pairs of two people

    `sac` is the distance of Guan et al. (NeurIPS 2022) on embeddings: small is suspicious. Their
    program of 2024 leaves out the half, so that its thresholds are twice as large. All nets of one
    task agree on who is one person; that is why the correlation is also given for impostors alone.

    None of the three proves anything by itself. Nets that were trained on the same faces agree
    without any theft, and a student that was taught sides of thresholds (EKD) agreed less with its
    teacher than a net that never met it. Compare with the same numbers of *several independent
    nets*: of the same task, the same data and about the same size.

    Args:
        a: embeddings of N images by one net, (N, D).
        b: of the same images, in the same order, by the other, (N, D').
        labels: identities, (N,). Left out, every image stands for a person of its own, and
            `pearson_impostors` is NaN.
        num_resamples: R, how often the identities are drawn anew; 0 gives no intervals (NaN).
        confidence: of the percentile intervals, from draws of identities as in
            `bootstrap_tpr_at_fpr`. They say how far other *people* would move the numbers, not
            how far apart independent nets are.
        seed: of the draws.

    Returns:
        The three, and for each its `..._low` and `..._high`. A correlation with cosines that are
        all equal is NaN, and so is an interval if it is in more than 2 % of the draws. Memory: the
        embeddings, a tile, and R times the identities.

    Raises:
        ValueError: wrong shapes, NaN in an embedding, labels that are not whole, one identity
            only, options out of range.

    Example:
        >>> rows = torch.eye(4)[[0, 1, 2, 3, 0]] + 0.1
        >>> found = relation_agreement(rows, 2 * rows, num_resamples=0)
        >>> found["sac"], round(found["pearson"], 6)
        (0.0, 1.0)
    """
    rows = [as_rows(name, value) for name, value in (("a", a), ("b", b))]
    count = len(rows[0])
    if len(rows[1]) != count:
        raise ValueError(
            f"a and b must be of the same images, got {count} and {len(rows[1])} embeddings"
        )
    check_resampling(num_resamples, confidence, seed, least=0)
    people = torch.arange(count) if labels is None else as_labels("labels", labels, count)
    order = people.argsort(stable=True)
    sizes = torch.unique_consecutive(people[order], return_counts=True)[1]
    if len(sizes) < 2:
        raise ValueError("comparing nets needs images of at least two people, got one")
    one, other = (
        fixed_rows(name, value, order) for name, value in zip(("a", "b"), rows, strict=True)
    )
    draws = np.stack(draw_weights(len(sizes), num_resamples, seed)).astype(np.float64)
    genuine, impostor = _moments(one, other, sizes, torch.from_numpy(draws))
    both = genuine + impostor
    values = {
        "sac": _mean(both[:, 5], both[:, 0]) * (1 - 1 / count),  # the diagonal is zero
        "pearson": _correlation(both),
        "pearson_impostors": _correlation(impostor if labels is not None else impostor * np.nan),
    }
    found = {name: float(value[0]) for name, value in values.items()}
    tail = (1 - confidence) / 2
    for name, value in values.items():
        drawn, ends = value[1:], [np.nan, np.nan]
        if num_resamples and np.isnan(drawn).mean() <= MAX_UNDEFINED:
            ends = np.nanquantile(drawn, [tail, 1 - tail])
        found[f"{name}_low"], found[f"{name}_high"] = map(float, ends)
    return found


def _moments(a: Rows, b: Rows, sizes: Tensor, weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums over genuine and over impostor pairs of 1, x, y, x^2, y^2, |x - y| / 2 and x y.

    x and y are the cosines of a pair less the mean of each net, so that the squares lose no digits.

    Args:
        a: rows of one net, sorted by identity, N of them.
        b: of the other.
        sizes: images of each identity, (I,).
        weights: how often each identity counts, (R, I) float64.

    Returns:
        (R, 7) twice.
    """
    person = torch.arange(len(sizes)).repeat_interleave(sizes)
    centres = [_mean_cosine(rows) for rows in (a, b)]
    genuine, impostor = torch.zeros(2, len(weights), 7, dtype=torch.float64)
    for r in range(0, len(person), TILE):
        for c in range(r, len(person), TILE):
            up, across = slice(r, r + TILE), slice(c, c + TILE)
            x, y = (
                torch.from_numpy(block_scores(rows[up], rows[across])).double() / STEPS
                for rows in (a, b)
            )
            gap = (x - y).abs() / 2
            x, y = x - centres[0], y - centres[1]
            counts = torch.ones_like(x)
            if r == c:  # each pair once
                x, y, gap, counts = x.triu(1), y.triu(1), gap.triu(1), counts.triu(1)
            left = torch.arange(int(person[up][0]), int(person[up][-1]) + 1)
            right = torch.arange(int(person[across][0]), int(person[across][-1]) + 1)
            own = right[right <= left[-1]]  # whose genuine pairs are here
            for k, term in enumerate((counts, x, y, x * x, y * y, gap, x * y)):
                cells = torch.zeros(len(left), term.shape[1], dtype=torch.float64)
                cells = cells.index_add_(0, person[up] - left[0], term)
                pairs = torch.zeros(len(left), len(right), dtype=torch.float64)
                pairs.index_add_(1, person[across] - right[0], cells)
                where = (own - left[0], own - right[0])
                genuine[:, k] += weights[:, own] @ pairs[where]
                pairs[where] = 0
                impostor[:, k] += ((weights[:, left] @ pairs) * weights[:, right]).sum(dim=1)
    return genuine.numpy(), impostor.numpy()


def _mean_cosine(rows: Rows) -> float:
    """About the mean of all cosines of pairs."""
    unit = rows.unit().double()
    return float((unit.sum(dim=0).square().sum() - len(unit)) / (len(unit) * (len(unit) - 1)))


def _mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums over counts; NaN for a draw without a pair."""
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson's r from the sums of `_moments`, (R, 7) -> (R,); NaN where a side does not vary."""
    with np.errstate(all="ignore"):
        _, x, y, xx, yy, _, xy = (sums / sums[:, :1]).T
        varies = (xx - x * x > 1e-18) & (yy - y * y > 1e-18)  # the steps of a score, squared
        r = (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))
    result: np.ndarray = np.where(varies, np.clip(r, -1, 1), np.nan)
    return result
