"""IJB-B and IJB-C, 1:1: many images make a template, and listed pairs of templates are compared.

A template is a set of images of one person, some of them frames of one video (one *medium*). Its
vector is the sum over its media of the mean over the medium's images, scaled to length one; the
media vectors themselves are not. Three switches, written "N1D1F1" in papers, say what an image's
vector is:

| | on | off |
|---|---|---|
| N | the embedding as it is: long vectors weigh more | scaled to length one first |
| D | times the detector's score | |
| F | plus the embedding of the mirrored image | |

insightface's `eval_ijbc.py` publishes N1D1F1, TFace's evaluator N0D0F0. The published numbers of
the two differ by up to a point at FPR 1e-5 for that reason alone: always say which.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.evaluate.ijb_files import TemplateMedia, TemplatePairs
from ekd_lite.evaluate.inputs import Array, Levels, as_labels, as_levels, as_rows, as_tensor
from ekd_lite.evaluate.roc import tpr_at_fpr
from ekd_lite.evaluate.scores import MAX_CELLS, STEPS, fixed_rows, pair_scores

IJB_FPRS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
CHUNK = 512  # images held in float64 at a time
BLOCK = 1024  # templates whose scores with all others are held at once


def ijb_tpr_at_fpr(
    embeddings: Array,
    media: TemplateMedia,
    pairs: TemplatePairs,
    fprs: Levels = IJB_FPRS,
    *,
    mirrored: Array | None = None,
    detector_scores: Array | None = None,
    keep_norm: bool = True,
    convention: Literal["conservative", "nearest"] = "conservative",
) -> Tensor:
    """TPR at FPR over the listed template pairs.

    Args:
        embeddings: of the N images, in the order of `media`, (N, D).
        media: template and medium of each image, from `read_template_media`.
        pairs: the comparisons, from `read_template_pairs`.
        fprs: false-positive rates in (0, 1], L of them.
        mirrored: embeddings of the mirrored images, (N, D); given, the switch F is on.
        detector_scores: (N,), from `read_face_landmarks`; given, the switch D is on.
        keep_norm: the switch N.
        convention: as in `tpr_at_fpr`; published IJB tables use "nearest".

    Returns:
        TPR in [0, 1], (L,) float64; NaN with a warning where the pairs cannot show the level.

    Raises:
        ValueError: lengths differ, a value is not finite, or a pair names an unknown template.
    """
    levels = as_levels(fprs)
    if not hasattr(media, "template_ids") or not hasattr(pairs, "is_genuine"):
        raise ValueError(
            "expected media from read_template_media and pairs from read_template_pairs, got "
            f"{type(media).__name__} and {type(pairs).__name__}"
        )
    templates, ids = pool_templates(
        *(embeddings, media.template_ids, media.media_ids),
        mirrored=mirrored,
        detector_scores=detector_scores,
        keep_norm=keep_norm,
    )
    first, second = (
        find_templates(ids, as_labels("pairs", wanted, len(wanted)))
        for wanted in (pairs.first, pairs.second)
    )
    if len(first) != len(second):
        raise ValueError(
            f"expected pairs of templates, got {len(first)} first, {len(second)} second"
        )
    scores = template_scores(templates, first, second)
    return tpr_at_fpr(scores, pairs.is_genuine, levels, convention=convention)


def pool_templates(
    embeddings: Array,
    template_ids: Array,
    media_ids: Array,
    *,
    mirrored: Array | None = None,
    detector_scores: Array | None = None,
    keep_norm: bool = True,
) -> tuple[Tensor, Tensor]:
    """The vector of every template: sum over media of the mean over a medium's images.

    Sums are made in float64, and only the unit vectors are rounded to float32: templates of the
    same images have the same vector, whatever the order and the number of copies.

    Args:
        embeddings: (N, D).
        template_ids: template of each image, (N,) int64.
        media_ids: medium of each image, (N,) int64; one number in two templates is two media.
        mirrored: embeddings of the mirrored images, added (switch F), (N, D).
        detector_scores: factors of the images (switch D), (N,).
        keep_norm: leave the length of embeddings alone (switch N).

    Returns:
        Unit vectors of T templates (T, D), float32, and their ids (T,), rising.

    Raises:
        ValueError: lengths differ, there is no image, or one of them has NaN or infinity in it.
    """
    rows = as_rows("embeddings", embeddings)
    template_ids = as_labels("template_ids", template_ids, len(rows))
    media_ids = as_labels("media_ids", media_ids, len(rows))
    if mirrored is not None:
        mirrored = as_rows("mirrored", mirrored)
        if mirrored.shape != rows.shape:
            raise ValueError(f"expected mirrored {tuple(rows.shape)}, got {tuple(mirrored.shape)}")
    if not len(rows):
        raise ValueError("there is no image to pool: embeddings (N, D) needs at least one row")
    ids, order, starts, weights = _sort_by_template(template_ids, media_ids)
    if detector_scores is not None:
        factors = as_tensor("detector_scores", detector_scores).cpu().double()
        if factors.shape != weights.shape:
            raise ValueError(f"expected detector_scores ({len(rows)},), got {tuple(factors.shape)}")
        weights = weights * factors[order]
    if not keep_norm:
        weights = weights * _inverse_norms(rows, mirrored)[order]
    pooled = _weighted_sums(rows, order, starts, weights)
    if mirrored is not None:
        pooled += _weighted_sums(mirrored, order, starts, weights)
    unit = torch.empty(pooled.shape)
    for start in range(0, len(ids), CHUNK):
        part = pooled[start : start + CHUNK]
        peaks = torch.linalg.vector_norm(part, ord=float("inf"), dim=1, keepdim=True)
        bad = (~peaks.isfinite()).nonzero()
        if len(bad):
            raise ValueError(
                f"an image of template {int(ids[start + bad[0, 0]])} has NaN or infinity in it"
            )
        part /= peaks.masked_fill_(peaks == 0, 1.0)  # squares of what is left stay within range
        norms = torch.linalg.vector_norm(part, dim=1, keepdim=True)
        unit[start : start + CHUNK] = part.div_(norms.masked_fill_(norms == 0, 1.0))
    return unit, ids


def _sort_by_template(
    template_ids: Tensor, media_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids (T,), images in the order of templates (N,), where each begins (T,), weights (N,).

    The weights, in that order, are one over the number of images of the image's medium.
    """
    ids, template = torch.unique(template_ids, return_inverse=True)
    medium = torch.unique(media_ids, return_inverse=True)[1]
    # One number for each (template, medium), sorted by numpy, many times faster than by torch.
    pair = (template * (int(medium.max()) + 1) + medium).numpy()
    order = np.argsort(pair)
    group, size = torch.unique_consecutive(
        torch.from_numpy(pair[order]), return_inverse=True, return_counts=True
    )[1:]
    sizes = torch.bincount(template)
    return ids, torch.from_numpy(order), sizes.cumsum(0) - sizes, 1.0 / size[group].double()


