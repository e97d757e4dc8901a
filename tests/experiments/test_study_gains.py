"""What a study claims: families of p-values, rows that may be compared, whose draws they are."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ekd_lite.evaluate import BootstrapResult, difference_p_value, holm, over_runs
from ekd_lite.experiments import load_study
from ekd_lite.experiments.study_gains import BEST, LABELLED, gains_of, labelled_twins
from ekd_lite.experiments.study_report import by_row, draws_of, half_done, run_draws
from ekd_lite.experiments.tables import difference_lines

FORM = "ekd_decisions:128+fitnet:32"
LEVELS = (1e-3, 1e-4)


def made(rng, ahead, seeds=3):
    """The mean of runs that are `ahead` on average."""
    runs = [
        BootstrapResult(LEVELS, x, x, x, x + torch.from_numpy(rng.normal(0, 0.01, (99, 2))))
        for x in torch.from_numpy(ahead + rng.normal(0, 0.01, (seeds, 2)))
    ]
    return over_runs(runs)


@pytest.fixture
def regimes():
    rng = np.random.default_rng(0)
    return {
        "none": {FORM: made(rng, 0.53), "fitnet:8": made(rng, 0.5)},
        "new": {FORM: made(rng, 0.54), "fitnet:16": made(rng, 0.52), "ekd:64": made(rng, 0.5)},
        "empty": {},
    }


def test_p_values_are_adjusted_in_a_regime_and_over_the_table(regimes):
    gains = [line for line, _ in gains_of(regimes, {})]
    claims = [line for line in gains if line["minus"] == BEST]
    assert [(x["regime"], x["row"]) for x in claims] == [
        ("none", FORM),
        ("new", FORM),
        ("new", "ekd:64"),
    ]
    raw = []
    for x in claims:
        of = regimes[x["regime"]]
        fitnet = next(result for name, result in of.items() if name.startswith("fitnet"))
        raw += difference_p_value(of[x["row"]], fitnet).tolist()
    for column, families in (("p", (raw[:2], raw[2:])), ("p_all", (raw,))):
        expected = [p for family in families for p in holm(family).tolist()]
        found = [float(x[f"{column}@{name}"]) for x in claims for name in ("1e-3", "1e-4")]
        assert found == pytest.approx(expected, abs=6e-5)
    assert all(x[f"{c}@1e-3"] == "" for x in gains if x["minus"] != BEST for c in ("p", "p_all"))


def test_a_level_that_shows_nothing_is_no_claim(regimes):
    found = regimes["none"][FORM]
    found.samples[:, 1] = torch.nan
    (line, *_) = [line for line, _ in gains_of({"none": regimes["none"]}, {})]
    (p, _) = difference_p_value(found, regimes["none"]["fitnet:8"]).tolist()
    assert line["p@1e-4"] == line["p_all@1e-4"] == ""
    assert float(line["p@1e-3"]) == pytest.approx(p, abs=6e-5)


def test_without_labels_ekd_also_meets_fitnet_with_all_of_them(regimes):
    twins = labelled_twins(load_study("study"))
    assert twins == {"none": "new"}  # not the teacher's own people, nor wrong labels
    lines = [line for line, _ in gains_of(regimes, twins) if line["minus"] == LABELLED]
    (line,) = lines
    gap = regimes["none"][FORM].estimate - regimes["new"]["fitnet:16"].estimate
    assert (line["regime"], line["row"], line["of"], line["p@1e-3"]) == ("none", FORM, 1, "")
    assert float(line["gain@1e-4"]) == pytest.approx(100 * gap[1].item(), abs=0.006)


def test_so_many_draws_that_the_seed_does_not_matter():
    assert [run_draws(n) for n in (1, 1000, 10_000, 10**7)] == [1000, 1000, 104, 1]


@pytest.fixture
def folder(tmp_path):
    """Final students of three rows in two regimes; the second row lacks a seed."""
    plan = dataclasses.replace(load_study("study"), final_seeds=(2, 1), resamples=9)
    lines = []
    for regime, row, seeds in (
        ("own", "fitnet:32", (1, 2, 7)),
        ("new", "kd:1", (1, 7)),
        ("none", "fitnet:32", (2, 1)),
    ):
        for seed in seeds:
            lines.append({"regime": regime, "row": row, "setting": row, "stage": "final"})
            lines[-1]["seed"] = str(seed)
            where = tmp_path / regime / f"{row.replace(':', '')}-{seed}"
            where.mkdir(parents=True)
            samples = torch.full((9, 2), 0.1 * seed).double()
            save_file(
                {"estimate": samples[0].clone(), "samples": samples}, where / "draws.safetensors"
            )
    return plan, tmp_path, lines


def test_rows_are_compared_over_the_same_seeds(folder):
    plan, out, lines = folder
    found = by_row(plan, out, lines, torch.arange(4) // 2, 9)
    assert list(found) == [(r, "fitnet:32", "fitnet:32") for r in ("none", "own")]
    for results in found.values():
        assert [r.estimate[0].item() for r in results] == pytest.approx([0.1, 0.2])
    assert half_done(plan, lines)[1].endswith("are there: kd:1 (new, 1 of 2 seeds).")
    assert half_done(plan, [x for x in lines if x["row"] != "kd:1"]) == []


def test_draws_know_whose_they_are(tmp_path):
    labels = torch.arange(40) // 4
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    save_file({"test": rows}, tmp_path / "rows.safetensors")
    first = draws_of(tmp_path, labels, [0.2, 0.1], 5)
    assert first.drawn
    path = tmp_path / "draws.safetensors"
    before = path.stat().st_mtime_ns
    assert draws_of(tmp_path, labels, [0.2, 0.1], 5).drawn == first.drawn
    assert path.stat().st_mtime_ns == before
    others = draws_of(tmp_path, torch.arange(40) // 2, [0.2, 0.1], 5)  # of other people: made anew
    assert others.drawn != first.drawn
    assert not torch.equal(others.samples, first.samples)
    save_file(load_file(path), path)  # as older files, which do not say it
    assert draws_of(tmp_path, labels, [0.2, 0.1], 5).samples.equal(others.samples)


def test_means_over_other_numbers_of_seeds_are_no_pair():
    rng = np.random.default_rng(0)
    tprs = torch.from_numpy(rng.random((3, 2)))
    runs = [BootstrapResult(LEVELS, x, x, x, x + torch.zeros(9, 2)) for x in tprs]
    results = {"two": runs[:2], "three": runs, "one": runs[:1]}
    text = "\n".join(difference_lines(["a", "b"], [["two", "three"], ["one", "three"]], results))
    assert text.count("not paired: 2 and 3 seeds") == len(runs[0].fprs)
