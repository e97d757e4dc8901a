"""Exported nets compute what torch computes, or there is no file."""

import csv
import shutil
import sys
import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ekd_lite.__main__ import main
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.heads import ArcFace
from ekd_lite.models import build_backbone
from ekd_lite.ops import unit_rows
from ekd_lite.train.model_file import Model, load_backbone, load_model, save_backbone, save_model
from tests.fakes import ColourFaces

onnx = pytest.importorskip("onnx", reason='needs pip install "ekd-lite[export]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='needs pip install "ekd-lite[export]"')

from ekd_lite.export import (  # noqa: E402
    OnnxModel,
    calibration_images,
    compare_formats,
    export_onnx,
    int8,
    quantize_int8,
    time_interleaved,
)

# Of processors without VNNI instructions: test_seven_bits_are_taken_where_they_are_closer.
pytestmark = pytest.mark.filterwarnings("ignore:8-bit products seem to be cut off")

NETS = ("tiny_student", "tiny_teacher", "mobilefacenet", "iresnet18")
FACES = ColourFaces(num_identities=20, images_per_identity=6, image_size=32)


def make_model(name="tiny_student", seed=0):
    """A net with the batch-norm statistics of some faces, as after training."""
    torch.manual_seed(seed)
    backbone = build_backbone(name, embedding_dim=16, image_size=32)
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        backbone(FACES.images[::3])
    info = {"backbone": name, "embedding_dim": 16, "image_size": 32, "head": "arcface"}
    info |= {"num_identities": 20, "scale": 28.0, "margin": 0.4, "method": "none"}
    return Model(backbone.eval(), ArcFace(16, 20, scale=28.0, margin=0.4), info)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A model, its file and its ONNX file."""
    folder = tmp_path_factory.mktemp("student")
    model = make_model()
    save_model(folder / "model.safetensors", model)
    export_onnx(model.backbone, folder / "net.onnx", info=model.info)
    return model, folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", NETS)
def test_onnx_computes_what_torch_computes_for_any_batch(name, tmp_path):
    model = make_model(name)
    difference = export_onnx(model.backbone, tmp_path / "net.onnx", info=model.info)
    assert difference < 1e-5
    session = onnxruntime.InferenceSession(
        tmp_path / "net.onnx", providers=["CPUExecutionProvider"]
    )
    assert session.get_inputs()[0].shape == ["N", 3, 32, 32]
    assert session.get_outputs()[0].shape == ["N", 16]
    for count in (1, 3, 50):
        images = FACES.images[:count]
        with torch.no_grad():
            expected = unit_rows(model.backbone(images))
        rows = session.run(["embeddings"], {"images": images.numpy()})[0]
        torch.testing.assert_close(unit_rows(torch.from_numpy(rows)), expected, rtol=0, atol=1e-5)


def test_the_graph_means_the_same_to_another_interpreter(student):
    """The reference implementation of the ONNX operators, in numpy: no code of onnxruntime."""
    from onnx.reference import ReferenceEvaluator

    model, folder = student
    images = FACES.images[:3]
    rows = ReferenceEvaluator(str(folder / "net.onnx")).run(None, {"images": images.numpy()})[0]
    with torch.no_grad():
        expected = model.backbone(images)
    torch.testing.assert_close(torch.from_numpy(rows), expected, rtol=1e-4, atol=1e-5)


def test_the_file_says_what_it_is(student):
    model, folder = student
    net = OnnxModel(folder / "net.onnx")
    assert (net.info, net.precision) == (model.info, "float32")
    graph = onnx.load(folder / "net.onnx")
    assert graph.opset_import[0].version == 17
    assert "(N, 3, 32, 32) in [-1, 1]" in graph.doc_string
    other = OnnxModel((folder / "net.onnx").read_bytes(), threads=1)
    torch.testing.assert_close(other(FACES.images[:2]), net(FACES.images[:2]))


def test_an_onnx_file_embeds_a_set_as_the_backbone_does(student):
    model, folder = student
    rows = embed(OnnxModel(folder / "net.onnx"), FACES, batch_size=50)
    torch.testing.assert_close(rows, embed(model.backbone, FACES), rtol=1e-4, atol=1e-5)


def test_exporting_leaves_the_backbone_alone(tmp_path):
    model = make_model("tiny_teacher")
    backbone = model.backbone.double().train()
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    export_onnx(backbone, tmp_path / "net.onnx", info=model.info)
    assert backbone.training
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name])


class Centred(nn.Module):
    """Takes the mean of the batch away: an image's embedding hangs on its companions."""

    def forward(self, images):
        flat = images.flatten(1)
        return flat - flat.mean(0)


class Branching(nn.Module):
    """The trace of two images holds one of two ways."""

    def forward(self, images):
        flat = images.flatten(1)
        return flat if len(flat) <= 2 else flat.flip(1)


class Broken(nn.Module):
    def forward(self, images):
        return images.flatten(1) * torch.nan


class Interrupted(nn.Module):
    """Ctrl-C while the written graph is compared with torch."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        if self.calls > 1:
            raise KeyboardInterrupt
        return images.flatten(1)


@pytest.mark.parametrize(
    ("net", "error", "message"),
    [
        (Centred(), ValueError, "torch and onnxruntime differ by"),
        (Branching(), ValueError, "torch and onnxruntime differ by"),
        (Broken(), ValueError, "not finite"),
        (Interrupted(), KeyboardInterrupt, None),
    ],
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_what_differs_or_is_interrupted_leaves_the_old_file(net, error, message, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"old")
    with pytest.raises(error, match=message):
        export_onnx(net, tmp_path / "net.onnx", info={"image_size": 32})
    assert names(tmp_path) == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_bytes() == b"old"


def test_what_is_no_onnx_file_of_ours_is_named(student, tmp_path):
    data = (student[1] / "net.onnx").read_bytes()
    foreign = onnx.load_model_from_string(data)
    del foreign.metadata_props[:]
    half = onnx.load_model_from_string(data)
    next(p for p in half.metadata_props if p.key == "info").value = "{"
    deep = onnx.load_model_from_string(data)
    next(p for p in deep.metadata_props if p.key == "info").value = "[" * 200_000
    later = onnx.load_model_from_string(data)
    next(p for p in later.metadata_props if p.key == "format").value = "ekd_lite.onnx.2"
    cases = {
        "later": (later.SerializeToString(), "was not written by ekd_lite"),
        "empty": (b"", "no ONNX file, or a damaged one"),
        "text": (b"hello" * 99, "no ONNX file, or a damaged one"),
        "foreign": (foreign.SerializeToString(), "was not written by ekd_lite"),
        "deep": (deep.SerializeToString(), "was not written by ekd_lite"),
        "half": (half.SerializeToString(), "was not written by ekd_lite"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.* {message}|{name}: {message}"):
            OnnxModel(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no ONNX file at"):
        OnnxModel(tmp_path / "nowhere")


def test_a_truncated_file_is_a_value_error_wherever_it_ends(student):
    data = (student[1] / "net.onnx").read_bytes()
    for end in range(1, len(data), len(data) // 40):
        with pytest.raises(ValueError, match=r"damaged|not written by ekd_lite"):
            OnnxModel(data[:end])


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 3, 16, 16), (1, 1, 32, 32)])
def test_images_of_another_shape_are_refused(student, shape):
    with pytest.raises(ValueError, match=r"expected images \(N, 3, 32, 32\), got"):
        OnnxModel(student[1] / "net.onnx")(torch.zeros(shape))


@pytest.mark.parametrize("method", ["dynamic", "static"])
@pytest.mark.parametrize("name", NETS[:3])
def test_int8_stays_close_and_every_layer_is_quantised(name, method, tmp_path, caplog):
    model = make_model(name)
    export_onnx(model.backbone, tmp_path / "net.onnx", info=model.info)
    calibration = calibration_images(FACES, count=64) if method == "static" else None
    cosine = quantize_int8(
        tmp_path / "net.onnx", tmp_path / "int8.onnx", method=method, calibration=calibration
    )
    assert not caplog.records  # onnxruntime found nothing odd
    net = OnnxModel(tmp_path / "int8.onnx")
    assert (net.info, net.precision) == (model.info, f"int8-{method}")
    with torch.no_grad():
        expected = unit_rows(model.backbone(FACES.images))
    cosines = (unit_rows(net(FACES.images)) * expected).sum(1)
    assert min(cosine, float(cosines.mean())) > 0.95  # less than of trained nets
    assert float(cosines.mean()) < 1 - 1e-6  # it did something

    graph = onnx.load(tmp_path / "int8.onnx").graph
    weights = {w.name: w for w in graph.initializer}
    kind = onnx.TensorProto.INT8 if method == "static" else onnx.TensorProto.UINT8
    layers = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.backbone.modules())
    bytes_of_8_bits = [w for w in weights.values() if w.data_type == kind and len(w.dims) > 1]
    assert len(bytes_of_8_bits) == layers
    scales = [
        np.prod(weights[w.name.removesuffix("_quantized") + "_scale"].dims)
        for w in bytes_of_8_bits
        if len(w.dims) == 4
    ]  # of convolutions
    assert all(count > 1 for count in scales) == (method == "static")
    activations = {
        weights[node.input[2]].data_type for node in graph.node if node.op_type == "QuantizeLinear"
    }
    assert activations == ({onnx.TensorProto.UINT8} if method == "static" else set())
    size, before = ((tmp_path / f"{n}.onnx").stat().st_size for n in ("int8", "net"))
    assert size < before


def test_only_dynamic_ranges_depend_on_the_batch(student, tmp_path):
    """What the module's docstring warns of."""
    source = student[1] / "net.onnx"
    quantize_int8(source, tmp_path / "dynamic", method="dynamic")
    quantize_int8(source, tmp_path / "static", calibration=FACES.images)
    images = FACES.images[:32] * torch.linspace(0.1, 1, 32)[:, None, None, None]
    for path, depends in ((source, False), (tmp_path / "static", False), (tmp_path / "dynamic", 1)):
        net = OnnxModel(path)
        together = net(images)
        alone = torch.cat([net(image[None]) for image in images])
        assert ((together - alone).abs().max() > 1e-3) == bool(depends)


def test_seven_bits_are_taken_where_they_are_closer(student, tmp_path, monkeypatch):
    """Without VNNI instructions 8-bit products are cut off, and seven bits are the better ones."""

    def quantised(reduce_range):
        source, images = student[1] / "net.onnx", FACES.images
        return quantize_int8(source, tmp_path / "x", calibration=images, reduce_range=reduce_range)

    eight, seven = quantised(False), quantised(True)
    assert eight != seven > 0.97
    assert quantised(None) == (eight if eight >= int8.SATURATED else max(eight, seven))
    for closeness, warns in (({False: 0.95, True: 0.99}, True), ({False: 0.95, True: 0.94}, False)):
        told = iter(closeness.values())
        monkeypatch.setattr(int8, "_mean_cosine", lambda *_, told=told: next(told))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert quantised(None) == max(closeness.values())
        assert any("7-bit weights" in str(w.message) for w in caught) == warns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "int4"}, "unknown method 'int4'"),
        ({}, "static quantisation needs calibration images"),
        ({"calibration": torch.zeros(15, 3, 32, 32)}, r"16 or more, got \(15, 3, 32, 32\)"),
        ({"calibration": torch.zeros(32, 3, 16, 16)}, r"\(N, 3, 32, 32\)"),
        ({"calibration": torch.full((32, 3, 32, 32), torch.nan)}, "some values are outside"),
        ({"calibration": torch.full((32, 3, 32, 32), 255.0)}, "some values are outside"),
        ({"method": "dynamic", "calibration": FACES.images}, "takes no calibration images"),
    ],
)
def test_bad_options_of_quantisation(student, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        quantize_int8(student[1] / "net.onnx", tmp_path / "x", **options)
    assert names(tmp_path) == []


def test_quantising_twice_and_what_comes_out_wrong(student, tmp_path, monkeypatch):
    quantize_int8(student[1] / "net.onnx", tmp_path / "once", method="dynamic")
    with pytest.raises(ValueError, match="int8-dynamic already: expected float32"):
        quantize_int8(tmp_path / "once", tmp_path / "twice", method="dynamic")
    monkeypatch.setattr(int8, "MIN_COSINE", 1.0)
    with pytest.raises(ValueError, match="8 bits change the embeddings too much"):
        quantize_int8(student[1] / "net.onnx", tmp_path / "bad", method="dynamic")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(int8, "_mean_cosine", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quantize_int8(student[1] / "net.onnx", tmp_path / "stopped", method="dynamic")
    assert names(tmp_path) == ["once"]


def test_calibration_images_come_from_the_whole_set():
    images = calibration_images(FACES, count=20)
    assert torch.equal(images, FACES.images[::6])
    assert len(calibration_images(FACES, count=1000)) == len(FACES)


def test_a_backbone_alone_has_no_prototypes_and_embeds_the_same(student, tmp_path):
    model, folder = student
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, model.backbone, model.info)
    backbone, info = load_backbone(path)
    assert info == model.info
    assert not backbone.training
    assert torch.equal(embed(backbone, FACES), embed(model.backbone, FACES))
    whole, _ = load_backbone(folder)  # a run folder: head and all
    assert torch.equal(embed(whole, FACES), embed(model.backbone, FACES))
    prototypes = model.head.prototypes.detach().numpy().tobytes()
    assert prototypes in (folder / "model.safetensors").read_bytes()
    assert prototypes[:64] not in path.read_bytes()
    with pytest.raises(ValueError, match="is a backbone without its head"):
        load_model(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="or a damaged one"):
        load_backbone(path)
    save_backbone(path, nn.Linear(2, 2), model.info)
    with pytest.raises(ValueError, match="does not fit the net that it names"):
        load_backbone(path)
    with pytest.raises(FileNotFoundError, match="no model at"):
        load_backbone(tmp_path / "nowhere")


@pytest.mark.parametrize("to", ["safetensors", "onnx", "int8-dynamic"])
def test_weights_that_are_no_numbers_are_exported_in_no_format(tmp_path, capsys, to):
    model = make_model()
    with torch.no_grad():
        next(model.backbone.parameters()).view(-1)[0] = torch.nan
    save_model(tmp_path / "model.safetensors", model)
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "model.safetensors"), "--to", to, "--out", str(out)]) == 2
    assert "not finite" in capsys.readouterr().err
    assert names(tmp_path) == ["model.safetensors"]


