"""SP, CCKD and RKD compute their gradient with their value: against autograd, in any blocks."""

import math

import pytest
import torch

from ekd_lite.distill import CCKDLoss, RKDLoss, SPLoss, gram_gap
from ekd_lite.ops import unit_rows
from tests.distill.batches import near_duplicates, random_batch


def plain_cckd(student, teacher, gamma=0.4, order=2):
    def kernel(points):
        cosine = unit_rows(points) @ unit_rows(points).T
        powers = ((2 * gamma * cosine) ** p / math.factorial(p) for p in range(order + 1))
        return math.exp(-2 * gamma) * sum(powers)

    return (kernel(student) - kernel(teacher)).square().mean()


def plain_sp(student, teacher):
    student, teacher = unit_rows(student), unit_rows(teacher)
    return (student @ student.T - teacher @ teacher.T).square().mean()


def plain_relative_distances(student, teacher):
    def relative(points):
        exact = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(points, points, compute_mode=exact)
        return distances / distances[distances > 0].mean()

    return torch.nn.functional.smooth_l1_loss(relative(student), relative(teacher))


DISTANCES = RKDLoss(distance_weight=1, angle_weight=0)
PAIRS = {
    "sp": (SPLoss(), plain_sp),
    "cckd": (CCKDLoss(), plain_cckd),
    "cckd order 4": (CCKDLoss(gamma=0.7, order=4), lambda s, t: plain_cckd(s, t, 0.7, 4)),
    "rkd distances": (DISTANCES, plain_relative_distances),
}


def value_and_gradient(loss, student, teacher):
    x = student.clone().requires_grad_()
    value = loss(x, teacher)
    (3 * value).backward()  # what comes after scales the gradient
    return value.detach(), x.grad


@pytest.mark.parametrize("rows", [2, 9, 10])
@pytest.mark.parametrize("height", [1, 3, 5, 10])
@pytest.mark.parametrize("name", PAIRS)
def test_blocks_of_any_height_give_value_and_gradient_of_the_plain_form(
    name, height, rows, monkeypatch
):
    monkeypatch.setattr(gram_gap, "CPU_ROWS", height)
    student, teacher, _ = random_batch(rows, 4, seed=rows)
    loss, plain = PAIRS[name]
    found = value_and_gradient(loss, student, teacher)
    expected = value_and_gradient(plain, student, teacher)
    torch.testing.assert_close(found, expected, atol=1e-14, rtol=1e-11)
    without_gradient = loss(student, teacher)
    assert not without_gradient.requires_grad
    torch.testing.assert_close(without_gradient, expected[0], atol=1e-14, rtol=1e-11)


@pytest.mark.parametrize("apart", [0.0, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_distances_are_right_beside_near_duplicates_in_float32(apart, offset):
    student, teacher = near_duplicates(apart, offset)
    value, gradient = value_and_gradient(DISTANCES, student, teacher)
    exact = value_and_gradient(plain_relative_distances, student.double(), teacher.double())
    assert value.item() == pytest.approx(exact[0].item(), rel=1e-6)
    assert (gradient - exact[1]).norm() < 1e-6 * exact[1].norm()


@pytest.mark.parametrize("loss", [SPLoss(), CCKDLoss(), RKDLoss()])
def test_the_students_precision_decides_and_the_teachers_may_be_another(loss):
    student, teacher, _ = random_batch(8, 4)
    expected = loss(student, teacher)
    assert expected.dtype == torch.float64
    mixed = loss(student.float(), teacher)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, expected.float(), atol=0, rtol=1e-5)


@pytest.mark.parametrize("loss", [SPLoss(), CCKDLoss(), RKDLoss()])
def test_a_second_derivative_is_refused_and_not_wrong(loss):
    student, teacher, _ = random_batch(5, 3)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student, teacher), student, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative|once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("loss", [SPLoss(), CCKDLoss(), RKDLoss()])
def test_a_nan_embedding_shows_in_the_loss(loss):
    student, teacher, _ = random_batch(6, 3)
    student[2, 1] = float("nan")
    assert loss(student, teacher).isnan()
