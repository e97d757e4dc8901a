"""The decisive study in small: what it trains next, one student of each regime, its tables."""

from __future__ import annotations

import csv
import itertools
import sys
from pathlib import Path

import pytest
import torch

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    for name in ("decisive", "decisive_report"):
        sys.modules.pop(name, None)
    import decisive

    monkeypatch.setattr(decisive, "OUT", tmp_path)
    monkeypatch.setattr(decisive, "RUNS", tmp_path / "runs.csv")
    return decisive


def line(run, score):
    return {"regime": run.regime, "row": run.row, "setting": run.setting, "stage": run.stage,
            "seed": str(run.seed), "score": str(score)}  # fmt: skip


def follow(study, score_of):
    """Every run that the study asks for, if a weight scores what it scores here."""
    lines = []
    while runs := study.wanted(lines):
        lines += [line(runs[0], score_of(float(runs[0].setting.partition(":")[2] or 0)))]
    return lines


@pytest.mark.parametrize(
    ("score_of", "searched", "chosen"),
    [
        (lambda w: -abs(w - 8), {4, 8, 16}, 8),
        (lambda w: w, {4, 8, 16, 32, 64}, 64),  # two more at the end, and no further
        (lambda w: -w, {1, 2, 4, 8, 16}, 1),
        (lambda w: -abs(w - 32), {4, 8, 16, 32, 64}, 32),
    ],
)
def test_the_search_goes_on_at_an_end_and_then_stops(
    study, monkeypatch, score_of, searched, chosen
):
    monkeypatch.setattr(study, "ROWS", {"new": ("fitnet:8",)})
    lines = follow(study, score_of)
    weights = {
        stage: {float(x["setting"].partition(":")[2]) for x in lines if x["stage"] == stage}
        for stage in ("search", "final")
    }
    assert weights == {"search": searched, "final": {chosen}}
    assert len(lines) == len(searched) * len(study.SEARCH_SEEDS) + len(study.FINAL_SEEDS)


def test_a_form_of_ekd_is_compared_with_its_likes_and_with_the_controls(study):
    import decisive_report as report

    of = {row: row for row in study.LEADING}
    assert [row for row in of if report.is_ekd(row)] == [
        "ekd_decisions:128+fitnet:32", "ekd_gallery:128", "ekd_fine:128+fitnet:32",
        "ekd_gallery:128+fitnet:32", "ekd:64",
    ]  # fmt: skip
    alone = report.opponents("ekd:64", of)
    assert alone["the best rival"] == ["fitnet:32", "dkd:2", "adadistill:1", "none", "kd:16"]
    assert list(alone) == ["the best rival", "fitnet alone"]  # no control stands alone
    beside = report.opponents("ekd_fine:128+fitnet:32", of)
    assert {"dkd:2", "dkd:2+fitnet:32", "triplet:8+fitnet:32"} < set(beside["the best rival"])
    assert not any("ekd" in row for row in beside["the best rival"])
    assert beside["ekd_labels beside FitNet"] == ["ekd_labels:128+fitnet:32"]
    assert beside["ekd_l2 beside FitNet"] == ["ekd_l2:2048+fitnet:32"]


def test_nobody_stands_in_two_sets(study):
    ranges = sorted((first, first + people) for first, people, _ in study.SETS.values())
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ranges))


def test_every_row_can_be_trained(study):
    from ekd_lite.distill import DISTILLERS, parse_method

    for regime, rows in study.ROWS.items():
        assert len(set(rows)) == len(rows)
        for row in rows:
            for name in parse_method(row):
                assert not (regime == "none" and DISTILLERS[name].needs_labels), row


def test_a_share_of_the_labels_is_wrong(study):
    labels = torch.arange(4000) // 4
    wrong = study.labels_with_errors(labels, 0.3) != labels
    assert 0.28 < float(wrong.double().mean()) < 0.32
    assert torch.equal(wrong, study.labels_with_errors(labels, 0.3) != labels)


def test_students_are_trained_measured_and_compared(study, monkeypatch):
    sets = {"own": (0, 40, 8), "new": (200, 40, 8), "validation": (400, 12, 6)}
    sets |= {"calibration": (600, 40, 8), "test": (800, 30, 6)}
    monkeypatch.setattr(study, "SETS", sets)
    monkeypatch.setattr(study, "STEPS", 2)
    monkeypatch.setattr(study, "CALIBRATED_AT", 1e-2)
    monkeypatch.setattr(study, "commit", lambda: "here")
    lines = []
    for regime in ("none", "wrong"):
        for row in ("fitnet:32", "ekd_decisions:8+fitnet:32"):
            lines += [
                study.train_and_measure(study.Run(regime, row, row, "final", seed))
                for seed in (1, 2)
            ]
    study.add(lines)
    assert [x["setting"] for x in study.finished()] == [x["setting"] for x in lines]
    import decisive_report as report

    monkeypatch.setattr(report, "LEVELS", (1e-1, 5e-2))
    monkeypatch.setattr(report, "RESAMPLES", 50)
    report.main()
    with (study.RUNS.parent / "decisive_gains.csv").open(encoding="utf-8") as file:
        gains = list(csv.DictReader(file))
    minus = ["the best rival", "fitnet alone"]
    assert [(x["regime"], x["minus"]) for x in gains] == [
        (r, m) for r in ("none", "wrong") for m in minus
    ]
    assert all(bool(x["p@1e-3"]) == (x["minus"] == minus[0]) for x in gains)
    for x in gains:
        assert float(x["gain@1e-3_low"]) <= float(x["gain@1e-3"]) <= float(x["gain@1e-3_high"])
