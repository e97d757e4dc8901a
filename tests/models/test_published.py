"""Checkpoints in the layouts of others: names and shapes from their code, weights from a formula.

`published_layouts.json` was written by the original nets, at the commits that models/published.py
names: names and shapes of their state dicts, and what they compute from `published_values`.
"""

import copy
import json
import math
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ekd_lite.models import build_backbone, describe_published, load_published, published
from ekd_lite.models.weights_file import read_weights
from tests.models.published_values import fill, picture

KNOWN = json.loads((Path(__file__).parent / "published_layouts.json").read_text(encoding="utf-8"))
SMALL = "mobilefacenet"


def weights_of(layout):
    return fill(KNOWN[layout]["shapes"])


def as_lightning(weights):
    """A training checkpoint of AdaFace: prefixes, a classifier, and settings beside them."""
    named = {f"model.{name}": tensor for name, tensor in weights.items()}
    named["head.kernel"] = torch.zeros(512, 10)
    return {"epoch": 3, "state_dict": named, "hyper_parameters": {"lr": 0.1}, "loops": [1, (2,)]}


def as_parallel(weights):
    """What DistributedDataParallel around a compiled net saves."""
    return {f"module._orig_mod.{name}": tensor for name, tensor in weights.items()}


def as_arcface_training(weights):
    """A checkpoint of insightface's training loop."""
    return {
        "state_dict_backbone": weights,
        "state_dict_softmax_fc": {"weight": torch.zeros(4, 512)},
    }


WRAPPERS = {
    "plain.pth": dict,
    "lightning.ckpt": as_lightning,
    "parallel.pt": as_parallel,
    "arcface.pt": as_arcface_training,
    "net.safetensors": lambda weights: {f"net.{name}": t for name, t in weights.items()},
}


def write(path, content):
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("layout", KNOWN)
def test_a_published_net_computes_what_the_original_code_computes(layout, tmp_path):
    net = load_published(write(tmp_path / "net.pth", weights_of(layout)))
    assert net.summary.layout == layout.split()[0]
    assert net.summary.parameters == KNOWN[layout]["parameters"]
    assert (net.summary.embedding_dim, net.summary.image_size) == (512, 112)
    assert not net.training
    with torch.inference_mode():
        embedding = net.double()(picture().double())[0]
    expected = torch.tensor(KNOWN[layout]["embedding"], dtype=torch.float64)
    assert torch.allclose(embedding[:6], expected, rtol=1e-9, atol=1e-10)
    assert float(embedding.norm()) == pytest.approx(KNOWN[layout]["norm"], rel=1e-9)


