"""The references that the checks do not take from the library as they are agree with it."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ekd_lite.coursework.exercise import normal
from ekd_lite.coursework.exercises.bootstrap import BOOTSTRAP
from ekd_lite.coursework.exercises.conv_macs import CONV_MACS
from ekd_lite.coursework.exercises.decisions import DECISIONS
from ekd_lite.coursework.exercises.ekd import EKD
from ekd_lite.coursework.exercises.gallery import GALLERY
from ekd_lite.coursework.exercises.learning_rate import LEARNING_RATE
from ekd_lite.coursework.exercises.triplet import TRIPLET
from ekd_lite.distill import EKDLoss, FineEKDLoss, GalleryEKDLoss, TripletDistillationLoss
from ekd_lite.distill.triplet import semi_hard_triplets
from ekd_lite.evaluate import bootstrap_tpr_at_fpr
from ekd_lite.ops import unit_rows
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.optim import learning_rate_at


@pytest.mark.parametrize("case", EKD.cases(), ids=lambda case: case.name)
def test_ekd_is_the_librarys_with_fixed_thresholds(case):
    student, teacher, labels, mine, theirs, temperature, topk = case.arguments
    loss = EKDLoss(fprs=[0.1] * len(mine), temperature=temperature, topk=topk).double().eval()
    loss.student_thresholds.copy_(mine)
    loss.teacher_thresholds.copy_(theirs)
    loss.num_updates.fill_(1)
    torch.testing.assert_close(EKD.reference(*case.arguments), loss(student, teacher, labels))


@pytest.mark.parametrize("seed", range(3))
def test_decisions_are_the_librarys_at_the_levels_that_it_has_counted(seed):
    labels = torch.arange(20).repeat_interleave(4)
    centres = normal(seed, 20, 8)[labels]
    student, teacher = (centres + a * normal(seed + b, 80, 8) for a, b in ((0.9, 1), (0.4, 2)))
    loss = FineEKDLoss(8, 8, targets="decisions", threshold=0.6, fprs=(1e-1, 1e-2), hard_fpr=0.2)
    want = loss.double()(student, teacher, None)
    levels, (hard,) = (loss.thresholds(fprs)[0] for fprs in ([1e-1, 1e-2], [0.2]))
    got = DECISIONS.reference(student, teacher, levels, hard.item(), 0.6, loss.temperature)
    torch.testing.assert_close(got, want)
    assert want > 0 and len(levels) == 2


@pytest.mark.parametrize("seed", range(3))
def test_gallery_is_the_librarys_with_all_rows(seed):
    row_labels = torch.arange(20).repeat_interleave(5)
    centres = normal(seed, 20, 8)
    rows = centres[row_labels] + 0.4 * normal(seed + 1, 100, 8)
    labels = torch.arange(12)
    teacher = centres[labels] + 0.4 * normal(seed + 2, 12, 8)
    student = centres[labels] + 0.9 * normal(seed + 3, 12, 8)
    fprs = (1e-1, 1e-2)
    loss = GalleryEKDLoss(rows, row_labels, fprs=fprs, hard_fpr=0.1, impostors=100, extrapolated=0)
    want = loss.double()(student, teacher, labels)
    levels = loss.thresholds(fprs)
    got = GALLERY.reference(student, teacher, labels, rows, row_labels, *levels, loss.temperature)
    torch.testing.assert_close(got, want)
    assert want > 0 and levels.shape == (2, 2)


@pytest.mark.parametrize("seed", range(5))
def test_triplet_is_the_librarys_on_its_triplets(seed):
    student, teacher = normal(seed, 12, 6), normal(seed + 50, 12, 5)
    labels = torch.arange(4).repeat_interleave(3)
    unit = unit_rows(student)
    triplets = torch.stack(semi_hard_triplets(unit @ unit.T, labels), 1)
    want = TripletDistillationLoss()(student, teacher, labels)
    torch.testing.assert_close(TRIPLET.reference(student, teacher, triplets, 0.2, 0.5), want)


def test_bootstrap_is_one_sample_of_the_librarys():
    case = BOOTSTRAP.cases()[2]
    embeddings, labels, _, fpr = case.arguments
    result = bootstrap_tpr_at_fpr(embeddings, labels, [fpr], num_resamples=20, seed=3)
    from ekd_lite.evaluate.bootstrap import draw_weights

    for weights, want in zip(draw_weights(10, 20, 3)[1:], result.samples[:, 0], strict=True):
        drawn = torch.arange(10).repeat_interleave(torch.from_numpy(weights.astype("int64")))
        assert BOOTSTRAP.reference(embeddings, labels, drawn, fpr) == pytest.approx(want.item())


@pytest.mark.parametrize("case", CONV_MACS.cases(), ids=lambda case: case.name)
def test_macs_are_those_torch_counts(case):
    cin, cout, kernel, stride, padding, groups, height, width = case.arguments
    conv = torch.nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        conv(torch.zeros(1, cin, height, width))
    assert CONV_MACS.reference(*case.arguments) == counter.get_total_flops() // 2


@pytest.mark.parametrize("case", LEARNING_RATE.cases(), ids=lambda case: case.name)
def test_learning_rate_is_the_trainers(case):
    step, steps, warmup_steps, peak = case.arguments
    config = TrainConfig(steps=steps, warmup=warmup_steps / steps, learning_rate=peak)
    want = learning_rate_at(step, config)
    assert LEARNING_RATE.reference(*case.arguments) == pytest.approx(want)
