"""`init_from`: what fits is copied, what does not is named, and the run remembers it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ekd_lite.models import MobileFaceNet, build_backbone
from ekd_lite.train import TrainConfig, fit, load_backbone, load_model, save_backbone
from ekd_lite.train.checkpoint import load_checkpoint
from ekd_lite.train.log import read_json_lines
from ekd_lite.train.start import start_from
from tests.fakes import ColourFaces
from tests.models.published_values import fill
from tests.models.test_published import KNOWN

SMALL: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 16,
    "general": 8,
    "identities": 4,
    "images_per_identity": 3,
    "steps": 2,
    "checkpoint_every": 1,
    "log_every": 1,
    "device": "cpu",
}
FACES = ColourFaces()
pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")


def tiny(width=16):
    return build_backbone("tiny_student", embedding_dim=width, image_size=16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fit(TrainConfig(**SMALL), FACES, tmp_path_factory.mktemp("trained"), progress=False)


class Stopped(Exception):
    pass


def test_the_first_step_begins_with_the_weights_of_the_file(tmp_path, trained, capsys):
    """With a learning rate of almost nothing the weights after a step are those of the start."""
    config = TrainConfig(**SMALL | {"learning_rate": 1e-30, "steps": 1}, seed=7)
    fit(config, FACES, tmp_path, init_from=trained.parent)
    found, wanted = load_model(tmp_path), load_model(trained)
    for (name, a), (_, b) in zip(
        found.backbone.named_parameters(), wanted.backbone.named_parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-20, msg=name)
    assert not torch.equal(found.head.prototypes, wanted.head.prototypes)
    said = f"starts from {trained.parent}: 48 of 48 tensors copied (9,244 of 9,244 numbers); 1 of"
    assert capsys.readouterr().out.startswith(f"{said} its tensors left out: head.prototypes\n")
    first, second = read_json_lines(tmp_path / "log.jsonl")
    record = {"copied": 48, "kept": [], "left_out": ["head.prototypes"]}
    assert first == {"step": 0, "init_from": {"source": str(trained.parent), **record}}
    assert second["step"] == 1
    assert (tmp_path / "log.csv").read_text().startswith("step,identity,loss\n1,")


def test_a_resumed_and_a_finished_run_are_held_to_their_start(tmp_path, trained):
    net = load_model(trained).backbone
    other = {name: t * 1.001 for name, t in net.state_dict().items() if t.is_floating_point()}
    config = TrainConfig(**SMALL, seed=1)

    def stop_at(step):
        def stop(state, metrics):
            if state.step == step:
                raise Stopped

        return stop

    whole = fit(config, FACES, tmp_path / "whole", progress=False, init_from=net)
    for step in (1, 1, 2):  # killed before the first checkpoint, and after it
        with pytest.raises(Stopped):
            fit(
                config, FACES, tmp_path / "run",
                progress=False, init_from=trained, on_step=stop_at(step),
            )  # fmt: skip
    for _ in range(2):
        for wrong in (None, other):
            with pytest.raises(ValueError, match=r"init_from: (none|digest \w+) here, digest"):
                fit(config, FACES, tmp_path / "run", progress=False, init_from=wrong)
        path = fit(config, FACES, tmp_path / "run", progress=False, init_from=net)
    assert [r["step"] for r in read_json_lines(tmp_path / "run" / "log.jsonl")] == [0, 1, 2]
    a, b = load_file(path), load_file(whole)
    assert all(torch.equal(a[name], b[name]) for name in b)
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert saved is not None
    assert saved["origin"]["init_from"] == load_model(path).origin["init_from"]


def write(path, content):
    if path.suffix == ".safetensors":
        save_file({n: t.clone().contiguous() for n, t in content.items()}, path)
    else:
        torch.save(content, path)
    return path


PREFIXED = {
    "plain.pt": lambda state: state,
    "parallel.pth": lambda state: {f"module._orig_mod.{n}": t for n, t in state.items()},
    "lightning.ckpt": lambda state: {
        "state_dict": {f"student.{n}": t for n, t in state.items()} | {"head.weight": torch.ones(3)}
    },
    "net.safetensors": lambda state: {f"net.{n}": t for n, t in state.items()},
    "half.pt": lambda state: {
        n: t.half() if t.is_floating_point() else t for n, t in state.items()
    },
}


@pytest.mark.parametrize("name", PREFIXED)
def test_every_way_to_hand_over_the_same_weights(tmp_path, trained, name):
    state = load_model(trained).backbone.state_dict()
    path = write(tmp_path / name, PREFIXED[name](state))
    net = tiny()
    start = start_from(net, path if name != "half.pt" else str(path))
    for key, value in net.state_dict().items():
        expected = state[key]
        if name == "half.pt" and expected.is_floating_point():
            expected = expected.half().float()
        assert torch.equal(value, expected), key
    assert (len(start.copied), start.kept) == (48, ())
    assert start.left_out == (("head.weight",) if name == "lightning.ckpt" else ())


def test_a_model_a_module_and_a_bare_backbone(tmp_path, trained):
    model = load_model(trained)
    save_backbone(tmp_path / "bare.safetensors", model.backbone, model.info)
    digests = set()
    for source in (model, model.backbone, tmp_path / "bare.safetensors", trained,
                   nn.Sequential(model.backbone)):  # fmt: skip
        net = tiny()
        digests.add(start_from(net, source).digest)
        for a, b in zip(net.parameters(), model.backbone.parameters(), strict=True):
            assert torch.equal(a, b)
    assert len(digests) == 1


def test_shapes_that_partly_fit(trained):
    state = load_model(trained).backbone.state_dict()
    net, fresh = tiny(12), tiny(12)
    fresh.load_state_dict(net.state_dict())
    start = start_from(net, {**state, "more.weight": torch.zeros(2)})
    for name, value in net.state_dict().items():
        fits = not name.startswith("output.3") and not name.startswith("output.4.running")
        expected = state[name] if fits else fresh.state_dict()[name]
        assert torch.equal(value, expected), name
    assert start.left_out == ("more.weight",)
    assert str(start) == (
        "starts from a state dict: 45 of 48 tensors copied (8,188 of 8,980 numbers); 3 stay as "
        "they were: output.3.weight (12, 64) (there (16, 64)), output.4.running_mean (12,) (there "
        "(16,)), output.4.running_var (12,) (there (16,)); 1 of its tensors left out: more.weight"
    )
    whole = {name: t.long() for name, t in state.items() if name == "body.0.0.weight"}
    start = start_from(net, {**state, **whole})
    assert "body.0.0.weight torch.float32 (there torch.int64)" in start.kept


def test_a_published_net_by_its_own_names_or_by_ours(tmp_path):
    """The original names of TFace's MobileFaceNet, made by its own code, into our net."""
    weights = fill(KNOWN["mobilefacenet"]["shapes"])
    path = write(tmp_path / "mbf.pth", {f"module.{n}": t for n, t in weights.items()})
    net = MobileFaceNet(embedding_dim=512, image_size=112)
    start = start_from(net, path)
    assert start.kept == start.left_out == ()
    theirs = {tuple(t.shape): t for t in weights.values()}
    first = next(net.parameters())
    assert torch.equal(first, theirs[tuple(first.shape)])
    own = Foreign(weights)
    start = start_from(own, path)  # a net of the user's that has their names
    assert start.kept == start.left_out == ()
    for name, value in own.state_dict().items():
        assert torch.equal(value, weights[name]), name


