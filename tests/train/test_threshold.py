"""The teacher's threshold: exact with labels, bounded without, and handed to what needs it."""

import contextlib
from typing import Any

import numpy as np
import pytest
import torch

from ekd_lite.evaluate import embed
from ekd_lite.ops import unit_rows
from ekd_lite.train import Teacher, TrainConfig, fit, load_model, threshold_at, threshold_bounds
from ekd_lite.train import threshold as module
from tests.fakes import ColourFaces
from tests.train.test_teacher import SMALL as WITH_THRESHOLD
from tests.train.test_teacher import Flat, same_net

SMALL = {**WITH_THRESHOLD, "teacher_threshold": None}


def people(num=80, each=8, noise=0.6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num).repeat_interleave(each)
    centres = torch.randn(num, 12, generator=generator)
    return centres[labels] + noise * torch.randn(num * each, 12, generator=generator), labels


def cosines_of(rows):
    unit = unit_rows(rows.double())
    upper = torch.triu_indices(len(rows), len(rows), 1)
    return (unit @ unit.T)[upper[0], upper[1]], upper


@pytest.mark.parametrize("fpr", [1e-3, 0.02])
def test_it_is_the_least_cosine_with_that_rate(fpr):
    rows, labels = people()
    cosines, (i, j) = cosines_of(rows)
    impostors = cosines[labels[i] != labels[j]].sort(descending=True).values
    allowed = int(fpr * len(impostors))
    found = threshold_at(None, rows, fpr, labels=labels)
    assert impostors[allowed] - 1e-7 < found < impostors[allowed] + 1e-7  # 26 bits a coordinate
    assert abs(int((impostors >= found).sum()) - allowed) <= 1
    assert (impostors >= found + 1e-7).sum() <= allowed
    assert threshold_at(None, rows.numpy(), fpr, labels=labels.numpy()) == found


@pytest.mark.parametrize("noise", [0.1, 0.6, 2.0])
@pytest.mark.parametrize("slack", [1.0, 2.0])
def test_without_labels_the_truth_lies_between_the_bounds(noise, slack):
    rows, labels = people(noise=noise)
    share = 7 / (len(rows) - 1)
    for fpr in (3e-3, 0.03):
        low, high = threshold_bounds(None, rows, fpr, genuine_share=slack * share)
        truth = threshold_at(None, rows, fpr, labels=labels)
        assert low - 1e-7 <= truth <= high + 1e-7
        cosines, (i, j) = cosines_of(rows)
        impostors = cosines[labels[i] != labels[j]]
        g = slack * share
        # A pair more or less where the rates are rounded to whole pairs.
        one = 1.5 / len(impostors)
        assert (impostors >= high).double().mean() <= fpr + one
        assert fpr - one <= (impostors >= low).double().mean() <= fpr + g / (1 - g) + one
    if noise == 0.1 and slack == 1:  # nearly every genuine pair is accepted: the lower one is right
        assert truth == pytest.approx(low, abs=5e-3)


def test_a_large_set_is_sampled(monkeypatch):
    rows, labels = people(200, 10)
    whole = threshold_at(None, rows, 1e-2, labels=labels)
    monkeypatch.setattr(module, "MAX_ROWS", 700)
    part = threshold_at(None, rows, 1e-2, labels=labels)
    assert part == threshold_at(None, rows, 1e-2, labels=labels) != whole
    assert part == pytest.approx(whole, abs=0.05)
    faces, net = ColourFaces(120, 10), Flat()
    drawn = threshold_at(Teacher(net), faces, 1e-2)
    assert drawn == threshold_at(None, embed(net, faces), 1e-2, labels=faces.labels)


def test_a_teacher_measures_itself():
    faces, net = ColourFaces(40, 6), Flat()
    found = Teacher(net).threshold_at(faces, 1e-2)
    assert found == threshold_at(None, embed(net, faces), 1e-2, labels=faces.labels)


