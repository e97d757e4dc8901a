"""Studies whose truth is known: how often intervals hold it, and how often a claim is false.

The docstring of `ekd_lite.evaluate.differences` quotes what the slow ones count.
"""

import numpy as np
import pytest
import torch

from ekd_lite.evaluate import (
    BootstrapResult,
    best_of,
    difference_p_value,
    holm,
    over_runs,
    paired_difference,
)

DRAWS = 300


def results(values, people):
    """Runs whose TPR are `values`, (U,); people move all of them by `people`, (R,)."""
    moved = torch.from_numpy(people)
    tprs = torch.from_numpy(values)[:, None]
    return [BootstrapResult((1e-3,), x, x, x, (x + moved)[:, None]) for x in tprs]


def methods(rng, truths, *, people, teacher, run, teachers=1, seeds=5):
    """Runs of methods with known means, tested on the same people, and who taught each run.

    Of every spread a half is shared by the methods: of people, of teachers and of runs. A bootstrap
    knows how people spread, and has its centre where the people at hand have put it.
    """
    taught = [t for t in range(teachers) for _ in range(seeds)]

    def spread(size, count):
        shared = rng.normal(0, size, count)
        return [(shared + rng.normal(0, size, count)) / 2**0.5 for _ in truths]

    drawn, base = spread(people, DRAWS), spread(people, 1)
    by_teacher, by_run = spread(teacher, teachers), spread(run, len(taught))
    return [
        results(truth + b + t[taught] + r, moved)
        for truth, b, t, r, moved in zip(truths, base, by_teacher, by_run, drawn, strict=True)
    ], taught


# People, teachers and runs; what weighs most stands first.
SMALL = [
    pytest.param({"seeds": 3, "people": 0.3, "teacher": 0, "run": 1}, id="three seeds"),
    pytest.param(
        {"teachers": 3, "seeds": 5, "people": 0.3, "teacher": 1, "run": 0.5}, id="three teachers"
    ),
]
CASES = [
    *SMALL,
    pytest.param({"seeds": 5, "people": 0.3, "teacher": 0, "run": 1}, id="five seeds"),
    pytest.param({"seeds": 5, "people": 1, "teacher": 0, "run": 0.3}, id="people"),
    pytest.param({"seeds": 5, "people": 0.5, "teacher": 0, "run": 1}, id="five seeds and people"),
]
USUAL = [pytest.param(80, SMALL[1].values[0], id=SMALL[1].id)]
SLOW = [
    pytest.param(1000, case.values[0], id=f"{case.id}, many", marks=pytest.mark.slow)
    for case in CASES
]


def least(trials, share=0.95):
    """Fewer hits than this come once in 1,000 if the share is right."""
    return share - 3.1 * (share * (1 - share) / trials) ** 0.5


@pytest.mark.parametrize(("trials", "case"), [*USUAL, *SLOW])
def test_a_difference_that_is_there_lies_in_its_interval(trials, case):
    rng, hits = np.random.default_rng(1), 0
    for _ in range(trials):
        (ours, theirs), taught = methods(rng, [1.5, 0.7], **case)
        _, low, high = paired_difference(ours, theirs, runs=taught)
        hits += bool(low <= 0.8 <= high)
    print(f"\ncoverage {hits / trials:.3f}")
    assert least(trials) <= hits / trials <= 0.995


@pytest.mark.parametrize(("trials", "case"), [*USUAL, *SLOW])
def test_a_lead_on_the_best_rival_is_not_claimed_too_often(trials, case):
    """Three rivals are level with us: above the best of them is nobody.

    The maximum of a draw lies above the maximum of the truth, so that this interval errs towards
    lower gains; its lower end is above the true gain no more often than it says.
    """
    rng, above = np.random.default_rng(2), 0
    for _ in range(trials):
        found, taught = methods(rng, [1.0] * 4, **case)
        ours, *rivals = (over_runs(runs, teachers=taught) for runs in found)
        _, low, _ = paired_difference(ours, best_of(rivals))
        above += bool(low > 0)
    print(f"\nabove {above / trials:.3f}")
    assert above / trials <= 1 - least(trials, 0.975)


@pytest.mark.parametrize(("trials", "case"), [*USUAL, *SLOW])
def test_the_interval_from_a_clear_best_rival_holds_the_truth(trials, case):
    """Where one rival is far ahead of the others the best is that one."""
    rng, hits = np.random.default_rng(3), 0
    for _ in range(trials):
        found, taught = methods(rng, [1.5, 0.7, -9.0, -9.0], **case)
        ours, *rivals = (over_runs(runs, teachers=taught) for runs in found)
        _, low, high = paired_difference(ours, best_of(rivals))
        hits += bool(low <= 0.8 <= high)
    assert least(trials) <= hits / trials <= 0.995


@pytest.mark.parametrize(("trials", "case"), [*USUAL, *SLOW])
def test_any_false_claim_of_several_is_rare(trials, case):
    """Four forms that are level with one rival, and one that is better: Holm's family."""
    rng, wrong, plain = np.random.default_rng(4), 0, 0
    for _ in range(trials):
        found, taught = methods(rng, [0.0, 0.0, 0.0, 0.0, 0.0, 9.0], **case)
        rival, *forms = (over_runs(runs, teachers=taught, repeats=4) for runs in found)
        p = torch.cat([difference_p_value(form, rival) for form in forms])
        wrong += bool((holm(p)[:4] <= 0.05).any())
        plain += bool((p[:4] <= 0.05).any())
    print(f"\nwith Holm {wrong / trials:.3f}, without {plain / trials:.3f}")
    assert wrong / trials <= 1 - least(trials)
    assert plain > wrong


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[:3])
def test_runs_drawn_with_replacement_miss_the_truth_more_often(case):
    """What `over_runs` does not do."""
    rng, hits, trials = np.random.default_rng(5), 0, 1000
    for _ in range(trials):
        found, taught = methods(rng, [0.8, 0.0], **case)
        pairs = list(zip(*found, strict=True))
        gap = [a.estimate - b.estimate for a, b in pairs]
        values = torch.stack(gap).view(max(taught) + 1, -1).numpy()
        moved = sum(
            a.samples - a.estimate - b.samples + b.estimate for a, b in zip(*found, strict=True)
        )
        people = (moved / len(taught)).flatten().numpy()
        t = rng.integers(0, values.shape[0], (DRAWS, values.shape[0]))
        s = rng.integers(0, values.shape[1], (DRAWS, *values.shape))
        low, high = np.quantile(values[t[:, :, None], s].mean((1, 2)) + people, [0.025, 0.975])
        hits += bool(low <= 0.8 <= high)
    print(f"\nwith replacement {hits / trials:.3f}")
    assert hits / trials < 0.93
