"""One step of training: what the book prints."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ekd_lite.parallel import gather_batch, sum_over_ranks, world_size
from ekd_lite.train.optim import learning_rate_at, margin_at
from ekd_lite.train.rowwise import coalesced
from ekd_lite.train.state import TrainState
from ekd_lite.train.undo import Undo


@dataclass
class Batch:
    """N images with what is known of them.

    Attributes:
        images: in [-1, 1], (N, 3, H, H).
        labels: identities, (N,) int64.
        teacher_embeddings: the teacher's, (N, D'); None without a teacher.
        index: which images of the set these are, (N,) int64; only used to name them in an error.
    """

    images: Tensor
    labels: Tensor
    teacher_embeddings: Tensor | None = None
    index: Tensor | None = None


class BadBatchError(FloatingPointError):
    """A loss or gradient that is not finite; nothing but the position in the data has changed.

    Attributes:
        record: "step", "reason", and "images" of every process that met it, by rank.
    """

    def __init__(self, record: dict[str, object]) -> None:
        self.record = record
        super().__init__(
            f"{record['reason']}; the images of step {record['step']}, by process: "
            f"{record['images']}"
        )


def train_step(state: TrainState, *batches: Batch) -> dict[str, Tensor]:
    """Loss, gradient, update.

    Args:
        state: changed in place; `state.step` grows by one.
        batches: on the device of the nets; the gradients of several are averaged (accumulation).

    Returns:
        The parts of the loss before their weights, 0-dim, detached and on the CPU, and "loss",
        their sum: means over the batches and over all processes. They are fetched together, the
        only time in a step that the host waits for the device.

    Raises:
        BadBatchError: a loss or the gradient is not finite, on any process; raised by all of them,
            before the weights, the optimizer or the running statistics are changed.
    """
    state.head.margin = margin_at(state.step, state.config)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate_at(state.step, state.config)
    labels = [batch.labels for batch in batches]
    undo = Undo((state.backbone, state.head), state.distillers, labels)
    while True:
        losses = _backward(state, batches)
        state.scaler.unscale_(state.optimizer)
        gradients = _gradients(state)
        norm = _gradient_norm(state, *gradients)
        # One message for all that the processes must agree on: the mean losses, and who met a NaN.
        values = torch.stack([*losses.values(), norm])
        is_bad = ~values.isfinite()
        total = sum_over_ranks(torch.cat([values, is_bad.to(values)])).tolist()
        means = [value / world_size() for value in total[: len(values)]]
        if not any(total[len(values) :]):
            break
        state.optimizer.zero_grad(set_to_none=True)
        undo.restore()
        scale = state.scaler.get_scale()
        if total[-1] and not any(total[len(values) : -1]) and scale > 1:
            # fp16 has no number for so large a gradient: half the scale, and once more.
            state.scaler.update(scale / 2)
            continue
        raise BadBatchError(_describe(state.step, batches, losses, is_bad))
    limit = state.config.clip_norm
    if limit and means[-1] > limit:
        torch._foreach_mul_([*gradients[0], *gradients[1]], limit / norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    host = torch.tensor(means, dtype=values.dtype)
    return dict(zip(losses, host.unbind(), strict=False))


def _backward(state: TrainState, batches: tuple[Batch, ...]) -> dict[str, Tensor]:
    """Gradients of the mean loss over the batches; the losses, detached."""
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for position, batch in enumerate(batches):
        is_last = position == len(batches) - 1
        # The processes exchange gradients once, after the last batch.
        with contextlib.nullcontext() if is_last else state.no_sync():
            losses = state.objective(batch.images, batch.labels, batch.teacher_embeddings)
            state.scaler.scale(losses["loss"] / len(batches)).backward()
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0) + loss.detach() / len(batches)
    return sums


def _gradients(state: TrainState) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients that all processes have, and those of a shard; of sparse ones their rows."""
    found: tuple[list[Tensor], list[Tensor]] = [], []
    for parameters, numbers in zip(state.parameters(), found, strict=True):
        for parameter in parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = coalesced(parameter.grad)  # of several batches the sum
                numbers.append(parameter.grad.values())
            elif parameter.grad is not None:
                numbers.append(parameter.grad)
    return found


def _gradient_norm(state: TrainState, shared: list[Tensor], sharded: list[Tensor]) -> Tensor:
    """Euclidean norm of the whole gradient; shards of a PartialFC count with those elsewhere."""
    squared = [
        torch.stack(torch._foreach_norm(gradients)).square().sum() if gradients else None
        for gradients in (shared, sharded)
    ]
    total = torch.zeros((), device=state.device) if squared[0] is None else squared[0]
    if squared[1] is not None:
        total = total + sum_over_ranks(squared[1])
    return total.sqrt()


def _describe(
    step: int, batches: tuple[Batch, ...], losses: dict[str, Tensor], is_bad: Tensor
) -> dict[str, object]:
    """What happened, for the error message: the same on every process."""
    names = [*losses, "gradient"]
    by_rank = gather_batch(is_bad[None].to(torch.int64)).tolist()
    index = [batch.index for batch in batches]
    images: dict[int, list[int]] = {}
    if all(part is not None for part in index):
        joined = torch.cat([part for part in index if part is not None]).to(is_bad.device)
        for process, rows in enumerate(gather_batch(joined[None]).tolist()):
            # The gradient is the average of all: only a loss says whose batch it was.
            if any(by_rank[process][:-1]) or not any(any(bad[:-1]) for bad in by_rank):
                images[process] = rows
    first = {
        process: [name for name, flag in zip(names, bad, strict=True) if flag]
        for process, bad in enumerate(by_rank)
        if any(bad)
    }
    what = ", ".join(f"{'/'.join(found)} on process {process}" for process, found in first.items())
    return {"step": step, "reason": f"step {step} is not finite: {what}", "images": images}
