"""`embed` and `evaluate` take every file that teaches, and say what it is before they load it."""

import json
import re
import shutil
import warnings
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ekd_lite.__main__ import main
from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.commands.net_options import NetOptions
from ekd_lite.data import ImageFolder
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.models import LAYOUTS, IResNet, build_backbone
from ekd_lite.models.summary import ADAFACE, CVLFACE, INSIGHTFACE, TFACE
from ekd_lite.train import Teacher, save_backbone
from tests.fakes import ir_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*eyes are not where aligned")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of 24 people, four photographs of 32 pixels each, and nets in files."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(1)
    for person in range(24):
        folder = root / "faces" / f"p{person:02}"
        folder.mkdir(parents=True)
        pattern = rng.uniform(30, 220, (8, 8, 3))
        for image in range(4):
            pixels = (pattern + rng.normal(0, 25, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(folder / f"{image}.png")
    torch.manual_seed(0)
    published = IResNet((1, 1, 1, 1), embedding_dim=16, image_size=32).eval()
    torch.save({"state_dict": ir_weights(published, prefix="model.")}, root / "adaface.ckpt")
    ours = build_backbone("tiny_student", embedding_dim=16, image_size=32).eval()
    info = {"backbone": "tiny_student", "embedding_dim": 16, "image_size": 32}
    save_backbone(root / "ours.safetensors", ours, info)
    faces = ImageFolder(root / "faces", image_size=32)
    return SimpleNamespace(root=root, published=published, ours=ours, faces=faces)


def run(capsys, *arguments):
    """Exit code, output and errors of a command."""
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("ours.safetensors", {}, ()),
        ("ours.safetensors", {"flip_sum": True}, ("--flip-sum",)),
        ("adaface.ckpt", {"colour": "bgr"}, ()),
        ("adaface.ckpt", {"input_size": 32}, ("--colour", "rgb")),
        (
            "adaface.ckpt",
            {"colour": "bgr", "pixel_range": (0, 255), "mean": 100, "std": (60, 50, 40)},
            ("--pixel-range", "0", "255", "--mean", "100", "--std", "60", "50", "40"),
        ),
    ],
)
def test_embed_with_every_option(world, tmp_path, capsys, file, options, said):
    out = tmp_path / "e.safetensors"
    code, text, error = run(
        capsys, "embed", "--model", world.root / file, "--faces", world.root / "faces",
        "--out", out, *said,
    )  # fmt: skip
    assert code == 0, error
    net = world.ours if file == "ours.safetensors" else world.published
    rows = embed(Teacher(net, **options), world.faces)
    found = load_file(out)
    torch.testing.assert_close(found["embeddings"], rows, rtol=1e-5, atol=1e-5)
    assert torch.equal(found["labels"], world.faces.labels)
    with safe_open(out, framework="pt") as opened:
        metadata = opened.metadata()
    assert json.loads(metadata["files"])[5] == "p01/1.png"
    assert json.loads(metadata["origin"])["faces"].startswith("96 images of 32 pixels (digest")
    # What it is and whose it may be stands before anything is loaded.
    if file == "adaface.ckpt":
        assert text.index("layout      ir") < text.index("wrote")
        assert "of commercial use" in text and "BGR" in text and "[-1, 1]" in text
    else:
        assert "layout" not in text


def test_embed_with_onnx_of_another_size_and_several_outputs(world, tmp_path, capsys):
    pytest.importorskip("onnxruntime")

    class Two(nn.Module):
        def forward(self, images):
            rows = nn.functional.avg_pool2d(images - 127.5, 8).flatten(1)
            return 0 * rows, rows

    path, out = tmp_path / "net.onnx", tmp_path / "e.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Two(), (torch.zeros(1, 3, 40, 40),), str(path), output_names=["zero", "rows"],
            input_names=["x"], dynamo=False,
        )  # fmt: skip
    arguments = ["embed", "--model", path, "--faces", world.root / "faces", "--out", out]
    arguments += ["--pixel-range", "0", "255", "--output"]
    code, text, error = run(capsys, *arguments, "rows")
    assert code == 0, error
    # Read at the next size that is a multiple of 16, and brought to 40 by the net itself.
    teacher = Teacher(Two(), input_size=40, pixel_range=(0, 255), output=1)
    rows = embed(teacher, ImageFolder(world.root / "faces", image_size=48))
    torch.testing.assert_close(load_file(out)["embeddings"], rows, rtol=1e-4, atol=1e-2)
    assert "takes x [1, 3, 40, 40] of tensor(float), gives zero, rows" in text
    assert "the embedding is rows" in text
    assert "licence     not stated in the file" in text
    code, _, error = run(capsys, *arguments, "third")
    assert code == 2 and "has no output 'third': it gives zero, rows" in error


