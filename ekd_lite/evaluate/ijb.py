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

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.evaluate.ijb_files import TemplateMedia, TemplatePairs
from ekd_lite.evaluate.roc import tpr_at_fpr
from ekd_lite.ops import fresh

IJB_FPRS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
EPS = 1e-12  # a shorter vector has no direction
CHUNK = 4096  # images read at a time
BLOCK = 1024  # templates whose scores with all others are held at once
# Below this share of wanted scores a tile is not worth its matrix product.
WORTH_A_PRODUCT = 1 / 200


def ijb_tpr_at_fpr(
    embeddings: Tensor,
    media: TemplateMedia,
    pairs: TemplatePairs,
    fprs: Iterable[float] | Tensor = IJB_FPRS,
    *,
    mirrored: Tensor | None = None,
    detector_scores: Tensor | None = None,
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
    templates, ids = pool_templates(
        *(embeddings, media.template_ids, media.media_ids),
        mirrored=mirrored,
        detector_scores=detector_scores,
        keep_norm=keep_norm,
    )
    first, second = (find_templates(ids, wanted) for wanted in (pairs.first, pairs.second))
    scores = pair_scores(templates, first, second)
    return tpr_at_fpr(scores, pairs.is_genuine, fprs, convention=convention)


def pool_templates(
    embeddings: Tensor,
    template_ids: Tensor,
    media_ids: Tensor,
    *,
    mirrored: Tensor | None = None,
    detector_scores: Tensor | None = None,
    keep_norm: bool = True,
) -> tuple[Tensor, Tensor]:
    """The vector of every template: sum over media of the mean over a medium's images.

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
    num = len(embeddings)
    for name, rows in {
        **{"template_ids": template_ids, "media_ids": media_ids},
        **{"mirrored": mirrored, "detector_scores": detector_scores},
    }.items():
        wanted = embeddings.shape if name == "mirrored" else (num,)
        if rows is not None and rows.shape != wanted:
            raise ValueError(f"expected {name} {tuple(wanted)}, got {tuple(rows.shape)}")
    if not num:
        raise ValueError("there is no image to pool: embeddings (N, D) needs at least one row")
    ids, order, starts, weights = _sort_by_template(template_ids, media_ids)
    if detector_scores is not None:
        weights = weights * detector_scores.cpu().float()[order]
    if not keep_norm:
        weights = weights * _inverse_norms(embeddings, mirrored)[order]
    pooled = _weighted_sums(embeddings, order, starts, weights)
    if mirrored is not None:
        pooled += _weighted_sums(mirrored, order, starts, weights)
    norms = torch.linalg.vector_norm(pooled, dim=1)
    # T norms are looked at instead of all numbers; that of large finite numbers may be infinite.
    if not norms.isfinite().all():
        bad = (~pooled.isfinite().all(dim=1)).nonzero().flatten()
        if len(bad):
            raise ValueError(f"an image of template {int(ids[bad[0]])} has NaN or infinity in it")
    return pooled.mul_(torch.where(norms <= EPS, 0.0, 1 / norms)[:, None]), ids


def _sort_by_template(
    template_ids: Tensor, media_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids (T,), images in the order of templates (N,), where each begins (T,), weights (N,).

    The weights, in that order, are one over the number of images of the image's medium.
    """
    ids, template = torch.unique(template_ids.cpu(), return_inverse=True)
    medium = torch.unique(media_ids.cpu(), return_inverse=True)[1]
    # One number for each (template, medium), sorted by numpy, many times faster than by torch.
    pair = (template * (int(medium.max()) + 1) + medium).numpy()
    order = np.argsort(pair)
    group, size = torch.unique_consecutive(
        torch.from_numpy(pair[order]), return_inverse=True, return_counts=True
    )[1:]
    sizes = torch.bincount(template)
    return ids, torch.from_numpy(order), sizes.cumsum(0) - sizes, 1.0 / size[group].float()


def _weighted_sums(rows: Tensor, order: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Sums of `weights * rows[order]` from each start to the next, (T, D) float32.

    `embedding_bag` is this sum, and the only operation of torch that copies no row for it.
    """
    rows = rows.detach()
    as_it_is = rows.dtype == torch.float32 and rows.device.type == "cpu" and rows.is_contiguous()
    sums = fresh(len(starts), rows.shape[1]).zero_()
    for first in range(0, len(order), CHUNK):
        table, part = rows, order[first : first + CHUNK]
        own = weights[first : first + CHUNK]
        a, b = torch.searchsorted(starts, torch.tensor([first + 1, first + len(part)])).tolist()
        if not as_it_is:
            table, part = rows[part.to(rows.device)].cpu().float(), torch.arange(len(part))
        # Template a - 1 has begun already, at `first` or in the part before.
        begin = (starts[a - 1 : b] - first).clamp_(min=0)
        sums[a - 1 : b] += F.embedding_bag(part, table, begin, mode="sum", per_sample_weights=own)
    return sums


def _inverse_norms(embeddings: Tensor, mirrored: Tensor | None) -> Tensor:
    """One over the length of every image's vector, 0 where it has none, (N,) float32."""
    inverse = torch.empty(len(embeddings))
    for start in range(0, len(embeddings), CHUNK):
        part = slice(start, start + CHUNK)
        rows = embeddings[part].detach().cpu().float()
        if mirrored is not None:
            rows = rows + mirrored[part].detach().cpu().float()
        norms = torch.linalg.vector_norm(rows, dim=1)
        inverse[part] = torch.where(norms <= EPS, 0.0, 1 / norms)
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


def pair_scores(unit: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Cosines of listed pairs of unit rows, (P,) float32.

    Gathering two vectors a pair is bound by memory. Matrix products of whole blocks are many
    times faster although they compute scores nobody asked for, unless very few are asked for.

    Args:
        unit: (T, D), rows of length one or zero.
        first: rows, (P,) int64.
        second: rows, (P,) int64.
    """
    scores = torch.empty(len(first))
    block = (first // BLOCK).numpy().astype(np.uint16)  # 16 bits: sorted by counting
    is_sorted = bool((block[1:] >= block[:-1]).all())  # public lists are
    order = None if is_sorted else torch.from_numpy(np.argsort(block, kind="stable"))
    start = 0
    for b, end in enumerate(np.bincount(block).cumsum().tolist()):
        where = slice(start, end) if order is None else order[start:end]
        rows = unit[b * BLOCK : (b + 1) * BLOCK]
        scores[where] = _block_scores(rows, unit, first[where] - b * BLOCK, second[where])
        start = end
    return scores


def _block_scores(rows: Tensor, unit: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Cosines of `rows[i]` and `unit[j]`."""
    if len(i) >= WORTH_A_PRODUCT * len(rows) * len(unit):
        return (rows @ unit.T).take(i * len(unit) + j)
    parts = zip(torch.split(i, CHUNK), torch.split(j, CHUNK), strict=True)
    return torch.cat([(rows[a] * unit[b]).sum(1) for a, b in parts])
