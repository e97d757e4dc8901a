"""What a file holds that may be a teacher: a model of ours, another's net, or tables of rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import nn

from ekd_lite.models import load_published
from ekd_lite.models.weights_file import SUFFIXES
from ekd_lite.train.model_file import (
    BACKBONE_FORMAT,
    MODEL_FORMAT,
    Model,
    load_backbone,
    load_model,
)

TABLES = ("embeddings", "mirrored", "prototypes")


@dataclass
class Headless:
    """A backbone of ours that was saved without its head, and the `info` beside it."""

    backbone: nn.Module
    info: dict[str, Any]


def read_teacher_file(path: Path) -> Model | Headless | nn.Module | dict[str, Any]:
    """Read a file of any kind but ONNX; nothing in it is executed.

    Returns:
        A model of ours; its backbone alone; a published net, whose `summary` says what it takes; or
        tables by the names of `TABLES`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one of another kind.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"no model at {path}: expected a run folder, a checkpoint ({', '.join(SUFFIXES)}), an "
            ".onnx file or a table of rows (.npy)"
        )
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return {TABLES[0]: _read_npy(path)}
    file = path / "model.safetensors" if path.is_dir() else path
    if suffix in SUFFIXES and suffix != ".safetensors" and path.is_file():
        return load_published(path)
    if not file.is_file():
        return load_model(path)  # which says what is missing
    metadata, names = _metadata(file)
    if metadata.get("format") == MODEL_FORMAT:
        return load_model(path)
    if metadata.get("format") == BACKBONE_FORMAT:
        return Headless(*load_backbone(path))
    if TABLES[0] in names:
        with safe_open(file, framework="pt") as tables:
            return {name: tables.get_tensor(name) for name in TABLES if name in names}
    try:
        return load_published(file)
    except ValueError as error:
        raise ValueError(
            f"{path} was not written by ekd_lite, and is no table of rows ({TABLES[0]!r}): {error}"
        ) from error


def _read_npy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is no table of rows, or a damaged one: {error}") from error


def _metadata(path: Path) -> tuple[dict[str, str], list[str]]:
    """What a safetensors file says of itself, and the names of its tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from error
