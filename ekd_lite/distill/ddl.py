r"""DDL: the distributions of genuine and impostor scores (Huang et al., ECCV 2020).

"Improving Face Recognition from Hard Samples via Distribution Distillation Loss", by EKD's first
author, two years before EKD. It looks at no pair by name, only at how the scores lie. Scores
s_1, s_2, ... become a soft histogram on the nodes t_r = 0, 0.001, ..., 0.999,

    H_r = sum_k exp(-(s_k - t_r)^2 / (2 * 0.1^2)),    divided by its sum,

and with (G_t, I_t) and (G_s, I_s) the genuine scores above 0 and the impostor scores of two
sources, t the better one,

    L = 0.1 KL(H(G_t) || H(G_s)) + 0.02 KL(H(I_t) || H(I_s))
        + 0.5 sum over a, b in {t, s} of (mean I_a - mean G_b).

The impostor score of an image is that of its nearest stranger in the batch. The last part, the
"order loss", pulls genuine and impostor scores apart and has no zero.

In the paper t and s are *one net* on easy and on hard images (near and far, frontal and turned);
`distribution_gap` is that. `DDLLoss` is our use of it between two nets, with t the teacher on the
very same images: a student is then held to the teacher's distributions, whichever pair is where.

Read in the authors' program (TFace, torchkit/loss/ddl.py, and the paper's abstract). Differs: the
program takes images sorted into pairs and a batch of strangers, here labels say which pairs are
which; its nearest stranger is looked for among the later rows only; the teacher has no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    check_pair_labels,
    check_student_teacher,
    check_weights,
    full_precision,
    show_nan,
    zero_loss,
)
from ekd_lite.ops import check_tensors, is_free_to_fetch, unit_rows

NODES, WIDTH = 1000, 0.1
EPS = 1e-9  # added to both distributions


class DDLLoss(nn.Module):
    """The student's distributions of scores against the teacher's.

    Args:
        genuine: weight of the divergence of the genuine scores.
        impostor: weight of the divergence of the impostor scores.
        order: weight of the order loss.
    """

    def __init__(self, *, genuine: float = 0.1, impostor: float = 0.02, order: float = 0.5) -> None:
        super().__init__()
        check_weights(genuine, impostor, order)
        self.weights = {"genuine": genuine, "impostor": impostor, "order": order}

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare the scores of a batch.

        Args:
            student_embeddings: (N, D), not normalised.
            teacher_embeddings: (N, D'), of the same images; gets no gradient.
            labels: identities, (N,).

        Returns:
            The loss, 0-dim. Without a genuine pair, or without an impostor pair, there is nothing
            to compare: zero.

        Raises:
            ValueError: wrong shapes, or no labels.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=False)
        labels = check_pair_labels(labels, len(student_embeddings))
        is_same = labels[:, None] == labels
        # A GPU must say how many: histograms of all N^2 / 2 pairs by masks are too much memory.
        i, j = is_same.triu(1).nonzero(as_tuple=True)
        if len(i) in (0, len(labels) * (len(labels) - 1) // 2):  # no pair is genuine, or all are
            return zero_loss(student_embeddings, teacher_embeddings)
        scores: list[Tensor] = []
        with full_precision(student_embeddings):
            for rows in (teacher_embeddings.detach(), student_embeddings):
                unit = unit_rows(rows)
                cosines = unit @ unit.T
                genuine = cosines[i, j]
                scores += [genuine, cosines.masked_fill(is_same, -2).amax(dim=1)]
            loss = distribution_gap(scores[0], scores[1], scores[2], scores[3], **self.weights)
        return show_nan(loss, student_embeddings, teacher_embeddings)


def distribution_gap(
    easy_genuine: Tensor,
    easy_impostor: Tensor,
    hard_genuine: Tensor,
    hard_impostor: Tensor,
    *,
    genuine: float = 0.1,
    impostor: float = 0.02,
    order: float = 0.5,
) -> Tensor:
    """The loss of the module above for scores of any two sources; the gradient goes to all four.

    Args:
        easy_genuine: scores of genuine pairs of the better source, (G,); those up to 0 are left
            out, and if that leaves none, so is their part of the loss.
        easy_impostor: scores of impostor pairs, (I,).
        hard_genuine: of the source that has to learn, (G',).
        hard_impostor: of the same, (I',).
        genuine: weight of the divergence of the genuine scores.
        impostor: weight of the divergence of the impostor scores.
        order: weight of the order loss.

    Returns:
        The loss, 0-dim.

    Example:
        >>> scores = torch.tensor([0.7, 0.8]), torch.tensor([0.1, 0.3])
        >>> float(distribution_gap(*scores, *scores, order=0.0))
        0.0
    """
    check_tensors(
        easy_genuine=easy_genuine,
        easy_impostor=easy_impostor,
        hard_genuine=hard_genuine,
        hard_impostor=hard_impostor,
    )
    check_weights(genuine, impostor, order)
    for scores in (easy_genuine, easy_impostor, hard_genuine, hard_impostor):
        if scores.ndim != 1 or not scores.is_floating_point():
            kind = f"{tuple(scores.shape)} of {scores.dtype}"
            raise ValueError(f"expected scores (G,) and (I,) of a floating-point type, got {kind}")
    # NaN is not above 0: what is left out below must show here.
    nothing = sum(x.sum() * 0 for x in (easy_genuine, easy_impostor, hard_genuine, hard_impostor))
    loss = torch.as_tensor(nothing)
    means: list[tuple[Tensor, float | Tensor]]
    if is_free_to_fetch(loss):
        kept = [scores[scores > 0] for scores in (easy_genuine, hard_genuine)]
        if all(len(scores) for scores in kept):
            loss = loss + genuine * _divergence(*kept)
        means = [(scores.mean(), 1.0) for scores in kept if len(scores)]
    else:
        divergence, means = _above_zero_by_masks(easy_genuine, hard_genuine)
        loss = loss + genuine * divergence
    loss = loss + impostor * _divergence(easy_impostor, hard_impostor)
    for strangers in (easy_impostor, hard_impostor):
        for mean, weight in means:
            loss = loss + order * weight * (strangers.mean() - mean)
    return loss


def _above_zero_by_masks(
    easy: Tensor, hard: Tensor
) -> tuple[Tensor, list[tuple[Tensor, float | Tensor]]]:
    """Divergence of the scores above 0, and their means with a weight that is 0 where none is."""
    both, masks = (easy, hard), (easy > 0, hard > 0)
    is_any = masks[0].any() & masks[1].any()
    # At minus infinity a score adds nothing to any node, and neither fill lets a NaN back.
    kept = (
        torch.where(is_any, scores.masked_fill(~mask, -torch.inf), 0.0)
        for scores, mask in zip(both, masks, strict=True)
    )
    divergence = torch.where(is_any, _divergence(*kept), 0.0)
    means: list[tuple[Tensor, float | Tensor]] = [
        (torch.where(mask, scores, 0.0).sum() / mask.sum().clamp(min=1), mask.any())
        for scores, mask in zip(both, masks, strict=True)
    ]
    return divergence, means


def _divergence(wanted: Tensor, given: Tensor) -> Tensor:
    """KL between the soft histograms of two sets of scores."""
    p, q = (_soft_histogram(scores) + EPS for scores in (wanted, given))
    return (p * (p / q).log()).sum()


def _soft_histogram(scores: Tensor) -> Tensor:
    """(K,) scores -> (NODES,), non-negative, of sum one."""
    nodes = torch.arange(NODES, dtype=scores.dtype, device=scores.device) / NODES
    height = (-0.5 * ((scores[:, None] - nodes) / WIDTH).square()).exp().sum(dim=0)
    return height / height.sum()
