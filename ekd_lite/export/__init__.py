"""Trained nets in other forms: ONNX, and ONNX in 8-bit integers.

These need the optional extra, `pip install "ekd-lite[export]"`; nothing here is imported by the
rest of the library. Weights without the head are written by `ekd_lite.train.save_backbone`.
"""

from ekd_lite.export.compare import FormatCost, compare_formats, time_interleaved
from ekd_lite.export.int8 import calibration_images, quantize_int8
from ekd_lite.export.onnx_file import OnnxModel, export_onnx

__all__ = [
    "FormatCost",
    "OnnxModel",
    "calibration_images",
    "compare_formats",
    "export_onnx",
    "quantize_int8",
    "time_interleaved",
]
