"""Training learns, and what cannot work is refused before the first step."""

import contextlib
import json
import os
from typing import Any

import numpy as np
import pytest
import torch

from ekd_lite.data import PackedFaces
from ekd_lite.distill import DISTILLERS
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.train import TrainConfig, batches, build_state, fit, load_model, train_step
from ekd_lite.train.batches import prepare
from ekd_lite.train.log import read_json_lines
from ekd_lite.train.optim import build_optimizer, learning_rate_at, margin_at
from ekd_lite.train.step import Batch
from tests.fakes import ColourFaces

SMALL: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 16,
    "general": 8,
    "identities": 4,
    "images_per_identity": 3,
    "device": "cpu",
    "log_every": 5,
}
pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    config = TrainConfig(backbone="tiny_teacher", steps=60, **SMALL)
    return str(fit(config, ColourFaces(), tmp_path_factory.mktemp("teacher"), progress=False))


def test_training_makes_faces_tell_apart(teacher):
    model = load_model(teacher)
    faces = ColourFaces()
    untrained = build_state(TrainConfig(backbone="tiny_teacher", **SMALL), 12, None, "cpu")
    before, after = (
        all_pairs_tpr_at_fpr(embed(net, faces), faces.labels, [1e-2]).item()
        for net in (untrained.backbone, model.backbone)
    )
    assert before < 0.9 < 0.99 < after


def test_the_folder_may_be_text(tmp_path):
    config = TrainConfig(steps=1, **SMALL)
    path = fit(config, ColourFaces(), f"{tmp_path}/run", progress=False)
    assert path == tmp_path / "run" / "model.safetensors"


@pytest.mark.parametrize("method", DISTILLERS)
def test_every_method_trains_and_resumes(tmp_path, teacher, method):
    for steps_done in (2, 4):
        config = TrainConfig(
            steps=4, method=method, teacher=teacher, teacher_threshold=0.5, **SMALL
        )

        def stop(state, metrics, last=steps_done):
            assert all(np.isfinite(value) for value in metrics.values())
            if state.step == last < 4:
                raise KeyError("stop")

        with contextlib.suppress(KeyError):
            fit(config, ColourFaces(), tmp_path, progress=False, on_step=stop)
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("method", ["none", "kd", "fitnet", "ekd", "ekd:2+fitnet:0.5"])
def test_every_method_lowers_its_losses(tmp_path, teacher, method):
    config = TrainConfig(
        steps=60, method=method, teacher=None if method == "none" else teacher, **SMALL
    )
    fit(config, ColourFaces(), tmp_path, progress=False)
    log = read_json_lines(tmp_path / "log.jsonl")
    assert log[-1]["step"] == 60
    assert log[-1]["identity"] < log[1]["identity"]
    if "ekd" in method:
        assert 0 <= log[-1]["ekd_critical_share"] <= 1
    if method == "ekd:2+fitnet:0.5":
        parts = log[-1]
        expected = parts["identity"] + 2 * parts["ekd"] + 0.5 * parts["fitnet"]
        assert parts["loss"] == pytest.approx(expected, rel=1e-6)


def test_caching_the_teacher_changes_nothing(tmp_path, teacher):
    """With batch norm in evaluation mode an image's embedding does not depend on its batch."""
    for cached in (True, False):
        config = TrainConfig(
            steps=3, method="fitnet", teacher=teacher, flip=True, cache_teacher=cached, **SMALL
        )
        fit(config, ColourFaces(), tmp_path / str(cached), progress=False)
    a, b = (read_json_lines(tmp_path / str(cached) / "log.jsonl")[-1] for cached in (True, False))
    assert a == pytest.approx(b, rel=1e-3)


def test_model_file_gives_the_same_net_back(teacher):
    model = load_model(teacher)
    again = load_model(teacher.removesuffix("/model.safetensors"))
    images = ColourFaces().batch(range(4))
    assert torch.equal(model.backbone(images), again.backbone(images))
    assert model.info["num_identities"] == 12
    assert not model.backbone.training


def test_general_part_only_for_the_identity_loss():
    """The authors give the margin softmax the general part of the batch only."""
    faces = ColourFaces()
    losses = {}
    for where in ("all", "general"):
        state = build_state(TrainConfig(identity_loss_on=where, **SMALL), 12, None, "cpu")
        batch = Batch(faces.batch(range(20)), faces.labels[:20])
        losses[where] = train_step(state, batch)["identity"].item()
        state = build_state(TrainConfig(identity_loss_on=where, **SMALL), 12, None, "cpu")
        state.head.margin = 0.0
        with torch.no_grad():
            logits = state.head(state.backbone(batch.images), batch.labels)
        rows = slice(8 if where == "general" else None)
        expected = torch.nn.functional.cross_entropy(logits[rows], batch.labels[rows])
        assert losses[where] == pytest.approx(expected.item(), rel=1e-5)
    assert losses["all"] != losses["general"]


