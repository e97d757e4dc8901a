"""What cannot be right is refused before step 1, in one line, and leaves no folder behind."""

import dataclasses
import hashlib
import io
import json
import os
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ekd_lite.models import BACKBONES, build_backbone
from ekd_lite.train import (
    Model,
    TrainConfig,
    build_state,
    cache_teacher,
    fit,
    load_backbone,
    load_model,
    save_model,
)
from ekd_lite.train.checkpoint import CHECKPOINT_MAGIC
from ekd_lite.train.checks import check_rows
from ekd_lite.train.config import read_config
from ekd_lite.train.distributed import pick_device
from ekd_lite.train.origin import faces_origin
from tests.fakes import ColourFaces
from tests.memory import needs_peak, peak_mb

SMALL: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 16,
    "general": 8,
    "identities": 4,
    "images_per_identity": 3,
    "steps": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    config = TrainConfig(backbone="tiny_teacher", **SMALL)
    return fit(config, ColourFaces(), tmp_path_factory.mktemp("teacher"), progress=False)


class Turned(ColourFaces):
    """The set with its images or its attributes changed."""

    def __init__(self, turn=lambda images: images, **changes):
        super().__init__()
        vars(self).update(changes)
        self.turn = turn

    def __len__(self):
        return 72

    def batch(self, indices):
        return self.turn(super().batch(indices))


class Dataset(torch.utils.data.Dataset):
    def __len__(self):
        return 72


LABELS = ColourFaces().labels
BAD_SETS: dict[str, tuple[Any, str]] = {
    "0..255": (Turned(lambda x: (x + 1) * 127.5), r"not in \[-1, 1\].* images / 127\.5 - 1"),
    "0..1": (Turned(lambda x: (x + 1) / 2), r"seem to lie in \[0, 1\]; give out 2 \* images - 1"),
    "standardised": (Turned(lambda x: x / 0.225), r"not in \[-1, 1\]"),
    "uint8": (Turned(lambda x: x.to(torch.uint8)), "float32 in .* got .* of torch.uint8"),
    "float64": (Turned(lambda x: x.double()), "float32 in .* got .* of torch.float64"),
    "half": (Turned(lambda x: x.half()), "float32 in .* got .* of torch.float16"),
    "numpy": (Turned(lambda x: x.numpy()), "float32 in .* got .* of float32"),
    "list": (Turned(lambda x: x.tolist()), "float32 in .* got list"),
    "grey": (Turned(lambda x: x[:, :1]), r"\(72, 3, H, W\) of .* got \(72, 1, 16, 16\)"),
    "channels last": (Turned(lambda x: x.permute(0, 2, 3, 1)), r"got \(72, 16, 16, 3\)"),
    "one image": (Turned(lambda x: x[0]), r"got \(3, 16, 16\)"),
    "too few": (Turned(lambda x: x[:-1]), r"got \(71, 3, 16, 16\)"),
    "wide": (Turned(lambda x: x.repeat(1, 1, 1, 2)), r"16 pixels wide, and gives \(3, 16, 32\)"),
    "people as text": (Turned(num_identities="12"), "num_identities must be a whole number"),
    "people as a float": (Turned(num_identities=12.0), "num_identities must be a whole number"),
    "labels list": (Turned(labels=LABELS.tolist()), "72 int64 labels, a Tensor .* got list"),
    "labels numpy": (
        Turned(labels=LABELS.numpy()),
        r"a Tensor .* got a numpy array \(72,\) of int64",
    ),
    "labels float": (Turned(labels=LABELS.float()), "got .* of torch.float32"),
    "labels int32": (Turned(labels=LABELS.int()), "got .* of torch.int32"),
    "labels one-hot": (Turned(labels=torch.eye(12)[LABELS].long()), r"got \(72, 12\)"),
    "labels too few": (Turned(labels=LABELS[:-1]), "72 int64 labels, one an image, got 71"),
    "labels negative": (Turned(labels=LABELS - 1), r"label -1 of image 0 is not in 0\.\.11"),
    "a torch Dataset": (
        Dataset(),
        "Dataset has no labels, image_size, num_identities, batch.*; ekd_lite.data.FaceDataset",
    ),
    "an image tensor": (torch.zeros(72, 3, 16, 16), "Tensor has no labels, .*, batch$"),
}


