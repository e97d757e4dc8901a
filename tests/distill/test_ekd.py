"""EKD: golden values of the authors' code, a loop over pairs, and what "corrected" promises."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ekd_lite.distill import EKDLoss
from ekd_lite.distill.ekd_pairs import hardest_pairs, rank_pairs, soft_rank, upper_cosines
from tests.distill.batches import batches, golden_batch, random_batch
from tests.oracles import distill as oracle

pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")


@pytest.mark.parametrize(
    ("rows", "dim", "first", "second", "parts", "student", "teacher"),
    [
        (
            16,
            8,
            0.3190307697,
            0.3192940656,
            (11.65949256, 8.58409185),
            [1.821851e-4] + [4.855378e-4] * 5,
            [5.8798536e-3] + [1.94269421e-2] * 5,
        ),
        (
            64,
            16,
            0.3292611305,
            0.3103439491,
            (11.03143102, 10.86325100),
            [1.117547e-3, 1.98632156e-2, 1.98999241e-2] + [1.98999729e-2] * 3,
            [2.259811e-3, 1.9781294e-2, 1.98227441e-2] + [1.98446483e-2] * 3,
        ),
    ],
)
def test_official_mode_gives_the_numbers_of_the_authors_code(
    rows, dim, first, second, parts, student, teacher
):
    """TFace 171ec14 run in float64 on this batch (METHODS 1.3)."""
    loss = EKDLoss(mode="official").double()
    batch = golden_batch(rows, dim)
    assert float(loss(*batch)) == pytest.approx(first, abs=1e-9)
    assert float(loss.stats["positive_loss"]) == pytest.approx(parts[0], abs=1e-8)
    assert float(loss.stats["negative_loss"]) == pytest.approx(parts[1], abs=1e-8)
    assert float(loss(*batch)) == pytest.approx(second, abs=1e-9)
    assert loss.student_thresholds.tolist() == pytest.approx(student, rel=1e-6)
    assert loss.teacher_thresholds.tolist() == pytest.approx(teacher, rel=1e-6)


@pytest.mark.parametrize("mode", ["official", "corrected"])
@settings(deadline=None)
@given(batches(max_rows=8), batches(max_rows=8))
def test_equals_a_loop_over_pairs(mode, first, second):
    """Two steps, so that the running thresholds are compared too; six of eight pairs take part."""
    expected = oracle.EKD(topk=6, corrected=mode == "corrected")
    loss = EKDLoss(mode=mode, topk=6).double()
    for student, teacher, labels in (first, second):
        same = labels[:, None] == labels
        num_genuine = int(same.triu(1).sum())
        num_impostor = int((~same).triu(1).sum())
        if mode == "official" and not (num_genuine and num_impostor):
            with pytest.raises(ValueError, match=f"{num_genuine} genuine and {num_impostor} imp"):
                loss(student, teacher, labels)
            continue
        value = expected(student.tolist(), teacher.tolist(), labels.tolist())
        assert float(loss(student, teacher, labels)) == pytest.approx(value, abs=1e-8)
        in_use = loss.num_updates > 0
        assert loss.student_thresholds[in_use].tolist() == pytest.approx(
            expected.student_thresholds, abs=1e-12
        )
        assert loss.teacher_thresholds[in_use].tolist() == pytest.approx(
            expected.teacher_thresholds, abs=1e-12
        )


def warmed_loss(batch, **options):
    """Thresholds at the batch's own, so that many pairs lie near one: in evaluation mode."""
    loss = EKDLoss(momentum=1.0, temperature=0.1, fprs=(0.5, 0.2, 0.1), **options).double()
    loss(*batch)
    return loss.eval()


