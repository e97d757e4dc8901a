"""`ekd-lite compare --recipe`: what a study trains next, its tables, and plans that cannot be."""

import csv
import dataclasses
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ekd_lite.__main__ import main
from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.evaluate import BootstrapResult, all_pairs_tpr_at_fpr
from ekd_lite.experiments import dry_run, load_study, run_study, study, write_table
from ekd_lite.experiments.figures import study_figure
from ekd_lite.experiments.folders import record_options
from ekd_lite.experiments.study_gains import is_ekd, opponents
from ekd_lite.experiments.study_plan import People, Regime, StudyPlan
from ekd_lite.experiments.study_report import write_study
from ekd_lite.experiments.study_search import scaled, students_left, students_of, wanted
from ekd_lite.train import TrainConfig
from ekd_lite.train.estimate import Estimate
from ekd_lite.train.recipes import recipe_names

RECIPES = Path(study.__file__).parents[1] / "recipes"
RESULTS = Path(__file__).parents[2] / "data" / "results"
FITNET = "fitnet:32"
SMALL = {"own": (0, 40, 8), "new": (200, 40, 8), "validation": (400, 12, 6)}
SMALL |= {"calibration": (600, 40, 8), "test": (800, 30, 6)}


@pytest.fixture
def small():
    """Two rows in two regimes, each with one weight and two seeds in the end."""
    rows = ("fitnet:32", "ekd_decisions:8+fitnet:32")
    return StudyPlan(
        about="a test",
        teacher="packaged",
        student=TrainConfig(steps=2, device="cpu"),
        sets={name: People(*numbers) for name, numbers in SMALL.items()},
        regimes={
            "none": Regime("new", rows, labels=False),
            "wrong": Regime("new", rows, wrong_labels=0.3),
        },
        grid=(1.0,),
        extensions=0,
        search_seeds=(100,),
        final_seeds=(1, 2),
        choose_at=(0.1, 0.05),
        calibrated_at=1e-2,
        resamples=50,
    )


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def line(run, score):
    return {**{k: str(v) for k, v in dataclasses.asdict(run).items()}, "score": str(score)}


def follow(plan, score_of):
    """Every run that the study asks for, if a weight scores what it scores here."""
    lines = []
    while runs := wanted(plan, lines):
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
def test_the_search_goes_on_at_an_end_and_then_stops(small, score_of, searched, chosen):
    plan = dataclasses.replace(
        small,
        regimes={"new": Regime("new", ("fitnet:8", "none"))},
        grid=(1, 0.5, 2),
        extensions=2,
        search_seeds=(0, 9),
        final_seeds=(1, 2, 3),
    )
    lines = follow(plan, score_of)
    weights = {
        stage: {float(x["setting"][7:]) for x in lines if (x["row"], x["stage"]) == (row, stage)}
        for row, stage in (("fitnet:8", "search"), ("fitnet:8", "final"))
    }
    assert weights == {"search": searched, "final": {chosen}}
    counts = {row: sum(x["row"] == row for x in lines) for row in ("fitnet:8", "none")}
    assert counts == {"fitnet:8": 2 * len(searched) + 3, "none": 3}  # nothing to search
    assert students_of(plan, "fitnet:8") == (9, 13)
    assert students_of(plan, "none") == (3, 3)
    assert students_of(dataclasses.replace(plan, grid=(2,)), "fitnet:8") == (3, 3)


def test_what_is_left_is_what_is_not_done(small):
    plan = dataclasses.replace(small, grid=(0.5, 1, 2), extensions=1)
    key = "none", "fitnet:32"
    assert students_left(plan, [])[key] == (5, 6)
    lines = []
    while runs := wanted(plan, lines):
        least, most = students_left(plan, lines)[runs[0].regime, runs[0].row]
        lines.append(line(runs[0], float(runs[0].setting[7:]) if "+" not in runs[0].row else 0))
        after = students_left(plan, lines)[runs[0].regime, runs[0].row]
        assert after in ((least - 1, most - 1), (least, most - 1), (0, 0))
    assert set(students_left(plan, lines).values()) == {(0, 0)}
    assert len([x for x in lines if (x["regime"], x["row"]) == key]) == 6  # best at the end