@pytest.mark.parametrize("what", BAD_SETS)
def test_sets_that_cannot_be_right(tmp_path, what):
    faces, message = BAD_SETS[what]
    with pytest.raises(ValueError, match=message) as caught:
        fit(TrainConfig(**SMALL), faces, tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_batch_of_wrong_pixels_is_met_in_training_too(tmp_path, monkeypatch):
    monkeypatch.setattr("ekd_lite.train.checks.MAX_LOOKED_AT", 2)
    faces = ColourFaces()
    faces.images[7] = 255.0
    with pytest.raises(ValueError, match="the pixels of image 7 are not in"):
        fit(TrainConfig(**SMALL | {"steps": 50}), faces, tmp_path, progress=False)


def test_a_little_beyond_the_range_is_noise(tmp_path):
    fit(TrainConfig(**SMALL), Turned(lambda x: 1.4 * x), tmp_path, progress=False)


ROWS = torch.randn(72, 16, generator=torch.Generator().manual_seed(0))


def holed(value):
    rows = ROWS.clone()
    rows[5, 3] = value
    return rows


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "too many": ([torch.cat([ROWS, ROWS])], r"72 images, \(72, 16\) .* got \(144, 16\)"),
    "too few": ([ROWS[:-1]], r"got \(71, 16\)"),
    "wide": ([torch.randn(72, 512)], r"got \(72, 512\)"),
    "flat": ([ROWS.flatten()], r"got \(1152,\)"),
    "maps": ([ROWS[:, :, None, None]], r"got \(72, 16, 1, 1\)"),
    "NaN": ([holed(torch.nan)], r"embedding of image 5 is not finite \(1 such\)"),
    "infinite": ([ROWS, holed(-torch.inf)], "embedding of image 5 is not finite"),
    "whole numbers": ([ROWS.long()], "floating-point type, got .* of torch.int64"),
    "complex": ([ROWS + 0j], "floating-point type"),
    "three views": ([ROWS] * 3, "one or two tables"),
    "none": ([], "one or two tables"),
    "far too long": ([1e30 * ROWS], r"image 0 is .*e\+30 long \(72 such\), expected 1e-05 to"),
    "far too short": ([1e-30 * ROWS], r"image 0 is .*e-30 long \(72 such\), expected 1e-05 to"),
    "text": (["rows.npy"], "no table of numbers"),
    "a path": ("rows.npy", "one or two tables"),
    "a number": (3, "one or two tables .* got int"),
    "ragged": ([[[1.0], [1.0, 2.0]]], "no table of numbers"),
    "the second view": ([ROWS, ROWS[:9]], r"got \(9, 16\)"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
@pytest.mark.parametrize("method", ["fitnet", "kd"])
def test_rows_that_cannot_belong_to_the_set(tmp_path, teacher, what, method):
    rows, message = BAD_ROWS[what]
    config = TrainConfig(method=method, teacher=str(teacher), **SMALL)
    with pytest.raises(ValueError, match=message) as caught:
        fit(config, ColourFaces(), tmp_path / "run", teacher_embeddings=rows, progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_one_view_is_not_enough_for_mirrored_images(tmp_path, teacher):
    config = TrainConfig(method="fitnet", teacher=str(teacher), flip=True, **SMALL)
    with pytest.raises(ValueError, match=r"no teacher's embeddings of mirrored .* \[rows, rows\]"):
        fit(config, ColourFaces(), tmp_path, teacher_embeddings=[ROWS], progress=False)
    fit(config, ColourFaces(), tmp_path, teacher_embeddings=[ROWS, ROWS], progress=False)


def test_rows_in_any_form_give_the_same_table():
    forms = [ROWS.numpy()], [ROWS.tolist()], ROWS, ROWS.numpy(), (ROWS.double(),), ROWS[None]
    for form in forms:
        (view,) = check_rows(form, count=72, width=16, flip=False)
        assert view.dtype == torch.float32
        torch.testing.assert_close(view, ROWS)
    (half,) = check_rows([ROWS.half()], count=72, width=16, flip=False)
    torch.testing.assert_close(half, ROWS, atol=1e-2, rtol=1e-3)
    assert len(check_rows(torch.stack([ROWS, ROWS]), count=72, width=16, flip=True)) == 2


class Net(nn.Module):
    def __init__(self, *, embedding_dim, image_size):
        super().__init__()
        self.layer = nn.Linear(3 * image_size**2, embedding_dim)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Pair(Net):
    """As AdaFace's nets: embedding and norm."""

    def forward(self, x):
        y = super().forward(x)
        return y, y.norm(dim=1, keepdim=True)


class Map(Net):
    def forward(self, x):
        return super().forward(x)[:, :, None, None]


class Named(Net):
    def forward(self, x):
        return {"embedding": super().forward(x)}


class Narrow(Net):
    def forward(self, x):
        return super().forward(x)[:, :7]


class Single(Net):
    def forward(self, x):
        return super().forward(x)[0]


BAD_NETS = {
    "pair": (Pair, "the net gives a tuple of 2, expected a tensor .*: wrap it in a module"),
    "feature map": (Map, r"the net gives \(2, 16, 1, 1\) for 2 images"),
    "dictionary": (Named, "the net gives a dict of 1"),
    "another width": (Narrow, r"it gives embeddings \(N, 7\), not \(N, 16\)"),
    "one row": (Single, r"the net gives \(16,\) for 2 images"),
    "half": (lambda **size: Net(**size).half(), r"weights are torch.float16 \(.*layer.weight\)"),
    "bfloat16": (lambda **size: Net(**size).bfloat16(), "weights are torch.bfloat16"),
}


@pytest.mark.parametrize("what", BAD_NETS)
def test_nets_that_give_no_embeddings(tmp_path, monkeypatch, teacher, what):
    make, message = BAD_NETS[what]
    monkeypatch.setitem(BACKBONES, "mine", make)
    with pytest.raises(ValueError, match=f"the student.*{message}") as caught:
        fit(TrainConfig(backbone="mine", **SMALL), ColourFaces(), tmp_path / "s", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s").exists()
    model = load_model(teacher)
    model.backbone = make(embedding_dim=16, image_size=16)
    with pytest.raises(ValueError, match=f"the teacher.*{message}"):
        cache_teacher(model, ColourFaces(), flip=False, progress=False)


def test_looking_at_a_net_changes_nothing(monkeypatch):
    """Neither its modes, nor its running statistics, nor torch's generator."""

    class Drawing(Net):
        def __init__(self, **size):
            super().__init__(**size)
            self.norm = nn.BatchNorm1d(size["embedding_dim"]).eval()

        def forward(self, x):
            return self.norm(nn.functional.dropout(super().forward(x), 0.5))

    monkeypatch.setitem(BACKBONES, "mine", Drawing)
    state = build_state(TrainConfig(backbone="mine", **SMALL), 12, None, "cpu")
    drawn = torch.rand(())
    torch.manual_seed(0)
    net = build_backbone("mine", embedding_dim=16, image_size=16)
    nn.init.normal_(torch.empty(12, 16), std=0.01)  # the head
    assert torch.equal(drawn, torch.rand(()))
    assert state.backbone.training and not state.backbone.norm.training
    assert state.backbone.norm.num_batches_tracked == 0
    for mine, theirs in zip(net.parameters(), state.backbone.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": 28.6}, r"ArcFace's margin .* \(radians\), got 28.6 \(28.6 degrees are 0.499\)"),
        ({"margin": -0.5}, "margin must not be negative"),
        ({"head": "cosface", "margin": 28.6}, r"CosFace's margin .* \(units of the cosine\)"),
        ({"head": "adaface", "margin": 20.0}, "AdaFace's margin"),
        ({"head": "curricularface", "margin": 25.0}, "CurricularFace's margin"),
        ({"head": "sphereface"}, r"SphereFace's margin must lie in 1\.\.20 \(a factor\), got 0.4"),
        ({"margin": float("nan")}, "ArcFace's margin"),
        ({"image_size": 100_000}, "multiple of 16 up to 1024, got 100000"),
        ({"embedding_dim": 100_000}, "embedding_dim must be at most 65536"),
        ({"general": -1}, "general must not be negative"),
        ({"seed": 2**63}, "seed must be below 2"),
        ({"method": "none+ekd", "teacher": "t"}, "'none' stands alone, not in 'none\\+ekd'"),
        ({"steps": "5"}, "steps must be int, got '5'"),
        ({"seed": 0.5}, "seed must be int, got 0.5"),
        ({"flip": 1}, "flip must be bool, got 1"),
        ({"scale": True}, "scale must be float, got True"),
        ({"backbone": None}, "backbone must be str, got None"),
        ({"teacher": 3}, r"teacher must be str \| None, got 3"),
        ({"precision": "fp8"}, r"precision must be Literal\['float32', 'bf16', 'fp16'\]"),
        ({"milestones": 0.5}, "milestones must be tuple"),
        ({"milestones": ("a",)}, "milestones must be tuple"),
    ],
)
def test_values_that_no_run_can_have(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_heads_without_a_margin_take_any():
    assert TrainConfig(head="normface", margin=30.0).margin == 30.0
    assert TrainConfig(head="sphereface", margin=4).margin == 4


@pytest.mark.parametrize("text", ["[" * 100_000, '{"teacher":' * 100_000, "[1]", "3", "null", "{"])
def test_a_configuration_file_that_is_none(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is no training configuration") as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


class Evil:
    """Executed, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def sealed(payload):
    """Bytes as a checkpoint with the right checksum."""
    return CHECKPOINT_MAGIC + hashlib.sha256(payload).digest() + payload


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def state():
    new = build_state(TrainConfig(**SMALL), 12, None, "cpu")
    assert "origin" not in new.state_dict()  # `build_state` by itself looks at no faces
    new.origin = faces_origin(ColourFaces())
    return new.state_dict()


def test_foreign_and_hostile_checkpoints(tmp_path, state):
    (tmp_path / "run").mkdir()
    trap = tmp_path / "executed"
    short = {k: v[:0] if v.ndim else v for k, v in state["backbone"].items()}
    cases = {
        "another program's": (saved({"model": torch.zeros(3)}), "was not written by ekd_lite"),
        "cut off": (CHECKPOINT_MAGIC[:9], "is damaged"),
        "no pickle": (sealed(b"xx"), "something else than tensors"),
        "hostile": (sealed(saved(Evil(trap))), "nothing in it was executed"),
        "hostile, bare": (sealed(pickle.dumps(Evil(trap))), "nothing in it was executed"),
        "a list": (sealed(saved([1])), "no saved state"),
        "deep": (sealed(saved({**state, "config": "[" * 100_000})), "no saved state"),
        "a number as text": (sealed(saved({**state, "step": "x"})), "no saved state"),
        "other shapes": (sealed(saved({**state, "backbone": short})), "differ, such as body.0.0"),
        **{f"no {k}": (sealed(saved({n: v for n, v in state.items() if n != k})), f"no '{k}'")
           for k in state if k != "origin"},
    }  # fmt: skip
    for name, (data, message) in cases.items():
        (tmp_path / "run" / "checkpoint.pt").write_bytes(data)
        with pytest.raises(ValueError, match=message) as caught:
            fit(TrainConfig(**SMALL), ColourFaces(), tmp_path / "run", progress=False)
        assert "\n" not in str(caught.value), name
        assert not trap.exists(), name
        assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == data


INFO = {
    "backbone": "tiny_student", "embedding_dim": 16, "image_size": 16, "head": "arcface",
    "num_identities": 12, "scale": 28.0, "margin": 0.4, "method": "none",
}  # fmt: skip
BOMBS = [
    {"embedding_dim": 20_000_000},
    {"embedding_dim": 60_000, "image_size": 1024, "backbone": "iresnet100"},
    {"num_identities": 10**12},
    {"num_identities": 10**30},
    {"image_size": 160_000},
    {"image_size": -16},
    {"embedding_dim": 1.5},
    {"embedding_dim": "16"},
    {"embedding_dim": None},
    {"backbone": 5},
    {"backbone": ["tiny_student"]},
    {"backbone": "iresnet50"},
    {"head": {}},
    {"head": "softmax"},
    {"scale": float("nan")},
    {"margin": "0.4"},
]


@needs_peak
@pytest.mark.parametrize("load", [load_model, load_backbone])
def test_model_files_are_compared_before_anything_is_allocated(tmp_path, load):
    """The highest memory of this process says whether it was."""
    for number, changes in enumerate(BOMBS):
        metadata = {"format": "ekd_lite.model.1", "info": json.dumps(INFO | changes)}
        save_file({"head.prototypes": torch.zeros(1)}, tmp_path / f"{number}", metadata)
    for number, text in enumerate(["[" * 100_000, "[1]", "3", "", '{"backbone": 3}'], start=50):
        metadata = {"format": "ekd_lite.model.1", "info": text}
        save_file({"head.prototypes": torch.zeros(1)}, tmp_path / f"{number}", metadata)
    before = peak_mb()
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match="does not fit the net that it names") as caught:
            load(path)
        assert "\n" not in str(caught.value)
    assert peak_mb() - before < 200


@pytest.mark.parametrize("part", ["backbone.output.3.weight", "head.prototypes", "people", "more"])
def test_a_part_that_is_missing_left_over_or_misshapen_is_named(tmp_path, teacher, part):
    model = load_model(teacher)
    model.people = torch.arange(12)
    save_model(tmp_path / "m", model)
    tensors = load_file(tmp_path / "m")
    metadata = {"format": "ekd_lite.model.1", "info": json.dumps(model.info)}
    name = "backbone.more" if part == "more" else part
    changed = {"m": {**tensors, name: torch.zeros(3, 5)}}
    if part not in ("people", "more"):
        changed["n"] = {k: v for k, v in tensors.items() if k != part}
    for file, content in changed.items():
        save_file(content, tmp_path / file, metadata)
        with pytest.raises(ValueError, match=f"does not fit the net that it names: {name}"):
            load_model(tmp_path / file)


def test_model_files_of_earlier_versions_load(tmp_path, teacher):
    model = load_model(teacher)
    old = Model(model.backbone, model.head, model.info)
    save_model(tmp_path / "old", old)
    again = load_model(tmp_path / "old")
    assert again.people is None
    assert again.origin == {}
    assert dataclasses.asdict(again)["info"] == model.info


def test_loading_a_model_draws_as_many_random_numbers_as_before(teacher):
    """Chapters set a seed, load a teacher, and draw: their numbers hang on it."""
    torch.manual_seed(3)
    load_model(teacher)
    drawn = torch.rand(())
    torch.manual_seed(3)
    build_backbone("tiny_teacher", embedding_dim=16, image_size=16)
    nn.init.normal_(torch.empty(12, 16), std=0.01)
    assert torch.equal(drawn, torch.rand(()))


def test_two_runs_in_one_folder(tmp_path):
    """The second is refused at once, and leaves the first one's files alone."""
    out = tmp_path / "run"

    def start_another(state, metrics):
        if state.step == 1:
            live = out / ".checkpoint.pt.1.abc.tmp"
            live.write_bytes(b"being written")
            with pytest.raises(ValueError, match=r"another process is writing to .*run") as caught:
                fit(TrainConfig(**SMALL), ColourFaces(), out, progress=False)
            assert "\n" not in str(caught.value)
            assert live.read_bytes() == b"being written"
            live.unlink()

    fit(TrainConfig(**SMALL), ColourFaces(), out, progress=False, on_step=start_another)
    names = {"checkpoint.pt", "config.json", "log.csv", "log.jsonl", "model.safetensors"}
    assert {path.name for path in out.iterdir()} == names


def test_numpy_scalars_are_numbers():
    assert TrainConfig(learning_rate=np.float64(0.01)).learning_rate == 0.01


def test_a_set_without_an_image_is_refused(tmp_path):
    class Empty(Turned):
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="the set holds no image"):
        fit(TrainConfig(**SMALL), Empty(labels=LABELS[:0]), tmp_path / "run", progress=False)


@pytest.mark.parametrize("device", ["meta", "xla", "vulkan"])
def test_a_device_that_this_torch_lacks_is_refused(device):
    with pytest.raises(ValueError, match=f"device '{device}' was asked for, but this torch has"):
        pick_device(device)
