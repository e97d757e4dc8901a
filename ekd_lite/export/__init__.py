"""Trained nets in other forms: weights without the head, ONNX, ONNX in 8-bit integers.

ONNX and int8 need the optional extra, `pip install "ekd-lite[export]"`; nothing here is imported by
the rest of the library.
"""

from ekd_lite.export.compare import FormatCost, compare_formats, time_interleaved
from ekd_lite.export.int8 import calibration_images, quantize_int8
from ekd_lite.export.onnx_file import OnnxModel, export_onnx
from ekd_lite.train.model_file import load_backbone, save_backbone

__all__ = [
    "FormatCost",
    "OnnxModel",
    "calibration_images",
    "compare_formats",
    "export_onnx",
    "load_backbone",
    "quantize_int8",
    "save_backbone",
    "time_interleaved",
]
