r"""What W processes say to one another: batches joined with the right gradient, sums, bytes.

Every process computes the loss of the whole gathered batch, and DistributedDataParallel averages
the gradients of the parameters over the processes. So that the average is the gradient of that one
loss, the backward pass of `gather_batch` adds up what all processes say about each row and hands
every process the sum for its own rows:

    1/W sum_r (d sum_q L_q / d x_r) (d x_r / d theta)  =  d L / d theta      where all L_q = L.

TFace's `AllGather` multiplies by W once more, which its class-sharded softmax needs but a loss that
every process computes in full does not: on 8 GPUs its distillation weights act eightfold. The other
common form, `torch.distributed.all_gather` with the local part put back in its place, is W times
too small.

Without a process group every function is the identity of one process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, 0 .. world_size - 1."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather_batch(x: Tensor) -> Tensor:
    """Rows of all processes in the order of their ranks, on every process, with gradient.

    Args:
        x: embeddings (N, D), labels (N,) or the like; the same shape on every process.

    Returns:
        (W N, ...); `x` itself where no process group is running or it has one process.

    Raises:
        ValueError: the processes hold different shapes (looked at on the CPU, where it is free).
    """
    if world_size() == 1:
        return x
    if x.device.type == "cpu":
        mine = torch.tensor(x.shape)
        shapes = [torch.zeros_like(mine) for _ in range(world_size())]
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
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """(W N, ...) -> (N, ...)."""
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        start = rank() * ctx.num_rows
        return grad[start : start + ctx.num_rows]


def sum_over_ranks(x: Tensor) -> Tensor:
    """Elementwise sum over the processes, with gradient (the sum of theirs); a new tensor."""
    if world_size() == 1:
        return x
    summed: Tensor = AllSum.apply(x)  # type: ignore[no-untyped-call]
    return summed


class AllSum(torch.autograd.Function):
    """Sum over processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The sum, on every process."""
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Every process used the sum, so all their gradients flow back to every term of it."""
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


@torch.no_grad()
def max_over_ranks(x: Tensor) -> Tensor:
    """Elementwise maximum over the processes, without gradient."""
    if world_size() == 1:
        return x.detach()
    largest = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest


def broadcast_bytes(data: bytes | None) -> bytes | None:
    """What rank 0 hands over, on every process."""
    if world_size() == 1:
        return data
    size = torch.tensor([-1 if data is None else len(data)])
    dist.broadcast(size, 0)
    if int(size) < 0:
        return None
    content = torch.empty(int(size), dtype=torch.uint8)
    if rank() == 0 and data:
        content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    dist.broadcast(content, 0)
    return content.numpy().tobytes()


def gather_bytes(data: bytes) -> list[bytes]:
    """The bytes of all processes, by rank; on rank 0 only, the others get an empty list."""
    if world_size() == 1:
        return [data]
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([len(data)]))
    if rank():
        dist.send(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0)
        return []
    received = [data]
    for sender in range(1, world_size()):
        content = torch.empty(int(sizes[sender]), dtype=torch.uint8)
        dist.recv(content, sender)
        received.append(content.numpy().tobytes())
    return received
