"""EKD at fine rates: its histograms and its memory, over several batches."""

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ekd_lite.distill import DISTILLERS, FineEKDLoss, Setting
from tests.distill.batches import batches, random_batch
from tests.oracles import distill as oracle

OPTIONS: dict[str, Any] = {"fprs": (0.5, 0.25, 0.1), "hard_fpr": 0.5}


@pytest.mark.parametrize("memory", [0, 5])
@pytest.mark.parametrize("thresholds", ["own", "teacher"])
@settings(max_examples=100, deadline=None)
@given(
    st.lists(batches(max_rows=7, min_dim=3, max_dim=3), min_size=2, max_size=4),
    st.sampled_from([0.5, 0.2, 0.02]),  # the last one is not known at once
    st.sampled_from([0.1, 0.03]),
)
def test_equals_a_loop_over_all_pairs_batch_after_batch(
    memory, thresholds, run, hard_fpr, temperature
):
    # An image that comes again has cosine 1 with itself up to the last bit, and 1 is a threshold.
    firsts = [tuple(student[0].tolist()) for student, _, _ in run if len(student)]
    assume(len(set(firsts)) == len(firsts))
    options: dict[str, Any] = {"memory": memory, "hard_fpr": hard_fpr, "temperature": temperature}
    loss = FineEKDLoss(3, 3, **OPTIONS | options, thresholds=thresholds).double()
    slow = oracle.FineEKD(**options, own=thresholds == "own")
    for student, teacher, labels in run:
        value = loss(student, teacher, labels).item()
        expected = slow(student.tolist(), teacher.tolist(), labels.tolist())
        for net, found in enumerate(loss.thresholds(loss.fprs)):
            assert found.tolist() == pytest.approx([t[net] for t in slow.thresholds], abs=1e-12)
        assert value == pytest.approx(expected, abs=1e-9, rel=1e-9)
        stats = {name: x.item() for name, x in loss.stats.items()}
        assert stats == pytest.approx(slow.stats, abs=1e-7, rel=1e-7)
    filled = loss.memory_labels >= 0
    for net, rows in enumerate((loss.student_memory, loss.teacher_memory)):
        kept = sorted(rows[filled].tolist())
        for row, expected in zip(kept, sorted(m[net] for m in slow.memory), strict=True):
            assert row == pytest.approx(expected, abs=1e-12)


def test_thresholds_are_the_true_quantiles_of_all_impostor_pairs():
    generator = torch.Generator().manual_seed(0)
    loss = FineEKDLoss(16, 16, memory=300, fprs=(1e-1, 1e-3, 1e-5), decay=1.0)
    cosines = []
    for _ in range(20):
        teacher = torch.randn(40, 16, generator=generator)
        labels = torch.randint(0, 10_000, (40,), generator=generator)
        rows = torch.cat([torch.nn.functional.normalize(teacher), loss.teacher_memory])
        known = torch.cat([labels, loss.memory_labels])
        is_impostor = (labels[:, None] != known) & (known >= 0)
        cosines.append((torch.nn.functional.normalize(teacher) @ rows.T)[is_impostor])
        loss(teacher, teacher, labels)
    cosines = torch.cat(cosines).sort(descending=True).values
    for found in loss.thresholds(loss.fprs):
        for fpr, threshold in zip(loss.fprs, found.tolist(), strict=True):
            allowed = int(fpr * len(cosines))
            assert (cosines > threshold).sum() <= allowed
            assert threshold == pytest.approx(cosines[allowed].item(), abs=6e-4)


def test_no_pair_is_lost_to_rounding():
    """In floats 0.29 * 100 is below 29 and 49 * (1 / 49) below 1."""
    loss = FineEKDLoss(4, 4, thresholds="teacher")
    for pairs, fpr, allowed in ((100, 0.29, 29), (49, 1 / 49, 1)):
        loss.teacher_counts.zero_()
        loss.teacher_counts[:pairs] = 1  # one pair a bin, from the bottom
        (threshold,) = loss.thresholds([fpr])[1].tolist()
        assert threshold == pytest.approx((pairs - allowed) * 2 / 4000 - 1, abs=1e-6)


@pytest.mark.parametrize("thresholds", ["own", "teacher"])
@pytest.mark.parametrize(
    ("memory", "rows", "identities", "hard_fpr"),
    [(5, 7, 4, 0.5), (200, 64, 60, 0.003)],  # few pairs take part: a sparse gradient
)
def test_gradcheck(thresholds, memory, rows, identities, hard_fpr):
    options: dict[str, Any] = OPTIONS | {
        "hard_fpr": hard_fpr,
        "memory": memory,
        "thresholds": thresholds,
    }
    loss = FineEKDLoss(4, 5, **options).double()
    student, teacher, labels = random_batch(max(8, memory), 5, seed=3, identities=max(4, memory))
    loss(student[:, :4], teacher, labels)
    loss.eval()
    student, teacher, labels = random_batch(rows, 5, seed=4, identities=identities)
    student = student[:, :4].clone().requires_grad_()
    assert loss(student, teacher, labels).item() > 1e-4
    assert not any(value.requires_grad for value in loss.stats.values())
    assert torch.autograd.gradcheck(lambda x: 3 * loss(x, teacher, labels), student)


