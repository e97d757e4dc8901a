r"""AdamW and SGD that touch those rows of a table alone that have a gradient.

Of a tenth of the prototypes of very many people, a step would spend most of its time on the other
nine: zeros are written into their gradient, their moments shrink, and they move along. Here rows
that took no part rest, and so do their moments, as in insightface's PartialFC. With every row in
every step it is torch's optimizer. The count of steps that corrects AdamW's moments is that of the
table, not of a row.

Gradients of other parameters go torch's way, and so does a dense gradient of a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _Rowwise(torch.optim.Optimizer):
    """Mixed into an optimizer: sparse gradients are taken out of its step, and used after it."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters."""
        tables = [
            (table, group, table.grad)
            for group in self.param_groups
            for table in group["params"]
            if table.grad is not None and table.grad.is_sparse
        ]
        for table, _, _ in tables:
            table.grad = None
        loss = super().step(closure)
        for table, group, grad in tables:
            grad = grad.coalesce()
            self._update_rows(table, group, grad.indices()[0], grad.values())
            table.grad = grad
        return loss

    def _update_rows(
        self, table: Tensor, group: dict[str, Any], rows: Tensor, grad: Tensor
    ) -> None:
        raise NotImplementedError


class RowwiseAdamW(_Rowwise, torch.optim.AdamW):
    """torch's AdamW but for sparse gradients."""

    def _update_rows(
        self, table: Tensor, group: dict[str, Any], rows: Tensor, grad: Tensor
    ) -> None:
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros(())  # on the CPU, as torch has it
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] += 1
        count = float(state["step"])
        (first, second), rate = group["betas"], group["lr"]
        mean = state["exp_avg"].index_select(0, rows).lerp_(grad, 1 - first)
        square = state["exp_avg_sq"].index_select(0, rows)
        square.mul_(second).addcmul_(grad, grad, value=1 - second)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        length = square.sqrt_().div_((1 - second**count) ** 0.5).add_(group["eps"])
        new = table.index_select(0, rows).mul_(1 - rate * group["weight_decay"])
        table.index_copy_(0, rows, new.addcdiv_(mean, length, value=-rate / (1 - first**count)))


class RowwiseSGD(_Rowwise, torch.optim.SGD):
    """torch's SGD with momentum but for sparse gradients."""

    def _update_rows(
        self, table: Tensor, group: dict[str, Any], rows: Tensor, grad: Tensor
    ) -> None:
        state = self.state[table]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(table)
        old = table.index_select(0, rows)
        momentum = state["momentum_buffer"].index_select(0, rows).mul_(group["momentum"])
        momentum.add_(grad).add_(old, alpha=group["weight_decay"])
        state["momentum_buffer"].index_copy_(0, rows, momentum)
        table.index_copy_(0, rows, old.add_(momentum, alpha=-group["lr"]))