def _weighted_sums(rows: Tensor, order: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Sums of `weights * rows[order]` from each start to the next, (T, D) float64."""
    sums = torch.zeros(len(starts), rows.shape[1], dtype=torch.float64)
    own, places = torch.empty(CHUNK, rows.shape[1], dtype=rows.dtype), torch.arange(CHUNK)
    table = torch.empty(own.shape, dtype=torch.float64)
    for first in range(0, len(order), CHUNK):
        part = order[first : first + CHUNK]
        num = len(part)
        if rows.device.type == "cpu":
            torch.index_select(rows, 0, part, out=own[:num])
        else:
            own[:num] = rows[part.to(rows.device)].cpu()
        table[:num] = own[:num]
        a, b = torch.searchsorted(starts, torch.tensor([first + 1, first + num])).tolist()
        # Template a - 1 has begun already, at `first` or in the part before.
        begin = (starts[a - 1 : b] - first).clamp_(min=0)
        sums[a - 1 : b] += F.embedding_bag(
            *(places[:num], table[:num], begin),
            mode="sum",
            per_sample_weights=weights[first : first + num],
        )
    return sums


def _inverse_norms(rows: Tensor, mirrored: Tensor | None) -> Tensor:
    """One over the length of every image's vector, 0 where it has none, (N,) float64."""
    inverse = torch.empty(len(rows), dtype=torch.float64)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        own = rows[part].cpu().double()
        if mirrored is not None:
            own = own + mirrored[part].cpu().double()
        peaks = own.abs().amax(dim=1)
        norms = torch.linalg.vector_norm(own / torch.where(peaks == 0, 1.0, peaks)[:, None], dim=1)
        inverse[part] = torch.where(peaks == 0, 0.0, 1 / norms / peaks)
    return inverse


def find_templates(ids: Tensor, wanted: Tensor) -> Tensor:
    """The rows of `wanted` template ids (P,) among rising `ids` (T,); unknown ones are an error."""
    rows = torch.searchsorted(ids, wanted).clamp_(max=len(ids) - 1)
    unknown = (ids[rows] != wanted).nonzero().flatten()
    if len(unknown):
        raise ValueError(
            f"template {int(wanted[unknown[0]])} is compared but no image belongs to it "
            f"({len(unknown)} such); are the lists of one set?"
        )
    return rows


def template_scores(unit: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Cosines of listed pairs of templates, exact as in `all_pairs_tpr_at_fpr`, (P,) float64.

    Pairs are taken block by block: a product of many rows is far faster than one pair at a time.

    Args:
        unit: (T, D), rows of length one or zero.
        first: rows, (P,) int64.
        second: rows, (P,) int64.
    """
    rows = fixed_rows("templates", unit)
    scores = np.empty(len(first))
    height = max(1, min(BLOCK, MAX_CELLS // len(rows)))
    # In as few bits as will do: 16 are sorted by counting.
    block = (first // height).numpy().astype(np.min_scalar_type(len(rows) // height))
    is_sorted = bool((block[1:] >= block[:-1]).all())  # public lists are
    order = None if is_sorted else np.argsort(block, kind="stable")
    start = 0
    for b, end in enumerate(np.bincount(block).cumsum().tolist()):
        where = slice(start, end) if order is None else order[start:end]
        own = rows[b * height : (b + 1) * height]
        scores[where] = pair_scores(own, rows, first[where] - b * height, second[where])
        start = end
    return torch.from_numpy(scores).div_(STEPS)
