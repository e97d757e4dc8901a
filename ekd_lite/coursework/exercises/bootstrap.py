"""Check of chapter 2: one resample of an identity-level bootstrap."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import cosines
from ekd_lite.evaluate.roc import tpr_at_fpr


def _how_often(labels: Tensor, drawn: Tensor) -> Tensor:
    """How often the identity of each image was drawn, (N,)."""
    return (labels[:, None] == drawn).sum(1)


def _weighted(weights: Function) -> Function:
    """TPR at FPR where pair i < j counts weights(times, is_genuine)[i, j] times.

    `times` is how often the identity of each image was drawn, (N,); `is_genuine` is (N, N).
    """

    def result(embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float) -> float:
        is_genuine = labels[:, None] == labels
        i, j = torch.triu_indices(len(labels), len(labels), offset=1)
        count = weights(_how_often(labels, drawn), is_genuine)[i, j]
        scores, flags = cosines(embeddings)[i, j], is_genuine[i, j]
        return tpr_at_fpr(
            scores.repeat_interleave(count), flags.repeat_interleave(count), [fpr]
        ).item()

    return result


def _copied(rows: Function, relabel: Function = lambda labels, drawn: labels) -> Function:
    """TPR at FPR over all pairs of the images rows(labels, drawn), with repetition."""

    def result(embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float) -> float:
        at = rows(labels, drawn)
        i, j = torch.triu_indices(len(at), len(at), offset=1)
        named = relabel(labels[at], drawn)
        scores = cosines(embeddings[at])[i, j]
        return tpr_at_fpr(scores, named[i] == named[j], [fpr]).item()

    return result


def _images_of(labels: Tensor, drawn: Tensor) -> Tensor:
    """The images of every draw, one draw after the other."""
    return torch.cat([(labels == identity).nonzero().flatten() for identity in drawn])


def _number_of_draw(labels: Tensor, drawn: Tensor) -> Tensor:
    """A label of its own for every draw, where each person has as many images."""
    return torch.arange(len(drawn)).repeat_interleave(len(labels) // len(drawn))


def _old_threshold(embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float) -> float:
    i, j = torch.triu_indices(len(labels), len(labels), offset=1)
    scores, is_genuine = cosines(embeddings)[i, j], labels[i] == labels[j]
    impostor = scores[~is_genuine].sort(descending=True).values
    times = _how_often(labels, drawn)[i[is_genuine]].double()
    accepted = scores[is_genuine] > impostor[int(fpr * len(impostor) + 1e-9)]
    return ((times * accepted).sum() / times.sum()).item()


_bootstrap = _weighted(lambda n, same: torch.where(same, n[:, None], n[:, None] * n))

MISTAKES = {
    "images drawn instead of identities": Mistake(
        "`drawn` was used as numbers of images; it holds identities. All images of a person come "
        "and go together, because their scores rise and fall together. Drawing single images "
        "treats them as independent and makes the interval too narrow: take every image whose "
        "label was drawn.",
        _copied(lambda labels, drawn: drawn),
    ),
    "identities drawn twice count once": Mistake(
        "An identity that was drawn twice counts only once. Drawing with replacement is the whole "
        "point: w draws of a person give weight w to each of the person's genuine pairs, and w v "
        "to each impostor pair with a person drawn v times. Is there a set, unique() or isin() "
        "where a count should be?",
        _copied(lambda labels, drawn: torch.isin(labels, drawn).nonzero().flatten()),
    ),
    "copies compared as impostors": Mistake(
        "Copies of one person were compared with each other as impostors. Giving every draw a "
        "label of its own makes two copies of a person two people, whose images have a cosine of "
        "1: false accepts that no threshold refuses. Leave pairs between copies out.",
        _copied(_images_of, _number_of_draw),
    ),
    "copies compared as genuine": Mistake(
        "Copies of one person were compared with each other as genuine pairs. With the images "
        "simply repeated, an image meets its own copy, a genuine pair of cosine 1 that nobody has "
        "to recognise. A person drawn w times counts each of the person's own pairs w times, and "
        "no pair between copies.",
        _copied(_images_of),
    ),
    "genuine pairs weighted twice": Mistake(
        "Genuine pairs got weight w w; they need w. Both images of a genuine pair belong to one "
        "person, drawn once for both. Only an impostor pair has two people and so a product of two "
        "counts, w v.",
        _weighted(lambda n, same: n[:, None] * n),
    ),
    "threshold of the whole set": Mistake(
        "The threshold was kept from the whole set. It is an estimate too, mostly the least "
        "certain part: find it anew from the impostor pairs of the resample, or the interval "
        "leaves out its scatter.",
        _old_threshold,
    ),
    "impostor pairs not weighted": Mistake(
        "Impostor pairs were given the weight of one of their two people. A pair of persons drawn "
        "w and v times occurs w v times in the resample.",
        _weighted(lambda n, same: torch.where(n > 0, n[:, None], 0)),
    ),
}


def _cases() -> list[Case]:
    angles = real([0.0, 50.0, 30.0, 75.0, 100.0, 115.0]).deg2rad()
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    pairs = torch.arange(3).repeat_interleave(2)
    cases = [
        Case("three people", (circle, pairs, torch.tensor([0, 0, 2]), 0.5)),
        Case("each once", (circle, pairs, torch.tensor([0, 1, 2]), 0.5)),
    ]
    labels = torch.arange(10).repeat_interleave(4)
    centres = normal(11, 10, 4)
    for seed in (12, 13):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(10, (10,), generator=generator)
        embeddings = centres[labels] + 0.9 * normal(seed, 40, 4)
        cases.append(Case(f"ten people, draw {seed - 11}", (embeddings, labels, drawn, 0.1)))
    return cases


BOOTSTRAP = Exercise("bootstrap", _bootstrap, _cases, MISTAKES)


def check_bootstrap(f: Function) -> Feedback:
    """Check a function for one resample of the identities.

    Args:
        f: f(embeddings (N, D), labels (N,), drawn (M,), fpr) -> float, the TPR at that FPR over all
            pairs of the resample whose identities, labels with repetition, are `drawn`. An identity
            drawn w times gives weight w to each of its genuine pairs and w v to each impostor pair
            with an identity drawn v times; copies of one identity are not compared. Repeat it with
            random draws and take quantiles, and you have the interval.
    """
    return judge(BOOTSTRAP, f)
