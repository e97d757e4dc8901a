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


def test_repeats_are_further_draws_of_the_runs_for_the_same_people():
    rng = np.random.default_rng(0)
    runs, taught = study(rng, teachers=3, seeds=2, people=1, teacher=1, run=1, draws=40)
    once = over_runs(runs, teachers=taught)
    assert over_runs(runs, teachers=taught, repeats=1).samples.equal(once.samples)
    people = torch.stack([run.samples for run in runs]).mean(0)
    many = over_runs(runs, teachers=taught, repeats=500)
    assert many.samples.shape == (20_000, 1)
    of_runs = (many.samples.view(500, 40) - people.T).numpy()  # what is left is of the runs alone
    assert len(np.unique(of_runs.round(9))) > 0.999 * of_runs.size
    means = np.array([run.estimate.item() for run in runs]).reshape(3, 2).mean(1)
    wanted = (means.std(ddof=1) / 3**0.5) * np.array([-4.303, 0, 4.303])  # Student's t, 2 degrees
    found = np.quantile(of_runs, [0.025, 0.5, 0.975])
    assert found == pytest.approx(wanted, abs=0.1 * wanted[2])


def test_with_repeats_a_p_value_hardly_depends_on_the_seed():
    rng = np.random.default_rng(0)
    ours, _ = study(rng, teachers=1, seeds=5, people=0.3, teacher=0, run=1, draws=300)
    rivals = [
        [result(r.estimate.item() - 1.2 + rng.normal(0, 1), np.zeros(300)) for r in ours]
        for _ in range(3)
    ]

    def spread(repeats):
        found = []
        for seed in range(4):
            mean, *others = (over_runs(r, seed=seed, repeats=repeats) for r in [ours, *rivals])
            best = best_of(others)
            assert best.runs == mean.runs
            assert len(best.samples) == 300 * repeats
            found.append(difference_p_value(mean, best).item())
        return max(found) - min(found)

    assert spread(1) > 0.02
    assert spread(200) < 0.01


def test_means_over_other_runs_or_draws_are_no_pair():
    runs = [result(x, np.zeros(20)) for x in (1.0, 2.0, 4.0)]
    mean = over_runs(runs, teachers=[0, 0, 1])
    others = {
        "2 runs": over_runs(runs[:2]),
        "one teacher": over_runs(runs),
        "0, 1, 1": over_runs(runs, teachers=[0, 1, 1]),
        "0, 0, 2": over_runs(runs, teachers=[0, 0, 2]),
        "seed=1": over_runs(runs, teachers=[0, 0, 1], seed=1),
    }
    for said, other in others.items():
        for ask in (
            lambda other=other: paired_difference(mean, other),
            lambda other=other: difference_p_value(mean, other),
            lambda other=other: best_of([result(0.0, np.zeros(20)), mean, other]),
            lambda other=other: paired_difference(best_of([mean, mean]), other),
        ):
            with pytest.raises(ValueError, match=f"(?s){said}.*not paired"):
                ask()
    with pytest.raises(ValueError, match="number of draws: not paired"):
        paired_difference(mean, over_runs(runs, teachers=[0, 0, 1], repeats=2))
    with pytest.raises(ValueError, match="a mean over runs already"):
        over_runs([mean, mean])
    # A single model, such as the teacher, is the same in every draw of runs.
    alone = result(3.0, np.zeros(20))
    assert paired_difference(alone, mean)[0].item() == pytest.approx(3 - 2.75)
    assert best_of([alone, mean]).runs == mean.runs


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        (3, "got 3$"),
        ("aab", "got 'aab'$"),
        ([[0], [1], [1]], r"got \[0\] in it$"),
        ([0, None, 1], "got None in it$"),
        ([0, float("nan"), 1], "got nan in it$"),
        (torch.zeros(3, 1), r"got \[0.0\] in it$"),
        (torch.tensor(3), "a teacher for each of 3 runs, got 1|each of 1 runs"),
        ([0, 1], "a teacher for each of 3 runs, got 2|each of 2 runs, got 3"),
    ],
)
def test_who_taught_is_a_list_of_names(teachers, message):
    runs = [result(x, np.zeros(20)) for x in (1.0, 2.0, 3.0)]
    with pytest.raises(ValueError, match=message):
        over_runs(runs, teachers=teachers)
    with pytest.raises(ValueError, match=message):
        paired_difference(runs, runs, runs=teachers)


def test_names_of_teachers_come_in_any_list():
    runs = [result(x, np.zeros(20)) for x in (1.0, 1.0, 4.0)]
    for names in (torch.tensor([0, 0, 1]), np.array([0, 0, 1]), (0, 0, 1), [np.int64(0), 0, 1.0]):
        assert over_runs(runs, teachers=names).estimate.item() == 2.5
    assert over_runs(runs, teachers=np.array(["a", "a", "b"])).estimate.item() == 2.5
    assert over_runs(runs, teachers=range(3)).estimate.item() == 2
    assert over_runs(runs, teachers=np.array([0, 0, 1])).runs == over_runs(
        runs, teachers=[0, 0, 1]
    ).runs  # fmt: skip


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", None, True, 10**6])
def test_a_number_of_repeats_is_one(bad):
    runs = [result(x, np.zeros(20)) for x in (1.0, 2.0)]
    with pytest.raises(ValueError, match=r"repeats >= 1|are more than 16,777,216"):
        over_runs(runs, repeats=bad)
    with pytest.raises(ValueError, match=r"repeats >= 1|are more than 16,777,216"):
        paired_difference(runs, runs, runs=[0, 0], repeats=bad)
