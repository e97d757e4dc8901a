"""EKD by decisions, by labels, by cosines, and in the gallery, over several batches."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ekd_lite.distill import (
    DISTILLERS,
    BatchHardDecisionLoss,
    ContrastiveDecisionLoss,
    FineEKDLoss,
    GalleryEKDLoss,
)
from ekd_lite.ops import generator_for, unit_rows
from tests.distill.batches import batches, gallery, make_setting, random_batch
from tests.oracles import distill as oracle

OPTIONS: dict[str, Any] = {"fprs": (0.5, 0.25, 0.1), "hard_fpr": 0.5}
RUNS = st.lists(batches(max_rows=7, min_dim=3, max_dim=3), min_size=2, max_size=3)


@pytest.mark.parametrize("targets", ["decisions", "labels", "cosines"])
@settings(max_examples=30, deadline=None)
@given(RUNS, st.sampled_from([0, 5]))
def test_equals_a_loop_batch_after_batch(targets, run, memory):
    firsts = [tuple(student[0].tolist()) for student, _, _ in run if len(student)]
    assume(len(set(firsts)) == len(firsts))
    kind: dict[str, Any] = {"targets": targets, "memory": memory}
    if targets == "decisions":
        kind["threshold"] = 0.2
    loss, slow = FineEKDLoss(3, 3, **OPTIONS, **kind).double(), oracle.FineEKD(**kind)
    for student, teacher, labels in run:
        value = loss(student, teacher, labels).item()
        expected = slow(student.tolist(), teacher.tolist(), labels.tolist())
        assert value == pytest.approx(expected, abs=1e-9, rel=1e-9)
        stats = {name: x.item() for name, x in loss.stats.items()}
        assert stats == pytest.approx(slow.stats, abs=1e-7, rel=1e-7)


@settings(max_examples=30, deadline=None)
@given(RUNS, st.sampled_from([0, 5]))
def test_the_contrastive_hinge_equals_a_loop_batch_after_batch(run, memory):
    firsts = [tuple(student[0].tolist()) for student, _, _ in run if len(student)]
    assume(len(set(firsts)) == len(firsts))
    kind: dict[str, Any] = {"fpr": 0.25, "hard_fpr": 0.5, "threshold": 0.2, "memory": memory}
    loss, slow = ContrastiveDecisionLoss(3, 3, **kind).double(), oracle.Contrastive(**kind)
    for student, teacher, labels in run:
        expected = slow(student.tolist(), teacher.tolist(), labels.tolist())
        assert loss(student, teacher).item() == pytest.approx(expected, abs=1e-9, rel=1e-9)
        stats = {name: x.item() for name, x in loss.stats.items()}
        assert stats == pytest.approx(slow.stats, abs=1e-7, rel=1e-7)


@settings(max_examples=20, deadline=None)
@given(RUNS, st.sampled_from([0, 3]))
def test_the_gallery_form_equals_a_loop_batch_after_batch(run, extrapolated):
    rows, labels = gallery(3)
    options: dict[str, Any] = {"extrapolated": extrapolated}
    loss = GalleryEKDLoss(rows, labels, **OPTIONS, **options, impostors=25, seed=4).double()
    slow = oracle.GalleryEKD(rows.double().tolist(), labels.tolist(), **options)
    for step, (student, teacher, known) in enumerate(run):
        drawn = generator_for(4, 3, step).choice(60, 25, replace=False).tolist()
        value = loss(student, teacher, known).item()
        expected = slow(student.tolist(), teacher.tolist(), known.tolist(), drawn)
        assert value == pytest.approx(expected, abs=1e-8, rel=1e-8)


def test_decisions_look_at_no_label_and_labels_at_no_teacher():
    student, teacher, labels = random_batch(40, 6)
    by = {
        "decisions": FineEKDLoss(6, 6, **OPTIONS, targets="decisions", threshold=0.3),
        "labels": FineEKDLoss(6, 6, **OPTIONS, targets="labels"),
    }
    values = [by["decisions"](student, teacher, y).item() for y in (labels, labels.flip(0), None)]
    assert values[0] > 0
    other = FineEKDLoss(6, 6, **OPTIONS, targets="decisions", threshold=0.3)
    assert other(student, teacher).item() == values[0]
    first = by["labels"](student, teacher, labels).item()
    again = FineEKDLoss(6, 6, **OPTIONS, targets="labels")(student, teacher.flip(0), labels).item()
    assert first == again > 0


def test_a_teacher_that_knows_everybody_decides_as_the_labels_say():
    student, _, labels = random_batch(40, 6)
    teacher = torch.nn.functional.one_hot(labels, 6).double()
    decided = FineEKDLoss(6, 6, **OPTIONS, targets="decisions", threshold=0.5)
    told = FineEKDLoss(6, 6, **OPTIONS, targets="labels")
    assert decided(student, teacher).item() == told(student, teacher, labels).item()


def test_a_pair_accepted_at_the_very_threshold_is_one_person():
    """Accept iff the score is the threshold or more."""
    teacher = torch.tensor([[1.0, 0.0], [3.0, 4.0]]).double()
    student = torch.eye(2).double()
    cosine = float((unit_rows(teacher) @ unit_rows(teacher).T)[0, 1])
    for threshold, one_person in ((cosine, True), (cosine + 1e-9, False)):
        loss = FineEKDLoss(2, 2, targets="decisions", threshold=threshold)
        loss.student_counts[2500] = loss.teacher_counts[2500] = 1e6  # all levels known, above 0
        loss.eval()
        loss(student, teacher)
        assert (loss.stats["positive_loss"] > 13).item() == one_person


def test_triplets_ask_the_teacher_at_the_very_threshold_too():
    """The hinge asks by the code of the test above; triplets have a comparison of their own."""
    teacher = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, -1.0]]).double()
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]], dtype=torch.float64)
    cosine = float((unit_rows(teacher) @ unit_rows(teacher).T)[0, 1])
    # Accepted, the pair 0, 1 has the cosine 0 in the student, 0.8 and 0.6 less than the strangers'.
    for threshold, wanted in ((cosine, ((0.2 + 0.8) + (0.2 + 0.6)) / 2), (cosine + 1e-9, 0.0)):
        loss = BatchHardDecisionLoss(threshold=threshold)
        assert loss(student, teacher).item() == pytest.approx(wanted, abs=1e-12)


def test_far_wrong_pairs_pull_less_than_those_near_a_threshold():
    """Why wrong decisions harm little: the slope falls off, that of a squared gap grows."""
    angles = torch.tensor([0.05, 0.6, 1.2])  # distance in cosine from the threshold at 0.5
    pulls = {}
    for targets in ("labels", "cosines"):
        loss = FineEKDLoss(2, 2, targets=targets, fprs=(1e-3,)).double().eval()
        loss.student_counts[3000] = loss.teacher_counts[3000] = 1e6  # threshold 0.5
        pulls[targets] = []
        for away in angles:
            a = 0.5 - away
            student = torch.tensor([[1.0, 0.0], [a, (1 - a * a) ** 0.5]]).double().requires_grad_()
            teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double()
            loss(student, teacher, torch.zeros(2, dtype=torch.int64)).backward()
            slope = student.grad.norm() / (1 - a * a) ** 0.5  # per unit of the cosine
            pulls[targets].append(float(slope))
    assert pulls["labels"][0] > 20 * pulls["labels"][1] > 20 * 20 * pulls["labels"][2]
    assert pulls["cosines"] == sorted(pulls["cosines"])


def test_the_hinge_pulls_alike_on_one_side_of_the_threshold_and_not_at_all_on_the_other():
    """What it is a control of: the pull of soft ranks fades, see the test above."""
    for accepted in (True, False):
        loss = ContrastiveDecisionLoss(2, 2, threshold=0.9).double().eval()
        loss.student_counts[3000] = loss.teacher_counts[3000] = 1e6  # threshold 0.5
        pulls = []
        for a in (-0.4, 0.2, 0.45, 0.55, 0.8, 0.95):
            student = torch.tensor([[1.0, 0.0], [a, (1 - a * a) ** 0.5]]).double().requires_grad_()
            teacher = torch.tensor([[1.0, 0.0], [1.0 * accepted, 1.0 - accepted]]).double()
            loss(student, teacher).backward()
            pulls.append(float(student.grad.norm()) / (1 - a * a) ** 0.5)
        if accepted:
            assert pulls[:3] == pytest.approx(3 * [pulls[0]]) and pulls[0] > 0 == max(pulls[3:])
        else:
            assert pulls[3:] == pytest.approx(3 * [pulls[5]]) and pulls[5] > 0 == max(pulls[:3])


@pytest.mark.parametrize("targets", ["decisions", "labels", "cosines", "gallery"])
def test_gradcheck_with_known_thresholds(targets):
    kind: dict[str, Any] = {"targets": targets}
    if targets == "decisions":
        kind |= {"threshold": 0.2, "memory": 9}
    loss = FineEKDLoss(5, 5, **OPTIONS, **kind) if targets != "gallery" else None
    loss = (loss or GalleryEKDLoss(*gallery(5), **OPTIONS, impostors=20)).double()
    loss(*random_batch(12, 5, seed=3))
    loss.eval()
    student, teacher, labels = random_batch(9, 5, seed=4)
    student.requires_grad_()
    assert loss(student, teacher, labels).item() > 1e-4
    assert torch.autograd.gradcheck(lambda x: 3 * loss(x, teacher, labels), student)


def test_extrapolated_levels_go_on_in_the_last_step():
    loss = GalleryEKDLoss(*gallery(4))
    for counts in (loss.student_counts, loss.teacher_counts):
        counts[:1000] = 1e6
    plain, more = loss.thresholds(loss.fprs), loss.thresholds(loss.fprs, extrapolated=2)
    assert plain.shape == (2, 3)
    step = plain[:, 2] - plain[:, 1]
    assert torch.allclose(more[:, 3:], plain[:, 2:] + step[:, None] * torch.tensor([1.0, 2.0]))
    loss.student_counts[:], loss.student_counts[0] = 0, 2e3
    assert loss.thresholds(loss.fprs, extrapolated=2).shape == (2, 1)


def test_the_gallery_takes_every_person_s_rows_spread_over_all_of_them():
    labels = torch.tensor([5, 7, 5, 5, 9, 5, 5, 5, 7])
    loss = GalleryEKDLoss(torch.eye(9), labels, genuine=3)
    places, is_any = loss._own(torch.tensor([5, 7, 8, 9]), 0.0)
    found = [row[keep].tolist() for row, keep in zip(places, is_any, strict=True)]
    assert found == [[0, 3, 6], [1, 8], [], [4]]
    seen = {int(i) for k in range(9) for i in loss._own(torch.tensor([5]), k / 9)[0].flatten()}
    assert seen == {0, 2, 3, 5, 6, 7}


def test_the_gallery_is_read_and_neither_saved_nor_moved(tmp_path):
    rows, labels = gallery(4)
    loss = GalleryEKDLoss(rows, labels, **OPTIONS)
    assert set(loss.state_dict()) == {"student_counts", "teacher_counts", "steps"}
    path = tmp_path / "rows.npy"
    np.save(path, rows.numpy())
    mapped = GalleryEKDLoss(torch.from_numpy(np.load(path, mmap_mode="c")), labels, **OPTIONS)
    batch = random_batch(8, 4)
    assert mapped(*batch).item() == loss(*batch).item()


@pytest.mark.parametrize("name", ["ekd_decisions", "ekd_labels", "ekd_gallery", "ekd_l2"])
def test_histograms_survive_a_checkpoint_and_rest_in_evaluation_mode(name):
    loss, copy = (DISTILLERS[name].build(make_setting(4)) for _ in range(2))
    for seed in range(3):
        loss(*random_batch(48, 4, seed=seed))
    copy.load_state_dict(loss.state_dict())
    for seed in (8, 9):
        batch = random_batch(48, 4, seed=seed)
        assert copy(*batch).item() == loss(*batch).item() != 0
    loss.eval()
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    loss(*random_batch(48, 4, seed=10))
    assert all(torch.equal(before[key], value) for key, value in loss.state_dict().items())


@pytest.mark.parametrize("broken", ["student", "teacher"])
def test_a_nan_leaves_no_trace_in_the_gallery_s_histograms(broken):
    loss, without = (GalleryEKDLoss(*gallery(4), **OPTIONS).double() for _ in range(2))
    student, teacher, labels = random_batch(8, 4)
    kept = torch.arange(8) != 2
    without(student[kept], teacher[kept], labels[kept])
    (student if broken == "student" else teacher)[2, 1] = float("nan")
    assert loss(student, teacher, labels).isnan()
    for name, value in without.state_dict().items():
        assert torch.equal(loss.state_dict()[name], value), name


def test_the_methods_are_those_of_the_trials():
    decisions, told, far, gap = (
        DISTILLERS[f"ekd_{name}"].build(make_setting(6, teacher_threshold=0.672))
        for name in ("decisions", "labels", "gallery", "l2")
    )
    for loss, targets in ((decisions, "decisions"), (told, "labels"), (gap, "cosines")):
        assert (loss.targets, loss.thresholds_of) == (targets, "own")
        assert (loss.fprs, loss.hard_fpr) == ((1e-3, 1e-4, 1e-5, 1e-6), 1e-2)
        assert (loss.temperature, loss.decay) == (0.1, 0.98)
    assert decisions.threshold == 0.672
    assert (far.fprs, far.extrapolated, far.hard_fpr) == ((1e-3, 1e-4, 1e-5), 4, 1e-2)
    assert (far.temperature, far.decay, far.impostors) == (0.1, 0.98, 1000)
    for loss in (decisions, told, far, gap):
        assert (loss.positive_weight, loss.negative_weight) == (0.02, 0.01)


def fine(**options):
    return FineEKDLoss(4, 4, **options)


def hinge(**options):
    return ContrastiveDecisionLoss(4, 4, **options)


def far(**options):
    return GalleryEKDLoss(*gallery(4), **options)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (fine, {"targets": "label"}, "ranks, decisions, labels, cosines, got 'label'"),
        (fine, {"targets": "decisions"}, "need threshold.*got None for 'decisions'"),
        (fine, {"threshold": 0.5}, "got 0.5 for 'ranks'"),
        (fine, {"targets": "decisions", "threshold": 28.6}, "got 28.6 for 'decisions'"),
        (fine, {"targets": "decisions", "threshold": math.nan}, "got nan for 'decisions'"),
        (hinge, {"threshold": 28.6}, "need threshold, the cosine from which.* got 28.6"),
        (hinge, {"threshold": -5}, "got -5"),
        (BatchHardDecisionLoss, {"threshold": 28.6}, "cosine between -1 and 1, got 28.6"),
        (BatchHardDecisionLoss, {"threshold": 0.3, "margin": 28.6}, "0 to 2, of cosines, got 28.6"),
        (
            fine,
            {"targets": "decisions", "threshold": 0.5, "thresholds": "teacher"},
            'decisions need thresholds="own"',
        ),
        (far, {"fprs": (1e-4, 1e-3)}, "from coarse to fine"),
        (far, {"hard_fpr": 0.0}, "between 0 and 1"),
        (far, {"temperature": 0}, "temperature > 0"),
        (far, {"genuine": 0}, "genuine >= 1"),
        (far, {"extrapolated": -1}, "extrapolated >= 0"),
    ],
)
def test_bad_options_are_named(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_a_gallery_that_does_not_fit_is_named():
    rows, labels = gallery(4)
    with pytest.raises(ValueError, match=r"expected rows \(G, D\)"):
        GalleryEKDLoss(rows.long(), labels)
    for bad in (rows[:0], rows[:, :0], rows.to("meta"), rows.to_sparse()):
        with pytest.raises(ValueError, match=r"expected rows \(G, D\)"):
            GalleryEKDLoss(bad, labels[: len(bad)])
    for number in (torch.nan, torch.inf):
        bad = rows.clone()
        bad[11, 2] = number
        with pytest.raises(ValueError, match="rows: row 11 holds NaN or infinity"):
            GalleryEKDLoss(bad, labels)
    with pytest.raises(ValueError, match=r"expected labels \(60,\), got \(59,\)"):
        GalleryEKDLoss(rows, labels[1:])
    student, teacher, y = random_batch(6, 5)
    with pytest.raises(ValueError, match="the gallery has width 4"):
        GalleryEKDLoss(rows, labels)(student, teacher, y)
    with pytest.raises(ValueError, match="needs the teacher's rows"):
        DISTILLERS["ekd_gallery"].build(make_setting(4, gallery=None))
