"""The command line, from the small demo to the messages for what cannot work."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.__main__ import main
from ekd_lite.data import load_splits
from ekd_lite.experiments import runner
from ekd_lite.train import Teacher
from tests.processes import die_with_parent, start


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Forty identities of six small images: a colour pattern each, and noise."""
    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    for identity in range(40):
        folder = root / f"person{identity:02}"
        folder.mkdir()
        pattern = rng.uniform(30, 220, (16, 16, 3))
        for image in range(6):
            pixels = (pattern + rng.normal(0, 20, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(folder / f"{image}.png")
    return root


SMALL = ["--teacher-steps", "40", "--student-steps", "20", "--seeds", "0", "1", "--resamples", "50"]


@pytest.fixture(scope="module")
def demo(people, tmp_path_factory):
    """A finished small demo on a folder of faces, run in a folder of its own."""
    work = tmp_path_factory.mktemp("demo")
    code, output = run_demo(["--faces", str(people), "--image-size", "16", *SMALL], work)
    assert code == 0, output
    return work, output


def run_demo(arguments, folder):
    """Exit code and output of a demo in `folder`, whose nine runs need not import torch again."""
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    code = start(forking_demo, arguments, log=log, cwd=folder).wait(300)
    return code, log.read_text()


def forking_demo(arguments):
    fork = SimpleNamespace(get_context=lambda _: get_context("fork"))
    vars(runner)["multiprocessing"] = fork
    return main(["demo", *arguments])


@pytest.mark.starts_process
def test_demo_leaves_what_it_promises(demo):
    work, output = demo
    folder = work / "runs" / "demo"
    for name in (
        "table.csv",
        "differences.csv",
        "table.md",
        "roc.png",
        "scores.png",
        "faces.png",
        "config.json",
    ):
        assert (folder / name).stat().st_size > 100
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["method", "seed", "tpr@1e-2", "tpr@1e-3", "tpr@1e-4", "tpr@1e-5"]
    assert {"tpr@1e-2_low", "tpr@1e-2_high", "parameters", "macs", "latency_ms"} <= rows[0].keys()
    methods = [row["method"] for row in rows]
    assert methods == ["teacher"] + [
        m
        for m in ("student alone", "fitnet", "ekd_paper", "ekd_decisions+fitnet")
        for _ in range(2)
    ]
    for row in rows:
        low, tpr, high = (float(row[f"tpr@1e-2{s}"]) for s in ("_low", "", "_high"))
        assert 0 <= low <= high <= 100
        assert 0 <= tpr <= 100
        assert float(row["train_seconds"]) >= 0
    assert "student alone" in output
    assert "Differences of the means over seeds" in output
    assert (folder / "ekd_paper-1" / "log.jsonl").read_text().count("\n") == 1


@pytest.mark.starts_process
@pytest.mark.filterwarnings("ignore:.*eyes are not where")
def test_decisions_have_the_teacher_s_threshold_of_strangers(demo, people):
    work, output = demo
    folder = work / "runs" / "demo"
    strangers = load_splits(people, image_size=16, progress=False).validation
    threshold = Teacher.from_file(folder / "teacher").threshold_at(strangers, 11 / 216)
    assert f"the teacher accepts a pair from cosine {threshold:.3f} on" in output
    for name, found in (("ekd_decisions+fitnet-1", round(threshold, 6)), ("fitnet-1", None)):
        config = json.loads((folder / name / "config.json").read_text())
        assert config["teacher_threshold"] == found


@pytest.mark.starts_process
def test_demo_again_does_nothing_anew_and_gives_the_same_table(demo, people):
    work, _ = demo
    folder = work / "runs" / "demo"
    table = (folder / "table.csv").read_text()
    before = (folder / "ekd_paper-0" / "model.safetensors").stat().st_mtime_ns
    code, output = run_demo(["--faces", str(people), "--image-size", "16", *SMALL], work)
    assert code == 0, output
    assert (folder / "ekd_paper-0" / "model.safetensors").stat().st_mtime_ns == before
    strip = [
        [v for k, v in row.items() if k != "latency_ms"]
        for row in csv.DictReader(table.splitlines())
    ]
    again = [
        [v for k, v in row.items() if k != "latency_ms"]
        for row in csv.DictReader((folder / "table.csv").read_text().splitlines())
    ]
    assert strip == again
    arguments = ["--faces", str(people), "--image-size", "32", *SMALL, "--processes", "1"]
    code, output = run_demo(arguments, work)
    assert code == 2
    assert "results of other options (image_size: 16, now 32)" in output


@pytest.mark.starts_process
def test_embed_and_evaluate(demo, people, tmp_path, capsys):
    work, _ = demo
    model = work / "runs" / "demo" / "teacher"
    out = tmp_path / "e.safetensors"
    assert main(["embed", "--model", str(model), "--faces", str(people), "--out", str(out)]) == 0
    assert main(["evaluate", "--source", str(out), "--fprs", "0.1", "1e-9"]) == 0
    text = capsys.readouterr().out
    assert "240 images, 600 genuine and 28,080 impostor pairs" in text
    assert "FPR 1e-09: not measurable" in text
    assert "FPR 1e-01: TPR" in text


@pytest.mark.starts_process
@pytest.mark.filterwarnings("ignore:.*eyes are not where aligned")
def test_train_reports_the_teacher_first(demo, people, tmp_path, capsys, monkeypatch):
    work, _ = demo
    monkeypatch.chdir(tmp_path)
    teacher = str(work / "runs" / "demo" / "teacher" / "model.safetensors")
    arguments = ["train", "--out", "student", "--faces", str(people), "--image-size", "16"]
    arguments += ["--method", "sp+kd:2", "--teacher", teacher, "--steps", "3", "--device", "cpu"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"teacher {teacher}: TPR on validation identities")
    assert lines[1].startswith(
        f"teacher {teacher}: sees images of 16 pixels, the student of 16; TPR"
    )
    assert lines[2].startswith("student: TPR")


@pytest.mark.starts_process
@pytest.mark.filterwarnings("ignore:.*eyes are not where aligned")
def test_train_under_a_net_of_others(people, tmp_path, capsys, monkeypatch):
    """A larger input, BGR, 0 to 255, the second output: all of it said on the command line."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)

    class Net(torch.nn.Module):
        def forward(self, images):
            rows = torch.nn.functional.avg_pool2d(images - 127.5, 4).flatten(1)
            return 0 * rows, rows

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Net(), (torch.zeros(1, 3, 24, 24),), "net.onnx", dynamo=False)
    arguments = ["train", "--out", "student", "--faces", str(people), "--image-size", "16"]
    arguments += ["--method", "fitnet", "--teacher", "net.onnx", "--steps", "2", "--device", "cpu"]
    said = ["--colour", "bgr", "--pixel-range", "0", "255", "--output", "1"]
    for _ in range(2):  # the second call finds it finished
        assert main([*arguments, *said]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "file        net.onnx"
        assert lines[3].startswith("teacher net.onnx: TPR on validation identities")
    assert main([*arguments, *said[:-2]]) == 2
    assert "other faces or another teacher" in capsys.readouterr().err
    np.save("rows.npy", np.ones((3, 4), np.float32))
    arguments[arguments.index("net.onnx")] = "rows.npy"
    assert main([*arguments, *said]) == 2
    assert "table of rows, which has no colour, output, pixel_range" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "expected the teacher's embeddings of" in capsys.readouterr().err
    assert main([*arguments, "--dry-run"]) == 0
    assert "a stand-in was timed for the teacher rows.npy" in capsys.readouterr().out


def test_preview(tmp_path, capsys):
    out = tmp_path / "faces.png"
    arguments = ["data", "preview", "--out", str(out), "--identities", "2", "--images", "3"]
    assert main([*arguments, "--image-size", "32"]) == 0
    with Image.open(out) as sheet:
        assert sheet.size[0] >= 96


def test_info_counts_and_names_what_is_no_image(people, tmp_path, capsys):
    assert main(["data", "info", "--faces", str(people)]) == 0
    assert "240 readable images of 40 identities, 6 to 6 each" in capsys.readouterr().out
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_text("no image")
    assert main(["data", "info", "--faces", str(tmp_path)]) == 2
    assert "x.jpg as an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--faces", "nowhere"], "no such folder of faces: nowhere"),
        (["demo", "--methods", "none", "edk"], "did you mean 'ekd'?"),
        (["demo", "--seeds"], "at least one"),
        (["train", "--out", "x", "--method", "ekd"], "needs a teacher"),
        (["train", "--out", "x", "--method", "kd", "--teacher", "t"], "no model at t"),
        (["train", "--out", "x", "--backbone", "resnet50"], "did you mean 'iresnet50'?"),
        (["evaluate", "--source", "nothing"], "no model at nothing"),
    ],
)
def test_what_cannot_work_is_one_message(arguments, message, capsys, tmp_path, monkeypatch):
    """And that message comes before any face is drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "ekd_lite.commands.train.load_splits", lambda *_, **__: pytest.fail("faces")
    )
    try:
        code = main(arguments)
    except SystemExit as error:  # tyro's own way out
        code = error.code
    captured = capsys.readouterr()
    text = " ".join((captured.err + captured.out).replace("│", " ").split())
    assert code == 2
    assert message in text
    assert "Traceback" not in text


def test_few_identities_are_refused(tmp_path, capsys):
    for name in "abc":
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / name / "x.png")
    assert main(["demo", "--faces", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "10 identities are the least" in capsys.readouterr().err


@pytest.mark.starts_process
def test_an_interrupted_demo_leaves_no_process_and_goes_on(people, tmp_path):
    arguments = ["demo", "--faces", str(people), "--image-size", "16", "--teacher-steps", "30"]
    arguments += ["--student-steps", "100000", "--methods", "none", "--seeds", "0"]
    log = tmp_path / "runs" / "demo" / "alone-0" / "log.jsonl"
    before = b""
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = subprocess.Popen(
            [sys.executable, "-m", "ekd_lite", *arguments],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        deadline = time.monotonic() + 300
        while not grown(log, len(before)) and time.monotonic() < deadline:
            assert not before or grown(log, len(before) - 1)  # it does not begin anew
            time.sleep(0.1)
        process.send_signal(number)
        with process.stderr:
            error = process.stderr.read()
        assert process.wait(timeout=120) == code, error
        assert "Traceback" not in error
        assert (log.parent / "checkpoint.pt").exists()
        after = log.read_bytes()
        assert after.startswith(before)  # the second start went on where the first was stopped
        assert len(after) > len(before)
        before = after
        with pytest.raises(ProcessLookupError):  # noqa: PT012 - ten seconds for all of its session
            for _ in range(100):
                os.killpg(process.pid, 0)
                time.sleep(0.1)


def grown(path, size):
    """Whether a file is there and longer than that."""
    return path.exists() and path.stat().st_size > size
