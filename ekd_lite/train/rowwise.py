r"""AdamW and SGD that touch those rows of a table alone that have a gradient.

Of a tenth of the prototypes of very many people, a step would spend most of its time on the other
nine: zeros are written into their gradient, their moments shrink, and they move along. Here rows
that took no part rest, and so do their moments, as in insightface's PartialFC. With every row in
every step it is torch's optimizer. The count of steps that corrects AdamW's moments is that of the
table, not of a row.

Gradients of other parameters go torch's way, and so does a dense gradient of a table.

On the CPU a block of rows after the other is gathered, updated and put back, so that all of this
happens in a cache; a fresh copy of the rows of each table would cost twice the whole update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from ekd_lite.ops import is_free_to_fetch

BLOCK = 64  # rows at a time


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
            grad = coalesced(grad)
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
        step, (first, second), rate = state["step"], group["betas"], group["lr"]
        decay, eps, count = group["weight_decay"], group["eps"], float(state["step"])

        def update(some: list[Tensor], grad: Tensor) -> None:
            own, mean, square = some
            if is_free_to_fetch(own):  # in one pass
                torch._fused_adamw_(
                    [own], [grad], [mean], [square], [], [step], lr=rate, beta1=first,
                    beta2=second, weight_decay=decay, eps=eps, amsgrad=False, maximize=False,
                )  # fmt: skip
                return
            mean.lerp_(grad, 1 - first)
            square.mul_(second).addcmul_(grad, grad, value=1 - second)
            length = square.sqrt().div_((1 - second**count) ** 0.5).add_(eps)
            own.mul_(1 - rate * decay).addcdiv_(mean, length, value=-rate / (1 - first**count))

        _change_rows([table, state["exp_avg"], state["exp_avg_sq"]], rows, grad, update)


class RowwiseSGD(_Rowwise, torch.optim.SGD):
    """torch's SGD with momentum but for sparse gradients."""

    def _update_rows(
        self, table: Tensor, group: dict[str, Any], rows: Tensor, grad: Tensor
    ) -> None:
        state = self.state[table]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(table)

        def update(some: list[Tensor], grad: Tensor) -> None:
            own, momentum = some
            momentum.mul_(group["momentum"]).add_(grad).add_(own, alpha=group["weight_decay"])
            own.add_(momentum, alpha=-group["lr"])

        _change_rows([table, state["momentum_buffer"]], rows, grad, update)


def coalesced(grad: Tensor) -> Tensor:
    """A sparse gradient, each row once and in order; not copied if it is so already.

    A backward pass forgets of the gradient that it sets whether it is.
    """
    if not grad.is_coalesced() and is_free_to_fetch(grad):
        rows, values = grad._indices(), grad._values()
        if bool((rows[0, 1:] > rows[0, :-1]).all()):
            return torch.sparse_coo_tensor(
                rows, values, grad.shape, check_invariants=False, is_coalesced=True
            )
    return grad.coalesce()


def _change_rows(
    tables: Sequence[Tensor],
    rows: Tensor,
    grad: Tensor,
    update: Callable[[list[Tensor], Tensor], None],
) -> None:
    """Change some rows of tables (C, ...) of one shape.

    Args:
        tables: changed in place.
        rows: which, each once, (R,).
        grad: of these rows, (R, ...).
        update: changes rows that stand together in place, given their gradient.
    """
    if not is_free_to_fetch(rows) or tables[0].dtype == torch.bfloat16:  # which numpy has not
        found = [table.index_select(0, rows) for table in tables]
        update(found, grad)
        for table, some in zip(tables, found, strict=True):
            table.index_copy_(0, rows, some)
        return
    # numpy gathers and puts back faster than torch does; what it changes torch must be told.
    arrays = [table.detach().numpy() for table in tables]
    room = [table.new_empty(min(BLOCK, len(rows)), *table.shape[1:]) for table in tables]
    parts = torch.split(rows, BLOCK), torch.split(grad, BLOCK)
    for some_rows, some_grad in zip(*parts, strict=True):
        if len(some_rows) < len(room[0]):
            room = [block[: len(some_rows)] for block in room]
        which, blocks = some_rows.numpy(), [block.numpy() for block in room]
        for array, block in zip(arrays, blocks, strict=True):
            np.take(array, which, axis=0, out=block, mode="clip")
        update(room, some_grad)
        for array, block in zip(arrays, blocks, strict=True):
            array[which] = block
    for table in tables:
        increment_version(table)
