"""Unit rows: values and gradient against torch's own, and where there is no direction."""

import pytest
import torch
import torch.nn.functional as F

from ekd_lite.ops import fresh, unit_rows


def test_gradient_is_that_of_torch_and_of_small_steps():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    torch.autograd.gradcheck(unit_rows, x)
    torch.autograd.gradgradcheck(unit_rows, x)
    (ours,) = torch.autograd.grad((unit_rows(x) * weights).sum(), x)
    (expected,) = torch.autograd.grad((F.normalize(x) * weights).sum(), x)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("length", [0.0, 1e-7])
def test_a_dead_row_becomes_zero_and_gets_no_gradient(length):
    x = torch.tensor([[3.0, 4.0], [length, 0.0]], requires_grad=True)
    unit = unit_rows(x)
    assert unit.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    unit.sum().backward()
    assert x.grad[1].tolist() == [0, 0]
    assert x.grad[0].abs().min() > 0


def test_a_nan_does_not_pass_for_a_dead_row():
    assert unit_rows(torch.tensor([[float("nan"), 1.0]])).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_left(dtype):
    x = torch.tensor([[3.0, 4.0]], dtype=dtype, requires_grad=True)
    unit = unit_rows(x)
    assert unit.dtype == torch.float32
    unit[0, 0].backward()
    assert x.grad.dtype == dtype


def test_fresh_memory_can_be_written_and_shared():
    rows = fresh(3, 2).copy_(torch.arange(6.0).view(3, 2))
    assert (rows.dtype, rows.is_contiguous()) == (torch.float32, True)
    assert torch.equal(rows.clone().share_memory_(), rows)
    assert fresh(0, 5).shape == (0, 5)