def test_own_thresholds_do_not_see_a_stretching_of_the_student_the_teacher_s_do():
    """A common vector moves all cosines up by one monotone map: a' = (a + 9) / 10."""
    _, teacher, labels = random_batch(40, 16)
    teacher = torch.nn.functional.normalize(teacher)
    lifted = torch.cat([teacher, torch.full((40, 1), 3.0)], dim=1).double()
    options: dict[str, Any] = {"fprs": (0.1, 0.02), "hard_fpr": 0.2, "temperature": 1e-4}
    own, fixed = (
        FineEKDLoss(17, 16, **options, thresholds=whose).double()(lifted, teacher.double(), labels)
        for whose in ("own", "teacher")
    )
    assert own.item() < 0.02 * fixed.item()


def test_memory_survives_a_checkpoint_and_rests_in_evaluation_mode():
    loss = FineEKDLoss(4, 4, **OPTIONS, memory=20).double()
    for seed in range(3):
        loss(*random_batch(8, 4, seed=seed))
    copy = FineEKDLoss(4, 4, **OPTIONS, memory=20).double()
    copy.load_state_dict(loss.state_dict())
    for seed in (8, 9):  # the second one meets what the first has put into the memory, and where
        batch = random_batch(8, 4, seed=seed)
        assert copy(*batch).item() == loss(*batch).item()
    loss.eval()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss(*random_batch(8, 4, seed=10))
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())


@pytest.mark.parametrize("broken", ["student", "teacher"])
def test_a_nan_embedding_shows_in_the_loss_and_leaves_no_trace(broken):
    """Counts and memory are as if the image had not come.

    It is the only one of its person, and the other net finds it unlike everybody.
    """
    options: dict[str, Any] = OPTIONS | {"hard_fpr": 0.03, "memory": 20}
    loss, without = (FineEKDLoss(4, 4, **options).double() for _ in range(2))
    first = random_batch(8, 4, identities=3)
    student, teacher, labels = random_batch(8, 4, seed=1, identities=3)
    labels[2] = 9
    kept = torch.arange(8) != 2
    for net, before in ((student, first[0]), (teacher, first[1])):
        net[2] = -torch.nn.functional.normalize(torch.cat([before, net[kept]])).sum(dim=0)
    loss(*first)
    without(*first)
    without(student[kept], teacher[kept], labels[kept])
    rows = {"student": student.clone(), "teacher": teacher.clone()}
    rows[broken][2, 1] = float("nan")
    assert loss(rows["student"], rows["teacher"], labels).isnan()
    for name, value in without.state_dict().items():
        assert torch.allclose(loss.state_dict()[name], value), name
    assert loss(student, teacher, labels).isfinite()


def test_the_methods_are_those_of_the_study():
    """`data/results/study.csv` and `lfw_distil.csv` were made with these settings."""
    setting = Setting(6, 5, torch.zeros(3, 5))
    own, fixed = (DISTILLERS[name].build(setting) for name in ("ekd_fine", "ekd_memory"))
    for loss, whose, memory in ((own, "own", 0), (fixed, "teacher", 4096)):
        assert (loss.fprs, loss.hard_fpr) == ((1e-3, 1e-4, 1e-5, 1e-6), 1e-2)
        assert (loss.thresholds_of, loss.temperature, loss.decay) == (whose, 0.1, 0.98)
        assert (loss.positive_weight, loss.negative_weight) == (0.02, 0.01)
        assert loss.student_memory.shape == (memory, 6)
        assert loss.teacher_memory.shape == (memory, 5)
        # Float32 cannot count beyond 2^24 pairs, which 2,000 steps of 96 images have.
        assert loss.student_counts.dtype == loss.teacher_counts.dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fprs": ()}, "rates between 0 and 1"),
        ({"fprs": (0.1, 0.0)}, "rates between 0 and 1"),
        ({"hard_fpr": 1.0}, "rates between 0 and 1"),
        ({"temperature": 0}, "temperature > 0"),
        ({"memory": -1}, "memory >= 0"),
        ({"decay": 1.1}, "0 <= decay <= 1"),
        ({"decay": -0.1}, "0 <= decay <= 1"),
        ({"student_dim": 0}, "widths >= 1"),
        ({"thresholds": "students"}, "'students'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        FineEKDLoss(**{"student_dim": 4, "teacher_dim": 4, **options})


@pytest.mark.parametrize("widths", [(5, 4), (4, 5)])
def test_other_widths_than_it_was_made_for_are_named(widths):
    batch = (torch.ones(3, width) for width in widths)
    with pytest.raises(ValueError, match=r"made for widths \(4, 4\)"):
        FineEKDLoss(4, 4)(*batch, torch.arange(3))
