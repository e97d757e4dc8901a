"""Intervals on a list of pairs, against resamples by hand."""

import numpy as np
import pytest
import torch

from ekd_lite.evaluate import bootstrap_pair_list, tpr_at_fpr

LEVELS = [0.5, 0.1]


def pair_list(seed, pairs=60, names=12):
    """Scores with ties, flags, and the people on both sides."""
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, names, (2, pairs))
    flags = left == right
    scores = np.round(rng.normal(size=pairs) + 1.5 * flags, 1)
    return scores, flags, (left, right)


def by_hand(scores, flags, times):
    """TPR of a list in which pair p stands times[p] times."""
    rows = np.repeat(np.arange(len(scores)), times)
    tpr = tpr_at_fpr(torch.tensor(scores[rows]), torch.tensor(flags[rows]), LEVELS)
    return tpr.numpy()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("with_people", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_interval_is_that_of_resampled_lists(seed, with_people):
    scores, flags, people = pair_list(seed)
    order = np.argsort(-scores, kind="stable")
    rng = np.random.default_rng(7)
    if with_people:
        names = np.unique(people)
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=50)
        index = [np.searchsorted(names, side) for side in people]
        counts = np.where(flags, times[:, index[0]], times[:, index[0]] * times[:, index[1]])
    else:
        counts = np.empty((50, len(scores)), dtype=int)
        draws = rng.multinomial(len(scores), np.full(len(scores), 1 / len(scores)), size=50)
        counts[:, order] = draws
    found = np.stack([by_hand(scores, flags, row) for row in counts])
    low, high = bootstrap_pair_list(
        scores,
        flags,
        LEVELS,
        people=people if with_people else None,
        num_resamples=50,
        seed=7,
    )
    for place in range(len(LEVELS)):
        column = found[:, place]
        if np.isnan(column).mean() > 0.01:
            assert low[place].isnan()
            continue
        expected = np.nanquantile(column, [0.025, 0.975])
        assert [float(low[place]), float(high[place])] == pytest.approx(expected.tolist())


def test_drawing_people_widens_the_interval_where_one_carries_most_pairs():
    rng = np.random.default_rng(0)
    left = np.concatenate([np.zeros(300, int), np.arange(1, 101), np.arange(400)])
    right = np.concatenate([np.zeros(300, int), np.arange(1, 101), np.arange(400) + 1])
    flags = left == right
    scores = np.where(left == 0, 0.0, 2.0) * flags + rng.normal(size=len(left))
    pairs, people = (
        bootstrap_pair_list(scores, flags, [0.1], people=who, num_resamples=400)
        for who in (None, (left, right))
    )
    assert people[1] - people[0] > 2 * (pairs[1] - pairs[0])


def test_lists_arrays_and_tensors_say_the_same():
    scores, flags, _ = pair_list(1)
    one = bootstrap_pair_list(scores, flags, 0.5, num_resamples=20)
    for kind in (np.asarray, list, torch.tensor):
        other = bootstrap_pair_list(kind(scores), kind(flags), [0.5], num_resamples=20)
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0.1, 0.2], [1, 0, 1], [0.5]), {}, r"scores and is_genuine \(P,\)"),
        (([0.1, float("nan")], [1, 0], [0.5]), {}, "scores must be finite"),
        (([0.1, 0.2], [1, 0], [0]), {}, r"rates in \(0, 1\]"),
        (([0.1, 0.2], [1, 0], [0.5]), {"num_resamples": 0}, "num_resamples >= 1"),
        (([0.1, 0.2], [1, 0], [0.5]), {"confidence": 1}, "confidence < 1"),
        (([0.1, 0.2], [1, 0], [0.5]), {"people": ([1, 1], [2, 1])}, "equal within genuine pairs"),
    ],
)
def test_bad_input_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_pair_list(*arguments, **options)
