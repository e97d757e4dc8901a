"""The study of real faces, as far as it can go without them."""

import csv
import dataclasses
import sys

import numpy as np
import pytest
import torch

from ekd_lite.evaluate import all_pairs_tpr_at_fpr
from tests.oracles.seeds import draws_over_seeds
from tests.studies.conftest import module

lfw, plan, study, tables = (
    module(name) for name in ("lfw", "real_faces_plan", "real_faces", "real_faces_tables")
)


def test_people_are_in_one_part_and_rows_find_their_image(data, tmp_path):
    parts = lfw.split_people(lfw.read_index(data))
    people = [name for part in parts.values() for name in part]
    assert len(people) == len(set(people)) == 40
    order = sorted((k for k in range(40) if k % 3), key=lambda k: (-(k % 4), k))  # by images
    assert parts["validation"] == sorted(f"p{order[i]:02}" for i in (9, 19))
    assert parts["test"] == [f"p{k:02}" for k in range(0, 40, 3)]
    assert lfw.read_all(data, tmp_path / "work", 32)[2].square().mean() == pytest.approx(1)
    for part, names in parts.items():
        faces = lfw.read_faces(data, tmp_path / "work", part, size=32)
        who = [names[label] for label in faces.images.labels.tolist()]
        assert who == [file.split("/")[0] for file in faces.files]
        says = faces.teacher[:, 0] / faces.teacher[:, 0].max()
        true = torch.tensor([float(name[1:]) for name in who])
        assert torch.allclose(says, true / true.max())
        assert (faces.images.batch([0])[0, 0] - (6 * true[0] / 127.5 - 1)).abs().max() < 0.02
    half = lfw.read_faces(data, tmp_path / "work", "train", size=32, share=0.5, seed=1)
    assert half.images.num_identities == 12
    assert half.images.labels.unique().tolist() == list(range(12))
    for seed in (1, 2):
        again = lfw.read_faces(data, tmp_path / "work", "train", size=32, share=0.5, seed=seed)
        assert (again.files == half.files) == (seed == 1)


