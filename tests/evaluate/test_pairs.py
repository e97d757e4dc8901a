"""All-pairs TPR at FPR against every pair written out."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve

from ekd_lite.evaluate import (
    UndefinedMetricWarning,
    all_pairs_tpr_at_fpr,
    scores,
    thresholds,
    tiles,
    tpr_at_fpr,
)
from ekd_lite.ops import unit_rows


def every_pair(embeddings, labels) -> tuple[torch.Tensor, torch.Tensor]:
    i, j = torch.triu_indices(len(labels), len(labels), 1)
    unit = unit_rows(embeddings)
    return (unit @ unit.T)[i, j], labels[i] == labels[j]


def noisy_identities(num, per, dim, seed=0, noise=1.3):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num, dim, generator=generator).repeat_interleave(per, 0)
    embeddings = centres + noise * torch.randn(num * per, dim, generator=generator)
    shuffle = torch.randperm(num * per, generator=generator)
    return embeddings[shuffle], torch.arange(num).repeat_interleave(per)[shuffle]


@pytest.mark.parametrize("tile", [7, 64, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_all_scores_written_out(monkeypatch, tile, dtype):
    monkeypatch.setattr(tiles, "TILE", tile)
    embeddings, labels = noisy_identities(40, 6, 32)
    levels = [1.0, 1e-1, 1e-2, 1e-3, 1e-4]
    expected = tpr_at_fpr(*every_pair(embeddings.to(dtype), labels), levels)
    assert all_pairs_tpr_at_fpr(embeddings.to(dtype), labels, levels).tolist() == expected.tolist()


def test_equals_scikit_learn():
    embeddings, labels = noisy_identities(30, 5, 16, seed=1)
    scores, is_genuine = every_pair(embeddings, labels)
    fpr, tpr, _ = roc_curve(is_genuine, scores, drop_intermediate=False)
    for level in (0.1, 0.01):
        (got,) = all_pairs_tpr_at_fpr(embeddings, labels, [level]).tolist()
        assert got == tpr[fpr <= level].max()


def test_ties_are_exact(monkeypatch):
    """Embeddings on a grid: cosines -1, 0 and 1 only, thousands of ties in one bin."""
    monkeypatch.setattr(tiles, "TILE", 50)
    embeddings = (
        torch.eye(4)[torch.arange(400) % 4] * torch.where(torch.arange(400) < 30, -1, 1)[:, None]
    )
    labels = torch.arange(400) // 5
    levels = [0.9, 0.5, 0.2, 0.1, 0.01]
    expected = tpr_at_fpr(*every_pair(embeddings, labels), levels)
    assert all_pairs_tpr_at_fpr(embeddings, labels, levels).tolist() == expected.tolist()


@pytest.fixture
def one_sweep(monkeypatch):
    """Small sets go through brackets too, narrowed on the way, with few rows in the sample."""
    monkeypatch.setattr(tiles, "TILE", 100)
    monkeypatch.setattr(thresholds, "DIRECT", 0)
    monkeypatch.setattr(thresholds, "MAX_KEPT", 20_000)


def counted(monkeypatch, owner, name):
    """Whatever the function does, and a list of its calls."""
    calls, plain = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *a, **k: calls.append(a) or plain(*a, **k))
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("on_grid", [False, True])
def test_one_sweep_equals_all_scores_written_out(monkeypatch, one_sweep, dtype, on_grid):
    """Without the way out for a misled sample: the sweep itself has to find every rank."""
    monkeypatch.setattr(thresholds, "_by_counting", None)
    embeddings, labels = noisy_identities(120, 5, 16 if on_grid else 32)
    if on_grid:  # a handful of different cosines: thousands of pairs are as near as rounding
        embeddings = torch.where(embeddings > 0, 1.0, -1.0)
        monkeypatch.setattr(thresholds, "MAX_KEPT", 1 << 20)
        monkeypatch.setattr(thresholds, "WORTH_A_WALK", 1.0)
    narrowed = counted(monkeypatch, thresholds.Bracket, "narrow")
    levels = [0.5, 0.1, 0.09, 0.01, 1e-3, 1e-4]
    expected = tpr_at_fpr(*every_pair(embeddings.to(dtype), labels), levels)
    assert all_pairs_tpr_at_fpr(embeddings.to(dtype), labels, levels).tolist() == expected.tolist()
    assert bool(narrowed) != on_grid


def test_the_order_of_exact_scores_decides_where_float32_cannot(monkeypatch, one_sweep):
    """Pairs that differ by less than a product in float32 is off: a rough walk alone would err."""
    generator = torch.Generator().manual_seed(0)
    rows = 1 + 1e-3 * torch.randn(200, 300, generator=generator, dtype=torch.float64)
    labels = torch.arange(200) // 4
    monkeypatch.setattr(thresholds, "_by_counting", None)
    monkeypatch.setattr(thresholds, "WORTH_A_WALK", 1.0)
    levels = [0.5, 0.3, 0.1, 0.02]
    i, j = torch.triu_indices(200, 200, 1)
    exact = (torch.nn.functional.normalize(rows) @ torch.nn.functional.normalize(rows).T)[i, j]
    steps = (exact * scores.STEPS).round()
    assert len(steps.unique()) > 200  # within 1e-6 of one another
    tpr = all_pairs_tpr_at_fpr(rows, labels, levels)
    fixed = scores.fixed_rows("a", rows)
    table = torch.from_numpy(scores.block_scores(fixed, fixed))[i, j]
    assert tpr.tolist() == tpr_at_fpr(table, labels[i] == labels[j], levels).tolist()


@pytest.mark.parametrize("bracket", [(0.9, 1.0), (-1.0, -0.9), (0.1, 0.1), (-0.2, 0.0)])
def test_a_sample_that_misleads_costs_time_but_not_exactness(monkeypatch, one_sweep, bracket):
    walks = counted(monkeypatch, thresholds, "_by_counting")
    monkeypatch.setattr(
        thresholds,
        "_brackets",
        lambda rows, labels, ranks, num, error: [
            thresholds.Bracket(rank, num, *bracket, error=error) for rank in ranks
        ],
    )
    embeddings, labels = noisy_identities(60, 5, 16)
    expected = tpr_at_fpr(*every_pair(embeddings, labels), [0.1, 0.01])
    assert all_pairs_tpr_at_fpr(embeddings, labels, [0.1, 0.01]).tolist() == expected.tolist()
    assert len(walks) == 1


def test_too_many_near_scores_take_the_bounded_way(monkeypatch, one_sweep):
    monkeypatch.setattr(thresholds, "MAX_KEPT", 100)  # fewer than the brackets are bound to hold
    walks = counted(monkeypatch, thresholds, "_by_counting")
    embeddings, labels = noisy_identities(60, 5, 16)
    embeddings = torch.where(embeddings > 0, 1.0, -1.0)
    expected = tpr_at_fpr(*every_pair(embeddings, labels), [0.1, 0.01])
    assert all_pairs_tpr_at_fpr(embeddings, labels, [0.1, 0.01]).tolist() == expected.tolist()
    assert walks[0][2] == [4425, 442]


def test_a_sample_of_one_person_alone_does_not_stop_the_walk(monkeypatch, one_sweep):
    """600 images of one person and 3 of others: hardly a sampled pair is an impostor pair."""
    monkeypatch.setattr(thresholds, "SAMPLE_ROWS", 1)
    monkeypatch.setattr(thresholds, "SAMPLE_COLUMNS", 1)
    embeddings, labels = noisy_identities(603, 1, 8)
    labels = (labels - 600).clamp(min=0)
    expected = tpr_at_fpr(*every_pair(embeddings, labels), [0.1, 0.01])
    assert all_pairs_tpr_at_fpr(embeddings, labels, [0.1, 0.01]).tolist() == expected.tolist()


def test_float32_products_in_fewer_bits_or_under_autocast_change_nothing(one_sweep):
    embeddings, labels = noisy_identities(60, 5, 16)
    expected = all_pairs_tpr_at_fpr(embeddings, labels, [0.1, 0.01]).tolist()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all_pairs_tpr_at_fpr(embeddings, labels, [0.1, 0.01]).tolist() == expected
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert all_pairs_tpr_at_fpr(embeddings, labels, [0.1, 0.01]).tolist() == expected
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_does_not_grow_with_the_pairs():
    """6,000 embeddings have 18 million pairs, 72 MB in float32; numpy's part is traced."""
    embeddings, labels = noisy_identities(1200, 5, 16)
    tracemalloc.start()
    all_pairs_tpr_at_fpr(embeddings, labels, [1e-2, 1e-5])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_undefined_levels_and_bad_rows():
    embeddings, labels = noisy_identities(5, 2, 4)
    with pytest.warns(UndefinedMetricWarning, match="40 impostor pairs cannot show"):
        assert all_pairs_tpr_at_fpr(embeddings, labels, [1e-3]).isnan().all()
    with pytest.warns(UndefinedMetricWarning, match="no genuine pair"):
        assert all_pairs_tpr_at_fpr(embeddings, torch.arange(10), [0.5]).isnan().all()
    with pytest.warns(UndefinedMetricWarning, match="no impostor pair"):
        assert all_pairs_tpr_at_fpr(embeddings, torch.zeros(10), [0.5]).isnan().all()
    embeddings[3] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        all_pairs_tpr_at_fpr(embeddings, labels, [0.1])
    with pytest.raises(ValueError, match=r"\(N, D\)"):
        all_pairs_tpr_at_fpr(torch.zeros(3), torch.zeros(3), [0.1])
