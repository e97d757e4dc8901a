"""A run that is stopped and resumed ends exactly as one that was not."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from fakes import ColourFaces
from torch import nn

from ekd_lite.models import BACKBONES, TinyStudent
from ekd_lite.train import TrainConfig, fit
from ekd_lite.train.checkpoint import load_checkpoint, save_checkpoint

SMALL = {
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


@pytest.mark.parametrize("workers", [0, 2])
def test_five_stops_change_nothing(tmp_path, teacher, workers):
    config = TrainConfig(
        **SMALL, method="ekd+fitnet+kd", teacher=teacher, flip=True, workers=workers
    )
    fit(config, ColourFaces(), tmp_path / "whole", progress=False)
    for step in (1, 4, 5, 11, 19):  # before, at and after checkpoints and log lines
        with pytest.raises(Killed):
            fit(config, ColourFaces(), tmp_path / "parts", progress=False, on_step=stop_after(step))
        torch.manual_seed(step)  # a new process knows nothing of the old one's generator
    fit(config, ColourFaces(), tmp_path / "parts", progress=False)
    whole, parts = final_state(tmp_path / "whole"), final_state(tmp_path / "parts")
    assert whole["step"] == 20
    assert whole["distillers"]["ekd.num_updates"][0] == 20
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


SCRIPT = """
import sys, pathlib
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from fakes import ColourFaces
from ekd_lite.train import TrainConfig, fit
config = TrainConfig(**{small!r})
fit(config, ColourFaces(), pathlib.Path({out!r}), progress=False,
    on_step=lambda state, metrics: print(state.step, flush=True))
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_signals_lose_nothing(tmp_path, number, code):
    small = {**SMALL, "steps": 100_000, "checkpoint_every": 5}
    tests = os.path.dirname(os.path.dirname(__file__))
    script = SCRIPT.format(tests=tests, small=small, out=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= 13:
            break
    process.send_signal(number)
    with process.stdout:
        last = [int(line) for line in process.stdout.read().split()][-1:]
    assert process.wait(timeout=30) == code
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    if number == signal.SIGKILL:
        assert saved["step"] % 5 == 0
        assert saved["step"] >= 10
    else:
        assert [saved["step"]] == (last or [saved["step"]])
        assert saved["step"] >= 13


def test_kills_during_saves_leave_a_whole_checkpoint(tmp_path):
    script = (
        "import sys, torch, pathlib\n"
        "from ekd_lite.train.checkpoint import save_checkpoint\n"
        "step = 0\n"
        "while True:\n"
        "    step += 1\n"
        f"    save_checkpoint({{'step': step, 'x': torch.full((200_000,), step)}}, "
        f"pathlib.Path({str(tmp_path / 'checkpoint.pt')!r}))\n"
        "    if step == 1: print('saved once', flush=True)\n"
    )
    for index in range(5):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.05 + 0.013 * index)
        process.kill()
        process.wait()
        process.stdout.close()
        saved = load_checkpoint(tmp_path / "checkpoint.pt")
        assert saved is not None
        assert (saved["x"] == saved["step"]).all()
