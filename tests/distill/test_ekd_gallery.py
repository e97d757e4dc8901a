"""EKD against the teacher's gallery: its memory and its thresholds, over several batches."""

import pytest
import torch
from batches import batches, random_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from ekd_lite.distill import GalleryEKDLoss
from tests.oracles import distill as oracle

OPTIONS = {"gallery_size": 5, "fprs": (0.5, 0.25, 0.1), "hard_fpr": 0.5}


@settings(max_examples=100, deadline=None)
@given(st.lists(batches(max_rows=7, min_dim=3, max_dim=3), min_size=2, max_size=4))
def test_equals_a_loop_over_probes_and_gallery_batch_after_batch(run):
    loss, slow = GalleryEKDLoss(3, **OPTIONS).double(), oracle.GalleryEKD()
    for student, teacher, labels in run:
        value = loss(student, teacher, labels).item()
        expected = slow(student.tolist(), teacher.tolist(), labels.tolist())
        assert value == pytest.approx(expected, abs=1e-9, rel=1e-9)
        assert loss.thresholds(loss.fprs).tolist() == pytest.approx(slow.thresholds, abs=1e-12)
    filled = loss.gallery[loss.gallery_labels >= 0]
    assert len(filled) == len(slow.gallery)
    for row, expected in zip(
        sorted(filled.tolist()), sorted(r for r, _ in slow.gallery), strict=True
    ):
        assert row == pytest.approx(expected, abs=1e-12)


def test_thresholds_are_the_true_quantiles_of_all_impostor_pairs():
    generator = torch.Generator().manual_seed(0)
    loss = GalleryEKDLoss(16, gallery_size=300, fprs=(1e-1, 1e-3, 1e-5))
    cosines = []
    for _ in range(20):
        teacher = torch.randn(40, 16, generator=generator)
        labels = torch.randint(0, 10_000, (40,), generator=generator)
        gallery = torch.cat([torch.nn.functional.normalize(teacher), loss.gallery])
        known = torch.cat([labels, loss.gallery_labels])
        is_impostor = (labels[:, None] != known) & (known >= 0)
        cosines.append((torch.nn.functional.normalize(teacher) @ gallery.T)[is_impostor])
        loss(teacher, teacher, labels)
    cosines = torch.cat(cosines).sort(descending=True).values
    for fpr, threshold in zip(loss.fprs, loss.thresholds(loss.fprs).tolist(), strict=True):
        allowed = int(fpr * len(cosines))
        assert (cosines > threshold).sum() <= allowed
        assert threshold == pytest.approx(cosines[allowed].item(), abs=6e-4)


def test_gradcheck():
    loss = GalleryEKDLoss(4, **OPTIONS).double()
    student, teacher, labels = random_batch(8, 4, seed=3)
    loss(student, teacher, labels)
    loss.eval()
    student, teacher, labels = random_batch(7, 4, seed=4)
    student.requires_grad_()
    assert loss(student, teacher, labels).item() > 1e-4
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher, labels), student)


def test_it_sees_a_rotation_of_the_student_alone_but_not_of_both():
    student, teacher, labels = random_batch(16, 5)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    value, both, one = (
        GalleryEKDLoss(5, **OPTIONS).double()(*pair, labels).item()
        for pair in (
            (student, teacher),
            (student @ turn, teacher @ turn),
            (student @ turn, teacher),
        )
    )
    assert both == pytest.approx(value, rel=1e-9)
    assert one != pytest.approx(value, rel=1e-3)


def test_memory_survives_a_checkpoint_and_rests_in_evaluation_mode():
    loss = GalleryEKDLoss(4, **OPTIONS).double()
    for seed in range(3):
        loss(*random_batch(8, 4, seed=seed))
    copy = GalleryEKDLoss(4, **OPTIONS).double()
    copy.load_state_dict(loss.state_dict())
    batch = random_batch(8, 4, seed=9)
    assert copy(*batch).item() == loss(*batch).item()
    loss.eval()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss(*random_batch(8, 4, seed=10))
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())


def test_without_a_gallery_it_compares_within_the_batch():
    student, teacher, labels = random_batch(10, 4)
    slow = oracle.GalleryEKD(size=0)
    loss = GalleryEKDLoss(4, **{**OPTIONS, "gallery_size": 0}).double()
    for _ in range(2):
        expected = slow(student.tolist(), teacher.tolist(), labels.tolist())
        assert loss(student, teacher, labels).item() == pytest.approx(expected, abs=1e-12)
    assert loss.seen == 0


def test_a_nan_embedding_shows_in_the_loss_but_not_in_the_memory():
    loss = GalleryEKDLoss(4, **OPTIONS).double()
    student, teacher, labels = random_batch(8, 4)
    loss(student, teacher, labels)
    for broken in ("student", "teacher"):
        rows = {"student": student.clone(), "teacher": teacher.clone()}
        rows[broken][2, 1] = float("nan")
        assert loss(rows["student"], rows["teacher"], labels).isnan()
        assert loss.gallery.isfinite().all()
        assert loss.thresholds(loss.fprs).isfinite().all()
    assert loss(student, teacher, labels).isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fprs": ()}, "rates must lie between 0 and 1"),
        ({"hard_fpr": 1.0}, "rates must lie between 0 and 1"),
        ({"temperature": 0}, "temperature > 0"),
        ({"gallery_size": -1}, "gallery_size >= 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GalleryEKDLoss(4, **options)
