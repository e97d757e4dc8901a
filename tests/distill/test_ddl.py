"""DDL: the authors' numbers, what each part asks for, and where it is at rest."""

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from ekd_lite.distill import DDLLoss, distribution_gap
from tests.distill.batches import golden_batch, random_batch


def authors_scores(rows):
    """Pairs 0-1, 2-3, ...; the nearest stranger among the later rows, at least 0."""
    unit = normalize(rows, dim=1)
    return (unit[0::2] * unit[1::2]).sum(1), (unit @ unit.T).triu(1).amax(dim=1)


@pytest.mark.parametrize(
    ("rows", "dim", "parts", "total", "gradient"),
    [
        (16, 8, (5.012380996, 7.431289371, 0.3675709006), 0.8336493373, 1.1735491),
        (64, 16, (6.236584586, 0.5908116507, 1.486685919), 1.378817651, 5.0563116),
    ],
)
def test_the_authors_numbers(rows, dim, parts, total, gradient):
    """The equations of TFace's program, run once in float64; its nodes are float32."""
    student, teacher, _ = golden_batch(rows, dim)
    student.requires_grad_()
    easy, hard = authors_scores(teacher), authors_scores(student)
    for k, name in enumerate(("genuine", "impostor", "order")):
        weights: dict[str, Any] = dict.fromkeys(("genuine", "impostor", "order"), 0.0)
        weights[name] = 1.0
        assert distribution_gap(*easy, *hard, **weights).item() == pytest.approx(parts[k], rel=1e-6)
    loss = distribution_gap(*easy, *hard)
    loss.backward()
    assert loss.item() == pytest.approx(total, rel=1e-6)
    assert student.grad.norm().item() == pytest.approx(gradient, rel=1e-6)


def test_equal_nets_are_at_rest_but_for_the_order_loss():
    student, _, labels = random_batch(24, 6)
    student.requires_grad_()
    loss = DDLLoss(order=0.0)(student, student.detach(), labels)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12) and student.grad.norm() < 1e-9
    student.grad = None
    DDLLoss(genuine=0.0, impostor=0.0)(student, student.detach(), labels).backward()
    assert student.grad.norm() > 1e-3


def test_which_pair_has_which_score_does_not_matter():
    """Only distributions are compared: people and pairs may change places."""
    scores = [torch.rand(n, generator=torch.Generator().manual_seed(n)) for n in (7, 9, 7, 9)]
    want = distribution_gap(*scores)
    turned = [part.flip(0) for part in scores]
    assert distribution_gap(*turned).item() == pytest.approx(want.item(), rel=1e-6)


def test_steps_against_the_gradient_bring_the_distributions_together():
    student, teacher, labels = random_batch(40, 8, identities=8)
    student, loss = student.clone().requires_grad_(), DDLLoss(order=0.0)
    teacher = teacher + 3 * torch.randn(8, 8, generator=torch.Generator().manual_seed(1))[labels]
    first = loss(student, teacher, labels)
    for _ in range(60):
        (slope,) = torch.autograd.grad(loss(student, teacher, labels), student)
        student = (student - 5 * slope).detach().requires_grad_()
    assert loss(student, teacher, labels) < 0.2 * first


def test_what_is_left_out_and_what_is_refused():
    none = torch.tensor([-0.2, 0.0])
    some = torch.tensor([0.5, 0.7])
    value = distribution_gap(none, some, some, some)
    assert value.item() == pytest.approx(0.5 * 2 * float(some.mean() - some.mean()), abs=1e-7)
    with pytest.raises(ValueError, match="expected weights >= 0"):
        DDLLoss(order=-1.0)
    with pytest.raises(ValueError, match="easy genuine must be a torch Tensor"):
        distribution_gap([0.5], some, some, some)  # type: ignore[arg-type]
