"""What a step promises: half precision, accumulation, clipping, bad batches, cached teachers."""

import dataclasses
import functools
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ekd_lite.distill import DISTILLERS
from ekd_lite.train import TrainConfig, build_state, cache_teacher, fit, load_model, train_step
from ekd_lite.train.batches import LoaderError
from ekd_lite.train.checkpoint import load_checkpoint
from ekd_lite.train.log import read_json_lines
from ekd_lite.train.optim import learning_rate_at
from ekd_lite.train.step import BadBatchError, Batch
from tests.distill.batches import gallery
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


def make_batch(seed=0, count=20):
    faces = ColourFaces(seed=seed)
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))[:count]
    return Batch(faces.batch(order), faces.labels[order], index=order)


def weights(state):
    return torch.cat([p.detach().flatten() for group in state.parameters() for p in group])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    config = TrainConfig(backbone="tiny_teacher", steps=30, **SMALL)
    return str(fit(config, ColourFaces(), tmp_path_factory.mktemp("teacher"), progress=False))


@functools.cache  # full precision is asked for by both halves
def losses_of_a_run(teacher, method, precision):
    config = TrainConfig(
        steps=40, precision=precision, method=method,
        teacher=None if method == "none" else teacher, cache_teacher=False, **SMALL,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        fit(config, ColourFaces(), Path(folder) / "run", progress=False)
        return [r["identity"] for r in read_json_lines(Path(folder) / "run" / "log.jsonl")]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", ["none", "ekd+fitnet+kd"])
def test_half_precision_trains_like_full(teacher, precision, method):
    full, half = (losses_of_a_run(teacher, method, name) for name in ("float32", precision))
    assert full != half
    assert half[-1] == pytest.approx(full[-1], rel=0.3)
    assert half[-1] < 0.5 * half[0]


@functools.cache
def losses_of_two_steps(teacher, method, precision):
    config = TrainConfig(precision=precision, method=method, **SMALL)
    known = load_model(teacher)
    rows = gallery(int(known.info["embedding_dim"]))
    state = build_state(config, 12, known, "cpu", threshold=0.3, gallery=rows)
    batch = make_batch()
    batch.teacher_embeddings = state.teacher(batch.images).detach()
    return [train_step(state, batch)[method].item() for _ in range(2)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", DISTILLERS)
def test_every_method_has_nearly_the_same_loss_in_half_precision(teacher, method, precision):
    full, half = (losses_of_two_steps(teacher, method, name) for name in ("float32", precision))
    assert half == pytest.approx(full, rel=0.15)


def test_half_precision_stays_in_the_backbone():
    """Weights, optimizer and losses have float32; what the backbone gives has passed half."""
    state = build_state(TrainConfig(precision="bf16", **SMALL), 12, None, "cpu")
    dtypes = []
    state.backbone.register_forward_hook(lambda module, x, y: dtypes.append(y.dtype))
    state.head.register_forward_hook(lambda module, x, y: dtypes.extend([x[0].dtype, y.dtype]))
    losses = train_step(state, make_batch())
    assert dtypes[0] == torch.bfloat16
    assert dtypes[1:] == [torch.float32] * 2
    assert losses["loss"].dtype == weights(state).dtype == torch.float32


def test_fifty_overflows_change_nothing_but_the_scale():
    """STYLE B8: a gradient too large for fp16 costs a try, not a step."""
    state = build_state(TrainConfig(precision="fp16", steps=1000, **SMALL), 12, None, "cpu")
    train_step(state, make_batch())
    for step in range(1, 51):
        before = weights(state)
        state.scaler.update(2.0**16)  # a few tries
        scales = []

        def watch(module, args, losses, scales=scales, before=before, step=step):
            scales.append(state.scaler.get_scale())
            assert torch.equal(weights(state), before)  # at every try
            assert state.step == step
            assert state.optimizer.param_groups[0]["lr"] == learning_rate_at(step, state.config)

        handle = state.objective.register_forward_hook(watch)
        losses = train_step(state, make_batch(step, count=8))
        handle.remove()
        assert len(scales) > 2
        assert all(b == a / 2 for a, b in itertools.pairwise(scales))
        assert state.step == step + 1
        assert losses["loss"].isfinite()
        assert weights(state).isfinite().all()
        assert not torch.equal(weights(state), before)


def test_the_running_statistics_count_a_batch_once_however_many_tries_it_takes():
    states = []
    for start in (2.0**4, 2.0**40):
        state = build_state(TrainConfig(precision="fp16", **SMALL), 12, None, "cpu")
        state.scaler = torch.amp.GradScaler("cpu", init_scale=start)
        train_step(state, make_batch())
        states.append([b.clone() for m in (state.backbone, state.head) for b in m.buffers()])
    for one, other in zip(*states, strict=True):
        assert torch.equal(one, other)


def test_the_scale_survives_a_resume(tmp_path):
    config = TrainConfig(precision="fp16", steps=6, checkpoint_every=3, **SMALL)

    def set_scale(state, metrics):
        if state.step == 2:
            state.scaler.update(123.0)

    def set_scale_and_stop(state, metrics):
        set_scale(state, metrics)
        if state.step == 4:
            raise KeyError("stop")

    fit(config, ColourFaces(), tmp_path / "whole", progress=False, on_step=set_scale)
    with pytest.raises(KeyError):
        fit(config, ColourFaces(), tmp_path / "cut", progress=False, on_step=set_scale_and_stop)
    assert load_checkpoint(tmp_path / "cut/checkpoint.pt")["scaler"]["scale"] == 123.0
    fit(config, ColourFaces(), tmp_path / "cut", progress=False)
    whole, cut = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "cut"))
    assert whole["scaler"] == cut["scaler"]
    for key, value in whole["backbone"].items():
        assert torch.equal(value, cut["backbone"][key])


