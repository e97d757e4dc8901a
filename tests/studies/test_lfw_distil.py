"""The script that distils on real faces, as far as it can go without them."""

import csv
import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.evaluate import all_pairs_tpr_at_fpr
from tests.oracles.seeds import draws_over_seeds

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(STUDIES))
    try:
        import lfw_distil
    finally:
        sys.path.remove(str(STUDIES))
    return lfw_distil


@pytest.fixture
def data(tmp_path):
    """Forty people, the k-th with as many images as k says; the index is not in order."""
    rows = []
    for k in range(40):
        for i in range(1 + (k % 4)):
            file = tmp_path / "lfw112" / f"p{k:02}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (112, 112), (6 * k, 40 * i, 0)).save(file)
            rows.append((f"p{k:02}", f"p{k:02}/{i}.png", "test" if k % 3 == 0 else "train"))
    rows.reverse()
    with (tmp_path / "lfw_index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("identity", "file", "dev_split"), *rows])
    embeddings = np.zeros((len(rows), 128), np.float16)
    embeddings[:, 0] = [float(row[0][1:]) for row in rows]  # says who it is
    np.save(tmp_path / "lfw_sface_embeddings.npy", embeddings)
    return tmp_path


def test_people_are_in_one_part_and_rows_find_their_image(script, data, tmp_path):
    parts = script.split_people(script.read_index(data))
    people = [name for part in parts.values() for name in part]
    assert len(people) == len(set(people)) == 40
    order = sorted((k for k in range(40) if k % 3), key=lambda k: (-(k % 4), k))  # by images
    assert parts["validation"] == sorted(f"p{order[i]:02}" for i in (9, 19))
    assert parts["test"] == [f"p{k:02}" for k in range(0, 40, 3)]
    assert script.read_all(data, tmp_path / "work")[2].square().mean() == pytest.approx(1)
    for part, names in parts.items():
        faces = script.read_faces(data, tmp_path / "work", part)
        who = [names[label] for label in faces.images.labels.tolist()]
        assert who == [file.split("/")[0] for file in faces.files]
        says = faces.teacher[:, 0] / faces.teacher[:, 0].max()
        true = torch.tensor([float(name[1:]) for name in who])
        assert torch.allclose(says, true / true.max())
        assert (faces.images.batch([0])[0, 0] - (6 * true[0] / 127.5 - 1)).abs().max() < 0.02
    half = script.read_faces(data, tmp_path / "work", "train", 0.5, 1)
    assert half.images.num_identities == 12
    assert half.images.labels.unique().tolist() == list(range(12))
    for seed in (1, 2):
        again = script.read_faces(data, tmp_path / "work", "train", 0.5, seed)
        assert (again.files == half.files) == (seed == 1)


CHANGES = [
    {"method": "fitnet:4"},
    {"seed": 1},
    {"margin": 0.2},
    {"labels": False},
    {"backbone": "tiny_teacher"},
    {"share": 0.5},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_run_is_known_by_all_that_it_does(script, tmp_path, change):
    """Its folder and its row: another run finds neither, the same one both."""
    run = script.Run("final", "fitnet:16", 0, 0.4)
    other = dataclasses.replace(run, **change)
    assert other.name != run.name
    assert dataclasses.replace(run, stage="size").name == run.name  # trained once
    table = script.Table(tmp_path / "table.csv")
    people = {"people": "100"}
    table.add(row_of(script, run) | people)
    table = script.Table(tmp_path / "table.csv")  # as a second call finds it
    assert table.has(run, 100)
    assert not table.has(other, round(100 * other.share))
    assert not table.has(dataclasses.replace(run, stage="size"), 100)
    assert script.run_of(row_of(script, other)) == dataclasses.replace(other, share=1.0)


def row_of(script, run, tpr=0.0):
    return {
        "stage": run.stage,
        "method": run.method,
        "labels": "yes" if run.labels else "no",
        "backbone": run.backbone,
        "margin": f"{run.margin:g}",
        "seed": str(run.seed),
        **dict.fromkeys(script.TPR, "0"),
        "tpr@1e-3": str(tpr),
    }


def test_choices_are_made_by_validation_rows_of_the_same_margin_and_losses(script, tmp_path):
    table = script.Table(tmp_path / "table.csv")
    tprs = {("none", 0.0): 3, ("none", 0.2): 5, ("none", 0.4): 4, ("fitnet:16", 0.0): 99}
    tprs |= {("kd:8", 0.2): 7, ("fitnet:4", 0.2): 8, ("ekd:64", 0.2): 6}
    tprs |= {("ekd:8+fitnet:64", 0.2): 20, ("ekd:32+fitnet:64", 0.2): 30}
    for method, margin in (("none", 0.4), ("kd:2", 0.2)):  # of an earlier call
        table.add(row_of(script, script.Run("final", method, 0, margin), 100))
    seen = []
    for runs in script.stages(table, ["ekd:W+fitnet:64"]):
        seen.append(runs)
        for run in runs:
            tpr = tprs.get((run.method, run.margin), 1)
            table.add(row_of(script, run, tpr) | {"tpr@1e-2": str(-tpr)})
        table.add(row_of(script, script.Run("choose", "fitnet:64", 0, 0.0), 99))
    margins, weights, *finals, size, larger = seen
    assert [run.margin for run in margins] == [0.0, 0.2, 0.4]
    assert {run.margin for run in weights + finals[0]} == {0.2}
    assert {(run.stage, run.seed) for run in margins + weights} == {("choose", 0)}
    assert len(weights) == 3 * 4
    expected = ["none", "kd:8", "fitnet:4", "ekd:64", "ekd:32+fitnet:64", "ekd:64+fitnet:4"]
    for seed, runs in enumerate(finals):
        assert [run.method for run in runs] == [*expected, "fitnet:4"]
        assert [run.labels for run in runs] == [True] * 6 + [False]
        assert {(run.stage, run.seed) for run in runs} == {("final", seed)}
    assert len(finals) == 3
    assert [(r.share, r.seed) for r in size] == [(s, i) for s in (0.25, 0.5) for i in range(3)]
    assert [(r.backbone, r.seed) for r in larger] == [("tiny_teacher", i) for i in range(3)]
    assert not any(run.labels for run in size + larger)


def test_training_gets_what_the_run_says(script, data, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(script, "load_model", lambda path: path)
    monkeypatch.setattr(script, "fit", lambda *args, **rest: calls.append((*args, rest)))
    run = script.Run("size", "fitnet:4", 2, 0.2, labels=False, backbone="tiny_teacher", share=0.5)
    for each in (run, script.Run("choose", "none", 0, 0.4)):
        script.train(each, data, tmp_path / "work")
        config, images, folder, rest = calls.pop()
        faces = script.read_faces(data, tmp_path / "work", "train", each.share, each.seed)
        if each.method == "none":
            assert rest["teacher"] is None
        else:
            assert all(torch.equal(rows, faces.teacher) for rows in rest["teacher"].rows)
            assert len(rest["teacher"].rows) == 2
        assert torch.equal(images.labels, faces.images.labels)
        assert folder == tmp_path / "work" / each.name
        for name in ("backbone", "margin", "method", "seed"):
            assert getattr(config, name) == getattr(each, name)
        assert config.identity_weight == each.labels


@pytest.mark.parametrize(("stage", "on"), [("choose", "validation"), ("final", "test")])
def test_measured_on_validation_for_choices_and_on_test_in_the_end(
    script, data, tmp_path, monkeypatch, stage, on
):
    monkeypatch.setattr(script, "LEVELS", (0.5, 0.4, 0.3, 0.2))  # that few people can show
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: None)
    faces = script.read_faces(data, tmp_path / "work", on)
    rows = torch.randn(len(faces.files), 8, generator=torch.Generator().manual_seed(0))
    model = SimpleNamespace(backbone=None, info={"train_seconds": 3.5})
    monkeypatch.setattr(script, "train", lambda *args: model)
    monkeypatch.setattr(script, "on_pairs", lambda *args: [SimpleNamespace(accuracy=0.5)])
    found = []
    for method, scale in (("fitnet:4", 3), ("none", 1)):  # nets of the same cosines
        monkeypatch.setattr(script, "embed", lambda net, images, by=scale: by * rows)
        run = script.Run(stage, method, 1, 0.4)
        found.append(script.carry_out((run, data, tmp_path / "work")))
    row = found[1]
    assert found[0] | {"method": "none"} == row  # the same draws of people
    assert (row["on"], row["people"], row["seed"]) == (on, "24", "1")
    tpr = 100 * all_pairs_tpr_at_fpr(rows, faces.images.labels, [0.5]).item()
    assert float(row["tpr@1e-2"]) == pytest.approx(tpr, abs=0.006)
    if on == "test":
        assert float(row["tpr@1e-2_low"]) < tpr < float(row["tpr@1e-2_high"])
        kept = script.read_result(tmp_path / "work" / run.name)
        assert 100 * kept.estimate[0].item() == pytest.approx(tpr)


def drawn(seeds):
    """Mean over seeds and its draws at the first level, in percent; a seed's first draw is it."""
    estimates = [100 * draws[0, 0] for draws in seeds]
    return np.mean(estimates), draws_over_seeds(estimates, [100 * draws[:, 0] for draws in seeds])


def test_differences_are_of_means_over_seeds_by_the_same_draws(script, tmp_path):
    table = script.Table(tmp_path / "table.csv")
    generator = torch.Generator().manual_seed(0)
    samples, alone, fitnet = {}, ("none", True), ("fitnet:4", True)
    keys = [alone, ("fitnet:4", False), fitnet, ("ekd:8", True)]
    for method, labels in keys:
        for seed in range(3):
            run = script.Run("final", method, seed, 0.4, labels=labels)
            draws = torch.rand(200, 4, generator=generator, dtype=torch.float64)
            arrays: dict[str, Any] = {
                "embeddings": draws.numpy(),
                "estimate": draws[0].numpy(),
                "samples": draws.numpy(),
            }
            (tmp_path / run.name).mkdir()
            np.savez(tmp_path / run.name / "test.npz", **arrays)
            samples.setdefault((method, labels), []).append(draws.numpy())
            table.add(row_of(script, run))
        table.add(row_of(script, script.Run("size", method, 0, 0.4, labels=labels)))
    for _ in range(2):  # made anew by every call
        script.compare(table, tmp_path)
    rows = {(r["stage"], r["method"], r["labels"] == "yes"): r for r in table.rows if not r["seed"]}
    assert len(rows) == sum(not row["seed"] for row in table.rows) == 4 + 3 + 3
    for (stage, *key), row in rows.items():
        mine, draws = drawn(samples[tuple(key)])
        if stage != "mean":
            other, others = drawn(samples[alone if stage == "minus" else fitnet])
            mine, draws = mine - other, draws - others
        assert float(row["tpr@1e-2"]) == pytest.approx(mine, abs=0.006)
        ends = np.percentile(draws, [2.5, 97.5])
        found = [float(row[f"tpr@1e-2_{end}"]) for end in ("low", "high")]
        assert found == pytest.approx(ends.tolist(), abs=0.006)


def test_pictures_of_real_people_stay_out_of_the_repository(script, tmp_path, monkeypatch):
    for name in script.FILES:
        (tmp_path / name).touch()
    inside = str(script.OUT.parent / "runs")
    monkeypatch.setattr(sys, "argv", ["", "--data", str(tmp_path), "--work", inside])
    with pytest.raises(SystemExit, match="outside of the repository"):
        script.main()


def test_says_what_is_missing(script, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", "--data", str(tmp_path), "--work", str(tmp_path)])
    with pytest.raises(SystemExit, match="lacks lfw112"):
        script.main()