def test_evaluate_takes_nets_and_tables(world, tmp_path, capsys):
    faces = ["--faces", world.root / "faces", "--fprs", "0.1", "--resamples", "0"]
    for file in ("ours.safetensors", "adaface.ckpt"):
        code, text, error = run(capsys, "evaluate", "--model", world.root / file, *faces)
        assert code == 0, error
        assert "32 images, 48 genuine and 448 impostor pairs" in text  # 30 % of the people
    rows = embed(world.ours, world.faces)
    expected = 100 * float(all_pairs_tpr_at_fpr(rows, world.faces.labels, [0.1])[0])
    np.save(tmp_path / "rows.npy", rows.numpy())
    save_file({"embeddings": rows}, tmp_path / "rows.safetensors")
    for name in ("rows.npy", "rows.safetensors"):
        code, text, error = run(capsys, "evaluate", "--source", tmp_path / name, *faces)
        assert code == 0, error
        assert "96 images, 144 genuine and 4,416 impostor pairs" in text
        assert f"FPR 1e-01: TPR {expected:6.2f} %" in text


def test_train_takes_what_embed_wrote(world, tmp_path, capsys, monkeypatch):
    """Of all people of a folder, of which 60 % train; at the student's size and at another."""
    monkeypatch.chdir(tmp_path)
    faces = tmp_path / "faces"
    shutil.copytree(world.root / "faces", faces)
    model, rows = world.root / "adaface.ckpt", tmp_path / "rows.safetensors"
    code, _, error = run(capsys, "embed", "--model", model, "--faces", faces, "--out", rows)
    assert code == 0, error
    batch = ["--general", "8", "--identities", "4", "--images-per-identity", "2", "--steps", "2"]
    arguments = ["train", "--faces", faces, *batch, "--device", "cpu", "--method", "kd"]

    def train(teacher, size, out):
        code, text, error = run(
            capsys, *arguments, "--teacher", teacher, "--image-size", size, "--out", out
        )
        return code, text + error

    for size in (32, 16):
        code, said = train(rows, size, f"rows{size}")
        assert code == 0, said
        assert f"teacher {rows}: TPR on 56 training images" in said
        assert train(model, size, f"net{size}")[0] == 0
        found = [load_file(tmp_path / f"{n}{size}" / "model.safetensors") for n in ("rows", "net")]
        for name, tensor in found[0].items():
            torch.testing.assert_close(tensor, found[1][name], rtol=1e-4, atol=1e-4)
    (faces / "p03" / "2.png").write_bytes((faces / "p04" / "2.png").read_bytes())
    for size in (32, 16):
        code, said = train(rows, size, f"changed{size}")
        assert code == 2 and "it holds the embeddings of other images (faces: 96 images" in said


def test_what_cannot_be_is_one_line(world, tmp_path, capsys):
    np.save(tmp_path / "rows.npy", np.ones((95, 4), np.float32))
    rows, faces = tmp_path / "rows.npy", world.root / "faces"
    (tmp_path / "pairs.txt").write_text("1\t1\n")
    for arguments, message in (
        (["evaluate", rows], "holds embeddings and no labels: name the set"),
        (["evaluate", rows, "--faces", faces], "holds 95 embeddings, .* 96 images"),
        (["evaluate", rows, "--faces", faces, "--colour", "bgr"], "a table of rows, which has no"),
        (["evaluate", rows, "--faces", faces, "--pairs", tmp_path / "pairs.txt"], "need a net"),
        (["embed", "--model", rows, "--faces", faces], "holds embeddings already"),
        (["embed", "--model", tmp_path / "no.pth", "--faces", faces], "no model at"),
        (
            ["embed", "--model", world.root / "adaface.ckpt", "--faces", faces, "--mean", "1", "2"],
            "mean and std as one number or three",
        ),
    ):
        source = ["--source"] if arguments[0] == "evaluate" else []
        code, _, error = run(capsys, arguments[0], *source, *arguments[1:])
        assert code == 2 and error.count("\n") == 1
        assert re.search(message, error), error