CHANGES = [
    {"row": "fitnet"},
    {"seed": 1},
    {"backbone": plan.PHONE},
    {"size": 112},
    {"share": 0.5},
    {"drawn": True},
    {"steps": 7},
    {"recipe": "adamw-32"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_run_is_known_by_all_that_it_does(change):
    run = plan.Run(plan.BARE, 0)
    assert dataclasses.replace(run, **change).name != run.name


def test_the_plan_is_what_its_text_says():
    methods = plan.BLOCKS["methods"]
    assert len(methods) == 7 * 3 and {run.seed for run in methods} == {0, 1, 2}
    assert {run.row for run in methods[:7]} == {
        m.name for m in plan.METHODS
    }  # a seed is whole before the next
    runs = [run for block in plan.BLOCKS.values() for run in block]
    assert len({run.name for run in runs}) == len(set(runs))
    for run in runs:
        config = run.config  # checks itself
        batch = config.general + config.identities * config.images_per_identity
        assert batch == plan.RECIPES[run.recipe][0] and config.flip and config.augment
        assert run.images == batch * run.steps and run.seconds > 0
        assert (config.identity_weight == 0) == ("no labels" in run.row)
        if config.identity_weight == 0:  # no labelled batch either
            assert config.identities == 0 or config.sampler == "neighbours"


@pytest.fixture
def small(data, tmp_path, monkeypatch):
    """The study with nets of 16 pixels and three steps; two methods with two seeds are done."""
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    whole = plan.Run.config.fget

    def config(run):
        changes = {"general": 6, "identities": 2, "images_per_identity": 2}
        return dataclasses.replace(
            whole(run), compile=False, image_size=16, backbone="tiny_student", **changes
        )

    monkeypatch.setattr(plan.Run, "config", property(config))
    monkeypatch.setattr(tables, "LEVELS", (0.5, 0.4, 0.3))  # that so few people can show
    runs = [
        plan.Run(row, seed, size=16, steps=3) for row in ("alone", plan.BARE) for seed in (0, 1)
    ]
    for name in ("BLOCKS",):
        monkeypatch.setattr(study, name, {"methods": runs})
        monkeypatch.setattr(tables, name, {"methods": runs})
    read = lfw.read_faces
    for each in (study, tables):
        monkeypatch.setattr(each, "read_faces", lambda *a, size, **more: read(*a, size=16, **more))
    with (data / "lfw_pairs_devtest.csv").open("w", newline="") as file:
        pairs = [(f"p{k:02}/0.png", f"p{k:02}/1.png", 1, 0) for k in (9, 15, 21, 27, 33, 39) * 2]
        pairs += [
            (f"p{k:02}/0.png", f"p{k - 6:02}/0.png", 0, 0) for k in (9, 15, 21, 27, 33, 39) * 2
        ]
        csv.writer(file).writerows([("file1", "file2", "is_genuine", "fold"), *pairs])
    for run in runs:
        study.carry_out((run, data, tmp_path / "work"))
    return tables.Nets(data, tmp_path / "work")


def test_tables_against_the_embeddings_that_the_nets_left(small):
    lines = list(tables.every_net(small))
    assert len(lines) == (1 + 4) * 2 * 2  # nets, parts, ways to count
    labels = small.test.images.labels
    kept = np.load(small.work / small.runs[0].name / "rows.npz")["test"]
    for by in ("pair", "person"):
        line = next(r for r in lines if r["row"] == "alone" and r["on"] == "test" and r["by"] == by)
        tpr = all_pairs_tpr_at_fpr(torch.from_numpy(kept).float(), labels, [0.5], by=by)
        assert float(line["tpr@1e-2"]) == pytest.approx(100 * tpr.item(), abs=0.006)
        assert line["train_seconds"] and line["seed"] == "0"
        draws = {
            row: [small.result(run, by) for run in runs] for row, runs in small.methods().items()
        }
        mean = next(r for r in tables.means(small) if r["row"] == "alone" and r["by"] == by)
        gain = next(r for r in tables.gains(small) if r["minus"] == plan.BARE and r["by"] == by)
        each = {
            r: np.array([100 * d.estimate[0].item() for d in found]) for r, found in draws.items()
        }
        assert float(mean["tpr@1e-2"]) == pytest.approx(each["alone"].mean(), abs=0.006)
        expected = each["alone"].mean() - each[plan.BARE].mean()
        assert gain["row"] == "alone"
        assert float(gain["tpr@1e-2"]) == pytest.approx(expected, abs=0.011)
        samples = [100 * d.samples[:, 0].numpy() for d in draws["alone"]]
        ends = np.percentile(draws_over_seeds(each["alone"].tolist(), samples), [2.5, 97.5])
        found = [float(mean[f"tpr@1e-2_{end}"]) for end in ("low", "high")]
        assert found == pytest.approx(ends.tolist(), abs=0.011)


def test_other_pictures_are_of_the_same_person_and_of_the_one_before():
    rows = torch.eye(5)[[0, 0, 1, 2, 2, 3, 3, 3]] + 0.1
    labels = torch.tensor([0, 0, 1, 2, 2, 3, 3, 3])
    same, other = module("real_faces_views")._other_pictures(rows, labels, ("same", "other"))
    assert (same["view"], same["images"], same["mean_cosine"]) == ("same", "2", "1.0000")
    assert (other["view"], other["mean_cosine"]) == ("other", f"{0.25 / 1.25:.4f}")


def test_a_finished_run_is_not_trained_again(small, monkeypatch, capsys):
    assert all(study.is_done(run, small.work) for run in small.runs)
    study.show_plan(["methods"], small.work)
    assert " 0 left" in capsys.readouterr().out


def test_people_of_every_part_are_counted(small):
    lines = list(tables.people(small))
    assert sum(int(row["people"]) for row in lines) == 40
    images = sum(int(row["people"]) * int(row["images"]) for row in lines)
    assert images == len(lfw.read_index(small.data))


def test_two_sets_as_one():
    from tests.fakes import ColourFaces

    first, second = ColourFaces(), ColourFaces()
    both = study.Joined(first, second)
    count = len(first)
    assert len(both) == 2 * count and both.num_identities == 2 * first.num_identities
    images = both.batch([count + 3, 1, count])
    expected = torch.cat([second.batch([3]), first.batch([1]), second.batch([0])])
    assert torch.equal(images, expected)
    assert both.labels[count + 3] == second.labels[3] + first.num_identities


def test_pictures_of_real_people_stay_out_of_the_repository(tmp_path, monkeypatch):
    for name in lfw.FILES:
        (tmp_path / name).touch()
    inside = str(tables.OUT.parent / "runs")
    monkeypatch.setattr(sys, "argv", ["", "--data", str(tmp_path), "--work", inside])
    with pytest.raises(SystemExit, match="outside of the repository"):
        study.main()


def test_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", "--data", str(tmp_path), "--work", str(tmp_path)])
    with pytest.raises(SystemExit, match="lacks lfw112"):
        study.main()
