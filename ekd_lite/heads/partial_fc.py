r"""Prototypes of very many identities, split among the processes and sampled (PartialFC).

With C identities and W processes, process r holds the prototypes of C / W of them. It sees the
gathered embeddings of all processes, so the softmax over all identities needs three numbers a row
from each process: the largest logit, the sum of exponentials, the logit of the true identity

    L_i = log sum_r Z_ir - l_iy,    Z_ir = sum_{j in shard r} exp(l_ij),

which is the exact cross-entropy; no process ever holds all logits (`margin_softmax`). With one
process and `sample_rate=1` it is the ordinary head in less time and memory. An et al. (CVPR 2022,
"Killing Two Birds with One Stone") found that a tenth of the other identities, drawn anew in every
step, is enough: the identities of the batch are always in, the rest of a share `sample_rate` of the
shard is random.

Differs from insightface's `PartialFC_V2`: a label out of range is an error (there it is accepted
and trains on nothing), the margin has its exact gradient, the draw is a function of (seed, step,
rank) so that a resumed run repeats it, and a shard is at most one row larger than another.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ekd_lite import ops
from ekd_lite.heads.margin import NormFace, check_head_input, check_labels
from ekd_lite.heads.margin_softmax import has_closed_form, margin_softmax
from ekd_lite.ops import (
    are_numbers,
    fresh,
    generator_for,
    hashed_uniforms,
    is_free_to_fetch,
    unit_rows,
)
from ekd_lite.parallel import gather_batch, rank, world_size


class PartialFC(nn.Module):
    """A margin head whose prototypes are split among the processes; gives the loss, not logits.

    Keep it out of DistributedDataParallel: each process trains its own shard. The gradient of the
    embeddings is multiplied by W, because DistributedDataParallel will divide it by W.

    Args:
        head: a head whose margin depends on the angle alone: NormFace, SphereFace, CosFace or
            ArcFace.
        embedding_dim: width D.
        num_identities: C, over all processes.
        scale: factor s.
        margin: m of the head.
        sample_rate: share of the shard that takes part in a step, in (0, 1].
        sparse: with a share below one, give the prototypes a sparse gradient, which saves writing
            zeros for all that did not take part; for SparseAdam, SGD without momentum and decay, or
            the optimizers of `ekd_lite.train.rowwise`.
        seed: of the initial prototypes and of the draws.

    Attributes:
        shard: the head of this process's identities.
        first: the first of them.

    Raises:
        ValueError: a head that needs more than its own angle, fewer identities than processes, or a
            rate outside (0, 1].
    """

    step: Tensor

    def __init__(
        self,
        head: type[NormFace],
        embedding_dim: int,
        num_identities: int,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        sample_rate: float = 1.0,
        sparse: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(head, type) or not issubclass(head, NormFace):
            raise ValueError(f"head must be a class such as ArcFace, got {head!r}")
        if not has_closed_form(head):
            raise ValueError(
                f"{head.__name__} looks at more than the angle to the true prototype and cannot be "
                "sharded: use NormFace, SphereFace, CosFace or ArcFace"
            )
        if not are_numbers(num_identities, seed, whole=True) or seed < 0:
            raise ValueError(
                "expected whole num_identities >= 1 and seed >= 0, "
                f"got {num_identities!r} and {seed!r}"
            )
        if not are_numbers(sample_rate) or not 0 < sample_rate <= 1:
            raise ValueError(f"sample_rate must lie in (0, 1], got {sample_rate}")
        if num_identities < world_size():
            raise ValueError(
                f"{num_identities} identities cannot be split among {world_size()} processes"
            )
        bounds = [part * num_identities // world_size() for part in range(world_size() + 1)]
        self.sizes = [b - a for a, b in itertools.pairwise(bounds)]
        self.first = bounds[rank()]
        self.num_identities = num_identities
        self.sample_rate = sample_rate
        self.sparse = sparse
        self.seed = seed
        self.shard = head(embedding_dim, self.sizes[rank()], scale=scale, margin=margin)
        with torch.no_grad():
            draws = generator_for(seed, 3, 0, rank()).normal(0, 0.01, self.prototypes.shape)
            self.prototypes.copy_(torch.from_numpy(draws))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def margin(self) -> float:
        """The margin m; may be changed between steps."""
        return self.shard.margin

    @margin.setter
    def margin(self, value: float) -> None:
        self.shard.margin = value

    @property
    def prototypes(self) -> nn.Parameter:
        """Prototypes of this process, (C / W, D)."""
        return self.shard.prototypes

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with margin over all (sampled) identities of all processes.

        Args:
            embeddings: of this process, (N, D); N the same on every process.
            labels: (N,) int64 in 0..C-1.

        Returns:
            The mean loss of the W N gathered rows, 0-dim, the same on every process.

        Raises:
            ValueError: wrong shapes or labels, see `NormFace.forward`.
        """
        check_head_input(embeddings, self.prototypes)
        check_labels(labels, len(embeddings), self.num_identities)
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = _TimesInBackward.apply(gather_batch(embeddings), world_size())  # type: ignore[no-untyped-call]
            local = gather_batch(labels).long() - self.first
            row, is_here = torch.arange(len(local), device=local.device), None
            if world_size() > 1:
                is_here = (local >= 0) & (local < len(self.prototypes))
                if is_free_to_fetch(local):
                    row, is_here = is_here.nonzero().flatten(), None
                local = local[row].clamp_(0, len(self.prototypes) - 1)
            identities, column = self._take_part(local, is_here)
            return margin_softmax(
                unit_rows(rows),
                self.prototypes if identities is None else self._rows(identities),
                row=row,
                column=column,
                is_here=is_here,
                target=self.shard.target,
                scale=self.shard.scale,
            )

    def _rows(self, identities: Tensor) -> Tensor:
        """The prototypes that take part."""
        rows: Tensor = _SelectRows.apply(self.prototypes, identities, self.sparse)  # type: ignore[no-untyped-call]
        return rows

    @torch.no_grad()
    def _take_part(self, local: Tensor, is_here: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """Identities of this shard that take part (None: all), and where the rows' own stand.

        Args:
            local: identities of rows, (M,).
            is_here: rows whose identity is of this shard, (M,); None if all are.
        """
        count = round(self.sample_rate * len(self.prototypes))
        if self.training:
            self.step += 1
        if not self.training or count >= len(self.prototypes):
            return None, local
        order = self._draw(local.device)
        first = torch.full_like(local, 2.0, dtype=order.dtype)  # before every random one
        if is_here is not None:
            first = torch.where(is_here, first, -1.0)
        order.scatter_reduce_(0, local, first, "amax")
        # All identities of the batch; where to count them makes the host wait, room for each row.
        needed = len(torch.unique(local)) if is_free_to_fetch(local) else len(local)
        count = min(max(count, needed), len(order))
        chosen = _places_of_largest(order, count)
        return chosen, torch.searchsorted(chosen, local).clamp_(max=count - 1)

    def _draw(self, device: torch.device) -> Tensor:
        """A random number in [0, 1) for each identity of the shard, made where it is used."""
        count, step = len(self.prototypes), int(self.step)
        if device.type in ops.FREE_TO_FETCH:
            return torch.from_numpy(generator_for(self.seed, 4, step, rank()).random(count))
        start = int(generator_for(self.seed, 4, step, rank()).integers(1 << 62))
        return hashed_uniforms(count, start, device)

    def _apply(self, fn: Any, recurse: bool = True) -> PartialFC:
        """Move all but `step`, which the host reads in every step."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.step = self.step.cpu()
        return self

    @torch.no_grad()
    def gather_prototypes(self) -> Tensor:
        """Prototypes of all identities, (C, D), on every process."""
        if world_size() == 1:
            return self.prototypes.detach()
        most = max(self.sizes)
        padded = self.prototypes.new_zeros(most, self.prototypes.shape[1])
        padded[: len(self.prototypes)] = self.prototypes
        parts = [torch.empty_like(padded) for _ in self.sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, self.sizes, strict=True)])

    def extra_repr(self) -> str:
        """Show the options when printed."""
        last = self.first + len(self.prototypes) - 1
        return f"identities {self.first}..{last} of {self.num_identities}, {self.sample_rate=}"


def _places_of_largest(values: Tensor, count: int) -> Tensor:
    """Where the `count` largest stand, in order; on the CPU by a partition instead of a sort."""
    if is_free_to_fetch(values):
        array = values.numpy()
        least = np.partition(array, len(array) - count)[len(array) - count]
        places = np.flatnonzero(array >= least)
        if len(places) == count:  # else some are equal to the least
            return torch.from_numpy(places)
    return values.topk(count).indices.sort().values


class _SelectRows(torch.autograd.Function):
    """Rows of a matrix, each at most once; autograd's own indexing adds up as if they repeated."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, index: Tensor, sparse: bool) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.sparse = matrix.shape, sparse
        if matrix.device.type != "cpu":
            return matrix.index_select(0, index)
        rows = fresh(len(index), matrix.shape[1], dtype=matrix.dtype)
        return torch.index_select(matrix, 0, index, out=rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        if ctx.sparse:
            rows = torch.sparse_coo_tensor(
                index[None], grad, ctx.shape, check_invariants=False, is_coalesced=True
            )  # each index once, and in order
            return rows, None, None
        return grad.new_zeros(ctx.shape).index_copy_(0, index, grad), None, None


class _TimesInBackward(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None
