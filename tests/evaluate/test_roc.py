"""TPR at FPR against a loop over thresholds, scikit-learn, and its invariants."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from ekd_lite.evaluate import UndefinedMetricWarning, nearest, roc, tpr_at_fpr


def slow_tpr_at_fpr(genuine, impostor, fpr):
    """Try every threshold that makes a difference, straight from the definition."""
    best = 0.0
    for threshold in [*genuine, *impostor, math.inf]:
        accepted = sum(s >= threshold for s in impostor)
        if Fraction(accepted, len(impostor)) <= Fraction(repr(fpr)):
            best = max(best, sum(s >= threshold for s in genuine) / len(genuine))
    return best


# Few distinct values, so that every pattern of ties occurs.
few_scores = st.lists(st.integers(-3, 3), min_size=1, max_size=8)


@settings(deadline=None)
@given(few_scores, few_scores, st.sampled_from([0.13, 0.2, 0.25, 0.29, 0.5, 0.9, 1.0]))
@pytest.mark.filterwarnings("ignore::ekd_lite.evaluate.UndefinedMetricWarning")
def test_equals_the_definition_for_every_tie_pattern(genuine, impostor, fpr):
    scores = torch.tensor(genuine + impostor, dtype=torch.float32)
    is_genuine = torch.arange(len(scores)) < len(genuine)
    (tpr,) = tpr_at_fpr(scores, is_genuine, [fpr]).tolist()
    if Fraction(repr(fpr)) * len(impostor) < 1:
        assert math.isnan(tpr)
    else:
        assert tpr == slow_tpr_at_fpr(genuine, impostor, fpr)


NUMBERS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("is_view", [False, True])
def test_equals_the_definition_for_every_kind_of_number(dtype, is_view):
    rng = np.random.default_rng(3)
    for _ in range(20):
        values = torch.from_numpy(rng.integers(-4, 5, 60)).to(dtype)  # with ties
        flags = torch.from_numpy(rng.random(60) < 0.5)
        scores, is_genuine = (values[::2], flags[::2]) if is_view else (values, flags)
        genuine, impostor = scores[is_genuine].tolist(), scores[~is_genuine].tolist()
        levels = [0.25, 0.5, 1.0]
        expected = [slow_tpr_at_fpr(genuine, impostor, level) for level in levels]
        assert tpr_at_fpr(scores, is_genuine, levels).tolist() == expected
        assert tpr_at_fpr(scores, is_genuine.long(), levels).tolist() == expected


def test_finite_scores_may_have_an_infinite_sum():
    scores = torch.tensor([3e38, 3e38, -1.0, 3e38, 1.0, -3e38])
    is_genuine = torch.tensor([True, True, True, False, False, False])
    assert tpr_at_fpr(scores, is_genuine, [0.34, 1.0]).tolist() == [2 / 3, 1.0]
    half = torch.full((4000,), 60.0, dtype=torch.float16)  # 240,000 is beyond half precision
    assert tpr_at_fpr(half, torch.arange(4000) < 10, [0.5, 1.0]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [[math.inf], [-math.inf], [math.nan], [math.inf, -math.inf]])
def test_scores_that_are_not_finite_are_counted(dtype, bad):
    scores = torch.cat([torch.zeros(40, dtype=dtype), torch.tensor(bad, dtype=dtype)])
    for is_genuine in (torch.arange(len(scores)) < 20, torch.arange(len(scores)) >= 20):
        with pytest.raises(ValueError, match=f"got {len(bad)} NaN or infinite of {len(scores)}"):
            tpr_at_fpr(scores, is_genuine, [0.5])


@pytest.mark.parametrize("drop_intermediate", [False, True])
def test_roc_equals_scikit_learn(drop_intermediate):
    rng = np.random.default_rng(0)
    for _ in range(100):
        is_genuine = rng.random(60) < 0.4
        scores = (rng.normal(size=60) + is_genuine).round(rng.integers(0, 3))  # with ties
        expected = roc_curve(is_genuine, scores, drop_intermediate=drop_intermediate)
        got = roc(
            torch.from_numpy(scores),
            torch.from_numpy(is_genuine),
            drop_intermediate=drop_intermediate,
        )
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-15)


def test_conservative_equals_scikit_learn_on_a_large_set():
    rng = np.random.default_rng(1)
    is_genuine = np.arange(200_000) < 20_000
    scores = (rng.normal(size=200_000) + 2 * is_genuine).astype(np.float32)
    fpr, tpr, _ = roc_curve(is_genuine, scores, drop_intermediate=False)
    levels = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
    expected = [tpr[fpr <= level].max() for level in levels]
    got = tpr_at_fpr(torch.from_numpy(scores), torch.from_numpy(is_genuine), levels)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def test_nearest_is_insightfaces_rule():
    rng = np.random.default_rng(2)
    for _ in range(20):
        is_genuine = rng.random(3000) < 0.1
        scores = (rng.normal(size=3000) + 2 * is_genuine).round(2)
        fpr, tpr, _ = roc_curve(is_genuine, scores)
        fpr, tpr = np.flipud(fpr), np.flipud(tpr)
        levels = [1e-1, 1e-2, 1e-3]
        # eval_ijbc.py: the minimum of (distance, index), so the first index among equal distances.
        expected = [tpr[min(zip(abs(fpr - f), range(len(fpr)), strict=True))[1]] for f in levels]
        got = tpr_at_fpr(
            torch.from_numpy(scores), torch.from_numpy(is_genuine), levels, convention="nearest"
        )
        assert got.tolist() == expected


@pytest.mark.parametrize("window", [1, 3, 512])
def test_nearest_from_a_window_is_nearest_on_the_curve(monkeypatch, window):
    """Ties, runs of one kind, all genuine above or below, few and many; windows that must grow."""
    monkeypatch.setattr(nearest, "WINDOW", window)
    rng = np.random.default_rng(window)
    for trial in range(150):
        count = int(rng.choice([2, 3, 5, 40, 400]))
        is_genuine = rng.random(count) < rng.choice([0.05, 0.5, 0.95])
        is_genuine[:2] = True, False
        shift = rng.choice([-9.0, 0.0, 1.0, 9.0])
        scores = rng.normal(size=count).round(int(rng.choice([0, 1, 8]))) + shift * is_genuine
        scores, is_genuine = torch.from_numpy(scores), torch.from_numpy(is_genuine)
        scores = scores.float() if trial % 2 else scores
        levels = [1.0, 0.7, 0.5, 0.26, 0.1, 0.03, 1e-2]
        fpr, tpr, _ = roc(scores, is_genuine, drop_intermediate=True)
        fpr, tpr = fpr.flip(0), tpr.flip(0)  # argmin takes the larger TPR among equal distances
        wanted = [tpr[(fpr - level).abs().argmin()].item() for level in levels]
        genuine, impostor = scores[is_genuine], scores[~is_genuine]
        assert nearest.nearest_tpr(genuine, impostor, levels).tolist() == wanted


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_invariant_under_monotone_maps_and_monotone_in_fpr(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(200, generator=generator, dtype=torch.float64)
    is_genuine = torch.rand(200, generator=generator) < 0.3
    levels = [0.02, 0.05, 0.1, 0.5, 1.0]
    tpr = tpr_at_fpr(scores, is_genuine, levels)
    assert tpr.tolist() == tpr_at_fpr(scores.exp() * 3 - 7, is_genuine, levels).tolist()
    assert (tpr.diff() >= 0).all()
    assert tpr[-1] == 1.0


def test_a_level_the_pairs_cannot_show_is_nan_with_a_warning():
    scores, is_genuine = torch.randn(1100), torch.arange(1100) < 100
    with pytest.warns(UndefinedMetricWarning, match="1000 impostor pairs cannot show"):
        tpr = tpr_at_fpr(scores, is_genuine, [1e-3, 1e-4])
    assert tpr.isnan().tolist() == [False, True]


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("convention", ["conservative", "nearest"])
def test_one_sided_input_is_nan_with_a_warning(flag, convention):
    with pytest.warns(UndefinedMetricWarning, match="no (genuine|impostor) pair"):
        tpr = tpr_at_fpr(torch.randn(5), torch.full((5,), flag), [0.5], convention=convention)
    assert tpr.isnan().all()


def test_float32_levels_mean_the_decimals_they_print_as():
    scores, is_genuine = torch.arange(100_010.0), torch.arange(100_010) >= 100_000
    assert tpr_at_fpr(scores, is_genuine, torch.tensor([1e-5])).tolist() == [1.0]


@pytest.mark.parametrize(
    ("scores", "is_genuine", "fprs", "message"),
    [
        (torch.zeros(3), torch.zeros(2, dtype=torch.bool), [0.1], "one length"),
        (torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool), [0.1], "1-D"),
        (torch.tensor([0.0, math.nan]), torch.tensor([True, False]), [0.1], "1 NaN or infinite"),
        (torch.zeros(2), torch.tensor([2, 0]), [0.1], "boolean"),
        (torch.zeros(2), torch.tensor([True, False]), [0.0], r"\(0, 1\]"),
        (torch.zeros(2), torch.tensor([True, False]), [], r"\(0, 1\]"),
    ],
)
def test_bad_input_is_named(scores, is_genuine, fprs, message):
    with pytest.raises(ValueError, match=message):
        tpr_at_fpr(scores, is_genuine, fprs)


def test_unknown_convention_is_named():
    with pytest.raises(ValueError, match="conservative"):
        tpr_at_fpr(torch.zeros(2), torch.tensor([True, False]), [0.5], convention="mean")  # type: ignore[arg-type]
