r"""Join the batches of W processes, so that losses on pairs see every pair, gradient included.

Every process computes the loss of the whole gathered batch, and DistributedDataParallel averages
the gradients of the parameters over the processes. So that the average is the gradient of that one
loss, the backward pass here adds up what all processes say about each row and hands every process
the sum for its own rows:

    1/W sum_r (d sum_q L_q / d x_r) (d x_r / d theta)  =  d L / d theta      where all L_q = L.

TFace's `AllGather` multiplies by W once more, which its class-sharded softmax needs but a loss that
every process computes in full does not: on 8 GPUs its distillation weights act eightfold. The other
common form, `torch.distributed.all_gather` with the local part put back in its place, is W times
too small.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_batch(x: Tensor) -> Tensor:
    """Rows of all processes in the order of their ranks, on every process, with gradient.

    Args:
        x: embeddings (N, D), labels (N,) or the like; the same shape on every process.

    Returns:
        (W N, ...); `x` itself where no process group is running or it has one process.

    Raises:
        ValueError: the processes hold different shapes (looked at on the CPU, where it is free).
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    if x.device.type == "cpu":
        mine = torch.tensor(x.shape)
        shapes = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(shapes, mine)
        if any(not torch.equal(shape, mine) for shape in shapes):
            raise ValueError(
                "every process must hand over the same shape, got "
                f"{[tuple(shape.tolist()) for shape in shapes]}"
            )
    gathered: Tensor = AllGather.apply(x)  # type: ignore[no-untyped-call]
    return gathered


class AllGather(torch.autograd.Function):
    """Concatenate over processes; backward: sum over processes, own rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(N, ...) -> (W N, ...)."""
        ctx.num_rows = len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """(W N, ...) -> (N, ...)."""
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        start = dist.get_rank() * ctx.num_rows
        return grad[start : start + ctx.num_rows]
