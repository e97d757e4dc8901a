"""`ekd-lite compare`: what its table says is what the runs' folders and their nets say."""

import csv
import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.__main__ import main
from ekd_lite.data import ImageFolder, load_splits
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.experiments import figures, group_runs, read_runs
from ekd_lite.plots import COLOURS
from ekd_lite.train import TrainConfig, fit, load_model
from tests.fakes import ColourFaces

pytestmark = [
    pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs"),
    pytest.mark.filterwarnings("ignore:.*eyes are not where aligned"),
]
SMALL: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 16,
    "steps": 6,
    "general": 8,
    "identities": 4,
    "images_per_identity": 3,
    "log_every": 2,
    "checkpoint_every": 2,
    "device": "cpu",
}
FPRS = (1e-1, 1e-2)


class Killed(Exception):
    pass


def kill_at_four(state, metrics):
    if state.step == 4:
        raise Killed


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Thirty people in people/; in runs/ a teacher, two seeds alone, one distilled, one killed."""
    work = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    for identity in range(30):
        folder = work / "people" / f"person{identity:02}"
        folder.mkdir(parents=True)
        pattern = rng.uniform(30, 220, (16, 16, 3))
        for image in range(6):
            pixels = (pattern + rng.normal(0, 60, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.png")
    faces = load_splits(work / "people", image_size=16).train
    teacher = str(work / "runs" / "teacher")
    fit(TrainConfig(backbone="tiny_teacher", **SMALL), faces, work / "runs" / "teacher")
    for seed in (0, 1):
        fit(TrainConfig(seed=seed, **SMALL), faces, work / "runs" / f"alone-{seed}")
    distilled = {"method": "ekd", "teacher": teacher, **SMALL}
    fit(TrainConfig(**distilled), faces, work / "runs" / "ekd-0")
    with pytest.raises(Killed):
        fit(
            TrainConfig(seed=1, **distilled),
            faces,
            work / "runs" / "ekd-1",
            on_step=kill_at_four,
        )
    return work


@pytest.fixture
def runs(work, tmp_path, monkeypatch):
    """A copy of the runs to damage, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(work / "runs", tmp_path / "runs")
    return tmp_path / "runs"


def compare(*arguments, faces=None):
    options = ["--resamples", "40", "--fprs", *map(str, FPRS), "--out", "out"]
    options += [] if faces is None else ["--faces", str(faces)]
    return main(["compare", *map(str, arguments), *options])


