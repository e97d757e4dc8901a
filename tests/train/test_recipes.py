"""Recipes are valid, say what they will take, and set the defaults of the command line."""

import re
from typing import Any

import pytest
import torch

from ekd_lite.__main__ import main
from ekd_lite.distill import parse_method
from ekd_lite.models import build_backbone
from ekd_lite.train import TrainConfig, build_state
from ekd_lite.train.estimate import estimate
from ekd_lite.train.optim import learning_rate_at
from ekd_lite.train.recipes import load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_a_configuration(name):
    recipe = load_recipe(name)
    assert recipe.about
    assert recipe.images > recipe.people > 1
    has_teacher = not name.endswith("-teacher")
    assert (recipe.config.method != "none") == has_teacher
    if has_teacher:
        assert recipe.config.teacher == f"runs/{name}-teacher"
        assert f"{name}-teacher" in recipe_names()


def test_the_papers_recipe_is_the_authors():
    """METHODS 1.6: 26 epochs of 22,744 steps, 0.1 divided by ten at 10, 18 and 22, batch 512."""
    recipe = load_recipe("paper")
    config, epoch = recipe.config, 5_822_653 // 32 // 8
    assert config.steps == 26 * epoch
    rates = {
        epoch * number + offset: learning_rate_at(epoch * number + offset, config)
        for number in (10, 18, 22)
        for offset in (-1, 0)
    }
    assert list(rates.values()) == pytest.approx([0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4])
    batch = config.general + config.identities * config.images_per_identity
    assert batch * recipe.processes == 512
    assert (config.scale, config.margin, config.weight_decay) == (64, 0.4, 5e-4)
    assert parse_method(config.method) == {"ekd_paper": 8.0}


def test_a_dry_run_prints_the_plan_and_does_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--recipe", "demo", "--dry-run", "--steps", "77", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert '"steps": 77' in text
    assert '"method": "ekd+fitnet"' in text
    assert "24,000 images of 1,000 people" in text
    assert re.search(r"time +[\d.]+ (minutes|hours) at [\d.e-]+ s a step", text)
    assert "runs/demo-teacher is not there yet" in text
    assert not list(tmp_path.iterdir())


def test_the_command_line_overrides_a_recipe_and_names_an_unknown_one(capsys):
    assert main(["train", "--recipe=papier"]) == 2
    assert "did you mean 'paper'" in capsys.readouterr().err
    assert main(["train", "--recipe", "paper", "--device", "cpu"]) == 2
    assert "name it with --faces" in capsys.readouterr().err


def test_the_estimate_counts_what_is_there():
    config = TrainConfig(image_size=16, embedding_dim=16, optimizer="sgd", device="cpu")
    found = estimate(config, num_identities=100, device=torch.device("cpu"), repeats=1)
    state = build_state(config, 100, None, "cpu")
    count = sum(p.numel() for p in state.backbone.parameters())
    assert found.parameters == count
    assert found.prototype_parameters == 100 * 16
    assert found.state_bytes == 4 * 3 * (count + 1600)  # weight, gradient, momentum
    assert found.step_seconds > 0
    double = TrainConfig(image_size=32, embedding_dim=16, optimizer="sgd", device="cpu")
    larger = estimate(double, num_identities=100, device=torch.device("cpu"), repeats=1)
    # Four times the pixels, nearly four times the activations.
    assert 3 < larger.activation_bytes / found.activation_bytes < 4.5


def test_only_a_teacher_that_is_asked_in_every_step_is_built(monkeypatch):
    """Of a cache the rows are made: an IResNet-50 would take longer than the step itself."""
    built = []
    monkeypatch.setattr(
        "ekd_lite.train.estimate.build_backbone",
        lambda name, **options: built.append(name) or build_backbone(name, **options),
    )
    for cached, expected in ((True, []), (False, ["tiny_teacher"])):
        config = TrainConfig(
            method="ekd_gallery+kd", teacher="t", image_size=16, device="cpu", cache_teacher=cached
        )
        found = estimate(config, num_identities=100, device=torch.device("cpu"), repeats=1)
        assert found.step_seconds > 0
        assert built == expected


def test_split_prototypes_divide_the_memory():
    """MS1MV2 on 8 processes: each holds an eighth of the prototypes."""
    common: dict[str, Any] = {"image_size": 16, "embedding_dim": 16, "device": "cpu"}
    whole, shared = (
        estimate(
            TrainConfig(partial_fc=rate, **common),
            num_identities=80_000,
            processes=8,
            device=torch.device("cpu"),
            repeats=1,
        )
        for rate in (0.0, 1.0)
    )
    assert whole.prototype_parameters == 8 * shared.prototype_parameters == 80_000 * 16