def test_weight_of_the_identity_loss(teacher):
    """The loss is the weighted sum; at 0 labels say nothing and the head stays as it was."""
    faces, model = ColourFaces(), load_model(teacher)
    images, right = faces.batch(range(20)), faces.labels[:20]

    def losses(weight, labels):
        config = TrainConfig(method="fitnet:2", teacher=teacher, identity_weight=weight, **SMALL)
        state = build_state(config, 12, model, "cpu")
        before = state.head.prototypes.clone()
        out = train_step(state, Batch(images, labels, model.backbone(images).detach()))
        return out, torch.equal(before, state.head.prototypes)

    out, _ = losses(3.0, right)
    assert out["loss"] == pytest.approx(float(3 * out["identity"] + 2 * out["fitnet"]), rel=1e-6)
    first, untouched = losses(0.0, right)
    wrong, _ = losses(0.0, right.flip(0))
    assert untouched and set(first) == {"fitnet", "loss"}
    assert wrong["loss"] == first["loss"] == 2 * first["fitnet"]
    with pytest.raises(ValueError, match="nothing to learn from"):
        TrainConfig(identity_weight=0.0)
    with pytest.raises(ValueError, match="identity_weight must not be negative"):
        TrainConfig(identity_weight=-1.0)


def test_a_loss_that_is_not_finite_stops_before_anything_is_changed():
    state = build_state(TrainConfig(**SMALL), 12, None, "cpu")
    before = [p.clone() for p in state.backbone.parameters()]
    images = torch.full((8, 3, 16, 16), float("nan"))
    with pytest.raises(FloatingPointError, match="step 0 is not finite"):
        train_step(state, Batch(images, torch.arange(8)))
    assert state.step == 0
    for p, q in zip(before, state.backbone.parameters(), strict=True):
        assert torch.equal(p, q)


