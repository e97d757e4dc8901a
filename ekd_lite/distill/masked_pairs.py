r"""EKD's parts where the host must not ask a device how many pairs there are: masks for lists.

On a CPU the losses of EKD's family look up which pairs take part, and work on those alone. On a GPU
every such look-up stops the host until the device has caught up, which costs more than the pairs:
the same numbers come from all N^2 pairs with weights that are zero for those that take no part,

    L = sum_ij w_ij (R^S_ij - R^T_ij)^2,    w_ij = w_pos / P on P genuine pairs,
                                                   w_neg / K on K hard impostors, 0 elsewhere,

where P and K stay on the device. A threshold that is not known yet is infinite: no pair passes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ekd_lite.distill.ekd_pairs import BINS, rank_pairs
from ekd_lite.ops import constants

CHUNK = 1 << 20  # pairs whose ranks are computed at a time
ROUND_UP = 1 + 1e-15  # so that 0.29 of 100 pairs is 29 in binary floating point too


def ranks_of_all(
    cosines: Tensor, thresholds: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`rank_pairs` of any number of pairs, (2, P), some at a time."""
    parts = [
        rank_pairs(some, thresholds, temperature=temperature)
        for some in torch.split(cosines, CHUNK, dim=1)
    ]
    if len(parts) == 1:
        return parts[0]
    student, teacher, slope = (torch.cat(own) for own in zip(*parts, strict=True))
    return student, teacher, slope


def weigh_masked(
    gap: Tensor,
    slope: Tensor,
    is_genuine: Tensor,
    is_hard: Tensor,
    weights: tuple[float, float],
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """`weigh_gaps` over masks: the loss, its slope at every pair, and its parts.

    Args:
        gap: of all pairs, (...).
        slope: dgap/dcosine, (...).
        is_genuine: pairs that count as genuine, (...).
        is_hard: pairs that count as hard impostors, (...); none of them genuine.
        weights: w_pos and w_neg.
    """
    masks = is_genuine, is_hard
    sizes = [mask.sum().clamp(min=1).to(gap.dtype) for mask in masks]
    squared = gap.square()
    positive, negative = (
        torch.where(mask, squared, 0.0).sum() / size
        for mask, size in zip(masks, sizes, strict=True)
    )
    shares = [weight / size for weight, size in zip(weights, sizes, strict=True)]
    each = torch.where(is_genuine, shares[0], torch.where(is_hard, shares[1], 0.0))
    # Not a product alone: a NaN that takes no part must not come in by 0 * NaN.
    slope = torch.where(is_genuine | is_hard, 2 * gap * slope * each, 0.0)
    compared = is_genuine | is_hard
    share = ((gap.abs() > 0.5) & compared).sum() / compared.sum().clamp(min=1)
    stats = {"positive_loss": positive, "negative_loss": negative, "critical_share": share}
    return weights[0] * positive + weights[1] * negative, slope, stats


def masked_gradient(unit: Tensor, others: Tensor, slope: Tensor) -> Tensor:
    """`pair_gradient` from the slopes at all pairs, (N, K), zero where a pair takes no part."""
    slope = slope.to(unit.dtype)
    if len(others) == len(unit):
        return (slope + slope.T) @ unit
    return slope @ others + slope[:, : len(unit)].T @ unit


def false_accepts_on_device(num_impostor: Tensor, fprs: tuple[float, ...]) -> Tensor:
    """`false_accepts_at` of a number that only the device knows: (L,) int64."""
    rates = constants(fprs, num_impostor.device)
    return (num_impostor * rates * ROUND_UP).floor().long()


def histogram_levels(counts: Tensor, fprs: Sequence[float]) -> Tensor:
    """`histogram_thresholds` at all rates, infinite where not enough pairs were counted: (K, L)."""
    above = counts.flip(1).cumsum(1)
    wanted = above[:, -1:] * constants(tuple(fprs), above.device) * (1 + 1e-9)
    found = 1 - torch.searchsorted(above, wanted, right=True).double() * (2 / BINS)
    return torch.where((wanted >= 1).all(0), found, torch.inf)


def remember_usable(
    memory: Sequence[Tensor], new: Sequence[Tensor], seen: Tensor, is_usable: Tensor
) -> None:
    """Put the usable rows of a batch into ring buffers, over the oldest, and count them.

    Args:
        memory: tensors of M rows.
        new: tensors of N rows, the batch's.
        seen: how many rows were put in before, 0-dim; grows.
        is_usable: which rows shall go in, (N,).
    """
    size, count = len(memory[0]), is_usable.sum()
    kept = min(size, len(is_usable))
    order = (~is_usable).to(torch.int8).argsort(stable=True)  # the usable ones first
    places = torch.arange(kept, device=seen.device)
    usable = order[(count - kept).clamp(min=0) + places]
    rows, is_any = (seen + places) % size, places < count
    for own, values in zip(memory, new, strict=True):
        chosen = values[usable].to(own.dtype)
        mask = is_any if own.ndim == 1 else is_any[:, None]
        own[rows] = torch.where(mask, chosen, own[rows])
    seen += count.clamp(max=kept)
