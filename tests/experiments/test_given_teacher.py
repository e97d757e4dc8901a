"""The demo under a teacher that is there already: its own size, colours and rows."""

import csv
import json
import os
import queue
import re
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from ekd_lite.__main__ import main
from ekd_lite.data import load_splits
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.evaluate.embedding import embed_views
from ekd_lite.experiments import (
    DemoConfig,
    demo,
    demo_cost,
    describe_demo,
    given_teacher,
    run_demo,
    runner,
)
from ekd_lite.experiments.demo import METHODS_UNDER_GIVEN
from ekd_lite.experiments.given_teacher import check_batches
from ekd_lite.train import Teacher, TrainConfig, fit, load_model
from ekd_lite.train.estimate import Estimate

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*eyes are not where aligned"),
    pytest.mark.filterwarnings("ignore:.* seems to see wrong pixels"),
]


class Net(nn.Module):
    """Takes 48 pixels, BGR, 0 to 255, and has parameters."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(3 * 12 * 12, 20, generator=generator) / 20)

    def forward(self, images):
        assert images.shape[1:] == (3, 48, 48)
        rows = nn.functional.avg_pool2d(images / 127.5 - 1, 4).flatten(1) @ self.weight
        return rows, rows.norm(dim=1)


OPTIONS: dict[str, Any] = {"input_size": 48, "colour": "bgr", "pixel_range": (0, 255)}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Fifty people of four images of 48 pixels."""
    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    for person in range(50):
        (root / f"p{person:02}").mkdir()
        pattern = rng.uniform(30, 220, (8, 8, 3)).repeat(6, 0).repeat(6, 1)
        for image in range(4):
            pixels = (pattern + rng.normal(0, 20, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"p{person:02}" / f"{image}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for size in (16, 48):  # cached here, without processes
            load_splits(root, image_size=size, workers=1, progress=False)
    return root


class InThisProcess:
    """What the runner takes for a process: it has done its work when it is started."""

    exitcode = 0

    def __init__(self, target, args, daemon):
        self.start = lambda: target(*args)

    def join(self):
        pass


@pytest.fixture(autouse=True, scope="module")
def in_this_process():
    with pytest.MonkeyPatch.context() as patch:
        here = SimpleNamespace(Queue=queue.Queue, Process=InThisProcess)
        patch.setattr(runner, "multiprocessing", SimpleNamespace(get_context=lambda _: here))
        patch.setattr(given_teacher, "PART", 50)
        yield


def config_for(out, people, **changes):
    options = {"faces": people, "image_size": 16, "student_steps": 4, "seeds": (0,)}
    return DemoConfig(out=out, **{**options, "resamples": 20, "teacher": __file__, **changes})


@pytest.fixture(scope="module")
def done(people, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    net = Net()
    path = run_demo(config_for(out, people), teacher=Teacher(net, **OPTIONS))
    return out, net, path


def test_teacher_and_students_have_their_rows_in_the_table(done, people):
    out, net, path = done
    with path.open() as file:
        rows = list(csv.DictReader(file))
    names = ["teacher", "student alone", *METHODS_UNDER_GIVEN[1:]]
    assert [row["method"] for row in rows] == names
    assert (rows[0]["parameters"], rows[0]["seed"]) == (str(3 * 144 * 20), "")
    assert int(rows[1]["parameters"]) > 10_000
    splits = load_splits(people, image_size=48, progress=False)
    pixels = [(splits.test.batch([i]) + 1) * 127.5 for i in range(len(splits.test))]
    with torch.no_grad():  # by hand, from the images as they are
        expected = torch.cat([net(image[:, [2, 1, 0]])[0] for image in pixels])
    assert torch.allclose(load_file(out / "teacher" / "test.safetensors")["embeddings"], expected,
                          atol=1e-4)  # fmt: skip
    tpr = 100 * all_pairs_tpr_at_fpr(expected, splits.test.labels, [1e-2]).item()
    assert float(rows[0]["tpr@1e-2"]) == pytest.approx(tpr, abs=0.01)
    for name in ("table.md", "differences.csv", "roc.png", "scores.png", "faces.png"):
        assert (out / name).stat().st_size > 100


def test_the_students_learn_from_what_the_teacher_saw_at_its_own_size(done, people, tmp_path):
    out, net, _ = done
    teacher = Teacher(net, **OPTIONS)
    large = load_splits(people, image_size=48, progress=False).train
    rows = [embed(teacher, large), embed(teacher, large, mirrored=True)]
    config = json.loads((out / "fitnet-0" / "config.json").read_text())
    small = load_splits(people, image_size=16, progress=False).train
    plain = replace(TrainConfig(**config), teacher=None)
    again = load_model(fit(plain, small, tmp_path, teacher=rows, progress=False))
    found = load_model(out / "fitnet-0")
    for a, b in zip(found.backbone.parameters(), again.backbone.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_it_goes_on_where_it_was_and_refuses_another_teacher(done, people, monkeypatch):
    out, net, _ = done
    teacher = Teacher(net, **OPTIONS)
    parts = sorted((out / "teacher" / "parts").iterdir())
    assert [p.name for p in parts] == [
        *(f"test-{k}.safetensors" for k in (0, 50)),
        *(f"train-{k}.safetensors" for k in (0, 100, 50)),
    ]
    parts[-1].unlink()  # a kill before it was written
    asked = []
    monkeypatch.setattr(
        "ekd_lite.train.teacher_cache.embed_views",
        lambda *a, **k: asked.append(k["views"]) or embed_views(*a, **k),
    )
    monkeypatch.setattr("ekd_lite.experiments.demo.write_report", lambda *a: a[0])
    monkeypatch.setattr(given_teacher, "suspect_input", lambda *a: pytest.fail("asked again"))
    before = (out / "fitnet-0" / "model.safetensors").stat().st_mtime_ns
    run_demo(config_for(out, people), teacher=teacher)
    assert asked == [(False, True)]  # both views of one part
    assert (out / "fitnet-0" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"results of other options \(teacher: 'Net \(digest"):
        run_demo(config_for(out, people), teacher=Teacher(Net(), **OPTIONS | {"colour": "rgb"}))


def test_the_command_with_an_onnx_file(people, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ekd_lite.experiments.figures.demo_figures", lambda *a: {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Net(), (torch.zeros(1, 3, 48, 48),), "net.onnx", dynamo=False)
    arguments = ["demo", "--teacher", "net.onnx", "--faces", str(people), "--image-size", "16"]
    arguments += ["--student-steps", "2", "--seeds", "0", "--resamples", "20"]
    arguments += ["--methods", "none", "fitnet", "--out", "runs"]
    said = ["--colour", "bgr", "--pixel-range", "0", "255", "--output", "0"]
    assert main([*arguments, *said]) == 0
    output = capsys.readouterr().out
    assert (
        "not measurable with 1,680 impostor pairs of test people: TPR at FPR 1e-4, 1e-5" in output
    )
    assert "teacher          TPR on unseen identities:" in output and "nan %" not in output
    assert "| net.onnx" in output
    assert "| unknown" in output
    with open("runs/table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["teacher", "student alone", "fitnet"]
    assert (rows[0]["parameters"], rows[0]["macs"]) == ("", "")
    assert float(rows[0]["latency_ms"]) > 0
    assert main([*arguments, *said[:2]]) == 2
    assert "results of other options (teacher: 'ONNX (file " in capsys.readouterr().err


def folder_of(root, people, images):
    rng = np.random.default_rng(0)
    for person in range(people):
        (root / str(person)).mkdir(parents=True)
        for image in range(images):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / str(person) / f"{image}.png")
    load_splits(root, image_size=16, workers=1, progress=False)
    return root


def test_what_cannot_work_is_said_before_any_work(people, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(given_teacher, "make_rows", lambda *a: pytest.fail("work began"))
    teacher = Teacher(Net(), **OPTIONS)

    def refused(message, *, teacher=teacher, **changes):
        with pytest.raises(ValueError, match=message):
            run_demo(config_for(tmp_path / str(len(os.listdir(tmp_path))), people, **changes),
                     teacher=teacher)  # fmt: skip

    refused("table of rows: the demo measures", teacher=Teacher.from_rows(torch.eye(4)))
    refused("cannot embed images", teacher=Teacher(Net(), input_size=32))
    refused("'ekd_gallery' needs one width, and Net makes 20 numbers, the students of a demo 128: "
            "leave it out of --methods", methods=("none", "ekd_gallery+fitnet"))  # fmt: skip
    refused("no two of their images show one", faces=folder_of(tmp_path / "a", 20, 1))
    refused("they have 27 impostor pairs, and FPR 1e-2 takes 100",
            faces=folder_of(tmp_path / "b", 10, 3))  # fmt: skip
    refused("60 % of all, and 32 count .4 a person at most.*The least is 40 people with 4 images",
            faces=folder_of(tmp_path / "c", 14, 6))  # fmt: skip
    small = ["demo", "--faces", str(tmp_path / "c"), "--image-size", "16"]
    for more in (["--dry-run"], ["--out", str(tmp_path / "y")]):  # whoever teaches
        assert main([*small, *more]) == 2
        error = capsys.readouterr().err
        assert "or 80 with 2; `ekd-lite train --faces DIR` has options for smaller" in error
        assert "use smaller batches" not in error
    for arguments, message in (
        (["--teacher", "tiny_techer"], "no backbone; did you mean 'tiny_teacher'?"),
        (["--teacher", "no.onnx"], "teacher 'no.onnx' is no file that is there"),
        (["--colour", "bgr"], "give --teacher PATH too"),
        (["--teacher", __file__], "no safetensors file"),
    ):
        assert main(["demo", "--out", str(tmp_path / "x"), *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("people", "images"), [(40, 4), (80, 2)])
def test_the_least_folder_that_is_named_is_the_least(people, images):
    plan = {"fitnet-0": TrainConfig(method="fitnet", teacher="t")}
    train = int(0.6 * people)
    check_batches(plan, torch.arange(train).repeat_interleave(images))
    with pytest.raises(ValueError, match=r"least is 40 people with 4 images each, or 80 with 2;"):
        check_batches(plan, torch.arange(int(0.6 * (people - 1))).repeat_interleave(images))


def seconds(config, **options):
    """A step takes 0.36 s, an image's share of it in a teacher's rows nothing."""
    assert options["num_identities"] == 30
    return Estimate(0, 0, 0, 0, 0.36)


def test_a_dry_run_says_what_is_left_and_does_nothing(done, people, tmp_path, capsys, monkeypatch):
    out, net, _ = done
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_cost, "estimate", seconds)
    monkeypatch.setattr(demo_cost, "_seconds_an_image", lambda teacher, size: size / 48)
    monkeypatch.setattr(given_teacher, "make_rows", lambda *a: pytest.fail("work began"))
    monkeypatch.setattr(demo, "load_splits", lambda *a, **k: pytest.fail("images were decoded"))
    new = {"student_steps": 1000, "seeds": (0, 1), "processes": 3}
    text = describe_demo(config_for(tmp_path / "a", people, **new), teacher=Teacher(net, **OPTIONS))
    for expected in (
        r"^teacher +its rows of 300 images: 5.0 minutes",  # 30 people twice, mirrored, and 15 once
        r"^fitnet +2 x 1,000 steps of tiny_student at 360 ms: 12.0 minutes",
        r"^student alone +2 x ",
        r"^in all +41.0 minutes of a core beside 0 runs .* about 13.7 minutes with 3 runs",
    ):
        assert re.search(expected, text, re.MULTILINE), expected
    assert "timing a step of 3 kinds" in capsys.readouterr().err
    text = describe_demo(config_for(out, people, seeds=(0, 1)), teacher=Teacher(net, **OPTIONS))
    assert "its rows" not in text and "fitnet               1 x 4 steps" in text
    assert "beside 3 runs that are finished" in text
    assert main(["demo", "--faces", str(people), "--image-size", "16", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^teacher +1 x 2,000 steps of tiny_teacher .*: 12.0 minutes", text, re.M)
    assert re.search(r"^ekd_paper +3 x 1,500 steps", text, re.M)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_large_images_under_an_onnx_teacher_of_their_size(people, tmp_path, capsys, monkeypatch):
    """What a reader does with SFace: its cost is said before its work, and the work is done."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ekd_lite.experiments.figures.demo_figures", lambda *a: {})
    net = nn.Sequential(nn.AvgPool2d(14), nn.Flatten(), nn.Linear(3 * 8 * 8, 32))
    torch.onnx.export(net, (torch.zeros(1, 3, 112, 112),), "net.onnx", dynamo=False)
    whole = demo.plan_demo

    def in_small_batches(config, *, flip):
        plan = whole(config, flip=flip)
        return {n: replace(run, general=6, identities=3) for n, run in plan.items()}

    monkeypatch.setattr(demo, "plan_demo", in_small_batches)
    arguments = ["demo", "--teacher", "net.onnx", "--faces", str(people), "--image-size", "112"]
    arguments += ["--student", "mobilefacenet", "--student-steps", "2", "--seeds", "0"]
    assert main([*arguments, "--resamples", "20", "--methods", "fitnet", "--out", "runs"]) == 0
    output = capsys.readouterr().out
    assert 0 < output.index("its rows of 300 images") < output.index("TPR on unseen identities")
    found = re.search(r"fitnet +1 x 2 steps of mobilefacenet at ([\d,]+) ms", output)
    assert found and 50 < int(found[1].replace(",", "")) < 30_000
    with open("runs/table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["teacher", "fitnet"]
    assert int(rows[1]["macs"]) > 10**8
    config = json.loads((tmp_path / "runs" / "fitnet-0" / "config.json").read_text())
    assert (config["backbone"], config["image_size"]) == ("mobilefacenet", 112)
