"""Intervals over runs: against draws written out, and against studies whose truth is known."""

import numpy as np
import pytest
import torch

from ekd_lite.evaluate import (
    BootstrapResult,
    best_of,
    bootstrap_tpr_at_fpr,
    difference_p_value,
    holm,
    over_runs,
    paired_difference,
)
from ekd_lite.ops import generator_for


def result(estimate, people):
    """A run whose TPR is `estimate`; people move it by `people`, (R,)."""
    samples = (estimate + torch.as_tensor(people))[:, None].double()
    one = torch.tensor([estimate]).double()
    return BootstrapResult((1e-3,), one, one, one, samples)


def study(rng, *, teachers, seeds, people, teacher, run, draws=300):
    """Runs of one method whose true TPR is 0, and who taught them."""
    moved = rng.normal(0, people, draws)
    base = rng.normal(0, people)
    taught = [t for t in range(teachers) for _ in range(seeds)]
    of_teacher = rng.normal(0, teacher, teachers)
    return [result(base + of_teacher[t] + rng.normal(0, run), moved) for t in taught], taught


@pytest.mark.parametrize(
    ("teachers", "seeds", "people", "teacher", "run"),
    [(1, 3, 0.3, 0, 1), (1, 5, 1, 0, 1), (3, 4, 0.3, 1, 0.5), (3, 4, 1, 0.3, 1)],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(teachers, seeds, people, teacher, run):
    """And draws with replacement, as of people, do not where runs matter most."""
    rng, hits, plain = np.random.default_rng(1), 0, 0
    options = {"teachers": teachers, "seeds": seeds, "people": people}
    for trial in range(200):
        runs, taught = study(rng, **options, teacher=teacher, run=run)
        found = over_runs(runs, teachers=taught, seed=trial)
        hits += bool(found.low <= 0 <= found.high)
        values = np.array([r.estimate.item() for r in runs]).reshape(teachers, seeds)
        t = rng.integers(0, teachers, (300, teachers))
        s = rng.integers(0, seeds, (300, teachers, seeds))
        moved = (runs[0].samples[:, 0] - runs[0].estimate).numpy()
        low, high = np.quantile(values[t[:, :, None], s].mean((1, 2)) + moved, [0.025, 0.975])
        plain += bool(low <= 0 <= high)
    assert hits / 200 >= 0.91  # binomial(200, 0.95) is below once in 200
    if people < 1:
        assert plain / 200 < 0.90


def test_draws_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    runs, taught = study(rng, teachers=2, seeds=3, people=1, teacher=1, run=1, draws=30)
    found = over_runs(runs, teachers=taught, seed=4)
    means = [np.mean([run.estimate.item() for run in part]) for part in (runs[:3], runs[3:])]
    generator = generator_for(4, 7, 2)
    z, chi = generator.standard_normal((30, 2)), generator.chisquare(1, (30, 1))
    for r in range(30):
        moved = np.mean([run.samples[r, 0].item() for run in runs])
        dev = sum(z[r, k] * (means[k] - np.mean(means)) for k in (0, 1)) / 2**0.5
        expected = moved + dev / chi[r, 0] ** 0.5
        assert found.samples[r, 0].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found.estimate.item() == pytest.approx(np.mean(means))


def test_what_methods_share_leaves_their_difference_alone():
    """The same teachers and seeds move both by one vector: nothing of it is in the interval."""
    rng = np.random.default_rng(0)
    runs, taught = study(rng, teachers=3, seeds=2, people=1, teacher=5, run=5)
    ahead = [result(r.estimate.item() + 0.25, r.samples[:, 0] - r.estimate) for r in runs]
    difference, low, high = paired_difference(ahead, runs, runs=taught)
    assert [x.item() for x in (difference, low, high)] == pytest.approx([0.25] * 3, abs=1e-5)
    shuffled = [ahead[i] for i in (1, 0, 3, 2, 5, 4)]
    _, low, high = paired_difference(shuffled, runs, runs=[0, 1, 2, 3, 4, 5])
    assert high - low > 1


def test_teachers_weigh_the_same_however_many_seeds_they_have():
    runs = [result(x, np.zeros(20)) for x in (1.0, 1.0, 1.0, 4.0)]
    assert over_runs(runs, teachers=["a", "a", "a", "b"]).estimate.item() == 2.5
    assert over_runs(runs).estimate.item() == 1.75


def test_the_best_rival_is_chosen_in_every_draw():
    rng = np.random.default_rng(0)
    rivals = [result(x, rng.normal(0, 1, 200)) for x in (1.0, 0.9, -9.0)]
    found = best_of(rivals)
    for r in range(200):
        assert found.samples[r] == max(rival.samples[r] for rival in rivals)
    assert found.estimate == 1.0
    ours = result(1.5, np.zeros(200))
    against_best = paired_difference(ours, found)
    assert all(against_best[2] <= paired_difference(ours, rival)[2] for rival in rivals)
    assert best_of(rivals[:1]).samples.equal(rivals[0].samples)


def test_p_values_agree_with_intervals():
    rng = np.random.default_rng(0)
    nothing = result(0.0, np.zeros(999))
    for mean in (0.0, 1.0, 2.5, 9.0):
        ours = result(mean, rng.normal(0, 1, 999))
        (p,) = difference_p_value(ours, nothing).tolist()
        _, low, high = paired_difference(ours, nothing)
        assert (p < 0.05) == bool(low > 0 or high < 0)
        beyond = (ours.samples <= 0).sum().item()
        assert p == pytest.approx(min(1, 2 * (1 + min(beyond, 999 - beyond)) / 1000))
    assert difference_p_value(result(float("nan"), np.zeros(9)), result(0.0, np.zeros(9))).isnan()


def test_holm_equals_the_stepwise_rule():
    rng = np.random.default_rng(0)
    for count in (1, 2, 7):
        p = rng.random(count) ** 3
        adjusted = holm(p).tolist()
        for alpha in (0.01, 0.05, 0.2):
            rejected = set()
            for k, i in enumerate(np.argsort(p)):  # stop at the first that fails
                if p[i] > alpha / (count - k):
                    break
                rejected.add(i)
            assert {i for i in range(count) if adjusted[i] <= alpha} == rejected
    assert holm([]).tolist() == []
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        holm([0.5, 1.5])
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        holm([float("nan")])


def test_real_results_go_all_the_way():
    labels = torch.arange(40) // 4
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(10, 6, generator=generator)[labels]

    def trained(noise):
        rows = centres + noise * torch.randn(40, 6, generator=generator)
        return bootstrap_tpr_at_fpr(rows, labels, [0.2, 0.1], num_resamples=60)

    good, bad = [trained(0.2) for _ in range(4)], [trained(2.0) for _ in range(4)]
    difference, low, high = paired_difference(good, bad, runs=[0, 0, 1, 1])
    assert (difference > 0.2).all()
    assert (low < difference).all()
    assert (difference < high).all()
    mean = torch.stack([g.estimate - b.estimate for g, b in zip(good, bad, strict=True)]).mean(0)
    assert torch.allclose(difference, mean)


def test_what_cannot_be_compared_is_named():
    runs = [result(x, np.zeros(20)) for x in (1.0, 2.0, 3.0)]
    with pytest.raises(ValueError, match=r"1 run\(s\) say nothing"):
        over_runs(runs[:1])
    with pytest.raises(ValueError, match="a teacher for each of 3 runs, got 2"):
        over_runs(runs, teachers=[0, 1])
    with pytest.raises(ValueError, match="not paired"):
        over_runs([*runs, result(1.0, np.zeros(21))])
    with pytest.raises(ValueError, match="a result for each of 3 runs, got 2"):
        paired_difference(runs, runs[:2], runs=[0, 0, 0])
    with pytest.raises(ValueError, match=r"runs=\[0, 0, ...\]"):
        paired_difference(runs, runs)
    with pytest.raises(ValueError, match="no rival"):
        best_of([])
