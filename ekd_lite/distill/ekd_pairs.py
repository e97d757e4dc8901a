"""Parts of EKD: cosines of pairs, the hardest, histograms, soft ranks, a sparse gradient."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ekd_lite.ops import are_numbers, check_tensors, is_free_to_fetch

NO_PAIR = -2.0  # below any cosine
BINS = 4000  # of a histogram of cosines: 0.0005 each, a two-hundredth of the usual temperature
BLOCK = 128  # rows of one product: few enough to leave out nearly half, enough to be fast


def upper_cosines(unit: Tensor) -> Tensor:
    """Cosines of the pairs i < j of unit rows (N, D), and `NO_PAIR` elsewhere: (N, N).

    A block of rows meets only the rows from its own first one on: half the arithmetic.
    """
    n, is_lower = len(unit), _lower_triangle(unit.device)
    if n <= BLOCK:
        return (unit @ unit.T).masked_fill_(is_lower[:n, :n], NO_PAIR)
    cosines = unit.new_full((n, n), NO_PAIR)
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        torch.mm(unit[first:last], unit[first:].T, out=cosines[first:last, first:])
        cosines[first:last, first:last].masked_fill_(
            is_lower[: last - first, : last - first], NO_PAIR
        )
    return cosines


@functools.lru_cache(maxsize=8)
def _lower_triangle(device: torch.device) -> Tensor:
    """Places i >= j of a block, made once a device."""
    with torch.inference_mode(False):
        return torch.ones((BLOCK, BLOCK), dtype=torch.bool, device=device).tril()


def genuine_pairs(labels: Tensor) -> Tensor:
    """Pairs i < j of one identity, as places in the (N, N) matrix: (P,); labels on the CPU."""
    of_row = labels.numpy()
    both = (of_row[:, None] == of_row).ravel().nonzero()[0]
    return torch.from_numpy(both[both // len(of_row) < both % len(of_row)])


def hardest_pairs(cosines: Tensor, last: Tensor | float, count: int) -> Tensor:
    """The places of the `count` largest cosines, (count,).

    Args:
        cosines: of the pairs that may be chosen, and below -1 elsewhere, (N * N,).
        last: the `count`-th largest of them, 0-dim, or what is below all of them.
        count: how many.
    """
    # Not ">= last": a NaN counts as hardest, as in a sort, so that the loss shows it.
    places = true_places(~(cosines < last))
    if len(places) > count:  # pairs that tie for the last place come after the harder ones
        is_tied = cosines.index_select(0, places) == last
        places = torch.cat([places[~is_tied], places[is_tied]])[:count]
    return places


def true_places(mask: Tensor) -> Tensor:
    """Where a vector of booleans is true; numpy is three times faster at it on the CPU."""
    if not is_free_to_fetch(mask):
        return mask.nonzero()[:, 0]
    return torch.from_numpy(mask.numpy().nonzero()[0])


def count_cosines(counts: Tensor, cosines: Tensor, is_left_out: Tensor) -> None:
    """Add cosines to a histogram from -1 to 1, (BINS,), but for those left out.

    Pairs that do not count go to a bin of their own: no copy of those that do.
    """
    if not is_free_to_fetch(cosines):  # `bincount` asks for the largest bin
        outside = cosines.clamp(-1, 1).masked_fill(is_left_out, 5.0).nan_to_num(nan=5.0)
        counts += torch.histc(outside, BINS, -1, 1).to(counts.dtype)
        return
    bins = ((cosines + 1) * (BINS / 2)).int().clamp_(0, BINS - 1)
    bins.masked_fill_(is_left_out, BINS)
    counts += torch.bincount(bins.flatten(), minlength=BINS + 1)[:BINS]


def histogram_thresholds(counts: Tensor, fprs: Sequence[float]) -> Tensor:
    """Thresholds at those rates that all of K histograms (K, BINS) have counted enough pairs for.

    A threshold is the upper edge of the bin in which the rate is exceeded, so that the share of
    pairs above it is at most the rate. A rate below one pair in all that were counted is left out.

    Returns:
        (K, L) float64, L at most the number of rates.
    """
    above = counts.flip(1).cumsum(1)
    rates = torch.tensor(fprs, dtype=torch.float64, device=above.device)
    wanted = above[:, -1:] * rates * (1 + 1e-9)  # no pair is lost to rounding
    wanted = wanted[:, (wanted >= 1).all(0)].contiguous()
    return 1 - torch.searchsorted(above, wanted, right=True).double() * (2 / BINS)


def soft_rank(similarity: Tensor, thresholds: Tensor, *, temperature: float) -> Tensor:
    """How many thresholds (L,) each similarity (P,) passes, softly: (P,) in 0..L.

    Written as 1 / (1 + exp(-z)) because `torch.sigmoid` computes its slope as y (1 - y), which is
    exactly 0 in float32 from z = 17 on, where the authors' form keeps a tail.
    """
    check_tensors(similarity=similarity, thresholds=thresholds)
    if not are_numbers(temperature) or temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if similarity.ndim != 1 or thresholds.ndim != 1:
        shapes = f"{tuple(similarity.shape)} and {tuple(thresholds.shape)}"
        raise ValueError(f"expected similarity (P,) and thresholds (L,), got {shapes}")
    z = (similarity[:, None] - thresholds) / temperature
    return (1 / (1 + torch.exp(-z.clamp(-50, 50)))).sum(dim=1)


def rank_pairs(
    similarity: Tensor, thresholds: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft ranks of pairs in student and teacher, and the slope of the student's.

    With y = 1 / (1 + e) and e = exp(-z), dy/dz = e y^2: no difference of nearly equal numbers.

    Args:
        similarity: of P pairs, the student's and the teacher's, (2, P).
        thresholds: of the two, (2, L).
        temperature: tau.

    Returns:
        R^S and R^T as in `soft_rank`, and dR^S/da, each (P,).
    """
    # (L, 2, P): sums along the first axis are several times faster than along a last one of six.
    e = (thresholds.T[:, :, None] - similarity).div_(temperature).clamp_(-50, 50).exp_()
    y = (1 + e).reciprocal_()
    student, teacher = y.sum(dim=0)
    return student, teacher, y[:, 0].square_().mul_(e[:, 0]).sum(dim=0).div_(temperature)


