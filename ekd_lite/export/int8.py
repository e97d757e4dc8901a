"""Weights and activations in 8-bit integers, by onnxruntime's quantisation of an ONNX file.

A real number x is stored as an integer q with x = scale * (q - zero). Weights get their scales
once. Activations differ from image to image, and there are two ways:

- *dynamic*: scale and zero of an activation are taken from the batch itself, every time. Nothing to
  prepare; but finding the range costs time in every layer, and the embedding of an image depends a
  little on the images that share its batch.
- *static*: ranges are measured once, on calibration images. Faster; but values that the calibration
  never saw are clipped, so its images must be like those to come (and never be those of the test).
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.export.onnx_file import INPUT, OnnxModel, check_images, describe_onnx
from ekd_lite.files import write_atomically
from ekd_lite.models.onnx_net import HINT
from ekd_lite.ops import unit_rows

METHODS = ("dynamic", "static")
MIN_COSINE = 0.9  # between the embeddings before and after; 0.998 is usual
SATURATED = 0.98  # below it 7-bit weights are tried: 8-bit products may be cut off here
MIN_IMAGES = 16


def quantize_int8(
    onnx_path: str | Path,
    path: str | Path,
    *,
    method: Literal["dynamic", "static"] = "static",
    calibration: Tensor | None = None,
    reduce_range: bool | None = None,
) -> float:
    """Quantise an ONNX file of `export_onnx` to 8 bits.

    Convolutions and linear layers get 8-bit weights. Static: QDQ form, signed weights with a scale
    for each output channel, unsigned activations between the smallest and the largest value of the
    calibration; a batch norm that cannot be folded into a convolution stays in float. Dynamic:
    unsigned weights (onnxruntime takes about three times as long with signed ones), one scale for
    all channels of a convolution (it knows no other way).

    Args:
        onnx_path: file in float32.
        path: file to write; an old one is replaced.
        method: "dynamic" or "static".
        calibration: images (N, 3, H, H) in [-1, 1], some hundreds, like those the net was trained
            on; for "static" only. See `calibration_images`.
        reduce_range: 7-bit weights. For x86 processors without VNNI instructions, where sums of
            8-bit products are cut off; costs some accuracy elsewhere. Left out: 8 bits, or 7 with a
            warning where this processor's embeddings are closer with them. A file that is made here
            and used there wants to be told.

    Returns:
        Mean cosine between the embeddings before and after, of the calibration images or, with
        "dynamic", of noise and procedural faces. What the loss means for TPR is another
        measurement: `compare_formats`.

    Raises:
        FileNotFoundError: no file at `onnx_path`.
        ModuleNotFoundError: the extra is not installed.
        ValueError: an unusable file or calibration set, or embeddings that came out different.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: expected one of {METHODS}")
    before = OnnxModel(onnx_path)
    if before.precision != "float32":
        raise ValueError(f"{onnx_path} is {before.precision} already: expected float32")
    size = int(before.info["image_size"])
    if method == "static":
        images = _checked(calibration, size)
    elif calibration is None:
        images = check_images(size)
    else:
        raise ValueError("dynamic quantisation takes no calibration images")

    def quantised(reduce_range: bool) -> tuple[float, bytes]:
        with tempfile.TemporaryDirectory(prefix="ekd_lite-") as folder:
            raw = _quantize(Path(onnx_path), Path(folder), images, method, reduce_range)
        data = describe_onnx(raw, before.info, precision=f"int8-{method}")
        return _mean_cosine(before, OnnxModel(data), images), data

    cosine, data = quantised(bool(reduce_range))
    if reduce_range is None and cosine < SATURATED:
        other, other_data = quantised(True)
        if other > cosine:
            warnings.warn(
                f"8-bit products seem to be cut off on this processor (mean cosine {cosine:.3f}; "
                f"{other:.3f} with 7-bit weights): weights of 7 bits are written",
                stacklevel=2,
            )
            cosine, data = other, other_data
    if not cosine >= MIN_COSINE:
        raise ValueError(
            f"8 bits change the embeddings too much (mean cosine {cosine:.2f}, expected "
            f"{MIN_COSINE} or more): {path} is not written"
        )
    write_atomically(Path(path), data)
    return cosine


def calibration_images(faces: FaceSet, *, count: int = 256) -> Tensor:
    """Images spread evenly over a set, (min(count, N), 3, H, H). Give the *training* set."""
    count = min(count, len(faces))
    return faces.batch(torch.arange(count) * len(faces) // max(count, 1))


def _quantize(source: Path, folder: Path, images: Tensor, method: str, reduce_range: bool) -> bytes:
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise ModuleNotFoundError(HINT, name="onnx") from error
    prepared, result = folder / "prepared.onnx", folder / "int8.onnx"
    # Folds batch norms into convolutions first: their scales are then part of the weights' scales.
    quantization.quant_pre_process(str(source), str(prepared))
    options: dict[str, Any] = {"per_channel": True, "reduce_range": reduce_range}
    if method == "dynamic":
        weights = quantization.QuantType.QUInt8
        quantization.quantize_dynamic(prepared, result, weight_type=weights, **options)
    else:
        # What could not be folded is computed in float anyway; 8 bits around it cost time.
        nodes = onnx.load_model(prepared).graph.node
        norms = [node.name for node in nodes if node.op_type == "BatchNormalization"]
        quantization.quantize_static(
            prepared,
            result,
            _reader(images),
            nodes_to_exclude=norms,
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            **options,
        )
    return result.read_bytes()


def _reader(images: Tensor) -> Any:
    """Calibration images in the form that onnxruntime asks for."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(torch.split(images.float(), 8))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    return Reader()


def _checked(images: Tensor | None, size: int) -> Tensor:
    """Calibration images, or a ValueError that says what is wrong with them."""
    expected = f"images (N, 3, {size}, {size}) in [-1, 1], {MIN_IMAGES} or more"
    if images is None:
        raise ValueError(f"static quantisation needs calibration images: expected {expected}")
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size) or len(images) < MIN_IMAGES:
        raise ValueError(f"bad calibration set: expected {expected}, got {tuple(images.shape)}")
    if not images.isfinite().all() or float(images.abs().max()) > 1:
        raise ValueError(f"bad calibration set: expected {expected}, some values are outside")
    return images


def _mean_cosine(before: OnnxModel, after: OnnxModel, images: Tensor) -> float:
    # One at a time, as in use: a dynamic range is that of a batch.
    cosines = [
        (unit_rows(before(x)) * unit_rows(after(x))).sum(dim=1) for x in torch.split(images, 1)
    ]
    return float(torch.cat(cosines).mean())
