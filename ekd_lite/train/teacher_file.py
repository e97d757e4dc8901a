"""What a file holds that may be a teacher: a model of ours, another's net, or tables of rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ekd_lite.data.mapped import map_array
from ekd_lite.files import check_regular
from ekd_lite.models import describe_published, load_published
from ekd_lite.models.summary import Summary
from ekd_lite.models.weights_file import SUFFIXES
from ekd_lite.train.model_file import (
    BACKBONE_FORMAT,
    MODEL_FORMAT,
    Model,
    load_backbone,
    load_model,
)

TABLES = ("embeddings", "mirrored", "prototypes", "labels", "people")


@dataclass
class Headless:
    """A backbone of ours that was saved without its head, and the `info` beside it."""

    backbone: nn.Module
    info: dict[str, Any]


def read_teacher_file(path: Path) -> Model | Headless | nn.Module | dict[str, Any]:
    """Read a file of any kind but ONNX; nothing in it is executed.

    Returns:
        A model of ours; its backbone alone; a published net, whose `summary` says what it takes; or
        tables by the names of `TABLES`, and "origin", what they are of, if the file says it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one of another kind.
    """
    kind, file = _kind_of(path)
    if kind == "model":
        return load_model(path)
    if kind == "backbone":
        return Headless(*load_backbone(path))
    if kind == "rows":
        return {TABLES[0]: _read_npy(path)}
    if kind == "tables":
        return _read_tables(file)
    with _explained(path, file):
        return load_published(file)


def holds_rows(path: Path) -> bool:
    """Whether a file holds tables of rows, whatever its name; not if there is none.

    Raises:
        ValueError: a damaged file.
    """
    return path.exists() and _kind_of(path)[0] in ("rows", "tables")


def describe_file(path: Path) -> Summary | None:
    """What a published checkpoint is, without loading it; None of any other file.

    Raises:
        FileNotFoundError, ValueError: as `read_teacher_file`.
    """
    kind, file = _kind_of(path)
    if kind != "published":
        return None
    with _explained(path, file):
        return describe_published(file)


def _kind_of(path: Path) -> tuple[str, Path]:
    """What a file is, as far as its name and its header tell, and the file itself."""
    if not path.exists():
        raise FileNotFoundError(
            f"no model at {path}: expected a run folder, a checkpoint ({', '.join(SUFFIXES)}), an "
            ".onnx file or a table of rows (.npy)"
        )
    check_regular(path)
    suffix = path.suffix.lower()
    if suffix in (".onnx", ".npy"):
        return {".onnx": "onnx", ".npy": "rows"}[suffix], path
    file = path / "model.safetensors" if path.is_dir() else path
    if suffix in SUFFIXES and suffix != ".safetensors" and path.is_file():
        return "published", path
    if not file.is_file():
        return "model", file  # load_model says what is missing
    metadata, names = _metadata(file)
    if metadata.get("format") in (MODEL_FORMAT, BACKBONE_FORMAT):
        return "model" if metadata["format"] == MODEL_FORMAT else "backbone", file
    return "tables" if TABLES[0] in names else "published", file


@contextlib.contextmanager
def _explained(path: Path, file: Path) -> Iterator[None]:
    """Say of a safetensors file that fits no layout that it is nothing else either."""
    try:
        yield
    except ValueError as error:
        if file.suffix.lower() != ".safetensors":
            raise
        raise ValueError(
            f"{path} was not written by ekd_lite, and is no table of rows ({TABLES[0]!r}): {error}"
        ) from error


def _read_npy(path: Path) -> Any:
    try:
        return np.array(map_array(path))
    except ValueError as error:
        raise ValueError(f"{path} is no table of rows, or a damaged one: {error}") from error


def _read_tables(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        found: dict[str, Any] = {n: file.get_tensor(n) for n in TABLES if n in names}
        text = (file.metadata() or {}).get("origin", "{}")
    try:
        origin = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its origin is no JSON: {error}") from error
    if isinstance(origin, dict) and origin:
        found["origin"] = origin
    people, prototypes = found.get("people"), found.get("prototypes")
    if people is not None and (
        prototypes is None or people.dtype != torch.int64 or people.shape != prototypes.shape[:1]
    ):
        raise ValueError(
            f"{path}: people are the keys of its prototypes, expected one int64 a prototype, got "
            f"{tuple(people.shape)} of {people.dtype}"
        )
    return found


def _metadata(path: Path) -> tuple[dict[str, str], list[str]]:
    """What a safetensors file says of itself, and the names of its tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from error