@pytest.mark.parametrize("rows", [7, 70])  # one for each form of the backward pass
def test_gradcheck(rows):
    student, teacher, labels = random_batch(rows, 2, identities=rows)
    loss = warmed_loss((student, teacher, labels), topk=20)
    pairs = int((labels[:, None] == labels).triu(1).sum()) + min(20, rows * (rows - 1) // 2)
    assert (rows**2 < 64 * pairs) == (rows == 7)
    weights = torch.linspace(0.5, 1.5, rows, dtype=torch.float64)[:, None]
    student = (student * weights).requires_grad_()
    assert loss(student, teacher, labels).item() > 1e-3
    torch.autograd.gradcheck(lambda x: loss(x, teacher, labels), student)


def test_gradient_equals_the_one_through_the_whole_gram_matrix():
    student, teacher, labels = random_batch(50, 6)
    loss = warmed_loss((student, teacher, labels), topk=10)
    student.requires_grad_()
    loss(student, teacher, labels).backward()
    other = student.detach().clone().requires_grad_()
    unit = torch.nn.functional.normalize(other)
    target = torch.nn.functional.normalize(teacher)
    a, b = unit @ unit.T, target @ target.T
    i, j = torch.triu_indices(50, 50, 1)
    gap = soft_rank(a[i, j], loss.student_thresholds, temperature=0.1)
    gap = (gap - soft_rank(b[i, j], loss.teacher_thresholds, temperature=0.1)).square()
    same = labels[i] == labels[j]
    hardest = a[i, j][~same].topk(10).indices
    (0.02 * gap[same].mean() + 0.01 * gap[~same][hardest].mean()).backward()
    torch.testing.assert_close(student.grad, other.grad, atol=1e-14, rtol=1e-10)


@pytest.mark.parametrize("rows", [1, 127, 128, 129, 300])
def test_products_by_blocks_are_the_upper_triangle_of_the_whole(rows):
    unit = torch.nn.functional.normalize(random_batch(rows, 6)[0])
    i, j = torch.triu_indices(rows, rows, 1)
    expected = torch.full((rows, rows), -2.0, dtype=unit.dtype)
    expected[i, j] = (unit @ unit.T)[i, j]
    torch.testing.assert_close(upper_cosines(unit), expected, atol=1e-14, rtol=0)


def test_slope_is_the_derivative_of_the_soft_rank():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(2, 30, generator=generator, dtype=torch.float64)
    thresholds = torch.rand(2, 4, generator=generator, dtype=torch.float64)
    student = similarity[0].requires_grad_()
    expected = soft_rank(student, thresholds[0], temperature=0.05)
    (expected_slope,) = torch.autograd.grad(expected.sum(), student)
    rank, teacher, slope = rank_pairs(similarity.detach(), thresholds, temperature=0.05)
    torch.testing.assert_close(rank, expected.detach())
    torch.testing.assert_close(slope, expected_slope)
    torch.testing.assert_close(teacher, soft_rank(similarity[1], thresholds[1], temperature=0.05))


@pytest.mark.parametrize("mode", ["official", "corrected"])
def test_same_nets_rotation_permutation_and_scale(mode):
    student, teacher, labels = random_batch(24, 5)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q

    def fresh(*batch):
        return float(EKDLoss(mode=mode, topk=50).double()(*batch))

    value = fresh(student, teacher, labels)
    assert value > 1e-3
    assert fresh(teacher, teacher, labels) == 0
    assert fresh(teacher @ turn, teacher, labels) == pytest.approx(0, abs=1e-12)
    assert fresh(student @ turn, teacher @ turn.T, labels) == pytest.approx(value, rel=1e-9)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    assert fresh(student[order], teacher[order], labels[order]) == pytest.approx(value, rel=1e-9)
    lengths = torch.linspace(0.1, 9, 24, dtype=torch.float64)[:, None]
    assert fresh(student * lengths, teacher / lengths, labels) == pytest.approx(value, rel=1e-9)


def test_thresholds_are_the_true_quantiles_within_ten_steps():
    """Against the quantiles of many batches; the authors' averages stand at 9.6 % of them."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2000, 16, generator=generator)
    labels = torch.arange(128) // 2
    loss, official = EKDLoss(fprs=(1e-1, 1e-2, 1e-3)), EKDLoss(fprs=(1e-1,), mode="official")
    similarities = []
    for step in range(40):
        who = torch.randperm(2000, generator=generator)[labels]
        student = centres[who] + 0.7 * torch.randn(128, 16, generator=generator)
        if step < 10:
            loss(student, centres[who], labels)
            official(student, centres[who], labels)
        unit = torch.nn.functional.normalize(student)
        similarities.append((unit @ unit.T)[(labels[:, None] < labels)])
    true = np.quantile(torch.cat(similarities).numpy(), [0.9, 0.99, 0.999])
    assert loss.student_thresholds.numpy() == pytest.approx(true, rel=0.05)
    assert float(official.student_thresholds) < 0.11 * true[0]


@pytest.mark.filterwarnings("error")
def test_a_level_finer_than_the_batch_is_left_out_with_a_warning_until_one_can_show_it():
    loss = EKDLoss()
    small = random_batch(16, 8, identities=8)  # 112 impostor pairs: 1e-1 and 1e-2
    with pytest.warns(UserWarning, match=r"0\.001, 0\.0001, 1e-05, 1e-06") as caught:
        loss(*small)
    assert caught[0].filename == __file__
    assert loss.num_updates.tolist() == [1, 1, 0, 0, 0, 0]
    expected = oracle.EKD(corrected=True)(*(x.tolist() for x in small))
    assert 0.02 * loss.stats["positive_loss"] + 0.01 * loss.stats["negative_loss"] == (
        pytest.approx(expected, abs=1e-5)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(*random_batch(64, 8, seed=1, identities=32))  # 1,984 impostor pairs: 1e-3 as well
    assert loss.num_updates.tolist() == [2, 2, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("labels", "side"), [([0, 1, 2, 3], "positive_loss"), ([5, 5, 5, 5], "negative_loss")]
)
def test_an_empty_side_gives_zero_with_a_graph(labels, side):
    student, teacher, _ = random_batch(4, 3)
    student.requires_grad_()
    loss = EKDLoss(fprs=(0.3,), temperature=0.1).double()
    loss(*random_batch(12, 3))  # thresholds to compare with
    value = loss(student, teacher, torch.tensor(labels))
    assert loss.stats[side] == 0
    assert value.item() > 0
    value.backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


def test_ties_do_not_push_out_harder_pairs():
    """Three pairs tie for the second place; the hardest stands behind them in the matrix."""
    cosines = torch.full((4, 4), -2.0)
    cosines[0, 1] = cosines[0, 2] = cosines[1, 2] = 0.5
    cosines[2, 3] = 0.9
    chosen = hardest_pairs(cosines.flatten(), torch.tensor(0.5), 2).tolist()
    assert 2 * 4 + 3 in chosen
    assert len(chosen) == 2
    assert cosines.flatten()[chosen].tolist() == pytest.approx([0.9, 0.5])


def test_thresholds_survive_a_checkpoint_and_rest_in_evaluation_mode():
    loss, batch = EKDLoss(), random_batch(40, 8)
    loss(*batch)
    loss(*batch)
    copy = EKDLoss()
    copy.load_state_dict(loss.state_dict())
    assert sorted(loss.state_dict()) == ["num_updates", "student_thresholds", "teacher_thresholds"]
    following = random_batch(40, 8, seed=7)
    assert float(copy(*following)) == float(loss(*following))
    before = loss.student_thresholds.clone()
    loss.eval()(*random_batch(40, 8, seed=8))
    assert torch.equal(loss.student_thresholds, before)
    loss.train()(*random_batch(40, 8, seed=8))
    assert not torch.equal(loss.student_thresholds, before)


def test_critical_share_counts_pairs_whose_ranks_differ():
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1, 1])
    loss = EKDLoss(fprs=(0.5,), temperature=0.1)
    loss.num_updates += 1
    loss.student_thresholds += 0.5
    loss.teacher_thresholds += 0.4  # pairs that agree differ a little all the same
    loss.eval()(student, teacher, labels)
    # Genuine pairs: 0 against 1 both; impostors: 02 and 13 are 1 against 0, 03 and 12 agree.
    assert float(loss.stats["critical_share"]) == pytest.approx(4 / 6)
    assert float(loss.stats["positive_loss"]) == pytest.approx(1, abs=0.05)
    assert float(loss.stats["negative_loss"]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "offical"}, "corrected"),
        ({"fprs": ()}, "between 0 and 1"),
        ({"fprs": (0.1, 1.0)}, "between 0 and 1"),
        ({"temperature": 0.0}, "temperature"),
        ({"momentum": 1.5}, "momentum"),
        ({"topk": 0}, "topk"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        EKDLoss(**options)


def test_steepness_far_from_a_threshold_keeps_its_tail():
    """z = 30: torch.sigmoid's slope is exactly 0 in float32, the authors' form keeps exp(-30)."""
    similarity = torch.tensor([0.3], requires_grad=True)
    soft_rank(similarity, torch.zeros(1), temperature=0.01).sum().backward()
    assert similarity.grad is not None
    assert similarity.grad.item() == pytest.approx(100 * math.exp(-30), rel=1e-4)
    pair = torch.tensor([[0.3], [0.3]])
    slope = rank_pairs(pair, torch.zeros(2, 1), temperature=0.01)[2]
    assert float(slope) == pytest.approx(100 * math.exp(-30), rel=1e-4)


@pytest.mark.parametrize("rows", [6, 80])
def test_a_nan_embedding_shows_in_the_loss_but_not_in_the_thresholds(rows):
    student, teacher, labels = random_batch(rows, 4)
    loss = EKDLoss(topk=10)
    loss(student, teacher, labels)
    before = loss.student_thresholds.clone()
    student[2] = float("nan")
    assert loss(student, teacher, labels).isnan()
    assert loss.student_thresholds.isfinite().all()
    assert loss.student_thresholds[-1] == before[-1]