def compare_ranks(
    cosines: Tensor,
    num_genuine: int,
    thresholds: Tensor,
    *,
    temperature: float,
    weights: tuple[float, float],
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The loss of EKD on given pairs, w_pos mean gap^2 + w_neg mean gap^2, gap = R^S - R^T.

    Args:
        cosines: of the pairs in student and teacher, the genuine ones first, (2, P).
        num_genuine: how many of them are genuine.
        thresholds: of the two nets, (2, L).
        temperature: tau.
        weights: w_pos and w_neg.

    Returns:
        The loss, 0-dim; its slope at every cosine of the student, (P,); and the parts of it:
        "positive_loss", "negative_loss" and "critical_share" as in `EKDLoss.stats`.
    """
    student_rank, teacher_rank, slope = rank_pairs(cosines, thresholds, temperature=temperature)
    return weigh_gaps(student_rank - teacher_rank, slope, num_genuine, weights)


def weigh_gaps(
    gap: Tensor, slope: Tensor, num_genuine: int, weights: tuple[float, float]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """w_pos mean gap^2 over the genuine pairs, the first ones, + w_neg mean gap^2 over the others.

    Args:
        gap: of every pair, (P,).
        slope: dgap/dcosine, (P,); overwritten.
        num_genuine: how many pairs are genuine.
        weights: w_pos and w_neg.

    Returns:
        As `compare_ranks`.
    """
    slope, squared = slope.mul_(2 * gap), gap.square()
    sizes = max(num_genuine, 1), max(len(gap) - num_genuine, 1)
    positive = squared[:num_genuine].sum().div_(sizes[0])
    negative = squared[num_genuine:].sum().div_(sizes[1])
    slope[:num_genuine].mul_(weights[0] / sizes[0])
    slope[num_genuine:].mul_(weights[1] / sizes[1])
    share = (squared > 0.25).sum() / max(len(gap), 1)
    stats = {"positive_loss": positive, "negative_loss": negative, "critical_share": share}
    return weights[0] * positive + weights[1] * negative, slope, stats


def pair_gradient(unit: Tensor, others: Tensor, slope: Tensor, places: Tensor) -> Tensor:
    """Gradient of rows x, from the slope of a loss at some cosines of x with rows y.

    The first N of the y are the x themselves. Some 2000 of N^2 / 2 pairs take part, so that
    dL/dx = C y + C^T x, the latter for the first N columns, with a sparse C: at N = 2048 a tenth of
    the work that automatic differentiation makes of it.

    Args:
        unit: x, (N, D).
        others: y, (K, D), K >= N; what comes after the first N rows is a memory and stays as it is.
        slope: dL/dcosine of every pair, (P,).
        places: where the pairs stand in the (N, K) matrix of cosines, each once, (P,).
    """
    n, k = len(unit), len(others)
    slope = slope.to(unit.dtype)
    if n * k < 64 * len(places):  # a small batch: most entries take part anyway
        weights = unit.new_zeros(n * k).scatter_(0, places, slope).view(n, k)
        if k == n:
            return (weights + weights.T) @ unit
        return weights @ others + weights[:, :n].T @ unit
    i, j = places // k, places % k
    is_own = j < n
    index = torch.stack([torch.cat([i, j[is_own]]), torch.cat([j, i[is_own]])])
    weights = torch.cat([slope, slope[is_own]])
    matrix = torch.sparse_coo_tensor(index, weights, (n, k), check_invariants=False)
    grad: Tensor = torch.sparse.mm(matrix, others)
    return grad