def table():
    with open("out/compare.csv", encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def cells_of(text, name):
    return [c.strip() for c in next(x for x in text if x.startswith(f"| {name} ")).split("|")[1:-1]]


def test_end_to_end(work, runs, capsys):
    assert compare("runs/alone-0", "runs/alone-1", "runs/ekd-0", faces=work / "people") == 0
    rows = table()
    test = load_splits(work / "people", image_size=16).test
    expected = {}
    for name in ("alone-0", "alone-1", "ekd-0"):
        rows_ = embed(load_model(runs / name).backbone, test)
        expected[name] = 100 * all_pairs_tpr_at_fpr(rows_, test.labels, FPRS)
        row = rows[name]
        last = json.loads((runs / name / "log.jsonl").read_text().splitlines()[-1])
        assert float(row["final_loss"]) == last["loss"]
        weights = load_model(runs / name).backbone.parameters()
        assert int(row["parameters"]) == sum(w.numel() for w in weights)
        assert (row["steps"], row["note"]) == ("6", "")
        assert int(row["macs"]) > 0
        assert float(row["train_seconds"]) >= 0
        for fpr, tpr in zip(("1e-1", "1e-2"), expected[name].tolist(), strict=True):
            assert float(row[f"tpr@{fpr}"]) == pytest.approx(tpr, abs=0.006)
            assert float(row[f"tpr@{fpr}_low"]) <= float(row[f"tpr@{fpr}_high"])
            difference = float(row[f"tpr@{fpr}"]) - float(rows["alone-0"][f"tpr@{fpr}"])
            assert float(row[f"difference@{fpr}"]) == pytest.approx(difference, abs=0.011)
    assert [row["group"] for row in rows.values()] == ["alone", "alone", "ekd-0"]
    output = capsys.readouterr().out
    assert (runs.parent / "out" / "compare.md").read_text() in output
    lines = output.splitlines()
    costs, tprs, differences = (lines[k:] for k, x in enumerate(lines) if x.startswith("| run "))
    assert cells_of(costs, "alone")[:7] == [
        *("alone", "none", "tiny_student", "0 1"),
        *(f"{int(rows['alone-0'][name]):,}" for name in ("parameters", "macs")),
        "6",
    ]
    both = torch.stack([expected["alone-0"], expected["alone-1"]])
    mean, deviation = both.mean(0)[0], both.std(0)[0]
    assert cells_of(tprs, "alone")[1] == "2"
    assert cells_of(tprs, "alone")[2].startswith(f"{mean:.1f} ± {deviation:.1f} [")
    difference = expected["ekd-0"][0] - mean
    assert cells_of(differences, "ekd-0")[1] == "alone"
    assert cells_of(differences, "ekd-0")[2].strip("*").startswith(f"{difference:+.1f} [")
    assert f"{len(test)} test images of {test.num_identities} identities" in output
    with Image.open("out/compare.png") as figure:
        assert figure.size == (1950, 750)


def test_a_run_that_is_not_finished_is_listed_and_not_tested(work, runs, capsys):
    assert compare("runs/ekd-1", "runs/alone-0", "runs/ekd-0", faces=work / "people") == 0
    row = table()["ekd-1"]
    assert row["note"] == "not finished: step 4 of 6"
    assert (row["steps"], row["group"], row["train_seconds"]) == ("4", "ekd", "")
    assert (row["parameters"], row["macs"]) == tuple(
        table()["ekd-0"][name] for name in ("parameters", "macs")
    )
    assert {row[name] for name in row if "@" in name} == {""}
    text = capsys.readouterr().out
    assert "- ekd-1: not finished: step 4 of 6" in text
    lines = [line for line in text.splitlines() if line.startswith("| ekd ")]
    assert [line.split("|")[2].strip() for line in lines] == ["ekd", "1"]
    # The first row that has a finished run is the one that others are compared with.
    assert {table()["ekd-0"][f"difference@1e-1{s}"] for s in ("", "_low", "_high")} == {"0.0"}
    assert "| alone-0 | ekd   |" in text


def test_no_run_is_finished(runs, capsys):
    assert compare("runs/ekd-1") == 0
    assert "TPR" not in capsys.readouterr().out
    with Image.open("out/compare.png") as figure:
        assert figure.size == (975, 750)


def test_a_run_without_a_log_and_a_model_by_itself(work, runs):
    (runs / "alone-0" / "log.jsonl").unlink()
    (runs / "alone-1" / "model.safetensors").rename(runs.parent / "some.net.safetensors")
    assert compare("runs/alone-0", "some.net.safetensors", faces=work / "people") == 0
    rows = table()
    assert list(rows) == ["alone-0", "some.net"]
    assert {row["final_loss"] for row in rows.values()} == {""}
    assert rows["some.net"]["tpr@1e-1"]
    with Image.open("out/compare.png") as figure:
        assert figure.size == (975, 750)


def test_a_folder_of_runs_stands_for_all_of_them(runs):
    names = ["alone-0", "alone-1", "ekd-0", "ekd-1", "teacher"]
    assert [run.name for run in read_runs([runs])] == names
    (runs / "config.json").write_text("{}")  # as a demo leaves one
    (runs / "notes").mkdir()
    assert [run.name for run in read_runs([runs])] == names
    assert list(group_runs(read_runs([runs]))) == ["alone", "ekd", "teacher"]


def test_a_run_that_was_killed_before_its_first_record(runs):
    for name in ("log.jsonl", "log.csv", "checkpoint.pt", "checkpoint.previous"):
        (runs / "ekd-1" / name).unlink(missing_ok=True)
    run = read_runs([runs / "ekd-1"])[0]
    assert run.note == "not finished: step 0 of 6"
    assert run.final_loss is None


def test_procedural_faces_are_the_default_and_of_the_test_split(runs, monkeypatch, capsys):
    sizes = {"train": (0, 6, 2), "validation": (3000, 9, 2), "test": (6000, 12, 2)}
    monkeypatch.setattr("ekd_lite.data.splits.PROCEDURAL", sizes)
    config = TrainConfig(**{**SMALL, "image_size": 32, "steps": 1})
    fit(config, ColourFaces(image_size=32), runs / "larger", progress=False)
    assert compare("runs/larger", "--curve", "loss") == 0
    assert "24 test images of 12 identities" in capsys.readouterr().out
    assert compare("runs/larger", "--set", "validation") == 0
    assert "18 test images of 9 identities" in capsys.readouterr().out


def test_names_tell_runs_apart(runs):
    shutil.copytree(runs, runs.parent / "more")
    (runs / "alone-0").rename(runs / "lr0.1")
    paths = [runs / "lr0.1", runs / "ekd-0", runs.parent / "more/ekd-0/model.safetensors"]
    assert [run.name for run in read_runs(paths[:2])] == ["lr0.1", "ekd-0"]
    assert [run.name for run in read_runs(paths[1:])] == ["runs/ekd-0", "more/ekd-0"]


def rewrite(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_only_seeds_are_averaged(runs):
    def groups():
        read = read_runs([runs / "alone-0", runs / "alone-1"])
        return {name: [r.name for r in members] for name, members in group_runs(read).items()}

    together = {"alone": ["alone-0", "alone-1"]}
    assert groups() == together
    rewrite(runs / "alone-1", log_every=50, checkpoint_every=7, device="cuda", workers=3)
    assert groups() == together
    rewrite(runs / "alone-1", learning_rate=1e-4)
    apart = {"alone-0": ["alone-0"], "alone-1": ["alone-1"]}
    assert groups() == apart
    shutil.rmtree(runs / "alone-1")
    shutil.copytree(runs / "alone-0", runs / "alone-1")  # the same seed: other faces perhaps
    assert groups() == apart


def test_models_by_themselves_are_grouped_by_what_they_say(runs):
    files = [runs / name / "model.safetensors" for name in ("alone-0", "alone-1", "ekd-0")]
    assert list(group_runs(read_runs(files))) == ["alone", "ekd-0"]
    mixed = read_runs([runs / "alone-0", files[1]])  # nothing but the folder knows the rest
    assert list(group_runs(mixed)) == ["alone-0", "alone-1"]


def test_both_panels_give_a_name_one_style(work, runs, monkeypatch):
    """The teacher has no log here and ekd-1 no ROC curve; nobody must take over their colours."""
    drawn = []
    real = figures.compare_figures

    def kept(*args):
        drawn.append(real(*args))
        return drawn[-1]

    monkeypatch.setattr(figures, "compare_figures", kept)
    names = ("teacher/model.safetensors", "ekd-1", "alone-0", "alone-1")
    assert compare(*(runs / name for name in names), faces=work / "people") == 0
    left, right = drawn[0]["compare.png"].axes
    styles = [{x.get_label(): x.get_color() for x in panel.lines} for panel in (left, right)]
    assert styles[0] == {"ekd-1": COLOURS[1], "alone": COLOURS[2]}
    assert styles[1] == {"teacher": COLOURS[0], "alone": COLOURS[2]}
    assert left.get_ylabel() == "identity loss"
    assert left.lines[0].get_xdata().tolist() == [2, 4]


def test_training_people_in_the_test_are_warned_about(work, runs):
    """`train --faces` takes 18 of the 30; a run on the whole folder knows them all."""
    with pytest.warns(UserWarning, match="alone-0 was trained on 18 identities, and .* has 30"):
        assert compare("runs/alone-0", "--set", "all", faces=work / "people") == 0
    faces = ImageFolder(work / "people", image_size=16)
    fit(TrainConfig(**SMALL), faces, runs / "everyone", progress=False)
    with pytest.warns(UserWarning, match="everyone was trained on 30 identities, and .* has 30"):
        assert compare("runs/everyone", faces=work / "people") == 0


def test_nothing_is_embedded_for_rates_that_no_pair_can_show(work, runs, capsys, monkeypatch):
    monkeypatch.setattr("ekd_lite.experiments.compare.embed", lambda *_, **__: pytest.fail("ran"))
    faces = ["--faces", str(work / "people"), "--out", "out"]
    assert main(["compare", "runs/alone-0", *faces, "--fprs", "1e-9"]) == 2
    said = capsys.readouterr()
    # Nine people are the 30 %, with six images each: 54 * 48 / 2 impostor pairs.
    assert "none of the FPRs can be measured: the finest is 0.00077, one pair of 1,296" in said.err
    assert said.out == "" and not list((runs.parent / "out").iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.jsonl", '{"step": 2\n{"step": 4}\n', "log.jsonl is damaged at line 1"),
        ("config.json", "{", "config.json is no training configuration"),
        ("config.json", '{"stepz": 3}', "config.json is no training configuration"),
        ("model.safetensors", "", "model.safetensors is no safetensors file"),
    ],
)
def test_damage_is_named_before_anything_is_measured(runs, capsys, name, content, message):
    (runs / "alone-1" / name).write_text(content)
    assert compare("runs/alone-0", "runs/alone-1", faces="nowhere") == 2
    error = capsys.readouterr().err
    assert f"alone-1/{message}" in error
    assert not (runs.parent / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name one or more runs"),
        (["nowhere"], "no run at nowhere"),
        (["."], "no run at ."),
        (["runs/alone-0", "runs/../runs/alone-0"], "named twice"),
        (["runs/alone-0", "--curve", "identty"], "did you mean 'identity'?"),
        (["runs/alone-0", "--set", "all"], "--set all needs --faces"),
        (["runs/alone-0", "--fprs", "0"], "rates above 0 and up to 1"),
        (["runs/alone-0", "--resamples", "0"], "resamples must be at least 1"),
        (["runs/alone-0", "--device", "gpu"], "unknown device 'gpu'"),
        (["runs/alone-0", "--set", "train"], "train"),
    ],
)
def test_what_cannot_work_is_one_message(runs, capsys, arguments, message):
    try:
        code = main(["compare", *arguments])
    except SystemExit as error:  # tyro's own way out
        code = error.code
    captured = capsys.readouterr()
    assert code == 2
    assert message in " ".join((captured.err + captured.out).replace("│", " ").split())
    assert "Traceback" not in captured.err
