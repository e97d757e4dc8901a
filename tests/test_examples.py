"""examples/: each runs as it stands, in a folder of its own, and says what it found."""

import re
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run an example in an empty folder; what it printed."""

    def run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        path = ROOT / "examples" / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


def tprs(printed):
    """The TPR in percent of every line that gives one."""
    return [float(x) for x in re.findall(r": TPR ([\d.]+)%", printed)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_is_short_and_says_what_to_change(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60
    assert any("or your own data" in line for line in lines)


def test_own_loop(run):
    printed = run("own_loop")
    losses = [float(x) for x in re.findall(r"identity loss ([\d.]+)", printed)]
    assert len(losses) == 3 and losses[-1] < losses[0]
    teacher, student = tprs(printed)
    assert teacher > 95 and 50 < student < teacher


def test_own_teacher(run, tmp_path):
    printed = run("own_teacher")
    assert "suspect" not in printed
    teacher, student = tprs(printed)
    assert teacher > 95 and 50 < student < teacher
    assert (tmp_path / "runs/own_teacher/model.safetensors").is_file()


def test_own_faces(run, tmp_path):
    printed = run("own_faces")
    assert "400 photographs of 40 people, 200 of others" in printed
    assert tprs(printed)[0] > 50
    assert (tmp_path / "runs/own_faces/model.safetensors").is_file()


def test_published_teacher(run):
    pytest.importorskip("onnx", reason='needs pip install "ekd-lite[export]"')
    pytest.importorskip("onnxruntime")
    printed = run("published_teacher")
    assert "takes images of 32 pixels" in printed
    teacher, student = tprs(printed)
    assert teacher > 95 and 50 < student < teacher


def test_no_labels(run):
    printed = run("no_labels")
    fitnet, decisions = tprs(printed)
    assert fitnet > 40 and decisions > 40


def test_evaluate_my_embeddings(run, tmp_path):
    made = run("evaluate_my_embeddings")
    assert len(tprs(made)) == 4 and made.count(": better") == 2
    assert "80 people, 1,200 genuine and 113,760 impostor pairs" in made
    files = [str(tmp_path / name) for name in ("old.npy", "new.npy", "labels.npy")]
    given = run("evaluate_my_embeddings", *files)
    assert given.count(": worse") == 2
    assert sorted(tprs(given)) == sorted(tprs(made))


class Trainer:
    """What of lightning.Trainer the example uses: one pass of batches, loss, step."""

    def __init__(self, **options):
        assert options.keys() == {"max_epochs", "logger", "accelerator"}

    def fit(self, model, loader):
        optimizer = model.configure_optimizers()
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            model.training_step(batch).backward()
            optimizer.step()


def test_lightning_loop(run, monkeypatch):
    stub: Any = types.ModuleType("lightning")
    stub.LightningModule, stub.Trainer = nn.Module, Trainer
    stub.seed_everything = torch.manual_seed
    monkeypatch.setitem(sys.modules, "lightning", stub)
    assert 50 < tprs(run("lightning_loop"))[0] < 100


def test_without_lightning_one_line_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)  # as if it were not installed
    with pytest.raises(SystemExit, match="needs Lightning: pip install lightning"):
        run("lightning_loop")
