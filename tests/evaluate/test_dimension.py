"""The intrinsic dimension: golden values, slow loops, clouds whose dimension is known."""

import math

import numpy as np
import pytest
import torch

from ekd_lite.evaluate import dimension, intrinsic_dimension


def golden_rows(count, width):
    i, j = torch.arange(count).double()[:, None], torch.arange(width).double()
    return torch.nn.functional.normalize(torch.cos(0.23 * (i + 2) * (j + 1)), dim=1)


@pytest.mark.parametrize(
    ("count", "width", "mle", "line"),
    [(16, 8, 1.697983886, 1.741235496), (64, 16, 0.6781401547, 0.5438378314)],
)
def test_the_values_of_scikit_dimension(count, width, mle, line):
    rows = golden_rows(count, width)
    assert intrinsic_dimension(rows) == pytest.approx(mle, rel=1e-8)
    assert intrinsic_dimension(rows, method="line", discard=0.1) == pytest.approx(line, rel=1e-8)


def log_ratios(points):
    """log(r_2 / r_1) of every point, by two loops."""
    found = []
    for i, x in enumerate(points):
        near = sorted(math.dist(x, y) for j, y in enumerate(points) if i != j)
        found.append(math.log(near[1] / near[0]))
    return sorted(found)


@pytest.mark.parametrize("discard", [0.0, 0.1, 0.35])
def test_loops_give_the_same(discard):
    points = np.random.default_rng(3).normal(size=(40, 5))
    x = log_ratios(points)
    lost = math.ceil(round(40 * discard, 9))
    kept = x[: 40 - lost]
    mle = (len(kept) - 1) / (sum(kept) + lost * kept[-1])
    assert intrinsic_dimension(points, discard=discard) == pytest.approx(mle, rel=1e-12)
    kept = x[: 40 - max(lost, 1)]
    y = [-math.log(1 - k / 40) for k in range(1, len(kept) + 1)]
    line = sum(a * b for a, b in zip(kept, y, strict=True)) / sum(a * a for a in kept)
    got = intrinsic_dimension(points, method="line", discard=discard)
    assert got == pytest.approx(line, rel=1e-12)


@pytest.mark.parametrize("method", ["mle", "line"])
@pytest.mark.parametrize("discard", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("d", [1, 2, 4])
def test_a_cloud_of_known_dimension(method, discard, d):
    """Also where the largest ratios are taken away: a mean of the rest alone would read high."""
    if method == "line":
        discard = max(discard, 0.05)  # the last points pull a line without mercy
    generator = torch.Generator().manual_seed(d)
    flat = torch.rand(3000, d, generator=generator, dtype=torch.float64)
    frame = torch.linalg.qr(torch.randn(32, d, generator=generator, dtype=torch.float64)).Q
    found = intrinsic_dimension(flat @ frame.T, method=method, discard=discard)
    assert found == pytest.approx(d, rel=0.08)


def test_place_turn_and_length_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(60, 6, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    want = intrinsic_dimension(points)
    for other in (7 * points, points @ turn, points + 1e4, points[torch.randperm(60)]):
        assert intrinsic_dimension(other) == pytest.approx(want, rel=1e-9)


def test_blocks_and_near_points_change_nothing(monkeypatch):
    """r_1 of 1e-9 among points a million times farther: the expanded square alone gives noise."""
    points = np.random.default_rng(0).normal(size=(30, 4))
    points = np.concatenate([points, points + 1e-9 * np.random.default_rng(1).normal(size=(30, 4))])
    x = log_ratios(points)
    assert intrinsic_dimension(points) == pytest.approx(59 / sum(x), rel=1e-6)
    whole = intrinsic_dimension(points)
    monkeypatch.setattr(dimension, "CELLS", 7 * 60)
    assert intrinsic_dimension(points) == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(dimension, "CELLS", 1)
    assert intrinsic_dimension(points) == pytest.approx(whole, rel=1e-12)


def test_all_distances_equal_is_no_finite_dimension():
    for method in ("mle", "line"):
        assert intrinsic_dimension(torch.eye(4), method=method) == math.inf


def test_what_is_refused():
    points = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    twice = torch.cat([points, points[:2]])
    with pytest.raises(ValueError, match=r"4 points have an equal, among them point 0"):
        intrinsic_dimension(twice)
    with pytest.raises(ValueError, match=r"12 points have an equal"):
        intrinsic_dimension(torch.ones(12, 3))
    with pytest.raises(ValueError, match=r"2 points, 0 of them discarded"):
        intrinsic_dimension(points[:2])
    with pytest.raises(ValueError, match=r"10 points, 9 of them discarded"):
        intrinsic_dimension(points, discard=0.9)
    assert intrinsic_dimension(points[:3], method="line") > 0
    for discard in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"discard must lie in \[0, 1\)"):
            intrinsic_dimension(points, discard=discard)
    with pytest.raises(ValueError, match="method must be 'mle' or 'line', got 'twonn'"):
        intrinsic_dimension(points, method="twonn")  # type: ignore[arg-type]