def test_schedules():
    config = TrainConfig(steps=100, warmup=0.1, learning_rate=1.0, margin=0.4, margin_ramp=0.5)
    rates = [learning_rate_at(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-3
    assert [margin_at(step, config) for step in (0, 25, 50, 99)] == [0, 0.2, 0.4, 0.4]


def test_vectors_are_not_decayed():
    state = build_state(TrainConfig(**SMALL), 12, None, "cpu")
    decayed, free = build_optimizer([state.backbone, state.head], state.config).param_groups
    norms = [m for m in state.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(any(m.weight is p for p in free["params"]) for m in norms)
    assert any(state.head.prototypes is p for p in decayed["params"])
    assert free["weight_decay"] == 0


class Broken(ColourFaces):
    def __init__(self, **changes):
        super().__init__(num_identities=changes.pop("num", 12))
        vars(self).update(changes)


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        (Broken(image_size=32), "32 pixels wide, the configuration says 16"),
        (Broken(num=1), "two or more"),
        (Broken(labels=torch.full((72,), 12)), "label 12 of image 0 is not in 0..11"),
        (Broken(labels=torch.zeros(72)), "int64"),
        (Broken(images=torch.full((72, 3, 16, 16), torch.nan)), "image 0 .* NaN or infinite"),
        (Broken(num=3), "too few"),
    ],
)
def test_bad_sets_are_refused_before_the_first_step(tmp_path, faces, message):
    with pytest.raises(ValueError, match=message):
        fit(TrainConfig(**SMALL), faces, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_bad_image_among_many_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("ekd_lite.train.checks.MAX_LOOKED_AT", 2)
    faces = ColourFaces()
    faces.images[7, 1, 3, 3] = float("inf")
    with pytest.raises(ValueError, match="image 7 of the set"):
        fit(TrainConfig(steps=100, **SMALL), faces, tmp_path / "run", progress=False)


def test_bad_teachers_are_refused_before_the_first_step(tmp_path, teacher):
    def refused(error, message, faces=None, **changes):
        with pytest.raises(error, match=message):  # noqa: PT012
            config = TrainConfig(**{**SMALL, "method": "kd", "teacher": teacher, **changes})
            fit(config, faces or ColourFaces(), tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()

    refused(FileNotFoundError, "no model at", teacher=str(tmp_path / "nowhere.safetensors"))
    refused(ValueError, "needs a teacher", teacher=None)
    refused(ValueError, "knows 12 identities, the set has 20", faces=ColourFaces(20))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 100)
    refused(ValueError, "no safetensors file", teacher=str(damaged))
    foreign = tmp_path / "foreign.safetensors"
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, foreign)
    refused(ValueError, "not written by ekd_lite", teacher=str(foreign))


def test_all_problems_of_a_configuration_come_at_once():
    with pytest.raises(ValueError, match="bad training configuration") as caught:
        TrainConfig(backbone="iresnet51", method="edk", steps=0, warmup=1.5, image_size=30)
    for message in ("did you mean 'iresnet50'", "did you mean 'ekd'", "steps", "warmup", "16"):
        assert message in str(caught.value)


def test_unknown_devices_are_named(tmp_path):
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        fit(TrainConfig(**{**SMALL, "device": "gpu"}), ColourFaces(), tmp_path, progress=False)


def test_configuration_round_trip(tmp_path):
    config = TrainConfig(steps=7, flip=True)
    assert TrainConfig.from_json(config.to_json()) == config
    from ekd_lite.train.config import read_config

    (tmp_path / "c.json").write_text(json.dumps({"stepz": 3}))
    with pytest.raises(ValueError, match=r"c\.json is no training configuration"):
        read_config(tmp_path / "c.json")


def test_kd_compares_plain_cosine_logits_of_all_images(teacher):
    """The cosines are made once for both losses: each must still get its own logits."""
    faces, model = ColourFaces(), load_model(teacher)
    images, labels = faces.batch(range(20)), faces.labels[:20]
    config = TrainConfig(method="kd", teacher=teacher, identity_loss_on="general", **SMALL)
    rows = model.backbone(images).detach()
    out = train_step(build_state(config, 12, model, "cpu"), Batch(images, labels, rows))
    state = build_state(config, 12, model, "cpu")
    state.head.margin = 0.0  # of the first step
    with torch.no_grad():
        x = state.backbone(images)
        expected = state.distillers["kd"](
            state.head.cosine_logits(x), model.head.cosine_logits(rows)
        )
        margin = torch.nn.functional.cross_entropy(state.head(x[:8], labels[:8]), labels[:8])
    assert float(out["kd"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(out["identity"]) == pytest.approx(float(margin), rel=1e-5)


def test_more_readers_than_the_machine_can_carry_are_capped_aloud(monkeypatch):
    """By our warning alone: torch would say once more that there are many."""
    asked, loader, cores = [], torch.utils.data.DataLoader, os.cpu_count() or 1

    def made(*arguments, **options):
        asked.append(loader(*arguments, **options).num_workers)

    monkeypatch.setattr(batches, "DataLoader", made)
    monkeypatch.setattr("ekd_lite.data.processes.cores", lambda: cores)
    config = TrainConfig(**SMALL, steps=2, workers=1000)
    sampler = batches.build_sampler(config, ColourFaces().labels)
    with (
        pytest.warns(UserWarning, match=f"workers = 1000 is more than 4 processes .* of {cores}"),
        pytest.raises(TypeError),  # what stands in for the loader is none
        batches.read_batches(config, ColourFaces(), sampler),
    ):
        pass
    assert asked == [4 * cores]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_goes_to_a_gpu_is_pinned_and_bytes(monkeypatch, device):
    """Also without readers; on the CPU bytes need not travel."""
    asked = []

    def loader(source, **options):
        images, _ = source.__getitems__(list(range(source.reading.shape[1])))
        asked.append((images.dtype, options["pin_memory"]))

    monkeypatch.setattr(batches, "DataLoader", loader)
    labels = ColourFaces().labels
    faces = PackedFaces(torch.zeros(len(labels), 3, 16, 16, dtype=torch.uint8), labels)
    config = TrainConfig(**SMALL, steps=2)
    sampler = batches.build_sampler(config, faces.labels)
    with (
        pytest.raises(TypeError),  # what stands in for the loader is none
        batches.read_batches(config, faces, sampler, device=device),
    ):
        pass
    assert asked == [(torch.uint8, True) if device == "cuda" else (torch.float32, False)]


@pytest.mark.starts_process
@pytest.mark.parametrize("options", [{}, {"augment": True}, {"channels_last": True}])
def test_readers_ship_bytes_and_a_step_sees_the_same_images(options):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (48, 3, 16, 16), generator=generator, dtype=torch.uint8)
    faces = PackedFaces(pixels, torch.arange(48) // 4)
    found = []
    for workers in (0, 1):
        config = TrainConfig(**SMALL, steps=2, workers=workers, **options)
        state = build_state(config, 12, None, "cpu")
        sampler = batches.build_sampler(config, faces.labels)
        with batches.read_batches(config, faces, sampler) as given:
            images, labels, index = next(given)
            assert images.dtype == (torch.uint8 if workers else torch.float32)
            found.append(prepare(state, images, labels, index, None, position=3))
    one, other = found
    assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    assert one.images.stride() == other.images.stride()


def test_changed_images_keep_the_target_of_the_unchanged(teacher):
    faces, index = ColourFaces(), torch.arange(8)
    cache = [torch.randn(len(faces), 16)]
    config = TrainConfig(method="fitnet", teacher=teacher, augment=True, **SMALL)
    state = build_state(config, 12, load_model(teacher), "cpu")
    given = faces.batch(index), faces.labels[index], index, cache
    first, again, later = (prepare(state, *given, position=p) for p in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, later.images)
    for batch in (first, later):
        assert (batch.images != given[0]).flatten(1).any(dim=1).all()
        assert batch.teacher_embeddings is not None
        assert torch.equal(batch.teacher_embeddings, cache[0][index])
