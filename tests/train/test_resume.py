"""A run that is stopped and resumed ends exactly as one that was not."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ekd_lite.models import BACKBONES, TinyStudent
from ekd_lite.train import TrainConfig, fit
from ekd_lite.train.checkpoint import load_checkpoint, save_checkpoint
from tests.fakes import ColourFaces
from tests.processes import start, wait_until

SMALL: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 16,
    "steps": 20,
    "general": 8,
    "identities": 4,
    "images_per_identity": 3,
    "log_every": 3,
    "checkpoint_every": 5,
    "device": "cpu",
}
pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")


class Killed(Exception):
    """Stands for whatever ends a process in the middle of a run."""


def stop_after(step):
    def on_step(state, metrics):
        if state.step == step:
            raise Killed

    return on_step


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    config = TrainConfig(backbone="tiny_teacher", **SMALL)
    return str(fit(config, ColourFaces(), tmp_path_factory.mktemp("teacher"), progress=False))


def final_state(folder):
    return load_checkpoint(folder / "checkpoint.pt")


def assert_same(first, second, path=""):
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            if key != "seconds":
                assert_same(first[key], second[key], f"{path}/{key}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), path
    elif isinstance(first, list):
        assert len(first) == len(second), path
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{path}/{index}")
    else:
        assert first == second, path


@pytest.mark.parametrize(
    ("method", "workers"),
    [
        ("ekd+fitnet+kd", 0),
        pytest.param("ekd+fitnet+kd", 2, marks=pytest.mark.starts_process),
        ("adadistill+qud+seed", 0),  # all that the losses keep
    ],
)
def test_five_stops_change_nothing(tmp_path, teacher, method, workers):
    config = TrainConfig(
        **SMALL, method=method, teacher=teacher, flip=True, augment=True, workers=workers
    )
    fit(config, ColourFaces(), tmp_path / "whole", progress=False)
    for step in (1, 4, 5, 11, 19):  # before, at and after checkpoints and log lines
        with pytest.raises(Killed):
            fit(config, ColourFaces(), tmp_path / "parts", progress=False, on_step=stop_after(step))
        torch.manual_seed(step)  # a new process knows nothing of the old one's generator
    fit(config, ColourFaces(), tmp_path / "parts", progress=False)
    whole, parts = final_state(tmp_path / "whole"), final_state(tmp_path / "parts")
    assert whole["step"] == 20
    kept = whole["distillers"]
    if "ekd" in method:
        assert kept["ekd.num_updates"][0] == 20
    else:
        assert kept["qud.position"] == kept["seed.position"] == 20 * (8 + 4 * 3)
        assert (kept["adadistill.centres"].norm(dim=1) > 0).all()
    assert_same(whole, parts)
    for name in ("log.jsonl", "log.csv", "config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_dropout_goes_on_drawing_where_it_stopped(tmp_path, monkeypatch):
    """The tiny nets draw nothing while they train; a net with dropout needs its generator back."""

    def with_dropout(**size):
        return nn.Sequential(TinyStudent(**size), nn.Dropout(0.5))

    monkeypatch.setitem(BACKBONES, "with_dropout", with_dropout)
    config = TrainConfig(**SMALL, backbone="with_dropout")
    fit(config, ColourFaces(), tmp_path / "whole", progress=False)
    with pytest.raises(Killed):
        fit(config, ColourFaces(), tmp_path / "parts", progress=False, on_step=stop_after(12))
    fit(config, ColourFaces(), tmp_path / "parts", progress=False)
    assert_same(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))


def test_same_seed_same_run_and_other_seed_another(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(TrainConfig(**SMALL, seed=seed), ColourFaces(), tmp_path / name, progress=False)
    log = {name: (tmp_path / name / "log.jsonl").read_text() for name in "abc"}
    assert log["a"] == log["b"] != log["c"]


def test_a_finished_run_is_not_done_again(tmp_path):
    config = TrainConfig(**SMALL)
    model = fit(config, ColourFaces(), tmp_path, progress=False)
    before = model.stat().st_mtime_ns
    fit(config, ColourFaces(), tmp_path, progress=False, on_step=stop_after(20))
    assert model.stat().st_mtime_ns == before


def test_another_configuration_is_refused_with_its_differences(tmp_path):
    fit(TrainConfig(**SMALL), ColourFaces(), tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"learning_rate: 0\.001 here, 0\.003 there"):
        fit(TrainConfig(**SMALL, learning_rate=1e-3), ColourFaces(), tmp_path, progress=False)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path):
    path = tmp_path / "checkpoint.pt"
    assert load_checkpoint(path) is None
    save_checkpoint({"step": 1}, path)
    save_checkpoint({"step": 2}, path)
    assert load_checkpoint(path) == {"step": 2}
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged"):
        assert load_checkpoint(path) == {"step": 1}
    path.with_suffix(".previous").write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged .*: every checkpoint"):
        load_checkpoint(path)


def train_for_ever(out):
    def tell(state, metrics):
        print(state.step, flush=True)

    config = TrainConfig(**{**SMALL, "steps": 100_000})
    fit(config, ColourFaces(), Path(out), progress=False, on_step=tell)


@pytest.mark.starts_process
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_signals_lose_nothing(tmp_path, name, code):
    process = start(train_for_ever, str(tmp_path), log=tmp_path / "log")

    def steps():
        return [int(line) for line in process.output.split("\n")[:-1]]

    assert wait_until(lambda: steps()[-1:] >= [13] or not process.is_alive())
    os.kill(process.pid, getattr(signal, name))
    assert process.wait() == code, process.output
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    if name == "SIGKILL":
        assert saved["step"] % 5 == 0
        assert saved["step"] >= 10
    else:
        assert [saved["step"]] == steps()[-1:]
        assert saved["step"] >= 13


def save_for_ever(path):
    for step in range(1, 1 << 30):
        save_checkpoint({"step": step, "x": torch.full((200_000,), step)}, Path(path))
        if step == 1:
            print("saved once", flush=True)


@pytest.mark.starts_process
def test_kills_during_saves_leave_a_whole_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for index in range(5):
        process = start(save_for_ever, str(path), log=tmp_path / f"log{index}")
        assert wait_until(lambda p=process: p.output or not p.is_alive())
        time.sleep(0.05 + 0.013 * index)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.output
        saved = load_checkpoint(path)
        assert saved is not None
        assert (saved["x"] == saved["step"]).all()
