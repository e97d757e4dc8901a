"""The score of a pair: one arithmetic for every metric, so that equal pairs have equal scores.

A metric that counts scores above a threshold hangs on ties. With a net that gives every face one
embedding all scores are equal, no pair may pass, and TPR is 0. Floating-point products do not keep
such ties: the last bit of a cosine depends on the shape of the product, on where in it the pair
stands and on the number of threads, and a genuine pair may come out above an equal impostor pair.

Here an embedding x is first written in fixed point, q = rint(2^s x), where the power of two is
such that 2^25 <= |q| < 2^26. Sums of products of such whole numbers stay below 2^53 (by
Cauchy-Schwarz, in any order), so a float64 product gives q . q' *exactly*, whatever its shape. The
score is

    S = rint(2^30 (q . q') / (|q| |q'|)),

the cosine in steps of 2^-30 (9.3e-10; float32 has steps of 6e-8 below 1), a function of the two
embeddings alone. The rest of the arithmetic is one operation of IEEE 754 after the other, whose
error of some 1e-16 the steps swallow: the cosine of a vector with itself, or with twice itself, is
2^30 exactly. Only a row of zeros has no direction: its scores are 0. Scale does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.inputs import CHUNK, check_finite

STEPS = 1 << 30  # of a cosine of one
NOBODY = -STEPS - 1  # a threshold below every score
BITS = 26  # of the length of a row in fixed point
PAIRS = 256  # whose rows are gathered at a time
MAX_CELLS = 1 << 24  # of a product
WORTH_A_PRODUCT = 1 / 60  # the share of its cells above which scoring them singly takes longer


@dataclass(frozen=True)
class Rows:
    """N embeddings in fixed point.

    Attributes:
        fixed: q, (N, D) int32.
        length: |q|, (N,) float64; 1 for a row of zeros.
    """

    fixed: Tensor
    length: Tensor

    def __len__(self) -> int:
        return len(self.fixed)

    def __getitem__(self, which: slice | Tensor) -> Rows:
        return Rows(self.fixed[which], self.length[which])

    def unit(self) -> Tensor:
        """Rows of length one, to float32, (N, D)."""
        unit = torch.empty(self.fixed.shape)
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            unit[part] = self.fixed[part].double() / self.length[part, None]
        return unit


def fixed_rows(name: str, rows: Tensor, order: Tensor | None = None) -> Rows:
    """Embeddings (N, D) on any device in fixed point, in the given order, on the CPU.

    Raises:
        ValueError: NaN or infinity, with the number of the row as it was given.
    """
    result = Rows(
        torch.empty(rows.shape, dtype=torch.int32), torch.empty(len(rows), dtype=torch.float64)
    )
    check_finite(name, rows)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        own = rows[part] if order is None else rows[order[part].to(rows.device)]
        fixed, length = _fixed_point(own.cpu().double().numpy())
        result.fixed[part], result.length[part] = map(torch.from_numpy, (fixed, length))
    return result


def _fixed_point(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q and |q| of finite float64 rows (n, D); every step is exact but the one rounding."""
    up = -np.frexp(np.abs(x).max(axis=1))[1]
    # In two steps: for rows near the ends of float64 the factor itself is beyond it.
    x = x * np.ldexp(1.0, up // 2)[:, None] * np.ldexp(1.0, up - up // 2)[:, None]  # below 1
    # The length, from few enough bits that its square is exact too: rows that are equal must get
    # equal exponents, wherever they stand.
    bits = min(20, (53 - x.shape[1].bit_length()) // 2)
    coarse = np.rint(x * 2.0**bits)
    exponent = np.frexp(np.sqrt(np.einsum("ij,ij->i", coarse, coarse)) / 2.0**bits)[1]
    fixed = np.rint(x * np.ldexp(1.0, BITS - exponent)[:, None])
    length = np.sqrt(np.einsum("ij,ij->i", fixed, fixed))
    return fixed.astype(np.int32), np.where(length == 0, 1.0, length)


def block_scores(first: Rows, second: Rows) -> np.ndarray:
    """Scores of every row of one with every row of the other, (n, m) int32."""
    scores = first.fixed.double() @ second.fixed.double().T
    scores.div_(first.length[:, None] * second.length)
    return scores.mul_(STEPS).round_().to(torch.int32).numpy()


def pair_scores(first: Rows, second: Rows, i: Tensor, j: Tensor) -> np.ndarray:
    """Scores of the rows i of one with the rows j of the other, (P,) int32.

    Gathering two rows a pair is bound by memory. A product of all rows is many times faster,
    although it holds scores nobody asked for, unless few are asked for.
    """
    cells = len(first) * len(second)
    if cells <= MAX_CELLS and len(i) > cells * WORTH_A_PRODUCT:
        wanted: np.ndarray = block_scores(first, second)[i.numpy(), j.numpy()]
        return wanted
    scores = np.empty(len(i), dtype=np.int32)
    a, b = np.empty((2, min(PAIRS, len(i)), first.fixed.shape[1]))
    sides = ((a, first, i.numpy()), (b, second, j.numpy()))
    for start in range(0, len(i), PAIRS):
        part = slice(start, start + PAIRS)
        num = len(scores[part])
        for table, rows, which in sides:
            table[:num] = rows.fixed.numpy()[which[part]]
        dot = np.einsum("ij,ij->i", a[:num], b[:num])
        lengths = first.length[i[part]] * second.length[j[part]]
        scores[part] = np.rint(dot / lengths.numpy() * STEPS)
    return scores


def rough_scores(first: Tensor, second: Tensor, out: Tensor | None = None) -> Tensor:
    """Cosines of unit rows in float32: twice as fast, and off by `rough_error` at most."""
    with torch.autocast("cpu", enabled=False):
        return torch.mm(first, second.T, out=out)


def rough_error(width: int) -> float:
    """How far a cosine of `rough_scores` may be from S / 2^30 for rows of a width.

    A sum of D products in float32 in any order is off by at most D u / (1 - D u) of the sum of
    absolute values, here one, with u = 2^-24. Rounding the rows, S and a bound that is compared
    with the cosine adds less than eight u. Infinite where torch was told to multiply float32 in
    fewer bits.
    """
    if torch.get_float32_matmul_precision() != "highest":
        return float("inf")
    return 1.1 * (width + 8) * 2.0**-24
