"""How many directions a cloud of points fills, judged by two neighbours of each point."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ekd_lite.evaluate.inputs import Array, as_rows, check_finite
from ekd_lite.ops import are_numbers

CELLS = 1 << 22  # distances held at a time
CANDIDATES = 4  # whose distances are measured again, exactly


def intrinsic_dimension(
    points: Array, *, method: Literal["mle", "line"] = "mle", discard: float = 0.0
) -> float:
    r"""The intrinsic dimension of N points by TwoNN (Facco et al., Scientific Reports 7, 2017).

    With r_1 <= r_2 the distances of a point to its two nearest neighbours, mu = r_2 / r_1. Where
    the density hardly changes within r_2, log mu is exponentially distributed with rate d, the
    dimension, whatever the density is. Two estimators of that rate, from x_1 <= ... <= x_N, the
    sorted log mu, without the K largest::

        mle    d = (n - 1) / (x_1 + ... + x_n + K x_n),          n = N - K
        line   d = sum_k x_k y_k / sum_k x_k^2,   y_k = -log(1 - k / N),   k = 1 .. n

    "line" is the published one, a line through the origin; its authors discard a tenth. "mle" is
    the maximum-likelihood estimate, free of bias; with K = 0 it is (N - 1) / sum_k x_k.

    It answers for the scale of r_2. Ten images of each of many people have their neighbours within
    the person, one image each has them among other people, and the two may differ tenfold. In
    many dimensions it reads low, for a thousand points do not fill twenty.

    Args:
        points: (N, D). Distances are Euclidean: hand over unit rows if cosines are what counts.
        method: "mle" or "line".
        discard: share of the points to leave out, those of the largest mu; 0.1 in the paper.
            "line" leaves out the last point in any case, for y_N is infinite.

    Returns:
        d; infinity if all distances are equal. Time grows as N^2 D; memory with N alone.

    Raises:
        ValueError: fewer than three points (or kept points), NaN in a point, equal points, for
            which mu is not defined, another method or share.

    Example:
        >>> plane = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
        >>> round(intrinsic_dimension(plane @ torch.ones(2, 64).triu()), 1)
        2.0
    """
    rows = as_rows("points", points)
    if method not in ("mle", "line"):
        raise ValueError(f"method must be 'mle' or 'line', got {method!r}")
    if not are_numbers(discard) or not 0 <= discard < 1:
        raise ValueError(f"discard must lie in [0, 1), got {discard!r}")
    count = len(rows)
    lost = math.ceil(round(count * discard, 9))  # 0.1 of 30 is 3, although 30 * 0.1 > 3
    lost = max(lost, 1) if method == "line" else lost
    if count < 3 or count - lost < 2:
        raise ValueError(
            f"{count} points, {lost} of them discarded, say nothing of a dimension: expected 3 or "
            "more, and 2 that are kept"
        )
    check_finite("points", rows)
    nearest = _two_nearest(rows.double())
    equal = (nearest[:, 0] == 0).nonzero().flatten()
    if len(equal):
        raise ValueError(
            f"{len(equal)} points have an equal, among them point {int(equal[0])}: take one of each"
            " (torch.unique(points, dim=0)), for r_2 / r_1 is not defined where r_1 = 0"
        )
    x = (nearest[:, 1] / nearest[:, 0]).log().sort().values[: count - lost]
    if method == "mle":
        total = float(x.sum() + lost * x[-1])
        return (len(x) - 1) / total if total else math.inf
    y = -torch.log1p(-torch.arange(1, len(x) + 1, dtype=x.dtype, device=x.device) / count)
    squares = float(x @ x)
    return float(x @ y) / squares if squares else math.inf


def _two_nearest(rows: Tensor) -> Tensor:
    """Distances of every row to its two nearest others, (N, 2)."""
    rows = rows - rows.mean(dim=0)  # the expansion below loses digits far from the origin
    squared = rows.square().sum(dim=1)
    found = []
    for start in range(0, len(rows), max(1, CELLS // len(rows))):
        block = rows[start : start + max(1, CELLS // len(rows))]
        rough = torch.addmm(squared[None], block, rows.T, alpha=-2)  # less the block's own square
        own = torch.arange(len(block), device=rows.device)
        rough[own, start + own] = torch.inf
        near = rough.topk(min(CANDIDATES, len(rows) - 1), largest=False).indices
        # |a|^2 - 2 a.b + |b|^2 finds who is near; how near, only the difference itself says.
        exact = torch.linalg.vector_norm(block[:, None] - rows[near], dim=2)
        found.append(exact.topk(2, largest=False).values)
    return torch.cat(found)
