"""TPR with every person weighing the same, against loops over people."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ekd_lite.evaluate import (
    UndefinedMetricWarning,
    all_pairs_tpr_at_fpr,
    bootstrap_tpr_at_fpr,
    paired_difference,
)
from ekd_lite.ops import unit_rows

pytestmark = pytest.mark.filterwarnings("ignore::ekd_lite.evaluate.UndefinedMetricWarning")


def faces(sizes, dim=5, seed=0, noise=0.8):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    centres = torch.randn(len(sizes), dim, generator=generator)
    return centres[labels] + noise * torch.randn(len(labels), dim, generator=generator), labels


def loop(rows, people, fpr):
    """TPR by person of images that show `people` (one number a copy of a person)."""
    unit = unit_rows(rows.double())
    impostor, genuine = [], {}
    for i, j in itertools.combinations(range(len(rows)), 2):
        score = float(unit[i] @ unit[j])
        if people[i] == people[j]:
            genuine.setdefault(people[i], []).append(score)
        elif people[i][0] != people[j][0]:  # copies of one person are not compared
            impostor.append(score)
    impostor.sort(reverse=True)
    allowed = int(fpr * len(impostor) + 1e-9)
    if not allowed or not genuine:
        return float("nan")
    threshold = impostor[allowed] if allowed < len(impostor) else -2
    shares = [np.mean([s > threshold + 1e-9 for s in scores]) for scores in genuine.values()]
    return float(np.mean(shares))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=7),
    st.integers(0, 10**6),
    st.sampled_from([1.0, 0.5, 0.2, 0.05]),
)
def test_equals_a_loop_over_people(sizes, seed, fpr):
    rows, labels = faces(sizes, seed=seed)
    expected = loop(rows, [(int(y),) for y in labels], fpr)
    assert all_pairs_tpr_at_fpr(rows, labels, fpr, by="person").item() == pytest.approx(
        expected, abs=1e-12, nan_ok=True
    )


def test_every_resample_equals_one_written_out():
    sizes = [5, 4, 1, 3, 2, 6, 1, 4]
    rows, labels = faces(sizes, seed=3)
    levels = [0.5, 0.1]
    result = bootstrap_tpr_at_fpr(
        rows, labels, levels, num_resamples=12, seed=5, by="person", min_false_accepts=1
    )
    assert torch.equal(result.estimate, all_pairs_tpr_at_fpr(rows, labels, levels, by="person"))
    rng = np.random.default_rng(5)
    for found in result.samples.tolist():
        drawn = rng.integers(0, len(sizes), len(sizes))
        copies = [
            (i, (int(d), c)) for c, d in enumerate(drawn) for i in np.flatnonzero(labels == d)
        ]
        index, people = zip(*copies, strict=True)
        expected = [loop(rows[list(index)], people, level) for level in levels]
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_a_celebrity_counts_once():
    rows, labels = faces([40, 3, 3, 3, 3, 3], seed=1, noise=0.3)
    rows[labels == 0] = torch.randn(40, 5, generator=torch.Generator().manual_seed(2))  # unlike
    by_pair, by_person = (
        all_pairs_tpr_at_fpr(rows, labels, 0.05, by=by).item() for by in ("pair", "person")
    )
    assert by_pair < 0.3 < 0.7 < by_person


def test_persons_of_one_size_weigh_as_their_pairs_and_single_images_not_at_all():
    rows, labels = faces([4] * 30, seed=2)
    levels = [0.1, 0.01]
    same = [all_pairs_tpr_at_fpr(rows, labels, levels, by=by) for by in ("pair", "person")]
    assert same[0].tolist() == pytest.approx(same[1].tolist(), abs=1e-15)
    alone = torch.arange(30).repeat(2)
    with pytest.warns(UndefinedMetricWarning):
        assert all_pairs_tpr_at_fpr(rows[:30], alone[:30], 0.1, by="person").isnan().all()


def test_results_of_two_kinds_are_not_paired():
    rows, labels = faces([4] * 12, seed=2)
    one, other = (
        bootstrap_tpr_at_fpr(rows, labels, 0.2, num_resamples=5, by=by) for by in ("pair", "person")
    )
    assert (one.by, other.by) == ("pair", "person")
    with pytest.raises(ValueError, match="by pair, the other by person"):
        paired_difference(one, other)


@pytest.mark.parametrize("function", [all_pairs_tpr_at_fpr, bootstrap_tpr_at_fpr])
def test_other_words_are_named(function):
    with pytest.raises(ValueError, match='"pair" or "person", got \'people\''):
        function(*faces([3, 3]), 0.5, by="people")
