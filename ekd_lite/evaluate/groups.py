"""Who pays for the errors: the same rates for every group of people, at one global threshold.

A deployed system has one threshold. It is set here on all impostor pairs, as in
`all_pairs_tpr_at_fpr`, and then every pair of groups is counted by itself: entry (g, h) of a table
holds the pairs with one image in g and the other in h. The diagonal is what is usually quoted.

Mind the impostor pairs *across* groups. People of different groups look less alike, so most of
those pairs are easy, and with G groups of a size they are (G - 1) / G of all. A global level of
1e-3 can therefore be met while *every* group has more than 1e-3 among its own people. Leaving the
cross pairs out, or keeping only them, gives another threshold: here they help to set it, and are
shown apart.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.inputs import Array, Levels, as_levels, check_false_accepts
from ekd_lite.evaluate.roc import UndefinedMetricWarning
from ekd_lite.evaluate.scores import NOBODY, STEPS, Rows
from ekd_lite.evaluate.thresholds import impostor_thresholds
from ekd_lite.evaluate.tiles import count_pairs, impostor_scores, sorted_rows
from ekd_lite.ops import false_accepts_at

ROUNDING = 64  # steps: scores are of rows in fixed point, and differ from cosines by some 16 steps


@dataclass(frozen=True)
class GroupRates:
    """Rates by group, G groups and L levels.

    Attributes:
        groups: names, sorted; the order of every axis G.
        fprs: global levels.
        thresholds: a pair is accepted if its cosine is above this one, (L,), float64: 6e-8 above
            the last that is refused, for cosines of your own, whose rounding differs (`scores`).
        num_genuine: genuine pairs by groups of the two images, (G, G), symmetric int64.
        num_impostor: impostor pairs, (G, G).
        fpr: share of impostor pairs accepted, (L, G, G); NaN where there are none.
        tpr: share of genuine pairs accepted, (L, G, G); NaN where there are none.
        fpr_ratio: worst (highest) over best group FPR of the diagonal, (L,). Groups whose own
            impostor pairs cannot show the level (fewer than `min_false_accepts` expected) are left
            out; NaN if fewer than two are left.
        fnr_ratio: highest over lowest 1 - TPR of the diagonal, (L,); infinite if a group has none.
    """

    groups: tuple[str, ...]
    fprs: tuple[float, ...]
    thresholds: Tensor
    num_genuine: Tensor
    num_impostor: Tensor
    fpr: Tensor
    tpr: Tensor
    fpr_ratio: Tensor
    fnr_ratio: Tensor


def group_rates(
    embeddings: Array,
    labels: Array,
    groups: Sequence[Any] | Array,
    fprs: Levels,
    *,
    min_false_accepts: int = 10,
) -> GroupRates:
    """FPR and TPR of each group, and across groups, at the threshold of a global FPR.

    Args:
        embeddings: (N, D), not necessarily normalised.
        labels: identities, (N,), whole numbers.
        groups: name or number of the group of each image, N of them; images of a person may
            differ.
        fprs: global false-positive rates in (0, 1], L of them.
        min_false_accepts: false accepts a group must be expected to have at a level for its FPR to
            enter the ratio.

    Returns:
        A `GroupRates`.

    Raises:
        ValueError: wrong lengths, NaN, or a level that all impostor pairs together cannot show.
    """
    levels = as_levels(fprs)
    check_false_accepts(min_false_accepts)
    rows, labels, order = sorted_rows(embeddings, labels)
    groups = _checked_groups(groups, len(labels))
    names = tuple(sorted(set(groups)))
    number = {name: g for g, name in enumerate(names)}
    group = torch.tensor([number[name] for name in groups])
    one_hot = torch.nn.functional.one_hot(group[order], len(names))
    num_genuine, num_impostor = _count(labels, one_hot)
    total_genuine, total = count_pairs(labels)
    if not total_genuine or min(levels) * total < 1:
        raise ValueError(
            f"{total_genuine} genuine and {total} impostor pairs cannot show the levels {levels}"
        )
    counts = [min(false_accepts_at(level, total), total - 1) for level in levels]
    thresholds = impostor_thresholds(rows, labels, counts)
    thresholds[torch.tensor(levels) == 1] = NOBODY  # all may pass
    false, true = _accepted(rows, labels, one_hot.double(), thresholds.tolist())
    fpr = false / torch.where(num_impostor > 0, num_impostor, torch.nan)
    tpr = true / torch.where(num_genuine > 0, num_genuine, torch.nan)
    own_fpr, own_fnr = (x.diagonal(dim1=1, dim2=2).clone() for x in (fpr, 1 - tpr))
    expected = torch.tensor(levels)[:, None] * num_impostor.diagonal()
    own_fpr[expected < min_false_accepts] = torch.nan
    if (expected < min_false_accepts).any():
        few = [name for g, name in enumerate(names) if (expected[:, g] < min_false_accepts).any()]
        message = f"too few impostor pairs within {few} for some levels: left out of the ratio"
        warnings.warn(message, UndefinedMetricWarning, stacklevel=2)
    ratios = [_worst_over_best(x) for x in (own_fpr, own_fnr)]
    return GroupRates(
        names,
        tuple(levels),
        torch.where(thresholds == NOBODY, -torch.inf, (thresholds.double() + ROUNDING) / STEPS),
        *(num_genuine, num_impostor, fpr, tpr),
        *ratios,
    )


def _checked_groups(groups: Sequence[Any] | Array, count: int) -> list[Any]:
    """The group of each image as plain values that can be sorted; none may be missing."""
    if not isinstance(groups, Iterable) or isinstance(groups, str | Mapping):
        given = type(groups).__name__
        raise ValueError(f"groups must be a list of names or numbers, one an image, got {given}")
    listed = groups.tolist() if isinstance(groups, Tensor | np.ndarray) else list(groups)
    if len(listed) != count:
        raise ValueError(f"expected {count} groups, one an image, got {len(listed)}")
    plain = [group.item() if isinstance(group, Tensor | np.generic) else group for group in listed]
    for place, group in enumerate(plain):
        if group is None or (isinstance(group, float) and math.isnan(group)):
            raise ValueError(
                f"image {place} has no group (it is {group}): leave it out, or name it"
            )
    for kind in (str, int | float):
        if all(isinstance(group, kind) for group in plain):
            return plain
    raise ValueError("groups must all be text or all be numbers, one an image")


def _count(labels: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """Genuine and impostor pairs by groups of the two images, (G, G) each, without a pair seen."""
    people = torch.unique_consecutive(labels, return_inverse=True)[1]
    by_person = torch.zeros(int(people.max()) + 1, one_hot.shape[1], dtype=torch.int64)
    by_person.index_add_(0, people, one_hot)

    def unordered(table: Tensor, images: Tensor) -> Tensor:
        # The diagonal holds each pair twice and each image with itself.
        return table - (table.diagonal() + images).div(2, rounding_mode="floor").diag()

    images = by_person.sum(dim=0)
    genuine = unordered(by_person.T @ by_person, images)
    return genuine, unordered(torch.outer(images, images), images) - genuine


def _accepted(
    rows: Rows, labels: Tensor, one_hot: Tensor, thresholds: list[int]
) -> tuple[Tensor, Tensor]:
    """Accepted impostor and genuine pairs by level and groups, (L, G, G) float64, symmetric."""
    counts = torch.zeros(2, len(thresholds), *[one_hot.shape[1]] * 2, dtype=torch.float64)
    for r, c, scores, mask in impostor_scores(rows, labels):
        sides = one_hot[r : r + len(scores)], one_hot[c : c + scores.shape[1]]
        counts[0] += _by_group(scores, mask, *sides, thresholds)
        if mask is not None:
            genuine = np.triu(~mask, 1) if r == c else ~mask
            counts[1] += _by_group(scores, genuine, *sides, thresholds)
    # Each pair was met once, in the order of its rows: (g, h) and (h, g) are one cell.
    whole = counts + counts.mT - torch.diag_embed(counts.diagonal(dim1=2, dim2=3))
    return whole[0], whole[1]


def _by_group(
    scores: np.ndarray,
    keep: np.ndarray | None,
    rows: Tensor,
    columns: Tensor,
    thresholds: list[int],
) -> Tensor:
    """Kept scores above each threshold, by the groups of row and column, (L, G, G)."""
    accepted = [scores > t if keep is None else (scores > t) & keep for t in thresholds]
    return torch.stack([rows.T @ torch.from_numpy(one).double() @ columns for one in accepted])


def _worst_over_best(rates: Tensor) -> Tensor:
    """Largest over smallest rate that is not NaN, per level; NaN with fewer than two of them."""
    known = ~rates.isnan()
    worst = torch.where(known, rates, -torch.inf).amax(dim=1)
    best = torch.where(known, rates, torch.inf).amin(dim=1)
    return torch.where(known.sum(dim=1) >= 2, worst / best, torch.nan)