@pytest.mark.parametrize("name", recipe_names(studies=True))
def test_the_recipes_can_be_run(name):
    """Reading them has checked sets, rows and seeds; here by other means."""
    plan = load_study(name)
    people = [
        number
        for s in plan.sets.values()
        for number in range(s.first, s.first + s.people)
    ]  # fmt: skip
    assert len(set(people)) == len(people)
    for regime in plan.regimes.values():
        assert len(set(regime.rows)) == len(regime.rows) >= 3
        for row in regime.rows:
            for method in parse_method(row):
                assert regime.labels or not DISTILLERS[method].needs_labels
    assert plan.needs_threshold
    assert ("not run" in plan.about) == name.startswith("study-gpu")


def test_the_short_study_has_the_chosen_weights_and_what_it_says_of_its_minutes():
    """18 students, none to search; its words say how many images are seen and rendered."""
    plan = load_study("study-gpu-short")
    runs = wanted(plan, [])
    assert {run.stage for run in runs} == {"final"} and len(runs) == 18
    with (RESULTS / "decisive.csv").open(encoding="utf-8", newline="") as file:
        chosen = {(x["regime"], x["setting"]) for x in csv.DictReader(file)}
    assert {(run.regime, run.setting) for run in runs} <= chosen
    assert isinstance(plan.teacher, TrainConfig)
    seen = [net.steps * (net.general + 4 * net.identities) for net in (plan.teacher, plan.student)]
    faces = sum(s.people * s.images for s in plan.sets.values())
    all_seen = f"{18 * seen[1] / 1e6:.1f} million"
    for number in (f"= {seen[0]:,} images", all_seen, f"{faces:,} faces"):
        assert number in plan.about
    minutes = [seen[0] / 2500 / 60, 18 * seen[1] / 5000 / 60, faces * 0.009 / 16 / 60, 18 * 10 / 60]
    said = re.findall(r"([\d.]+) minutes", plan.about.partition("guessed rates")[2])
    assert [float(text) for text in said] == [round(m, 1) for m in minutes]
    assert sum(minutes) == pytest.approx(20, abs=0.5)


def test_the_recorded_study_is_that_of_the_recipe():
    """Every recorded line is one that the recipe asks for, and its choices are the recipe's."""
    plan, lines = load_study("study"), rows_of(RESULTS / "decisive_runs.csv")
    assert lines
    search = [x for x in lines if x["stage"] == "search"]
    for k, x in enumerate(lines):
        before = [y for y in lines if y is not x and (y in search or x["stage"] == "final")]
        if x["stage"] == "search":  # asked for as soon as weights next to it are known
            factors = [float(f) * 2.0**e for f in (1,) for e in range(-4, 5)]
            assert x["setting"] in {scaled(x["row"], f) for f in factors}, k
            assert int(x["seed"]) in plan.search_seeds
        else:
            runs = wanted(plan.only([x["row"]], [x["regime"]]), before)
            assert (x["setting"], int(x["seed"])) in {(r.setting, r.seed) for r in runs}, k
        assert int(x["steps"]) == plan.student.steps
        assert x["row"] in plan.regimes[x["regime"]].rows


def test_a_form_of_ekd_is_compared_with_its_likes_and_with_the_controls():
    of = {row: row for row in load_study("study").regimes["own"].rows}
    assert [row for row in of if is_ekd(row)] == [
        "ekd_decisions:128+fitnet:32", "ekd_gallery:128", "ekd_fine:128+fitnet:32",
        "ekd_gallery:128+fitnet:32", "ekd:64",
    ]  # fmt: skip
    alone = opponents("ekd:64", of)
    assert alone["the best rival"] == ["fitnet:32", "dkd:2", "adadistill:1", "none", "kd:16"]
    assert list(alone) == ["the best rival", "fitnet alone"]  # no control stands alone
    beside = opponents("ekd_fine:128+fitnet:32", of)
    assert {"dkd:2", "dkd:2+fitnet:32", "triplet:8+fitnet:32"} < set(beside["the best rival"])
    assert not any("ekd" in row for row in beside["the best rival"])
    assert beside["ekd_labels beside FitNet"] == ["ekd_labels:128+fitnet:32"]
    assert beside["ekd_l2 beside FitNet"] == ["ekd_l2:2048+fitnet:32"]


