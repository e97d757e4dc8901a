"""Photographs that nobody sorted by person: what trains on them, and what says how."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ekd_lite.__main__ import main
from ekd_lite.train import TrainConfig
from ekd_lite.train.checks import batches_without_labels

pytestmark = pytest.mark.filterwarnings("ignore:.*eyes are not where aligned")


@pytest.fixture(params=["one folder", "a folder each"])
def unsorted(request, tmp_path, monkeypatch, capsys):
    """A command that trains on 24 images without labels."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for image in range(24):
        folder = Path("faces") / ("all" if request.param == "one folder" else str(image))
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{image}.png")
    np.save("rows.npy", rng.normal(size=(24, 8)).astype(np.float32))

    def train(*more):
        arguments = ["train", "--everyone", "--faces", "faces", "--image-size", "16", "--out", "a"]
        arguments += ["--teacher", "rows.npy", "--device", "cpu", "--steps", "2", "--no-flip"]
        return main([*arguments, *more]), capsys.readouterr().err

    return train


def test_the_batches_that_need_no_labels_are_named_and_work(unsorted):
    code, error = unsorted("--method", "fitnet", "--identity-weight", "0")
    assert code == 2
    assert "too few for batches of 48 random and 12 x 4 balanced images" in error
    assert "needs no labels: random images alone, --general 24 --identities 0" in error
    more = ["--general", "24", "--identities", "0"]
    code, error = unsorted("--method", "fitnet", "--identity-weight", "0", *more)
    assert code == 0, error
    config = json.loads(Path("a/config.json").read_text())
    assert (config["general"], config["identities"]) == (24, 0)


@pytest.mark.parametrize(
    ("method", "weight", "general"),
    [
        ("fitnet", 0.0, "--general 96"),
        ("rkd+fitnet", 0.0, "--general 96"),
        ("fitnet", 1.0, ""),  # the margin softmax looks at labels
        ("ekd", 0.0, ""),
        ("kd", 0.0, ""),  # and so do logits of people
        ("margin", 0.0, ""),
    ],
)
def test_only_who_needs_no_labels_is_told_so(method, weight, general):
    config = TrainConfig(method=method, teacher="t", identity_weight=weight)
    text = batches_without_labels(config, 1000)
    assert bool(text) == bool(general) and general in text