class Slow(nn.Module):
    def forward(self, images):
        time.sleep(0.003)
        return images.flatten(1)


def test_formats_are_compared_with_the_first(student, tmp_path):
    model = student[0]
    other = make_model(seed=1)
    nets = {"a": model.backbone, "same": model.backbone, "other": other.backbone}
    fprs = (0.1, 0.05)
    costs = compare_formats(nets, FACES, fprs, num_resamples=20)
    assert list(costs) == ["a", "same", "other"]
    assert costs["same"].difference.tolist() == [0, 0]
    assert costs["same"].low.tolist() == costs["same"].high.tolist() == [0, 0]
    expected = [
        all_pairs_tpr_at_fpr(embed(net, FACES), FACES.labels, fprs)
        for net in (other.backbone, model.backbone)
    ]
    torch.testing.assert_close(
        costs["other"].difference, expected[0] - expected[1], atol=0.01, rtol=0
    )
    assert bool((costs["other"].low < costs["other"].high).all())
    assert costs["a"].latency_ms > 0


def test_a_slow_net_is_seen_to_be_slow():
    threads = torch.get_num_threads()
    times = time_interleaved(
        {"slow": Slow(), "fast": nn.Flatten()}, torch.zeros(1, 3, 16, 16), rounds=3
    )
    assert 3 <= times["slow"] < 300
    assert times["fast"] < times["slow"] / 3
    assert torch.get_num_threads() == threads


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("people")
    for index, image in enumerate(FACES.images):
        folder = root / f"person{index // 6:02}"
        folder.mkdir(exist_ok=True)
        pixels = ((image.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


@pytest.mark.parametrize("place", ["file", "link", "report", "folder", "both"])
def test_an_export_never_writes_over_what_it_reads(student, tmp_path, capsys, place):
    run = tmp_path / "run"
    shutil.copytree(student[1], run)
    model = run / "model.safetensors"
    before = model.read_bytes()
    (tmp_path / "link").symlink_to(model)
    safe = ["--out", str(tmp_path / "net.onnx")]
    arguments = {
        "file": ["--out", str(run / "." / "model.safetensors")],
        "link": ["--out", str(tmp_path / "link")],
        "report": [*safe, "--report", str(model)],
        "folder": ["--out", str(run)],
        "both": [*safe, "--report", str(tmp_path / "net.onnx")],
    }[place]
    assert main(["export", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert "is a folder" in error if place == "folder" else "would be lost" in error
    assert model.read_bytes() == before
    assert not (tmp_path / "net.onnx").exists()


class Gives(nn.Module):
    """A net of another output."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, images):
        return self.change(images.flatten(1)[:, :8])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x, x.norm(dim=1)), "gives a tuple of 2, expected a tensor of embeddings"),
        (lambda x: {"embedding": x}, "gives a dict of 1"),
        (lambda x: x[:, :, None, None], r"gives \(2, 8, 1, 1\) for 2 images"),
        (lambda x: x[:1], r"gives \(1, 8\) for 2 images"),
        (lambda x: x.long(), "expected embeddings in floating point"),
    ],
)
def test_a_net_of_another_output_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(Gives(change), tmp_path / "net.onnx", info={"image_size": 32})
    assert names(tmp_path) == []


def test_the_image_size_must_be_known(student, tmp_path):
    with pytest.raises(ValueError, match="info must hold image_size"):
        export_onnx(student[0].backbone, tmp_path / "net.onnx", info={})


def test_a_compiled_net_is_exported_as_the_net_inside(student, tmp_path):
    compiled: Any = torch.compile(student[0].backbone, backend="eager")
    export_onnx(compiled, tmp_path / "net.onnx", info=student[0].info)
    assert (tmp_path / "net.onnx").read_bytes() == (student[1] / "net.onnx").read_bytes()


@pytest.mark.filterwarnings("ignore:.*eyes are not where aligned")
@pytest.mark.parametrize("to", ["safetensors", "onnx", "int8-dynamic", "int8-static"])
def test_the_command_writes_every_format(student, people, tmp_path, capsys, monkeypatch, to):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "new" / "net"
    arguments = ["export", str(student[1]), "--to", to, "--out", str(out)]
    arguments += ["--faces", str(people)] if to == "int8-static" else []
    assert main(arguments) == 0
    assert f"wrote {out}: {out.stat().st_size:,} bytes" in capsys.readouterr().out
    net = load_backbone(out)[0] if to == "safetensors" else OnnxModel(out)
    assert getattr(net, "precision", to).replace("float32", "onnx") == to
    cosines = (unit_rows(embed(net, FACES)) * unit_rows(embed(student[0].backbone, FACES))).sum(1)
    assert float(cosines.mean()) > 0.98


@pytest.mark.filterwarnings("ignore:.*eyes are not where aligned")
def test_the_report_is_a_table_of_every_format(student, people, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["export", str(student[1]), "--to", "safetensors", "--out", "x.safetensors"]
    arguments += ["--faces", str(people), "--report", "report.csv", "--resamples", "20"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "int8-static" in text and "no interval" in text  # 6 people: 540 impostor pairs
    with (tmp_path / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    formats = ["safetensors", "onnx", "int8-dynamic", "int8-static"]
    assert [row["format"] for row in rows] == formats
    assert float(rows[0]["difference@1e-2"]) == 0
    for row in rows:
        change = float(row["tpr@1e-2"]) - float(rows[0]["tpr@1e-2"])
        assert change == pytest.approx(float(row["difference@1e-2"]), abs=0.011)
        assert row["difference@1e-2_low"] == "nan"
        assert float(row["latency_ms"]) > 0
    assert int(rows[0]["bytes"]) == (tmp_path / "x.safetensors").stat().st_size
    assert "tpr@1e-4" not in rows[0]


def test_without_the_extra_one_message_says_what_to_install(student, tmp_path, monkeypatch, capsys):
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            arguments = ["export", str(student[1]), "--out", str(tmp_path / "x")]
            assert main(arguments) == 2
            assert 'pip install "ekd-lite[export]"' in capsys.readouterr().err
            assert names(tmp_path) == []
            assert main([*arguments, "--to", "safetensors"]) == 0
            (tmp_path / "x").unlink()