def test_a_share_of_the_labels_is_wrong():
    labels = torch.arange(4000) // 4
    wrong = study.labels_with_errors(labels, 0.3) != labels
    assert 0.28 < float(wrong.double().mean()) < 0.32
    assert torch.equal(wrong, study.labels_with_errors(labels, 0.3) != labels)


class Here:
    """`Runner`, in this process; stops before student number `limit`."""

    limit = 10**6
    done: list = []  # noqa: RUF012 - set anew by the fixture

    def __init__(self, work, plan, label, *, processes):
        self.work, self.plan = pickle.loads(pickle.dumps(work)), plan  # noqa: S301
        assert re.fullmatch(r"\d+ of at most \d+ students", label)

    def run(self):
        for name, config in self.plan.items():
            if len(Here.done) == Here.limit:
                raise KeyboardInterrupt
            self.work.say(name, self.work.do(name, config, lambda *_: None), lambda _: None)
            Here.done.append(name)


@pytest.fixture
def here(monkeypatch, tmp_path):
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "Runner", Here)
    Here.limit, Here.done = 10**6, []
    yield
    torch.set_num_threads(threads)


def test_a_study_from_start_to_end_after_two_stops(small, tmp_path, here, capsys):
    out, small = tmp_path / "a", dataclasses.replace(small, grid=(0.5, 1.0))
    for Here.limit in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            run_study(small, out)
    Here.limit = 10**6
    run_study(small, out)
    assert len(Here.done) == len(set(Here.done)) == 2 * 2 * (2 + 2)
    run_study(small, out)
    assert len(Here.done) == 16
    text = capsys.readouterr().out
    assert text.strip().endswith("study.csv gains.csv study.md study_1e-1.png study_5e-2.png")
    assert "30 people: 450 genuine and 15,660 impostor pairs" in text

    runs = rows_of(out / "runs.csv")
    assert list(runs[0]) == list(rows_of(RESULTS / "decisive_runs.csv")[0])
    labels = {name: small.sets[name].faces(32).labels for name in ("validation", "test")}
    tprs = {}
    for run in runs:
        folder = out / run["regime"] / f"{run['setting'].replace(':', '')}-{run['seed']}"
        config = json.loads((folder / "config.json").read_text())
        assert (config["identity_weight"] == 0) == (run["regime"] == "none")
        rows = load_file(folder / "rows.safetensors")
        assert rows.keys() == ({"validation"} if run["stage"] == "search" else labels.keys())
        tpr = all_pairs_tpr_at_fpr(rows["validation"], labels["validation"], small.choose_at)
        assert float(run["score"]) == pytest.approx(100 * float(tpr.mean()), abs=6e-4)
        if run["stage"] == "final":
            tpr = all_pairs_tpr_at_fpr(rows["test"], labels["test"], small.choose_at)
            tprs.setdefault((run["regime"], run["row"]), []).append(100 * tpr.numpy())
    threshold = float((out / "threshold.txt").read_text())
    assert config["teacher_threshold"] == threshold
    means = {key: np.mean(values, 0) for key, values in tprs.items()}
    table = rows_of(out / "study.csv")
    assert [(x["regime"], x["row"]) for x in table] == list(means)
    for x in table:
        for k, name in enumerate(("tpr@1e-1", "tpr@5e-2")):
            assert float(x[name]) == pytest.approx(means[x["regime"], x["row"]][k], abs=0.006)
            assert float(x[f"{name}_low"]) <= float(x[name]) <= float(x[f"{name}_high"])
    gains = rows_of(out / "gains.csv")
    minus = ["the best rival", "fitnet alone"]
    assert [(x["regime"], x["minus"]) for x in gains] == [
        (regime, name) for regime in small.regimes for name in minus
    ]
    for x in gains:  # FitNet is the only rival
        gap = means[x["regime"], x["row"]] - means[x["regime"], "fitnet:32"]
        assert float(x["gain@1e-1"]) == pytest.approx(gap[0], abs=0.006)
        assert float(x["gain@1e-1_low"]) <= float(x["gain@1e-1"]) <= float(x["gain@1e-1_high"])
        assert bool(x["p@1e-1"]) == bool(x["p_all@1e-1"]) == (x["minus"] == minus[0])

    for change in ({"calibrated_at": 0.05}, {"sets": small.sets | {"other": People(2000, 9, 9)}}):
        with pytest.raises(ValueError, match="holds results of other options"):
            run_study(dataclasses.replace(small, **change), out)
    # Rows that join later leave what is there alone, and fewer rows leave the others in the table.
    run_study(small.only(["fitnet"], ["none"]), out)
    assert rows_of(out / "study.csv") == table
    assert len(Here.done) == 16
    # A row that lacks a seed is in no table, and the page says so.
    write_table(out / "runs.csv", [x for x in runs if (x["row"], x["seed"]) != (FITNET, "2")])
    write_study(small, out, rows_of(out / "runs.csv"), small.resamples)
    assert rows_of(out / "study.csv") == [x for x in table if x["row"] != FITNET]
    page = (out / "study.md").read_text(encoding="utf-8")
    assert f"Left out until all their students are there: {FITNET} (none, 1 of 2 seeds)" in page