def test_accumulation_averages_gradients():
    """Without batch norm's batch statistics, two halves give the gradient of the whole."""
    states = []
    whole = make_batch(count=24)
    halves = [
        Batch(whole.images[part], whole.labels[part]) for part in (slice(12), slice(12, None))
    ]
    for accumulate, batches in ((1, [whole]), (2, halves)):
        config = TrainConfig(accumulate=accumulate, optimizer="sgd", **SMALL)
        state = build_state(config, 12, None, "cpu")
        state.backbone.eval()
        before = weights(state)
        losses = train_step(state, *batches)
        states.append((weights(state) - before, float(losses["loss"])))
    torch.testing.assert_close(states[0][0], states[1][0], rtol=1e-4, atol=1e-7)
    assert states[0][1] == pytest.approx(states[1][1], rel=1e-5)
    assert states[0][0].abs().max() > 0


def test_accumulation_walks_through_the_same_batches(tmp_path):
    """Twenty steps of two batches read the forty batches that forty steps read."""
    seen = {}
    for steps, accumulate in ((40, 1), (20, 2)):
        faces = ColourFaces()
        seen[accumulate], read = [], faces.batch

        def batch(index, read=read, log=seen[accumulate]):
            log.append(torch.as_tensor(index).tolist())
            return read(index)

        faces.batch = batch
        config = TrainConfig(steps=steps, accumulate=accumulate, **SMALL)
        fit(config, faces, tmp_path / str(accumulate), progress=False)
    assert seen[1] == seen[2]
    assert len(seen[1]) >= 40


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_clipping_acts_on_the_true_gradient(precision):
    """SGD without momentum or decay moves by learning rate times the clipped gradient."""
    moved = {}
    for limit in (0.0, 1e-3):
        config = TrainConfig(
            precision=precision, clip_norm=limit, optimizer="sgd", weight_decay=0.0, warmup=0.0,
            learning_rate=1.0, **SMALL,
        )  # fmt: skip
        state = build_state(config, 12, None, "cpu")
        before = weights(state)
        train_step(state, make_batch())
        moved[limit] = weights(state) - before
    assert moved[0.0].norm() > 0.1
    assert moved[1e-3].norm() == pytest.approx(1e-3, rel=1e-2)
    cosine = torch.nn.functional.cosine_similarity(moved[0.0], moved[1e-3], dim=0)
    assert cosine > 0.99


def test_bad_batches_are_left_out_up_to_a_number_and_written_down(tmp_path):
    config = TrainConfig(steps=12, max_bad_steps=2, **SMALL)

    def poison(state, metrics):
        if state.step in (4, 7):
            handle: Any = state.backbone.register_forward_hook(
                lambda module, x, y: (handle.remove(), y * float("nan"))[1]
            )

    path = fit(config, ColourFaces(), tmp_path / "a", progress=False, on_step=poison)
    assert all(v.isfinite().all() for v in load_model(path).backbone.state_dict().values())
    records = read_json_lines(tmp_path / "a" / "bad_batches.jsonl")
    assert [record["step"] for record in records] == [4, 7]
    assert len(records[0]["images"]["0"]) == 20
    config = dataclasses.replace(config, max_bad_steps=1)
    with pytest.raises(BadBatchError, match=r"step 7 is not finite: .*identity.* on process 0"):
        fit(config, ColourFaces(), tmp_path / "b", progress=False, on_step=poison)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.starts_process)])
