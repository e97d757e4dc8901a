"""The arithmetic of scores against Python's whole numbers and fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from ekd_lite.evaluate import scores
from ekd_lite.evaluate.scores import STEPS, block_scores, fixed_rows, pair_scores, rough_error

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def slow_fixed(row):
    """The row in fixed point with Python's whole numbers and fractions: 2^25 <= |q| < 2^26."""
    exact = [Fraction(float(x)) for x in row]
    squared = sum(x * x for x in exact)
    if not squared:
        return [0] * len(exact)
    shift = 0
    while squared * Fraction(4) ** shift >= Fraction(4) ** 26:
        shift -= 1
    while squared * Fraction(4) ** shift < Fraction(4) ** 25:
        shift += 1
    return [round(x * Fraction(2) ** shift) for x in exact]


def slow_score(p, q):
    """The cosine of whole numbers in steps, to the digit: by integer square roots."""
    dot, a, b = (sum(x * y for x, y in zip(u, v, strict=True)) for u, v in ((p, q), (p, p), (q, q)))
    if not a or not b:
        return 0
    # round(|dot| STEPS / sqrt(a b)) = floor(z + 1/2), where (2 z)^2 = 4 dot^2 STEPS^2 / (a b)
    doubled = math.isqrt(4 * dot * dot * STEPS * STEPS // (a * b))
    return int(math.copysign((doubled + 1) // 2, dot))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "scale"), [(1, 1), (2, 1e-3), (7, 1), (64, 7.3), (600, 1)])
def test_scores_equal_whole_number_arithmetic(dtype, width, scale):
    generator = torch.Generator().manual_seed(width)
    rows = (scale * torch.randn(9, width, generator=generator)).to(dtype)
    rows[3], rows[4], rows[5] = 0, 2 * rows[1], -rows[2]
    fixed = fixed_rows("embeddings", rows)
    expected = [slow_fixed(row) for row in rows.double().tolist()]
    assert fixed.fixed.tolist() == expected
    table = [[slow_score(p, q) for q in expected] for p in expected]
    assert block_scores(fixed, fixed).tolist() == table
    i, j = torch.cartesian_prod(torch.arange(9), torch.arange(9)).T
    assert pair_scores(fixed, fixed, i, j).tolist() == np.ravel(table).tolist()
    assert [table[k][k] for k in (0, 3)] == [STEPS, 0]
    assert (table[1][4], table[2][5]) == (STEPS, -STEPS)
    cosines = torch.nn.functional.cosine_similarity(
        rows.double()[:, None], rows.double()[None], dim=2
    )
    off = np.abs(np.array(table) / STEPS - cosines.numpy()).max()
    assert off < 2.0**-25 * width**0.5


@pytest.mark.parametrize("width", [1, 3, 128, 512, 3000])
def test_rough_scores_keep_within_their_error(width):
    """Also where every product has one sign, which is the worst that rounding can meet."""
    generator = torch.Generator().manual_seed(0)
    for rows in (torch.randn(60, width, generator=generator), torch.rand(60, width)):
        fixed = fixed_rows("embeddings", rows)
        unit = fixed.unit()
        rough = scores.rough_scores(unit, unit).double()
        exact = torch.from_numpy(block_scores(fixed, fixed)).double() / STEPS
        assert (rough - exact).abs().max() < rough_error(width)


def test_products_in_fewer_bits_are_not_trusted():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert rough_error(8) == math.inf
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("exponent", [100, -100, 1000, -1000, 1020, -1060])
def test_scale_changes_nothing(exponent):
    """Up to the ends of float64, the numbers too small to be normal among them."""
    rows = torch.randint(-7, 8, (20, 6), generator=torch.Generator().manual_seed(0)).double()
    plain, scaled = (
        fixed_rows("a", rows),
        fixed_rows("a", torch.ldexp(rows, torch.tensor(exponent))),
    )
    assert np.array_equal(block_scores(plain, plain), block_scores(scaled, scaled))


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_a_scale_that_rounds_moves_scores_by_no_more_than_rounding(factor):
    rows = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    plain, scaled = fixed_rows("a", rows), fixed_rows("a", rows * factor)
    moved = block_scores(plain, plain) - block_scores(scaled, scaled)
    assert np.abs(moved).max() < 2.0**-23 * STEPS
