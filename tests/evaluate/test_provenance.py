"""How alike two nets' cosines are: golden values, copies that are really made, what must hold."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ekd_lite.evaluate import provenance, relation_agreement
from ekd_lite.evaluate.bootstrap import draw_weights

NAMES = ("sac", "pearson", "pearson_impostors")


def golden(count, width):
    i, j = torch.arange(count).double()[:, None], torch.arange(width).double()
    return torch.sin(0.37 * (i + 1) * (j + 1)), torch.cos(0.23 * (i + 2) * (j + 1))


def nets(people=12, images=4, *, noise=1.0, seed=0):
    """Two nets that agree in part, on images of some people in no order."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(people, 8, generator=generator).repeat_interleave(images, 0)
    a = centres + 0.7 * torch.randn(centres.shape, generator=generator)
    b = a[:, :6] + noise * torch.randn(len(a), 6, generator=generator)
    order = torch.randperm(len(a), generator=generator)
    labels = torch.arange(people).repeat_interleave(images)
    return a[order], b[order], labels[order]


@pytest.mark.parametrize(("count", "width", "sac"), [(16, 8, 0.1305323243), (64, 16, 0.1130040311)])
def test_the_values_of_the_official_program(count, width, sac):
    a, b = golden(count, width)
    found = relation_agreement(a, b, torch.arange(count) // 4, num_resamples=0)
    assert found["sac"] == pytest.approx(sac, rel=1e-8)


def by_hand(a, b, labels):
    """The three numbers from the two matrices of cosines, by numpy."""
    a, b = ((normalize(x.double(), dim=1)) for x in (a, b))
    x, y = (a @ a.T).numpy(), (b @ b.T).numpy()
    upper = np.triu_indices(len(x), 1)
    apart = (labels[upper[0]] != labels[upper[1]]).numpy()
    return (
        np.abs(x - y).mean() / 2,
        np.corrcoef(x[upper], y[upper])[0, 1],
        np.corrcoef(x[upper][apart], y[upper][apart])[0, 1],
    )


@pytest.mark.parametrize("tile", [1024, 16, 7])
def test_matrices_of_all_cosines_give_the_same(tile, monkeypatch):
    monkeypatch.setattr(provenance, "TILE", tile)
    a, b, labels = nets()
    found = relation_agreement(a, b, labels, num_resamples=0)
    assert [found[name] for name in NAMES] == pytest.approx(by_hand(a, b, labels), rel=1e-6)
    assert math.isnan(found["sac_low"])


@pytest.mark.parametrize("tile", [1024, 7])
def test_a_draw_counts_every_copy_of_a_person(tile, monkeypatch):
    """Copies are made in earnest; those of one person are not compared with each other."""
    monkeypatch.setattr(provenance, "TILE", tile)
    a, b, labels = nets(people=6)
    weights = draw_weights(6, 1, 5)[1]
    assert weights.max() > 1
    rows = [(k, copy) for k in range(len(a)) for copy in range(int(weights[labels[k]]))]
    ua, ub = ((normalize(x.double(), dim=1)) for x in (a, b))
    gaps, all_pairs, impostors = [], [], []
    for place, (i, c) in enumerate(rows):
        for j, d in rows[:place]:
            if labels[i] == labels[j] and c != d:
                continue
            pair = (float(ua[i] @ ua[j]), float(ub[i] @ ub[j]))
            gaps.append(abs(pair[0] - pair[1]) / 2)
            all_pairs.append(pair)
            if labels[i] != labels[j]:
                impostors.append(pair)
    want = {
        "sac": np.mean(gaps) * (1 - 1 / len(a)),
        "pearson": np.corrcoef(*np.array(all_pairs).T)[0, 1],
        "pearson_impostors": np.corrcoef(*np.array(impostors).T)[0, 1],
    }
    found = relation_agreement(a, b, labels, num_resamples=1, seed=5)
    for name in NAMES:
        assert found[f"{name}_low"] == found[f"{name}_high"] == pytest.approx(want[name], rel=1e-6)


def test_lengths_turns_and_order_do_not_matter():
    a, b, labels = nets()
    generator = torch.Generator().manual_seed(1)
    want = relation_agreement(a, b, labels)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    lengths = torch.rand(len(a), 1, generator=generator) + 0.1
    order = torch.randperm(len(a), generator=generator)
    for other in (
        relation_agreement(a @ turn, b, labels),
        relation_agreement(a * lengths, 3 * b, labels),
        relation_agreement(a[order], b[order], 7 * labels[order] - 3),
        relation_agreement(b, a, labels),
    ):
        assert other == pytest.approx(want, abs=1e-6)


def test_a_copy_agrees_and_a_stranger_does_not():
    a, _, labels = nets(people=60)
    copy = relation_agreement(a, a, labels)
    assert copy["sac"] == copy["sac_high"] == 0
    assert copy["pearson"] == pytest.approx(1) and copy["pearson_impostors_low"] > 1 - 1e-9
    related = relation_agreement(a, nets(people=60)[1], labels)
    stranger = relation_agreement(a, nets(people=60, seed=9)[1], labels)
    assert related["pearson_impostors_low"] > 0.3 > abs(stranger["pearson_impostors"])
    assert related["sac_high"] < stranger["sac_low"]
    for found in (related, stranger):
        for name in NAMES:
            assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_people_widen_an_interval_that_images_would_narrow():
    a, b, labels = nets(people=40, images=8)
    people, images = relation_agreement(a, b, labels), relation_agreement(a, b)
    assert people["pearson"] == pytest.approx(images["pearson"], abs=1e-12)
    width = [found["pearson_high"] - found["pearson_low"] for found in (people, images)]
    assert width[0] > 1.5 * width[1]


def test_what_cannot_be_said_is_nan():
    a, b, labels = nets()
    alone = relation_agreement(a, b)
    assert math.isnan(alone["pearson_impostors"]) and math.isnan(alone["pearson_impostors_low"])
    assert alone["pearson"] == pytest.approx(relation_agreement(a, b, labels)["pearson"])
    constant = relation_agreement(a, torch.ones(len(a), 3), labels)
    assert math.isnan(constant["pearson"]) and math.isnan(constant["pearson_high"])
    assert 0 < constant["sac_low"] < constant["sac_high"]
    two = relation_agreement(a[labels < 2], b[labels < 2], labels[labels < 2])
    assert math.isnan(two["pearson_impostors_low"])  # half of the draws hold one person only
    assert two["sac_low"] <= two["sac"]


def test_what_is_refused():
    a, b, labels = nets()
    with pytest.raises(ValueError, match="same images, got 48 and 47"):
        relation_agreement(a, b[1:], labels)
    with pytest.raises(ValueError, match="at least two people, got one"):
        relation_agreement(a, b, torch.zeros(48))
    for bad in ({"num_resamples": -1}, {"confidence": 1.0}):
        with pytest.raises(ValueError, match=r"num_resamples >= 0|0 < confidence < 1"):
            relation_agreement(a, b, labels, **bad)