def test_an_image_that_cannot_be_read_is_named(tmp_path, workers):
    class Broken(ColourFaces):
        def batch(self, indices):
            if 17 in torch.as_tensor(indices).tolist() and len(indices) < 30:
                raise OSError("disk on fire")
            return super().batch(indices)

    config = TrainConfig(steps=30, workers=workers, **SMALL)
    with pytest.raises(LoaderError, match=r"^image 17 cannot be read: OSError: disk on fire$"):
        fit(config, Broken(), tmp_path, progress=False)


def test_the_teachers_cache_is_kept_and_checked(tmp_path, teacher):
    model, faces, path = load_model(teacher), ColourFaces(), tmp_path / "cache.safetensors"
    made = cache_teacher(model, faces, flip=True, path=path, progress=False)
    assert [view.shape for view in made] == [(72, 16)] * 2
    with torch.no_grad():
        torch.testing.assert_close(made[1], model.backbone(faces.images.flip(-1)))
    calls = []
    model.backbone.register_forward_hook(lambda net, given, rows: calls.append(len(rows)))
    again = cache_teacher(model, faces, flip=True, path=path, progress=False)
    assert all(map(torch.equal, made, again))
    assert calls == [16]  # held against the rows that were read
    with pytest.raises(ValueError, match="another teacher, other faces"):
        cache_teacher(model, ColourFaces(seed=1), flip=True, path=path, progress=False)
    other = load_model(teacher)
    with torch.no_grad():
        next(other.backbone.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match="another teacher, other faces"):
        cache_teacher(other, faces, flip=True, path=path, progress=False)
    data = bytearray(path.read_bytes())
    data[3] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged one"):
        cache_teacher(model, faces, flip=True, path=path, progress=False)


def test_runs_share_a_cache_on_disk(tmp_path, teacher):
    common = {"steps": 3, "method": "fitnet", "teacher": teacher, "flip": True, **SMALL}
    for name, cache in (("memory", None), ("first", "cache"), ("second", "cache")):
        path = None if cache is None else str(tmp_path / cache)
        fit(
            TrainConfig(**common, teacher_cache=path),
            ColourFaces(),
            tmp_path / name,
            progress=False,
        )
    logs = [(tmp_path / name / "log.jsonl").read_bytes() for name in ("memory", "first", "second")]
    assert logs[0] == logs[1] == logs[2]


def test_a_set_that_changes_its_images_is_not_cached(tmp_path, teacher):
    class Augmented(ColourFaces):
        def batch(self, indices):
            return super().batch(indices) + 0.01 * torch.rand(())

    config = TrainConfig(steps=2, method="fitnet", teacher=teacher, **SMALL)
    with pytest.raises(ValueError, match=r"image 0 of the set is another .* cache_teacher"):
        fit(config, Augmented(), tmp_path / "a", progress=False)
    config = dataclasses.replace(config, cache_teacher=False)
    fit(config, Augmented(), tmp_path / "a", progress=False)


def test_step_schedule():
    config = TrainConfig(
        steps=100, schedule="step", milestones=(0.3, 0.6), warmup=0.1, learning_rate=1.0
    )
    rates = [learning_rate_at(step, config) for step in (0, 10, 29, 30, 59, 60, 99)]
    assert rates == pytest.approx([0.1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"partial_fc": 1.5}, r"partial_fc must lie in \[0, 1\]"),
        ({"partial_fc": 0.1, "method": "kd", "teacher": "t"}, "compares the logits"),
        ({"partial_fc": 0.1, "method": "kd+dkd", "teacher": "t"}, "compares the logits"),
        ({"partial_fc": 0.1, "head": "adaface"}, "cannot be split"),
        ({"method": "adadistill+fitnet+margin:2"}, "'adadistill' and 'margin' in method .* keep"),
        ({"method": "arcdistill", "head": "cosface"}, "'arcdistill' adds .* 'arcface'"),
        ({"method": "adadistill", "head": "sphereface", "margin": 1.5}, r"none \(a factor\)"),
        ({"milestones": (0.5, 1.0)}, "milestones"),
        ({"accumulate": 0}, "accumulate must be positive"),
        ({"clip_norm": -1.0}, "clip_norm must not be negative"),
    ],
)
def test_impossible_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


@pytest.mark.slow
@pytest.mark.starts_process
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_backbone_gives_the_same_losses():
    losses = []
    for compiled in (False, True):
        state = build_state(TrainConfig(compile=compiled, **SMALL), 12, None, "cpu")
        losses.append([float(train_step(state, make_batch(i))["loss"]) for i in range(3)])
        assert not any(name.startswith("_orig_mod") for name in state.backbone.state_dict())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