def test_of_strangers_kd_gets_means_for_prototypes():
    """Who needs none is taught by the same teacher everywhere."""
    plan = load_study("study")
    work = study.StudyWork(plan, Path(), DEMO_TEACHER, {}, 1)
    for name, regime in plan.regimes.items():
        assert work._teacher(regime, "qud:4").head is not None
        assert (work._teacher(regime, "fitnet:32+dkd:2").head is None) == (name != "own")


def test_a_teacher_is_trained_once_or_refused(small, tmp_path, here):
    teacher = TrainConfig(backbone="tiny_teacher", steps=2, device="cpu")
    plan = dataclasses.replace(
        small, teacher=teacher, regimes={"own": Regime("own", ("fitnet:32",))}
    )
    file, threshold = study._prepare(plan, tmp_path / "a")
    assert (file, threshold) == (tmp_path / "a" / "teacher", None)
    assert load_file(tmp_path / "a/teacher_own.safetensors")["embeddings"].shape == (320, 128)
    before = (file / "model.safetensors").stat().st_mtime_ns
    study._prepare(plan, tmp_path / "a")
    assert (file / "model.safetensors").stat().st_mtime_ns == before
    smaller = dataclasses.replace(small, student=TrainConfig(image_size=16, steps=2, device="cpu"))
    with pytest.raises(ValueError, match="takes images of 32 pixels: a study needs a net for the"):
        run_study(smaller, tmp_path / "b")
    with pytest.raises(ValueError, match="validation people cannot show FPR 1e-4"):
        run_study(dataclasses.replace(small, choose_at=(1e-4,)), tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        run_study(dataclasses.replace(small, teacher="nowhere"), tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert not Here.done


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regimes": {"a": Regime("own", ("fitnett:1",))}}, "did you mean 'fitnet'"),
        ({"regimes": {"a": Regime("own", ("kd:1", "kd:2"))}}, "are one method"),
        ({"regimes": {"a": Regime("own", ("kd:1",), labels=False)}}, "'kd' needs them"),
        ({"regimes": {"a": Regime("own", ("none",), labels=False)}}, "nothing to learn from"),
        ({"regimes": {"a": Regime("others", ("none",))}}, "no set 'others', needed by regime a"),
        ({"regimes": {"a": Regime("own", ("none",), wrong_labels=1)}}, "wrong_labels is a share"),
        ({"regimes": {}}, "needs a regime"),
        ({"sets": {"new": People(0, 9, 9), "test": People(5, 9, 9)}}, "in 'new' and 'test'"),
        ({"sets": {"new": People(0, 9, 9)}}, "no set 'calibration', needed for the teacher's"),
        ({"sets": {"new": People(0, 9, 1)}}, "two images of each"),
        ({"grid": (1, 1)}, "each once"),
        ({"grid": (0.0,)}, "positive"),
        ({"final_seeds": (1, 100)}, "share none"),
        ({"final_seeds": (1,)}, "two or more"),
        ({"search_seeds": ()}, "share none"),
        ({"choose_at": ()}, "rates in"),
        ({"calibrated_at": 0.0}, "rates in"),
        ({"processes": 0}, "processes"),
        ({"student": TrainConfig(method="sp", teacher="t")}, "no method of their own"),
        ({"teacher": TrainConfig(image_size=64)}, "images of the same size"),
    ],
)
def test_a_study_that_cannot_be_is_refused(small, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(small, **change)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A recipe of four rows beside which we stand; a step takes 0.36 s, a teacher's ten times."""
    monkeypatch.chdir(tmp_path)
    recipe = json.loads((RECIPES / "study.json").read_text())
    recipe["regimes"] = {
        "none": {"people": "new", "labels": False, "rows": ["fitnet:32", "qud:4+fitnet:32"]},
        "new": {"people": "new", "rows": ["fitnet:32", "none"]},
    }
    recipe["student"]["steps"] = 1000
    Path("mine.json").write_text(json.dumps(recipe), encoding="utf-8")

    def cost(config, **options):
        assert options["num_identities"] == 1000
        seconds = 3.6 if config.backbone == "tiny_teacher" else 0.36
        return Estimate(2**18, 2**18, 2**22, 0, seconds)

    monkeypatch.setattr(dry_run, "estimate", cost)
    monkeypatch.setattr(dry_run, "_seconds_an_image", lambda size: 0.006)
    return recipe


def test_a_dry_run_counts_what_is_left(mine, tmp_path, capsys):
    assert main(["compare", "--recipe", "mine.json", "--dry-run"]) == 0
    text, said = capsys.readouterr()
    assert "timing steps of 4 kinds, 96 images of 32 pixels each" in said  # though no bar is shown
    for expected in (
        r"none +2 rows +16 to +20 students +2.0 core hours",
        r"new +2 rows +13 to +15 students +1.5 core hours",  # 8 to 10, and the student alone: 5
        r"in all +29 to 35 students of 1,000 steps beside 0 that are finished: at most 3.5 core",
        r"disk +0.3 GiB of runs, 0.3 GiB of faces, rendered once: 9 minutes on",  # 35 of 10 MiB
        r"milliseconds a step: .*qud\+fitnet 360",
    ):
        assert re.search(expected, text), expected
    assert [p.name for p in tmp_path.iterdir()] == ["mine.json"]

    (tmp_path / "a").mkdir()
    done = wanted(load_study("mine.json").only(["none"]), [])[:1]
    write_table(tmp_path / "a" / "runs.csv", [line(run, 1) for run in done])
    arguments = ["compare", "--recipe", "mine.json", "--dry-run", "--out", "a"]
    assert main([*arguments, "--regimes", "new", "--only", "none"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"in all +4 to 4 students .* beside 1 that are finished", text)
    assert not re.search(r"^none ", text, re.MULTILINE)

    mine["teacher"] = {"backbone": "tiny_teacher", "steps": 2000, "device": "cpu"}
    Path("mine.json").write_text(json.dumps(mine), encoding="utf-8")
    assert main(["compare", "--recipe", "mine.json", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"teacher +2,000 steps +2.0 core hours", text)
    assert "at most 5.5 core hours" in text


def test_files_that_are_no_json_are_named(tmp_path):
    recipe, options = tmp_path / "mine.json", tmp_path / "config.json"
    recipe.write_bytes(b'{"name": "\xe9"}')
    with pytest.raises(ValueError, match=r"mine\.json is no study: .*can't decode"):
        load_study(str(recipe))
    for content in ("", "[1]", "[" * 200_000):
        options.write_text(content)
        with pytest.raises(ValueError, match=r"config\.json is damaged \(.*choose another --out"):
            record_options(tmp_path, {"steps": 1})
        assert options.read_text() == content


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"final_seeds"', '"seeds"', "is no study: StudyPlan.__init__() got an unexpected keyword"),
        ('"first"', '"begin"', "is no study: People.__init__() got an unexpected keyword"),
        ('"teacher": "packaged", ', "", "is no study: it has no 'teacher'"),
        ("tiny_student", "tiny_studen", "did you mean 'tiny_student'"),
        ("fitnet:32", "fitnet:x", "the weight of 'fitnet' in"),
        ('"first": 10000', '"first": 1', "the same people stand in 'own' and 'new'"),
        ('"first": 10000', '"first": "a"', "is no study: '<' not supported"),
        ("{", "[", "is no study: "),
        ("{", "[" * 20_000, "is no study: "),
    ],
)
def test_a_bad_recipe_is_one_message(mine, capsys, old, new, message):
    text = Path("mine.json").read_text(encoding="utf-8")
    assert old in text
    Path("mine.json").write_text(text.replace(old, new), encoding="utf-8")
    assert main(["compare", "--recipe", "mine.json"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("mine.json") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "studdy"], "did you mean 'study'"),
        (["--recipe", "study", "--only", "fitnett"], "did you mean 'fitnet'"),
        (["--recipe", "study", "--regimes", "nne"], "did you mean 'none'"),
        (["--recipe", "study", "--only", "dkd", "--regimes", "none"], "no method of the study"),
        (["--recipe", "study", "runs/demo"], "give --recipe without"),
        (["--recipe", "study", "--faces", "."], "give --recipe without"),
        (["--recipe", "study", "--resamples", "0"], "at least 1"),
        (["runs/demo", "--regimes", "none"], "belong to a study"),
        (["--recipe", "no.json"], "no.json"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_fewer_rows_are_those_that_match(small):
    plan = small.only(["ekd_*"], ["none"])
    assert {n: r.rows for n, r in plan.regimes.items()} == {
        "none": ("ekd_decisions:8+fitnet:32",),
        "wrong": (),
    }
    assert small.only(["fitnet:32", "ekd_decisions+fitnet"]) == small == small.only()
    assert plan.shared() == small.shared()


def test_the_figure_has_a_panel_a_regime_with_the_best_on_top():
    def result(*tprs):
        values = torch.tensor(tprs, dtype=torch.float64)
        return BootstrapResult((1e-3, 1e-4), values, values - 0.01, values + 0.01, values[None])

    means = {"fitnet:32": result(0.9, 0.8), "ekd:64": result(0.92, 0.7), "none": result(0.8, 0.6)}
    runs = {row: [found, found] for row, found in means.items()}
    regimes = {"new": (runs, means), "empty": ({}, {}), "own": (runs, {"ekd:64": means["ekd:64"]})}
    for fpr, order in ((1e-3, ["ekd", "fitnet"]), (1e-4, ["fitnet", "ekd"])):
        panels = study_figure(regimes, fpr).axes
        assert [panel.get_title(loc="left") for panel in panels] == ["regime: new", "regime: own"]
        names = [label.get_text() for label in panels[0].get_yticklabels()]
        assert names == [*order, "student alone"]
        bold = [label.get_text() for label in panels[0].get_yticklabels()
                if label.get_fontweight() == "bold"]  # fmt: skip
        assert bold == ["ekd"]
        assert f"1e-{3 if fpr == 1e-3 else 4}" in panels[-1].get_xlabel()
