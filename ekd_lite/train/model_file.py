"""Model files: weights and a description in one safetensors file, which holds no code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ekd_lite.files import write_atomically
from ekd_lite.heads import HEADS, NormFace
from ekd_lite.models import build_backbone

MODEL_FORMAT = "ekd_lite.model.1"
BACKBONE_FORMAT = "ekd_lite.backbone.1"  # without the head


@dataclass
class Model:
    """A trained backbone with its head.

    Attributes:
        backbone: image -> embedding.
        head: holds the prototypes of the training identities.
        info: what `save_model` wrote beside the weights: backbone, embedding_dim, image_size, head,
            num_identities, scale, margin, method and more.
    """

    backbone: nn.Module
    head: NormFace
    info: dict[str, Any]

    @property
    def num_parameters(self) -> int:
        """Parameters of the backbone."""
        return sum(p.numel() for p in self.backbone.parameters())


def save_model(path: Path, model: Model) -> None:
    """Write weights and `info` to a safetensors file, which holds no code."""
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, module in (("backbone", model.backbone), ("head", model.head))
        for name, tensor in module.state_dict().items()
    }
    metadata = {"format": MODEL_FORMAT, "info": json.dumps(model.info, sort_keys=True)}
    write_atomically(path, save(tensors, metadata))


def save_backbone(path: Path, backbone: nn.Module, info: dict[str, Any]) -> None:
    """Write a backbone without its head: all that embedding takes.

    The head is most of a small model's file, and its prototypes are personal data: one mean face
    for each identity that was trained on.
    """
    tensors = {n: t.detach().cpu().contiguous() for n, t in backbone.state_dict().items()}
    metadata = {"format": BACKBONE_FORMAT, "info": json.dumps(info, sort_keys=True)}
    write_atomically(path, save(tensors, metadata))


def load_model(path: str | Path, *, device: torch.device | str = "cpu") -> Model:
    """Read what `save_model` wrote, in evaluation mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a model of ekd_lite, one that was saved without its head, or a damaged one.
    """
    path, stored, info, tensors = _read(path)
    if stored != MODEL_FORMAT:
        raise ValueError(
            f"{path} is a backbone without its head: good for embedding, not for more training; "
            "expected the model.safetensors of a run"
        )
    backbone = _build_backbone(path, info, _part(tensors, "backbone."))
    try:
        head = HEADS[info["head"]](
            info["embedding_dim"],
            info["num_identities"],
            scale=info["scale"],
            margin=info["margin"],
        )
        head.load_state_dict(_part(tensors, "head."))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _misfit(path, error) from error
    return Model(backbone.to(device).eval(), head.to(device).eval(), info)


def load_backbone(
    path: str | Path, *, device: torch.device | str = "cpu"
) -> tuple[nn.Module, dict[str, Any]]:
    """Read the backbone that `save_model` or `save_backbone` wrote, in evaluation mode.

    Returns:
        The backbone, image -> embedding, and `info` as in `Model`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a model of ekd_lite, or a damaged one.
    """
    path, stored, info, tensors = _read(path)
    if stored == MODEL_FORMAT:
        tensors = _part(tensors, "backbone.")
    return _build_backbone(path, info, tensors).to(device).eval(), info


def _read(path: str | Path) -> tuple[Path, str, dict[str, Any], dict[str, Tensor]]:
    """Path, format, description and tensors of a file, of one of the two formats."""
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}: expected a run folder or model.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    if metadata.get("format") not in (MODEL_FORMAT, BACKBONE_FORMAT):
        raise ValueError(f"{path} was not written by ekd_lite: its format is not {MODEL_FORMAT!r}")
    try:
        return path, metadata["format"], dict(json.loads(metadata["info"])), tensors
    except (KeyError, TypeError, ValueError) as error:
        raise _misfit(path, error) from error


def _build_backbone(path: Path, info: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    try:
        backbone = build_backbone(
            info["backbone"], embedding_dim=info["embedding_dim"], image_size=info["image_size"]
        )
        backbone.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _misfit(path, error) from error
    return backbone


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _misfit(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} does not fit the net that it names: {error}")