NONE: Any = None
TEXT: Any = "x"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, y: threshold_at(None, r, 1e-3), "do not say which pairs are impostors"),
        (lambda r, y: threshold_at(None, r, 1e-3, labels=y[1:]), r"expected labels \(640,\)"),
        (lambda r, y: threshold_at(None, r, 1e-5, labels=y), "cannot show a rate of 1e-05: it tak"),
        (lambda r, y: threshold_at(None, r, 0.0, labels=y), "between 0 and 1"),
        (lambda r, y: threshold_at(None, r, TEXT, labels=y), "between 0 and 1, got 'x'"),
        (lambda r, y: threshold_at(None, "r.npy", 0.1, labels=y), "a set of faces or rows"),
        (lambda r, y: threshold_at(None, r, 0.1, labels=["ann"]), r"expected labels \(N,\)"),
        (lambda r, y: threshold_bounds(None, r, NONE, genuine_share=0.1), "1, got None"),
        (lambda r, y: threshold_bounds(None, r, 0.1, genuine_share=TEXT), "genuine_share must"),
        (lambda r, y: threshold_bounds(None, r, 1e-2, genuine_share=1), r"lie in \[0, 1\)"),
        (lambda r, y: threshold_at(None, ColourFaces(), 1e-2), "needs a teacher"),
        (lambda r, y: Teacher.from_rows(r).threshold_at(ColourFaces()), "give the rows"),
    ],
)
def test_what_cannot_be_measured_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*people())


FACES = ColourFaces(100, 5)


def run(out, faces=FACES, on_step=None, **changes):
    config = TrainConfig(**{**SMALL, "steps": 4, "method": "ekd_decisions+fitnet", **changes})
    return fit(config, faces, out, teacher=Flat(), progress=False, on_step=on_step)


def test_a_run_that_names_no_threshold_measures_it(tmp_path, capsys):
    rows = embed(Flat(), FACES)
    kept = []
    config = TrainConfig(**{**SMALL, "steps": 2, "method": "ekd_decisions"})
    fit(config, FACES, tmp_path, teacher=Flat(), on_step=lambda s, _: kept.append(s))
    found = threshold_at(None, rows, 1e-4, labels=FACES.labels)
    assert kept[0].distillers["ekd_decisions"].threshold == found
    assert f"from a cosine of {found:.3f} on" in capsys.readouterr().out
    assert load_model(tmp_path).origin["teacher_threshold"] == f"{found:.6f}"
    named = []
    run(tmp_path / "b", teacher_threshold=0.4, on_step=lambda s, _: named.append(s))
    assert named[0].distillers["ekd_decisions"].threshold == 0.4
    with pytest.raises(ValueError, match=r"training set .*cannot show.* give teacher_threshold"):
        run(tmp_path / "c", ColourFaces())


NO_LABELS = {"sampler": "neighbours", "identity_weight": 0.0, "teacher_threshold": 0.9}


class Shuffled(ColourFaces):
    """The same images under other labels."""

    def __init__(self):
        super().__init__(100, 5)
        self.labels = self.labels[torch.randperm(500, generator=torch.Generator().manual_seed(3))]


def test_without_labels_nothing_looks_at_labels(tmp_path):
    one, other = run(tmp_path / "a", **NO_LABELS), run(tmp_path / "b", Shuffled(), **NO_LABELS)
    assert same_net(one, other)
    labelled = run(tmp_path / "c", teacher_threshold=0.9)
    assert not same_net(labelled, run(tmp_path / "d", Shuffled(), teacher_threshold=0.9))


@pytest.mark.parametrize("method", ["ekd_decisions+fitnet", "ekd_gallery"])
def test_resuming_is_exact(tmp_path, method):
    changes = {**NO_LABELS, "method": method}
    whole = run(tmp_path / "whole", **changes)

    def stop(state, metrics):
        if state.step == 2:
            raise KeyError("stop")

    changes["checkpoint_every"] = 1
    with contextlib.suppress(KeyError):
        run(tmp_path / "parts", on_step=stop, **changes)
    parts = run(tmp_path / "parts", **changes)
    a, b = (load_model(path).backbone.state_dict() for path in (whole, parts))
    assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "neighbours", "method": "none"}, "method 'none' has none"),
        ({"sampler": "neighbours", "method": "fitnet"}, "needs teacher_threshold"),
        ({"teacher_threshold": 1.0}, "must be a cosine, got 1.0"),
        ({"teacher_threshold": "0.5"}, r"teacher_threshold must be float \| None"),
        ({"sampler": "labels"}, "sampler must be"),
    ],
)
def test_configurations_that_cannot_work_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)
