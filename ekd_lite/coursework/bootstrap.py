"""Check of chapter 2: one resample of an identity-level bootstrap."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.evaluate.roc import tpr_at_fpr
from ekd_lite.ops import unit_rows


def _tpr_of_weighted_pairs(
    embeddings: Tensor, labels: Tensor, weights: Tensor, fpr: float
) -> float:
    """TPR at FPR where pair i < j counts weights[i, j] times, (N, N) whole numbers."""
    i, j = torch.triu_indices(len(labels), len(labels), offset=1)
    unit = unit_rows(embeddings)
    times = weights[i, j]
    scores = (unit @ unit.T)[i, j].repeat_interleave(times)
    return tpr_at_fpr(scores, (labels[i] == labels[j]).repeat_interleave(times), [fpr]).item()


def _how_often(labels: Tensor, drawn: Tensor) -> Tensor:
    """How often the identity of each image was drawn, (N,)."""
    return (labels[:, None] == drawn).sum(1)


def _bootstrap(embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float) -> float:
    times = _how_often(labels, drawn)
    is_genuine = labels[:, None] == labels
    weights = torch.where(is_genuine, times[:, None], times[:, None] * times)
    return _tpr_of_weighted_pairs(embeddings, labels, weights, fpr)


def _rows(embeddings: Tensor, labels: Tensor, rows: Tensor, fpr: float) -> float:
    """TPR at FPR of the set that has these rows, with repetition."""
    labels = labels[rows]
    ones = torch.ones(len(rows), len(rows), dtype=torch.int64)
    return _tpr_of_weighted_pairs(embeddings[rows], labels, ones, fpr)


def _images_drawn_instead_of_identities(
    embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float
) -> float:
    """`drawn` was used as numbers of images; it holds identities.

    All images of a person come and go together, because their scores rise and fall together.
    Drawing single images treats them as independent and makes the interval too narrow: take every
    image whose label was drawn.
    """
    return _rows(embeddings, labels, drawn, fpr)


def _identities_drawn_twice_count_once(
    embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float
) -> float:
    """An identity that was drawn twice counts only once.

    Drawing with replacement is the whole point: w draws of a person give weight w to each of the
    person's genuine pairs, and w v to each impostor pair with a person drawn v times. Is there a
    set, unique() or isin() where a count should be?
    """
    return _rows(embeddings, labels, torch.isin(labels, drawn).nonzero().flatten(), fpr)


def _copies_compared_as_impostors(
    embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float
) -> float:
    """Copies of one person were compared with each other as impostors.

    Giving every draw a label of its own makes two copies of a person two people, whose images have
    a cosine of 1: false accepts that no threshold refuses. Leave pairs between copies out.
    """
    rows, new_labels = [], []
    for number, identity in enumerate(drawn.tolist()):
        mine = (labels == identity).nonzero().flatten()
        rows.append(mine)
        new_labels.append(torch.full_like(mine, number))
    at, fresh = torch.cat(rows), torch.cat(new_labels)
    ones = torch.ones(len(at), len(at), dtype=torch.int64)
    return _tpr_of_weighted_pairs(embeddings[at], fresh, ones, fpr)


def _copies_compared_as_genuine(
    embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float
) -> float:
    """Copies of one person were compared with each other as genuine pairs.

    With the images simply repeated, an image meets its own copy, a genuine pair of cosine 1 that
    nobody has to recognise. A person drawn w times counts each of the person's own pairs w times,
    and no pair between copies.
    """
    rows = torch.cat([(labels == identity).nonzero().flatten() for identity in drawn])
    return _rows(embeddings, labels, rows, fpr)


def _genuine_pairs_weighted_twice(
    embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float
) -> float:
    """Genuine pairs got weight w w; they need w.

    Both images of a genuine pair belong to one person, drawn once for both. Only an impostor pair
    has two people and so a product of two counts, w v.
    """
    times = _how_often(labels, drawn)
    return _tpr_of_weighted_pairs(embeddings, labels, times[:, None] * times, fpr)


def _threshold_of_the_whole_set(
    embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float
) -> float:
    """The threshold was kept from the whole set.

    It is an estimate too, mostly the least certain part: find it anew from the impostor pairs of
    the resample, or the interval leaves out its scatter.
    """
    i, j = torch.triu_indices(len(labels), len(labels), offset=1)
    unit = unit_rows(embeddings)
    scores, is_genuine = (unit @ unit.T)[i, j], labels[i] == labels[j]
    impostor = scores[~is_genuine].sort(descending=True).values
    times = _how_often(labels, drawn)[i[is_genuine]].double()
    accepted = scores[is_genuine] > impostor[int(fpr * len(impostor) + 1e-9)]
    return ((times * accepted).sum() / times.sum()).item()


def _impostor_pairs_not_weighted(
    embeddings: Tensor, labels: Tensor, drawn: Tensor, fpr: float
) -> float:
    """Impostor pairs were given the weight of one of their two people.

    A pair of persons drawn w and v times occurs w v times in the resample.
    """
    times = _how_often(labels, drawn)
    weights = torch.where(times[None] > 0, times[:, None], 0)
    return _tpr_of_weighted_pairs(embeddings, labels, weights, fpr)


def _bootstrap_cases() -> list[Case]:
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


BOOTSTRAP = Exercise(
    "bootstrap",
    _bootstrap,
    _bootstrap_cases,
    (
        _images_drawn_instead_of_identities,
        _identities_drawn_twice_count_once,
        _copies_compared_as_impostors,
        _copies_compared_as_genuine,
        _genuine_pairs_weighted_twice,
        _threshold_of_the_whole_set,
        _impostor_pairs_not_weighted,
    ),
)


def check_bootstrap(f: Function) -> Verdict:
    """Check a function for one resample of the identities.

    Args:
        f: f(embeddings (N, D), labels (N,), drawn (M,), fpr) -> float, the TPR at that FPR over all
            pairs of the resample whose identities, labels with repetition, are `drawn`. An identity
            drawn w times gives weight w to each of its genuine pairs and w v to each impostor pair
            with an identity drawn v times; copies of one identity are not compared. Repeat it with
            random draws and take quantiles, and you have the interval.
    """
    return judge(BOOTSTRAP, f)
