"""ONNX files: written from a backbone, compared with it, read and run by onnxruntime."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ekd_lite.data import SyntheticFaces
from ekd_lite.files import write_atomically
from ekd_lite.models.onnx_net import import_onnx, open_session
from ekd_lite.ops import check_embeddings, check_image_size, unit_rows

ONNX_FORMAT = "ekd_lite.onnx.1"
OPSET = 17  # of 2022: older run-times and phones read it, and nothing in our nets needs a later one
TOLERANCE = 1e-5  # of the coordinates of unit embeddings; 4e-7 is usual
BATCH_SIZES = (1, 2, 7, 64)
INPUT, OUTPUT = "images", "embeddings"


class OnnxModel(nn.Module):
    """A net in an ONNX file of this package, run by onnxruntime on the CPU.

    It maps images (N, 3, H, H) in [-1, 1] to embeddings (N, D) for any N, as the backbone does, and
    takes its place in `ekd_lite.evaluate.embedding.embed`. It has no parameters and no gradient.

    Args:
        file: path, or the bytes of a file.
        threads: threads of one embedding; 0 lets onnxruntime take every core.

    Attributes:
        info: what the model file said of the net (backbone, embedding_dim, image_size, ...).
        precision: "float32", "int8-dynamic" or "int8-static".

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: the extra is not installed.
        ValueError: no ONNX file, a damaged one, or not one of this package.
    """

    def __init__(self, file: str | Path | bytes, *, threads: int = 0) -> None:
        super().__init__()
        name = "these bytes" if isinstance(file, bytes) else str(file)
        self._session = open_session(_read(file), name, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            if metadata["format"] != ONNX_FORMAT:
                raise KeyError("format")
            self.info: dict[str, Any] = json.loads(metadata["info"])
            self.precision: str = metadata["precision"]
            self._shape = (3, int(self.info["image_size"]), int(self.info["image_size"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{name} was not written by ekd_lite: no {error} in it. A graph of another "
                "origin is a net too: ekd_lite.train.Teacher.from_onnx(path), which `embed` takes"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Embed images in [-1, 1], (N, 3, H, H) -> (N, embedding_dim), not normalised."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self._shape:
            _, height, width = self._shape
            raise ValueError(
                f"expected images (N, 3, {height}, {width}), got {tuple(images.shape)}"
            )
        array = images.detach().cpu().float().numpy()
        return torch.from_numpy(self._session.run([OUTPUT], {INPUT: array})[0])


def export_onnx(
    backbone: nn.Module,
    path: str | Path,
    *,
    info: Mapping[str, Any],
    opset: int = OPSET,
    tolerance: float = TOLERANCE,
) -> float:
    """Write a backbone as ONNX, batch size free, and prove that the file computes the same.

    The new graph runs in onnxruntime in batches of 1, 2, 7 and 64 images, half of them procedural
    faces and half noise, before the file appears; a graph that differs is not written.

    The older of torch's two exporters is used: it is the one that torch 2.4 to 2.13 share, needs
    no onnxscript and takes a tenth of the time; both compute the same to 1e-7.

    Args:
        backbone: maps images (N, 3, H, H) in [-1, 1] to embeddings (N, D); left as it is.
        path: file to write; an old one is replaced.
        info: what is stored beside the graph, at least image_size (H); `Model.info` has it.
        opset: version of the ONNX operators.
        tolerance: largest difference allowed.

    Returns:
        The largest difference between coordinates of the unit embeddings.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        ValueError: torch and onnxruntime disagree; the net gives anything but finite embeddings; or
            `info` lacks the image size.
    """
    if "image_size" not in info:
        raise ValueError(f"info must hold image_size, the side of the images, got {dict(info)}")
    size = int(info["image_size"])
    check_image_size(size)
    net = copy.deepcopy(_uncompiled(backbone)).cpu().float().eval()
    with torch.inference_mode():
        check_embeddings(net(torch.zeros(2, 3, size, size)), 2)
    data = describe_onnx(_trace(net, size, opset), info, precision="float32")
    difference = _largest_difference(net, OnnxModel(data), check_images(size))
    if not difference <= tolerance:
        raise ValueError(
            f"torch and onnxruntime differ by {difference:.1e} in a unit embedding, more than "
            f"{tolerance:.0e}: {path} is not written. A net that normalises over the batch, or "
            "that decides by its input, cannot be exported"
        )
    write_atomically(Path(path), data)
    return difference


def describe_onnx(data: bytes, info: Mapping[str, Any], *, precision: str) -> bytes:
    """The same ONNX graph with our metadata."""
    onnx = import_onnx()
    graph = onnx.load_model_from_string(data)
    size = info["image_size"]
    graph.doc_string = (
        f"Aligned RGB faces (N, 3, {size}, {size}) in [-1, 1] -> embeddings, not normalised; "
        "compare them by their cosine."
    )
    metadata = {
        "format": ONNX_FORMAT,
        "precision": precision,
        "info": json.dumps(dict(info), sort_keys=True),
    }
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    written: bytes = graph.SerializeToString()
    return written


def check_images(size: int, count: int = max(BATCH_SIZES)) -> Tensor:
    """Noise and procedural faces by turns, (count, 3, size, size): seeded, the same every time."""
    noise = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    faces = SyntheticFaces(count // 4, 2, image_size=size)
    noise[1::2] = faces.render(range(count // 2))
    return noise


def _uncompiled(net: nn.Module) -> nn.Module:
    """The net that `torch.compile` has wrapped, since the exporter cannot trace compiled code."""
    inner = getattr(net, "_orig_mod", net)
    assert isinstance(inner, nn.Module)
    return inner


def _trace(net: nn.Module, size: int, opset: int) -> bytes:
    """The graph that the net's operations make on an example."""
    import_onnx()
    with tempfile.TemporaryDirectory(prefix="ekd_lite-") as folder, warnings.catch_warnings():
        # Torch 2.9 and later say that this exporter is the old one; see export_onnx for why it is.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        file = Path(folder, "net.onnx")
        torch.onnx.export(
            net,
            (torch.zeros(2, 3, size, size),),
            str(file),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=opset,
            dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}},
            dynamo=False,
        )
        return file.read_bytes()


def _largest_difference(net: nn.Module, other: OnnxModel, images: Tensor) -> float:
    with torch.inference_mode():
        embeddings = net(images)
    if not embeddings.isfinite().all():
        raise ValueError("the net's embeddings are not finite: there is nothing to export")
    expected = unit_rows(embeddings)
    differences = [(unit_rows(other(images[-n:])) - expected[-n:]).abs().max() for n in BATCH_SIZES]
    return float(torch.stack(differences).max())


def _read(file: str | Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return file
    if not Path(file).is_file():
        raise FileNotFoundError(f"no ONNX file at {file}")
    return Path(file).read_bytes()
