"""`ekd-lite compare --recipe`: equal budgets, choices on validation only, runs never done twice."""

import csv
import dataclasses
import itertools
import json
import os
import queue
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.__main__ import main
from ekd_lite.data import SyntheticFaces, load_splits
from ekd_lite.data.renderer.render import RENDERER_VERSION
from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.evaluate import all_pairs_tpr_at_fpr
from ekd_lite.experiments import (
    Run,
    StudyConfig,
    dry_run,
    figures,
    load_study,
    report,
    run_study,
    runner,
    tables,
)
from ekd_lite.experiments import study as study_run
from ekd_lite.experiments.plan import at_edge, choose, combinations_stage, final_stage
from ekd_lite.experiments.report import Method, comparisons
from ekd_lite.experiments.runner import is_finished, load_embeddings
from ekd_lite.models import Profile
from ekd_lite.train import TrainConfig
from ekd_lite.train.estimate import Estimate
from ekd_lite.train.recipes import load_recipe, recipe_names

pytestmark = [
    pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs"),
    pytest.mark.filterwarnings("ignore:.*eyes are not where aligned"),
]
NET: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 16,
    "general": 8,
    "identities": 4,
    "images_per_identity": 3,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Forty identities of four small images: a colour pattern each, and noise."""
    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    for identity in range(40):
        folder = root / f"person{identity:02}"
        folder.mkdir()
        pattern = rng.uniform(30, 220, (16, 16, 3))
        for image in range(4):
            pixels = (pattern + rng.normal(0, 50, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.png")
    return root


@pytest.fixture
def small(people):
    return StudyConfig(
        about="a test",
        teacher=TrainConfig(backbone="tiny_teacher", steps=4, **NET),
        student=TrainConfig(backbone="tiny_student", steps=3, **NET),
        weights={"fitnet": (4.0, 16.0), "ekd": (16.0, 64.0), "sp": (1.0, 9.0)},
        combinations=("fitnet+sp", "ekd+fitnet"),
        shares=(1.0, 0.5),
        selection_steps=2,
        selection_seeds=(0,),
        seeds=(1, 2),
        choose_at=(0.1, 0.05),
        faces=people,
    )


class Here:
    """`Runner`, in this process; stops before run number `limit`."""

    limit = 10**6
    processes: int
    done: list = []  # noqa: RUF012 - set anew by the fixture

    def __init__(self, workspace, plan, label, *, processes):
        self.workspace, self.plan = workspace, plan
        Here.processes = processes
        assert label in ("weights", "combinations", "final students")

    def run(self):
        for name, run in self.plan.items():
            if is_finished(self.workspace.out / name, run, self.workspace.splits):
                continue
            if len(Here.done) == Here.limit:
                raise KeyboardInterrupt
            messages = queue.Queue()
            runner._run_one(name, run, self.workspace, messages)
            *_, (_, kind, text) = messages.queue
            assert kind == "done", text
            Here.done.append(name)


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_run, "Runner", Here)
    Here.limit, Here.done = 10**6, []


def rows_of(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_times(path):
    return [
        {k: v for k, v in row.items() if k not in ("latency_ms", "train_seconds")}
        for row in rows_of(path)
    ]


FILES = ("weights.csv", "study.csv", "differences.csv")


def test_a_study_from_start_to_end_and_again_after_a_stop(small, tmp_path, capsys, monkeypatch):
    whole, parts = tmp_path / "a", tmp_path / "b"
    given = []
    monkeypatch.setattr(report, "comparisons", lambda s: given.append(s) or comparisons(s))
    run_study(small, whole, resamples=20)
    everything = list(Here.done)
    # The teacher comes twice: the test set it embeds only when all choices are made.
    assert len(everything) == 2 + 6 + 4 + 2 * 6
    assert len(set(everything)) == len(everything) - 1
    text = capsys.readouterr().out
    assert "which is" in text
    assert (whole / "study.png").stat().st_size > 1000
    assert text.strip().endswith("study.md study.png")

    rows = rows_of(whole / "study.csv")
    methods = ["student alone", "fitnet", "ekd", "sp", "fitnet+sp", "ekd+fitnet"]
    assert [r["method"] for r in rows] == ["teacher", *(m for m in methods for _ in "12")]
    assert [r["seed"] for r in rows] == ["0", *"12" * 6]
    demo = list(rows_of(Path(__file__).parents[2] / "data/results/demo.csv")[0])
    assert [c for c in rows[0] if c not in ("setting", "validation")] == demo
    # The numbers are those of the embeddings that the runs left.
    splits = load_splits(small.faces, image_size=16, progress=False)
    weights = {r["method"]: r for r in rows_of(whole / "weights.csv") if r["chosen"] == "yes"}
    tprs, scores = {}, {"student alone": [], **{name: [] for name in weights}}
    for row in rows[1:]:
        name = row["method"]
        setting = weights[name]["setting"] if name != "student alone" else ""
        assert row["setting"] == setting
        folder = f"{setting.replace(':', '') or 'alone'}-{row['seed']}"
        embeddings = load_embeddings(whole / "final" / folder)
        tpr = all_pairs_tpr_at_fpr(embeddings, splits.test.labels, [0.01]).item()
        assert float(row["tpr@1e-2"]) == pytest.approx(100 * tpr, abs=0.006)
        tprs.setdefault(row["method"], []).append(100 * tpr)
        embeddings = load_embeddings(whole / "final" / folder, "validation")
        tpr = all_pairs_tpr_at_fpr(embeddings, splits.validation.labels, small.choose_at).mean()
        assert float(row["validation"]) == pytest.approx(100 * tpr.item(), abs=1e-3)
        scores[name].append(100 * tpr.item())
    found = [(r["first"], r["second"], r["second_is"]) for r in rows_of(whole / FILES[2])]
    assert not given[0].pop("teacher")
    assert given[0].keys() == scores.keys()
    assert all(given[0][name] == pytest.approx(scores[name], abs=1e-3) for name in scores)
    assert found == comparisons(scores)
    for row in rows_of(whole / "differences.csv"):
        gap = np.mean(tprs[row["first"]]) - np.mean(tprs[row["second"]])
        assert float(row["difference@1e-2"]) == pytest.approx(gap, abs=0.006)
    for row in rows_of(whole / "weights.csv"):  # as good as a chosen one, or worse
        best = [w for w in rows_of(whole / "weights.csv") if w["method"] == row["method"]]
        assert weights[row["method"]]["score"] == max((w["score"] for w in best), key=float)
    assert "Chosen at the edge of their weights" in (whole / "study.md").read_text()
    assert json.loads((whole / "config.json").read_text()) == {
        "faces": str(small.faces.resolve()),
        "image_size": 16,
        "people": 1000,
        "renderer": RENDERER_VERSION,
    }

    Here.done = []
    for Here.limit in (3, 9, 15):  # in each of the stages
        with pytest.raises(KeyboardInterrupt):
            run_study(small, parts, resamples=20)
    Here.limit = 10**6
    run_study(small, parts, resamples=20)
    assert Here.done == everything
    run_study(small, parts, resamples=20)
    assert Here.done == everything
    for name in FILES:
        assert without_times(whole / name) == without_times(parts / name)


def test_methods_join_a_folder_and_other_options_are_refused(small, tmp_path):
    fewer = small.only(["sp"])
    assert list(fewer.weights) == ["sp"]
    assert fewer.combinations == ()
    run_study(fewer, tmp_path / "a", resamples=5)
    first = list(Here.done)
    assert small.only(["sp", "fitnet"]).combinations == ()
    # The same folder of faces by another name.
    more = dataclasses.replace(small, faces=type(small.faces)(os.path.relpath(small.faces)))
    run_study(more.only(["sp", "fitnet+sp"]), tmp_path / "a", resamples=5)
    assert Here.done[: len(first)] == first
    assert not any(name in Here.done[len(first) :] for name in first)
    assert {r["method"] for r in rows_of(tmp_path / "a/study.csv")} == {
        *("teacher", "student alone", "sp", "fitnet", "fitnet+sp")
    }
    longer = dataclasses.replace(fewer, selection_steps=7)
    with pytest.raises(ValueError, match=r"holds a run of other options .*steps: 2 here, 7 there"):
        run_study(longer, tmp_path / "a", resamples=5)
    with pytest.raises(ValueError, match="holds results of other options"):
        run_study(dataclasses.replace(fewer, people=99), tmp_path / "a", resamples=5)


def test_no_choice_sees_the_test_set(small, tmp_path, monkeypatch):
    """Until all choices are made, nothing takes an image or a label of the test people."""
    real = load_splits

    class Forbidden:
        num_identities = 12

        def __len__(self):
            return 48

        def __getattr__(self, name):
            raise AssertionError(f"the test set was read: {name}")

    def guarded(*args, **kwargs):
        assert (args, kwargs["people"], kwargs["image_size"]) == ((small.faces,), 77, 16)
        splits = real(*args, **kwargs)
        return dataclasses.replace(splits, test=Forbidden()) if not chosen else splits

    small = dataclasses.replace(small.only(["sp"]), people=77, processes=3, selection_seeds=(0, 3))
    chosen = []
    monkeypatch.setattr(study_run, "load_splits", guarded)
    monkeypatch.setattr(runner, "load_splits", guarded)
    with pytest.raises(RuntimeError, match="final"):
        stop_before_final(small, tmp_path / "a", monkeypatch)
    assert Here.processes == 3
    assert not list((tmp_path / "a").rglob("test.safetensors"))
    # Scores are of validation embeddings.
    labels = real(small.faces, image_size=16, progress=False).validation.labels
    rows = rows_of(tmp_path / "a" / "weights.csv")
    assert [row["seed"] for row in rows] == ["0", "3"] * 2
    for row in rows:
        folder = tmp_path / "a" / "weights" / f"{row['setting'].replace(':', '')}-{row['seed']}"
        tprs = all_pairs_tpr_at_fpr(load_embeddings(folder, "validation"), labels, [0.1, 0.05])
        assert float(row["score"]) == pytest.approx(100 * tprs.mean().item(), abs=1e-3)


def stop_before_final(config, out, monkeypatch):
    def guarded(config, chosen):
        raise RuntimeError("final")

    monkeypatch.setattr(study_run, "final_stage", guarded)
    run_study(config, out, resamples=5)


RESULTS = Path(__file__).parents[2] / "data" / "results"
PUBLISHED = rows_of(RESULTS / "study_weights.csv")


@pytest.mark.parametrize("name", recipe_names(studies=True))
def test_every_method_has_a_row_of_the_same_length(name):
    study = load_study(name)
    assert study.about
    # Those of the table that was published; what joined DISTILLERS later was not in the study.
    assert study.weights.keys() == {r["method"] for r in PUBLISHED if "+" not in r["method"]}
    assert study.weights.keys() <= DISTILLERS.keys()
    assert len({len(row) for row in study.weights.values()}) == 1
    for method, row in study.weights.items():
        assert DISTILLERS[method].weight in row
        ratios = [b / a for a, b in itertools.pairwise(row)]
        assert all(2 <= ratio <= 4 for ratio in ratios)
    assert not set(study.seeds) & set(study.selection_seeds)
    assert len(study.seeds) >= 3
    assert (study.choose_at, study.faces) == ((1e-3, 1e-4), None)


@pytest.mark.parametrize(("name", "beside"), [("ekd_fine", "ekd_fine+fitnet"), ("ekd_memory", "")])
def test_the_weights_of_our_forms_are_those_that_validation_chose(name, beside):
    chosen = {r["method"]: r["setting"] for r in PUBLISHED if r["chosen"] == "yes"}
    assert DISTILLERS[name].weight == parse_method(chosen[beside or name])[name]


def test_the_weights_of_later_methods_are_those_that_validation_chose():
    rows = rows_of(RESULTS / "successor_weights.csv")
    tried = {row["method"] for row in rows}
    assert tried >= {"dkd", "gkd", "lskd", "qud", "seed", "thkd"}
    for name in tried - {r["method"] for r in PUBLISHED}:
        mine = [row for row in rows if row["method"] == name]
        (best,) = (row for row in mine if row["chosen"] == "yes")
        assert float(best["score"]) == max(float(row["score"]) for row in mine)
        assert DISTILLERS[name].weight == parse_method(best["setting"])[name]


def test_the_teacher_of_the_study_is_that_of_the_demo():
    shipped = load_recipe("demo-teacher").config
    study = load_study("study")
    assert study.teacher == dataclasses.replace(shipped, device="cpu")
    assert study.people == 1000


def test_every_method_and_combination_gets_as_many_trials_and_seeds(small, tmp_path):
    chosen = {"fitnet": "fitnet:16", "ekd": "ekd:16", "sp": "sp:9"}
    combined = combinations_stage(small, chosen).tried
    assert combined == {
        "fitnet+sp": ["fitnet:16+sp:9", "fitnet:8+sp:9"],
        "ekd+fitnet": ["ekd:16+fitnet:16", "ekd:8+fitnet:16"],
    }
    assert parse_method(combined["fitnet+sp"][1]) == {"fitnet": 8, "sp": 9}
    for faces in (small.faces, None):
        config = dataclasses.replace(small, faces=faces)
        stage = dataclasses.replace(final_stage(config, {"sp": "sp:9"}), steps=5)
        plan = stage.runs(config, tmp_path)
        assert list(plan) == [  # a seed is complete before the next begins
            *("teacher", "final/alone-1", "final/sp9-1", "final/alone-2", "final/sp9-2")
        ]
        assert plan["teacher"] == dataclasses.replace(small.teacher, flip=faces is not None)
        for name, run in plan.items():
            if name != "teacher":
                alone = run.method == "none"
                assert run == dataclasses.replace(
                    small.student,
                    method="none" if "alone" in name else "sp:9",
                    teacher=None if alone else str(tmp_path / "teacher"),
                    teacher_cache=str(tmp_path / "teacher/train.safetensors"),
                    steps=5,
                    seed=int(name[-1]),
                    flip=faces is not None,
                )


def test_the_plan_of_a_dry_run_adds_up(small):
    """With 0.6 s a step, ten times that for the teacher: minutes, disk and faces by hand."""
    cost = Estimate(2**20, 2**18, 2**24, 0, 0.6)
    costs = dict.fromkeys(["student alone", *small.weights, *small.combinations], cost)
    costs["teacher"] = dataclasses.replace(cost, step_seconds=6.0)
    config = dataclasses.replace(small, selection_seeds=(0, 9), people=100)
    text = "\n".join(dry_run._lines(config, costs, 0.5, "cpu"))
    for line in (
        r"teacher +1 runs of +4 steps +0.4 minutes",
        r"weights +12 runs of +2 steps +0.2 minutes",
        r"combinations +8 runs of +2 steps +0.2 minutes",
        r"final students +12 runs of +3 steps +0.4 minutes",
        r"in all +1 minutes, one run at a time on this cpu",
        r"disk +1.2 GiB of runs, 0.0 GiB of faces, rendered once: 20 minutes",  # 33 of 37 MiB
        r"milliseconds a step: .*student alone 600, .*teacher 6000$",
    ):
        assert re.search(line, text), line


def test_a_study_of_real_faces_is_read_from_its_file(tmp_path):
    path = Path(study_run.__file__).parents[1] / "recipes/study.json"
    text = path.read_text().replace('"about"', '"faces": "photographs", "about"')
    (tmp_path / "mine.json").write_text(text)
    assert load_study("mine.json").faces == Path("photographs")
    (tmp_path / "mine.json").write_text(text.replace('"seeds"', '"sseeds"'))
    with pytest.raises(ValueError, match=r"mine.json is no study: .*seeds"):
        load_study("mine.json")


def test_the_choice_is_that_of_a_slow_loop():
    generator = np.random.default_rng(0)
    candidates = {f"m{k}": [f"m{k}:{w}" for w in range(4)] for k in range(20)}
    scores = {s: generator.integers(0, 4, 3).tolist() for row in candidates.values() for s in row}
    expected = {}
    for name, row in candidates.items():
        best, best_mean = None, -1.0
        for setting in row:
            mean = float(np.mean(scores[setting]))
            if mean > best_mean + 1e-9:  # the first of equals stays
                best, best_mean = setting, mean
        expected[name] = best
    assert choose(candidates, scores) == expected


def test_the_sides_of_a_difference_are_named_by_the_scores():
    scores = {"student alone": 1.0, "kd": 5.0, "sp": 4.0, "ekd": 9.0, "ekd_paper": 2.0}
    scores |= {"kd+sp": 6.0, "fitnet+sp": 7.0, "ekd+kd": 8.0, "ekd_paper+sp": 3.0, "sp+ekd": 0.5}
    pairs = comparisons({"teacher": (), **{name: [s - 1, s + 1] for name, s in scores.items()}})
    assert len(pairs) == len(set(pairs))
    by_role = {}
    for first, second, role in pairs:
        by_role.setdefault(role, []).append((first, second))
    students = [name for name in scores if name != "student alone"]
    assert by_role["student alone"] == [(name, "student alone") for name in students]
    best = by_role["best single without EKD"]
    assert best == [(name, "kd") for name in students if name != "kd"]
    assert by_role["best combination without EKD"] == [
        ("ekd+kd", "fitnet+sp"),
        ("ekd_paper+sp", "fitnet+sp"),
        ("sp+ekd", "fitnet+sp"),
    ]
    assert by_role["combination without EKD"] == [("ekd+kd", "kd+sp")]
    assert by_role["part of it"] == [  # "kd" stands above already
        *(("kd+sp", "sp"), ("fitnet+sp", "sp"), ("ekd+kd", "ekd")),
        *(("ekd_paper+sp", "ekd_paper"), ("ekd_paper+sp", "sp")),
        *(("sp+ekd", "sp"), ("sp+ekd", "ekd")),
    ]


@pytest.fixture(scope="module")
def results():
    """Test results of two seeds of three methods, and the people they were measured on."""
    test = SyntheticFaces(30, 4)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(30, 8, generator=generator)[test.labels]

    def net(noise):
        rows = centres + noise * torch.randn(120, 8, generator=generator)
        return report.measure(rows, test.labels, tables.FPRS, 50)

    noises = {
        "student alone": (1.0, 1.1),
        "sp": (0.7, 0.6),
        "ekd": (0.4, 0.5),
        "ekd+sp": (0.4, 0.3),
    }
    return {name: [net(noise) for noise in pair] for name, pair in noises.items()}, test


def by_hand(results, place=0):
    """Mean over seeds in percent, its spread over them, the ends of its interval."""
    estimates = 100 * np.array([r.estimate[place] for r in results])
    samples = np.mean([100 * r.samples[:, place].numpy() for r in results], axis=0)
    return [estimates.mean(), estimates.std(ddof=1), *np.percentile(samples, [2.5, 97.5])]


def difference_by_hand(first, second):
    samples = [
        100 * (a.samples - b.samples)[:, 0].numpy() for a, b in zip(first, second, strict=True)
    ]
    ends = np.percentile(np.mean(samples, axis=0), [2.5, 97.5])
    return [by_hand(first)[0] - by_hand(second)[0], *ends]


def test_differences_say_interval_and_spread_over_seeds(results):
    seeds, _ = results
    row = report._difference("ekd", "student alone", "student alone", seeds)
    each = [
        100 * float(a.estimate[0] - b.estimate[0])
        for a, b in zip(seeds["ekd"], seeds["student alone"], strict=True)
    ]
    assert row["seed_std@1e-2"] == pytest.approx(np.std(each, ddof=1), abs=0.01)
    found = [row[f"difference@1e-2{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx(
        difference_by_hand(seeds["ekd"], seeds["student alone"]), abs=0.01
    )
    assert row["difference@1e-2_low"] < row["difference@1e-2"] < row["difference@1e-2_high"]


def test_all_nets_meet_the_same_draws_of_people(results):
    _, test = results
    rows = torch.randn(120, 8, generator=torch.Generator().manual_seed(1))
    one, other = (report.measure(by * rows, test.labels, tables.FPRS, 7) for by in (1, 4))
    assert one.samples.shape == (7, 4)
    assert torch.equal(one.samples[:, 0], other.samples[:, 0])
    found = study_run._validation_columns(rows, test.labels)["tpr@1e-2"]
    assert found == pytest.approx(100 * one.estimate[0].item(), abs=0.006)


def test_the_page_of_a_study_says_what_its_results_are(results):
    seeds, test = results
    settings = {"student alone": "", "sp": "sp:9", "ekd": "ekd:16", "ekd+sp": "ekd:16+sp:9"}
    info = {"backbone": "tiny", "train_seconds": 1.5}
    net = Run("", Path(), None, info, [], Profile(1234, 5678, 0.5))
    methods = {"teacher": Method("", [net], seeds["ekd+sp"][:1], ())}
    for k, (name, setting) in enumerate(settings.items()):
        methods[name] = Method(setting, [net, net], seeds[name], [k, k + 2])
    pairs = [("ekd", "student alone", "student alone"), ("sp", "ekd", "part of it")]
    text = "\n".join(report._page(methods, pairs, test.labels))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    table = {row[0]: row for row in rows if len(row) == 8}
    assert table["teacher"][1:4] == ["", "1", ""]
    for k, (name, setting) in enumerate(settings.items()):
        mean, spread, low, high = by_hand(seeds[name])
        assert table[name][1:5] == [
            *(setting, "2", f"{k + 1:.1f} ± 1.4"),
            f"{mean:.1f} ± {spread:.1f} [{low:.1f}, {high:.1f}]",
        ]
    differences = {tuple(row[:3]): row[3] for row in rows if len(row) == 7}
    for first, second, role in pairs:
        value, low, high = difference_by_hand(seeds[first], seeds[second])
        cell = differences[first, second, role]
        assert f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" in cell
        assert cell.startswith("**") == (low > 0 or high < 0)
    assert "30 identities: 180 genuine and 6,960 impostor pairs" in text
    assert ["tiny", "1,234", "5,678", "0.50"] in rows
    assert text.endswith("training: 14 seconds on one core in all.")
    for sentence in ("standard deviation over seeds", "95 % interval of a paired", "**Bold**"):
        assert text.count(sentence) == 1

    # Without validation nothing was chosen: a demo's page has no columns of it.
    without = {name: dataclasses.replace(method, scores=()) for name, method in methods.items()}
    text = "\n".join(report._page(without, pairs, test.labels))
    assert "alidation" not in text
    assert text.splitlines()[0].split("|")[1:3] == [" method        ", " seeds "]


def test_the_figure_shows_groups_by_mean_at_its_first_level(results, monkeypatch):
    seeds, _ = results
    panels = []
    monkeypatch.setattr(figures, "DRAWN", (1e-2, 1e-3))
    monkeypatch.setattr(figures, "plot_methods", lambda groups, *a, **k: panels.append(groups))
    figures.study_figure(seeds)
    for place, groups in enumerate(panels):
        assert [list(group) for group in groups] == [["student alone"], ["ekd", "sp"], ["ekd+sp"]]
        shown = groups[1]["sp"]
        mean, _, low, high = by_hand(seeds["sp"], place)
        assert np.mean(shown.seeds) == pytest.approx(mean)
        assert [shown.low, shown.high] == pytest.approx([low, high], nan_ok=True)
    assert len(panels) == 2


def test_weights_at_the_end_of_their_row_are_named(small):
    rows = {"fitnet": (1.0, 2.0, 4.0), "ekd": (1.0, 2.0, 4.0), "sp": (1.0, 2.0, 4.0)}
    config = dataclasses.replace(small, weights=rows)
    chosen = {"fitnet": "fitnet:1", "ekd": "ekd:2", "sp": "sp:4"}
    assert at_edge(config, chosen) == ["fitnet:1", "sp:4"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"fitnett": (1.0,)}}, "did you mean 'fitnet'"),
        ({"weights": {"kd": (1.0,), "sp": (1.0, 2.0)}}, "as many weights"),
        ({"weights": {"kd": (1.0, -1.0)}, "combinations": ()}, "kd must be positive"),
        ({"combinations": ("kd+sp",)}, r"must join methods of weights, got \['kd'\]"),
        ({"combinations": ("sp",)}, "must join"),
        ({"seeds": (0, 1)}, "share none"),
        ({"seeds": ()}, "share none"),
        ({"selection_seeds": ()}, "share none"),
        ({"selection_steps": 0}, "selection_steps"),
        ({"shares": (1.0, 1.0)}, "each once"),
        ({"shares": (1e7,)}, "below a million"),
        ({"student": TrainConfig(method="sp", teacher="t", **NET)}, "no method of their own"),
        ({"teacher": TrainConfig(method="sp", teacher="t", **NET)}, "no method of their own"),
        ({"teacher": TrainConfig(**NET | {"image_size": 32})}, "images of the same size"),
        ({"choose_at": (0.0,)}, "choose_at"),
        ({"processes": 0}, "processes"),
    ],
)
def test_a_study_that_cannot_be_fair_is_refused(small, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(small, **change)


def test_levels_that_validation_cannot_show_are_refused_before_training(small, tmp_path):
    with pytest.raises(ValueError, match="impostor pairs of the validation set cannot show FPR"):
        run_study(dataclasses.replace(small, choose_at=(1e-4,)), tmp_path / "a")
    assert not Here.done


def test_command_line(tmp_path, capsys):
    recipe = json.loads((Path(study_run.__file__).parents[1] / "recipes/study.json").read_text())
    recipe["weights"] = {"kd": [1, 2, 4, 8], "ekd": [16, 32, 64, 128]}
    recipe["combinations"] = ["ekd+kd"]
    (tmp_path / "mine.json").write_text(json.dumps(recipe))
    assert main(["compare", "--recipe", "mine.json", "--dry-run"]) == 0
    text = capsys.readouterr().out
    counts = dict(re.findall(r"^(\w[\w ]+?) +(\d+) runs", text, re.MULTILINE))
    assert counts == {"teacher": "1", "weights": "8", "combinations": "2", "final students": "12"}
    assert re.search(r"in all +\d+ minutes", text)
    assert re.search(r"milliseconds a step: .*ekd\+kd \d+", text)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.json"]

    for arguments, message in (
        (["--recipe", "studdy"], "did you mean 'study'"),
        (["--recipe", "study", "--only", "fitnett"], "did you mean 'fitnet'"),
        (["--recipe", "study", "runs/demo"], "give --recipe alone"),
        (["runs/demo", "--dry-run"], "belong to a study"),
        (["--recipe", "no.json"], "no.json"),
        ([], "name one or more runs"),
    ):
        try:
            code = main(["compare", *arguments])
        except SystemExit as error:  # tyro's own way out
            code = error.code
        assert code == 2
        assert message in " ".join(capsys.readouterr().err.split())
