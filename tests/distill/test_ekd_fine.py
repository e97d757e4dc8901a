"""EKD at fine rates: its histograms and its memory, over several batches."""

import pytest
import torch
from batches import batches, random_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from ekd_lite.distill import FineEKDLoss
from tests.oracles import distill as oracle

OPTIONS = {"fprs": (0.5, 0.25, 0.1), "hard_fpr": 0.5}


@pytest.mark.parametrize("memory", [0, 5])
@pytest.mark.parametrize("thresholds", ["own", "teacher"])
@settings(max_examples=100, deadline=None)
@given(st.lists(batches(max_rows=7, min_dim=3, max_dim=3), min_size=2, max_size=4))
def test_equals_a_loop_over_all_pairs_batch_after_batch(memory, thresholds, run):
    loss = FineEKDLoss(3, 3, **OPTIONS, memory=memory, thresholds=thresholds).double()
    slow = oracle.FineEKD(memory=memory, own=thresholds == "own")
    for student, teacher, labels in run:
        value = loss(student, teacher, labels).item()
        expected = slow(student.tolist(), teacher.tolist(), labels.tolist())
        for net, found in enumerate(loss.thresholds(loss.fprs)):
            assert found.tolist() == pytest.approx([t[net] for t in slow.thresholds], abs=1e-12)
        assert value == pytest.approx(expected, abs=1e-9, rel=1e-9)
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


@pytest.mark.parametrize("thresholds", ["own", "teacher"])
def test_gradcheck(thresholds):
    loss = FineEKDLoss(4, 5, **OPTIONS, memory=5, thresholds=thresholds).double()
    student, teacher, labels = random_batch(8, 5, seed=3)
    loss(student[:, :4], teacher, labels)
    loss.eval()
    student, teacher, labels = random_batch(7, 5, seed=4)
    student = student[:, :4].clone().requires_grad_()
    assert loss(student, teacher, labels).item() > 1e-4
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher, labels), student)


def test_own_thresholds_do_not_see_a_stretching_of_the_student_the_teacher_s_do():
    """A common vector moves all cosines up by one monotone map: a' = (a + 9) / 10."""
    _, teacher, labels = random_batch(40, 16)
    teacher = torch.nn.functional.normalize(teacher)
    lifted = torch.cat([teacher, torch.full((40, 1), 3.0)], dim=1).double()
    options = {"fprs": (0.1, 0.02), "hard_fpr": 0.2, "temperature": 1e-4}
    own, fixed = (
        FineEKDLoss(17, 16, **options, thresholds=whose).double()(lifted, teacher.double(), labels)
        for whose in ("own", "teacher")
    )
    assert own.item() < 0.02 * fixed.item()


def test_memory_survives_a_checkpoint_and_rests_in_evaluation_mode():
    loss = FineEKDLoss(4, 4, **OPTIONS, memory=5).double()
    for seed in range(3):
        loss(*random_batch(8, 4, seed=seed))
    copy = FineEKDLoss(4, 4, **OPTIONS, memory=5).double()
    copy.load_state_dict(loss.state_dict())
    batch = random_batch(8, 4, seed=9)
    assert copy(*batch).item() == loss(*batch).item()
    loss.eval()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss(*random_batch(8, 4, seed=10))
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())


@pytest.mark.parametrize("broken", ["student", "teacher"])
def test_a_nan_embedding_shows_in_the_loss_but_not_in_the_memory(broken):
    loss = FineEKDLoss(4, 4, **OPTIONS, memory=20).double()
    student, teacher, labels = random_batch(8, 4)
    loss(student, teacher, labels)
    rows = {"student": student.clone(), "teacher": teacher.clone()}
    rows[broken][2, 1] = float("nan")
    assert loss(rows["student"], rows["teacher"], labels).isnan()
    assert loss.student_memory.isfinite().all() and loss.teacher_memory.isfinite().all()
    assert loss.seen == 8 + 7
    assert loss(student, teacher, labels).isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fprs": ()}, "rates must lie between 0 and 1"),
        ({"hard_fpr": 1.0}, "rates must lie between 0 and 1"),
        ({"temperature": 0}, "temperature > 0"),
        ({"memory": -1}, "memory >= 0"),
        ({"decay": 1.1}, "0 <= decay <= 1"),
        ({"thresholds": "students"}, "'students'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        FineEKDLoss(4, 4, **options)