class Foreign(nn.Module):
    """Parameters under the names of a state dict; what they compute does not matter here."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            if value.is_floating_point() and "running" not in last:
                module.register_parameter(last, nn.Parameter(torch.zeros_like(value)))
            else:
                module.register_buffer(last, torch.zeros_like(value))


def test_with_a_net_of_ones_own(tmp_path, trained):
    config = TrainConfig(**SMALL | {"steps": 1, "learning_rate": 1e-30})
    path = fit(config, FACES, tmp_path, progress=False, student=tiny, init_from=trained)
    backbone, _ = load_backbone(path, student=tiny)
    wanted = load_model(trained).backbone
    for a, b in zip(backbone.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-20)


def bad_sources(folder: Path, trained: Path) -> dict[str, tuple[Any, type[Exception], str]]:
    state = load_model(trained).backbone.state_dict()
    name = "body.0.0.weight"
    (folder / "net.onnx").write_bytes(b"x")
    (folder / "cut.pt").write_bytes(b"PK\x03\x04" + bytes(40))
    counts = {n: t for n, t in state.items() if n.endswith("tracked")}
    return {
        "nothing": (folder / "no.pt", FileNotFoundError, "no checkpoint at .*no.pt"),
        "ONNX": (folder / "net.onnx", ValueError, "is no file of weights: expected one of"),
        "cut off": (folder / "cut.pt", ValueError, "cannot be read as a checkpoint"),
        "NaN": (
            {**state, name: state[name] * torch.nan},
            ValueError,
            f"a state dict holds NaN or infinite weights: {name}",
        ),
        "another net": (
            nn.Linear(3, 4),
            ValueError,
            r"Linear holds no weights for this net: it has 2 tensors, weight \(4, 3\).* the net",
        ),
        "counters": (counts, ValueError, "no weights for this net"),
        "an empty dict": ({}, ValueError, "it has no tensors; the net has"),
        "a number": (3, ValueError, "expected as init_from a path, an nn.Module .* got int"),
    }


@pytest.mark.parametrize(
    "what",
    ["nothing", "ONNX", "cut off", "NaN", "another net", "counters", "an empty dict", "a number"],
)
def test_what_cannot_start_a_run_is_one_message_before_it(tmp_path, trained, what):
    source, error, message = bad_sources(tmp_path, trained)[what]
    with pytest.raises(error, match=message) as caught:
        fit(TrainConfig(**SMALL), FACES, tmp_path / "run", progress=False, init_from=source)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
