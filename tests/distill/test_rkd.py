"""RKD's angle term: exact near duplicates, in blocks of any size, and small in memory."""

import contextlib

import pytest
import torch

from benchmarks.comparing import as_on_a_gpu
from benchmarks.counting import Counts
from ekd_lite.distill import RKDLoss
from tests.distill.batches import near_duplicates, random_batch
from tests.oracles import distill as oracle


def angle_loss(student, teacher):
    """The authors' way, with its N x N x D tensors; a ray of length zero has no direction."""

    def cosines(points):
        rays = points - points[:, None]
        length = rays.detach().norm(dim=2, keepdim=True)
        rays = torch.where(length > 0, rays, 1.0)
        rays = torch.where(length > 0, rays / rays.norm(dim=2, keepdim=True), 0.0)
        return rays @ rays.transpose(1, 2)

    return torch.nn.functional.smooth_l1_loss(cosines(student), cosines(teacher))


def value_and_gradient(loss, student, teacher):
    x = student.clone().requires_grad_()
    value = loss(x, teacher)
    value.backward()
    return value.detach(), x.grad


@pytest.mark.parametrize("apart", [0.0, 1e-6, 1e-4, 1e-3, 1e-2, 1.0])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("way", [contextlib.nullcontext, as_on_a_gpu])
def test_float32_is_right_beside_near_duplicates(apart, offset, way):
    """The plain Gram form has a gradient wrong by a factor of 5 at 1e-4 (PERFORMANCE 2)."""
    student, teacher = near_duplicates(apart, offset)
    loss = RKDLoss(distance_weight=0, angle_weight=1)
    with way():
        value, gradient = value_and_gradient(loss, student, teacher)
    exact, exact_gradient = value_and_gradient(angle_loss, student.double(), teacher.double())
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)
    error = (gradient - exact_gradient).norm() / exact_gradient.norm()
    assert error < 5e-5


@pytest.mark.parametrize("rows", [2, 3, 33])
@pytest.mark.parametrize("block", [1, 5000, 2**18])
def test_every_block_size_gives_value_and_gradient_of_the_authors_way(rows, block):
    student, teacher, _ = random_batch(rows, 6)
    loss = RKDLoss(distance_weight=0, angle_weight=1, block=block)
    value, gradient = value_and_gradient(loss, student, teacher)
    exact, exact_gradient = value_and_gradient(angle_loss, student, teacher)
    torch.testing.assert_close(value, exact, atol=1e-14, rtol=1e-12)
    torch.testing.assert_close(gradient, exact_gradient, atol=1e-14, rtol=1e-10)


def test_duplicates_do_not_count_in_the_mean_distance():
    student, teacher, _ = random_batch(6, 3)
    student, teacher = student[[0, 0, 1, 2, 3]], teacher[[0, 0, 1, 2, 3]]
    value = RKDLoss(distance_weight=1, angle_weight=0)(student, teacher).item()
    assert value == pytest.approx(oracle.rkd_distance(student.tolist(), teacher.tolist()))


def test_the_angle_gradient_is_scaled_by_what_comes_after():
    student, teacher, _ = random_batch(8, 3)
    loss = RKDLoss(distance_weight=0, angle_weight=1)
    _, plain = value_and_gradient(loss, student, teacher)
    _, scaled = value_and_gradient(lambda s, t: 3 * loss(s, t), student, teacher)
    torch.testing.assert_close(scaled, 3 * plain)


def test_launches_do_not_grow_with_the_batch_where_launches_are_dear():
    """27 times the angles in as many operations; small blocks need more."""

    def launches(rows, block=None):
        batch = random_batch(rows, 6)[:2]
        with Counts() as counts:
            RKDLoss(block=block)(*batch)
        return counts.launches.total()

    with as_on_a_gpu():
        few = launches(32)
        assert launches(96) == few < 300
    assert launches(96, 2**14) > 2 * few
