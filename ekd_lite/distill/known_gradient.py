"""A loss whose gradient was computed along with its value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def with_gradient(value: Tensor, x: Tensor, grad: Tensor) -> Tensor:
    """`value`, 0-dim, whose gradient with respect to `x` is `grad`, of the shape of `x`."""
    known: Tensor = WithGradient.apply(value, x, grad)  # type: ignore[no-untyped-call]
    return known


class WithGradient(torch.autograd.Function):
    """Hand over a value, and in the backward pass its gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor, grad: Tensor) -> Tensor:
        """The value."""
        ctx.save_for_backward(x, grad)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor, None]:
        """The gradient, scaled by what came after."""
        x, grad = ctx.saved_tensors
        grad = grad_output * grad
        # Not `once_differentiable`, which passes the gradient off as a constant, and a second
        # derivative as zero, where grad_output is one.
        if torch.is_grad_enabled():  # backward(create_graph=True)
            grad = NoSecondDerivative.apply(grad, x)  # type: ignore[no-untyped-call]
        return None, grad, None


class NoSecondDerivative(torch.autograd.Function):
    """A gradient that depends on x in a way that is not known any more."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        """The gradient."""
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, None]:
        """Refuse, sooner than be wrong."""
        raise RuntimeError("this loss has its gradient in closed form, and no second derivative")