@pytest.mark.parametrize("name", WRAPPERS)
def test_prefixes_wrappers_and_classifiers_do_not_matter(name, tmp_path):
    weights = weights_of(SMALL)
    net = load_published(write(tmp_path / name, WRAPPERS[name](weights)))
    plain = load_published(write(tmp_path / "other.pth", weights))
    for one, other in zip(net.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert net.summary.left_out == (("head.kernel",) if name == "lightning.ckpt" else ())


def test_half_precision_weights_become_float32_and_counters_may_be_missing(tmp_path):
    weights = {
        name: tensor.half()
        for name, tensor in weights_of(SMALL).items()
        if not name.endswith("num_batches_tracked")
    }
    net = load_published(write(tmp_path / "half.safetensors", weights))
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert net(picture()).isfinite().all()


def test_colour_order_and_terms_are_said(tmp_path, monkeypatch):
    content = {n: torch.zeros(shape) for n, shape in KNOWN["ir"]["shapes"].items()}
    content = as_lightning(content)["state_dict"]
    with monkeypatch.context() as patch:
        patch.setattr(published, "read_weights", lambda path, **_: (content, {}))
        adaface = load_published("adaface.ckpt")
    assert adaface.summary.colour == "bgr"
    text = str(adaface.summary)
    assert "BGR" in text and "not stated" in text and "24,020,352" in text and "head.kernel" in text
    path = tmp_path / "b.safetensors"
    save_file(weights_of(SMALL), path, metadata={"license": "Apache-2.0"})
    summary = load_published(path).summary
    assert (summary.colour, summary.licence) == ("rgb", "Apache-2.0")


WHOSE = {
    ("ir", "model."): ("AdaFace", "bgr", "MSU Technologies"),
    ("ir", "module.model."): ("AdaFace", "bgr", "MSU Technologies"),
    ("ir", "net."): ("CVLface", "rgb", "licence of the training data"),
    ("ir", "model.net."): ("CVLface", "rgb", "licence of the training data"),  # on Hugging Face
    ("ir", ""): ("TFace", "rgb", "Apache-2.0"),
    ("ir", "_orig_mod.module."): ("TFace", "rgb", "Apache-2.0"),
    ("mobilefacenet", "module."): ("TFace", "rgb", "Apache-2.0"),
    ("arcface_iresnet", ""): ("insightface", "rgb", "non-commercial research only"),
    ("arcface_iresnet", "model.net."): ("CVLface", "rgb", "licence of the training data"),
    ("arcface_mobilefacenet", "module."): ("insightface", "rgb", "non-commercial research only"),
}


@pytest.mark.parametrize(("layout", "prefix"), WHOSE)
def test_whose_names_they_are_decides_colours_and_terms(layout, prefix, monkeypatch):
    shapes = KNOWN[layout]["shapes"]
    content = {prefix + name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    monkeypatch.setattr(published, "read_weights", lambda path, **_: (content, {}))
    found = describe_published("net.pth")
    assert (found.publisher.name, found.colour) == WHOSE[layout, prefix][:2]
    assert WHOSE[layout, prefix][2] in str(found) and "https://" in str(found)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_checkpoint_is_described_without_its_weights(name, tmp_path):
    path = write(tmp_path / name, WRAPPERS[name](weights_of(SMALL)))
    found = describe_published(path)
    assert found == load_published(path).summary
    assert found.pixel_range == (-1.0, 1.0)
    assert found.parameters == KNOWN[SMALL]["parameters"]
    tensors, _ = read_weights(path, shapes_only=True)
    assert {t.device.type for t in tensors.values()} == {"meta"}
    with pytest.raises(ValueError, match="fits no known layout"):
        describe_published(path, layout="ir")


# deepinsight/insightface 7fadd42, counted with its own classes.
PUBLISHED = {"arcface_iresnet18": 24_025_600, "arcface_iresnet50": 43_590_848}
PUBLISHED |= {"arcface_iresnet100": 65_156_160, "arcface_mobilefacenet": 2_059_520}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    with torch.device("meta"):
        backbone = build_backbone(name)
    assert sum(p.numel() for p in backbone.parameters()) == PUBLISHED[name]


def without(weights, name):
    return {n: t for n, t in weights.items() if n != name}


IR = "body.1.res_layer.1.weight"
WRONG = {
    "a tensor is missing": (lambda w: without(w, IR), "body.1.res_layer.1.weight is missing"),
    "a norm is missing": (lambda w: without(w, "output_layer.0.bias"), "output.0.bias is missing"),
    "another shape": (lambda w: {**w, "input_layer.1.bias": torch.zeros(3)}, r"is \(3,\)"),
    "a part of its own": (lambda w: {**w, "extra.weight": torch.zeros(3)}, "has no place"),
    "squeeze and excitation": (
        lambda w: {**w, "body.0.res_layer.6.se_block.fc1.weight": torch.zeros(4, 64, 1, 1)},
        "squeeze-and-excitation",
    ),
    "a bottleneck": (lambda w: {**w, IR: torch.zeros(64, 64, 1, 1)}, "bottlenecks"),
    "no square map": (
        lambda w: {**w, "output_layer.3.weight": torch.zeros(512, 512 * 50)},
        "no square map",
    ),
    "IR-SE of TFace": (
        lambda w: {**w, "body.0.res_layer.5.fc1.weight": torch.zeros(4, 64, 1, 1)},
        "has no place",
    ),
    "a transformer of insightface": (
        lambda w: {
            "patch_embed.proj.weight": torch.zeros(256, 3, 9, 9),
            "blocks.0.attn.qkv.weight": torch.zeros(768, 256),
            "feature.0.weight": torch.zeros(256, 36864),
        },
        r"patch_embed.proj.weight \(256, 3, 9, 9\).*Any other net can be built by its own code",
    ),
    "NaN": (lambda w: {**w, "input_layer.1.bias": torch.full((64,), torch.nan)}, "NaN or infinite"),
    "a classifier": (
        lambda w: {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(1000, 512)},
        r"conv1.weight \(64, 3, 7, 7\).*Known layouts: ir .*mobilefacenet",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_fits_no_layout_is_one_message(name, monkeypatch):
    change, message = WRONG[name]
    content = change({n: torch.zeros(shape) for n, shape in KNOWN["ir"]["shapes"].items()})
    monkeypatch.setattr(published, "read_weights", lambda path, **_: (content, {}))
    with pytest.raises(ValueError, match=message):
        load_published("net.pth")


def arcface_shapes(depths):
    """Names and shapes of arcface_torch's IResNet, as its code writes them."""
    shapes = {"conv1.weight": (64, 3, 3, 3), "prelu.weight": (64,)}
    norms = {"bn1": 64, "bn2": 512, "features": 512}
    width = 64
    for stage, (depth, channels) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), 1):
        for block in range(depth):
            at = f"layer{stage}.{block}"
            norms |= {f"{at}.bn1": width, f"{at}.bn2": channels, f"{at}.bn3": channels}
            shapes[f"{at}.conv1.weight"] = (channels, width, 3, 3)
            shapes[f"{at}.conv2.weight"] = (channels, channels, 3, 3)
            shapes[f"{at}.prelu.weight"] = (channels,)
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = (channels, width, 1, 1)
                norms[f"{at}.downsample.1"] = channels
            width = channels
    shapes |= {"fc.weight": (512, 512 * 49), "fc.bias": (512,)}
    for norm, size in norms.items():
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{norm}.{part}": (size,) for part in parts}
    return shapes


@pytest.mark.parametrize(
    ("depths", "parameters"), [((2, 2, 2, 2), 24_025_600), ((6, 26, 60, 6), 118_833_920)]
)
def test_every_depth_of_insightface(depths, parameters, monkeypatch):
    shapes = arcface_shapes(depths)
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    monkeypatch.setattr(published, "read_weights", lambda path, **_: (weights, {}))
    found = describe_published("backbone.pth")
    norms = ("running_mean", "running_var")
    counted = sum(math.prod(s) for n, s in shapes.items() if not n.endswith(norms))
    assert found.parameters == counted == parameters
    assert (found.embedding_dim, found.image_size) == (512, 112)


def test_weights_under_any_single_name_are_found(tmp_path):
    weights = weights_of(SMALL)
    plain = load_published(write(tmp_path / "plain.pth", weights)).state_dict()
    for nested in (
        {"teacher": weights, "epoch": 3},
        {"state_dict": {"backbone": weights}, "optimizer": {}},
        {"net": {"module": weights}, "head": {}},
    ):
        found = load_published(write(tmp_path / "nested.pth", nested)).state_dict()
        assert all(torch.equal(plain[name], tensor) for name, tensor in found.items())
    two = {"student": weights, "ema": weights}
    with pytest.raises(ValueError, match=r"no tensors by name, but \['student', 'ema'\]"):
        load_published(write(tmp_path / "two.pth", two))


def test_programs_are_refused_with_a_way_out(tmp_path):
    """A message that names weights_only=False would be advice to execute the file."""
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # as torch.jit.save writes it
        for member in ("data.pkl", "constants.pkl", "code/__torch__/net.py"):
            archive.writestr(f"script/{member}", pickle.dumps({}, protocol=2))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    for name, advice in (("script.pt", "TorchScript"), ("whole.pth", "net.state_dict()")):
        with pytest.raises(ValueError, match="cannot be read as a checkpoint") as caught:
            load_published(tmp_path / name)
        assert advice in str(caught.value) and "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [{}, {"loss": 0.1, "steps": [1, 2]}, [torch.zeros(2)], 3])
def test_a_file_without_named_tensors_is_named(content, tmp_path):
    path = write(tmp_path / "net.pth", content)
    with pytest.raises(ValueError, match="holds no tensors by name"):
        load_published(path)


def test_a_wrong_layout_or_file_is_named(tmp_path):
    path = write(tmp_path / "net.pth", weights_of(SMALL))
    with pytest.raises(ValueError, match="unknown layout 'vit': expected one of ir, "):
        load_published(path, layout="vit")
    with pytest.raises(ValueError, match="fits no known layout"):
        load_published(path, layout="ir")
    assert load_published(path, layout=SMALL).summary.layout == SMALL
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_published(tmp_path / "none.pth")
    for content in (b"", b"not a pickle", path.read_bytes()[: path.stat().st_size // 2]):
        for suffix in (".pth", ".safetensors"):
            broken = tmp_path / f"broken{suffix}"
            broken.write_bytes(content)
            with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
                load_published(broken)


def test_our_own_file_is_sent_to_its_reader(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", {"format": "ekd_lite.model.1"})
    with pytest.raises(ValueError, match="is a file of ekd_lite"):
        load_published(tmp_path / "m.safetensors")


def test_classes_of_others_become_empty_objects(tmp_path, monkeypatch):
    """Lightning stores its callbacks' classes and its own dictionaries beside the weights."""
    module = types.ModuleType("lightning_like.callbacks")
    ran = []

    class Settings(dict):
        def __reduce__(self):
            return (Settings, (dict(self),), {"extra": 1})

    class Checkpoint:
        def __init__(self, *_):
            ran.append("constructed")

        def __setstate__(self, _):
            ran.append("restored")

    monkeypatch.setitem(sys.modules, "lightning_like", types.ModuleType("lightning_like"))
    for kind in (Settings, Checkpoint):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    content = as_lightning(weights_of(SMALL))
    content |= {"hyper_parameters": Settings(lr=1), "callbacks": {Checkpoint: {"best": 0.1}}}
    made = Checkpoint()
    made.state = 1  # type: ignore[attr-defined]
    path = write(tmp_path / "net.ckpt", {**content, "object": made})
    ran.clear()
    monkeypatch.delitem(sys.modules, module.__name__)
    before = set(torch.serialization.get_safe_globals())
    assert load_published(path).summary.layout == SMALL
    assert ran == []
    assert set(torch.serialization.get_safe_globals()) == before


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


@pytest.mark.parametrize("is_zip", [True, False])
def test_no_checkpoint_is_executed(tmp_path, is_zip):
    mark = tmp_path / "executed"
    content = {**as_lightning(weights_of(SMALL)), "hook": Hostile(mark)}
    path = tmp_path / "net.pth"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_published(path)
    path.write_bytes(pickle.dumps(content["hook"]))
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_published(path)
    assert not mark.exists()


def test_files_before_torch_1_6_are_read(tmp_path):
    path = tmp_path / "old.pth"
    torch.save(as_lightning(weights_of(SMALL)), path, _use_new_zipfile_serialization=False)
    assert load_published(path).summary.left_out == ("head.kernel",)


def test_a_small_file_cannot_claim_much_memory(tmp_path):
    huge = torch.zeros(1).expand(2**40)
    path = write(tmp_path / "view.pth", {"input_layer.0.weight": huge})
    with pytest.raises(ValueError, match="its tensors claim 4,398,046,511,104 bytes"):
        read_weights(path)
    packed = tmp_path / "zip.pth"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("net/data/0", bytes(64 * 2**20))
    with pytest.raises(ValueError, match="would grow to 67,"):
        read_weights(packed)


def test_dictionaries_in_dictionaries_cost_no_time(tmp_path):
    """Each level names the next one many times: 8^12 ways lead to the weights."""
    content: Any = {"epoch": 1}
    for _ in range(12):
        content = dict.fromkeys("abcdefgh", content)
    with pytest.raises(ValueError, match="holds no tensors by name"):
        load_published(write(tmp_path / "wide.pt", content))
    for _ in range(20):
        content = {"a": content, "b": content}
    with pytest.raises(ValueError, match=r"deep\.pt cannot be read .* more than 16 deep"):
        load_published(write(tmp_path / "deep.pt", content))
    for name in ("state_dict", "other"):
        itself: Any = {"epoch": 1}
        itself[name] = itself
        with pytest.raises(ValueError, match=r"itself\.pt cannot be read .* or hold themselves"):
            load_published(write(tmp_path / "itself.pt", itself))


def test_loading_twice_gives_nets_of_their_own(tmp_path):
    path = write(tmp_path / "net.pth", weights_of(SMALL))
    first, second = load_published(path), load_published(path)
    before = copy.deepcopy(second.state_dict())
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert all(torch.equal(before[n], t) for n, t in second.state_dict().items())
    assert all(p.requires_grad for p in second.parameters())