def test_what_was_said():
    assert NetOptions().said() == {}
    options = NetOptions(mean=(1.0,), std=(1.0, 2.0, 3.0), output="-1", flip_sum=True)
    assert options.said() == {"mean": 1.0, "std": (1, 2, 3), "output": -1, "flip_sum": True}
    assert NetOptions(output="embedding").said() == {"output": "embedding"}


def test_the_page_on_teachers_names_every_option_and_layout():
    text = (Path(__file__).parents[1] / "book" / "teachers.md").read_text(encoding="utf-8")
    for field in fields(NetOptions):
        assert f"`--{field.name.replace('_', '-')}`" in text
    for layout, known in LAYOUTS.items():
        assert f"`{layout}`" in text and known.about
    for publisher in (ADAFACE, CVLFACE, TFACE, INSIGHTFACE):
        assert publisher.source in text


@pytest.mark.parametrize("name", ["rows.npy", "rows.onnx", "rows.pt", "rows.ONNX"])
def test_a_file_is_what_its_name_promises(tmp_path, capsys, name):
    out = ["--out", str(tmp_path / name)]
    assert main(["embed", "--model", str(DEMO_TEACHER), "--faces", str(tmp_path), *out]) == 2
    assert "what is written is a .safetensors file" in capsys.readouterr().err
    assert main(["export", str(DEMO_TEACHER), "--to", "safetensors", *out]) == 2
    assert "what is written is a .safetensors file" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("to", ["onnx", "int8-dynamic", "int8-static"])
def test_whole_numbers_are_onnx_too(tmp_path, capsys, to):
    out = tmp_path / "net.safetensors"
    assert main(["export", str(DEMO_TEACHER), "--to", to, "--out", str(out)]) == 2
    assert "what is written is a .onnx file" in capsys.readouterr().err
    assert not out.exists()


def test_evaluate_goes_by_the_labels_in_the_file(world, tmp_path, capsys):
    """Whatever its name; a set that contradicts them is refused, and so is what only a net has."""
    rows = tmp_path / "rows"
    faces = world.root / "faces"
    arguments = ["embed", "--model", world.root / "ours.safetensors", "--faces", faces]
    assert run(capsys, *arguments, "--out", rows)[0] == 0
    evaluate = ["evaluate", "--source", rows, "--fprs", "0.1", "--resamples", "0"]
    code, text, error = run(capsys, *evaluate)
    assert code == 0, error
    assert "96 images, 144 genuine and 4,416 impostor pairs" in text
    assert run(capsys, *evaluate, "--faces", faces) == (0, text, "")
    others = tmp_path / "others"  # the same images in the same order, as twelve people
    for number, file in enumerate(sorted(faces.glob("*/*.png"))):
        copy = others / f"q{number // 8:02}" / f"{number:02}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    code, text, error = run(capsys, *evaluate, "--faces", others)
    assert (code, text, error.count("\n")) == (2, "", 1)
    assert "is not of --faces" in error and "labels: digest" in error
    assert "24 people" in error and "12 people" in error and "leave --faces out" in error
    bare = tmp_path / "bare.safetensors"  # labels, and no word of where they come from
    save_file({k: v for k, v in load_file(rows).items() if k in ("embeddings", "labels")}, bare)
    evaluate[2] = bare
    assert run(capsys, *evaluate, "--faces", faces)[0] == 0
    code, _, error = run(capsys, *evaluate, "--faces", others)
    assert code == 2 and "its labels group the images into other people" in error
    for options, names in (
        (["--colour", "bgr"], "--colour"),
        (["--output", "3", "--flip-sum"], "--output, --flip-sum"),
        (["--input-size", "0"], "--input-size"),
        (["--student-module", "nope:x"], "--student-module"),
    ):
        code, text, error = run(capsys, *evaluate, *options)
        assert (code, text, error.count("\n")) == (2, "", 1)
        assert f"a table of rows, which has no {names}: those are for a net" in error
    code, _, error = run(capsys, *evaluate, "--faces", tmp_path / "nope")
    assert code == 2 and "nope" in error
