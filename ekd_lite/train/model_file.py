"""Model files: weights and a description in one safetensors file, which holds no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ekd_lite.files import write_atomically
from ekd_lite.heads import HEADS, NormFace
from ekd_lite.models import build_backbone
from ekd_lite.ops import one_line
from ekd_lite.train.config import OWN
from ekd_lite.train.net_form import make_net, shape_differences

MODEL_FORMAT = "ekd_lite.model.1"
BACKBONE_FORMAT = "ekd_lite.backbone.1"  # without the head

Net = TypeVar("Net", bound=nn.Module)


@dataclass
class Model:
    """A trained backbone with its head.

    Attributes:
        backbone: image -> embedding.
        head: holds the prototypes of the training identities.
        info: what `save_model` wrote beside the weights: backbone, embedding_dim, image_size, head,
            num_identities, scale, margin, method and more.
        people: who the prototypes are, (C,) int64 numbers made from their names
            (`ekd_lite.data.faceset.people_keys`); None if the set gave no names, and in files of
            earlier versions.
        origin: what it was trained on (`ekd_lite.train.origin`); empty if that is not known.
    """

    backbone: nn.Module
    head: NormFace
    info: dict[str, Any]
    people: Tensor | None = None
    origin: dict[str, str] = field(default_factory=dict)

    @property
    def num_parameters(self) -> int:
        """Parameters of the backbone."""
        return sum(p.numel() for p in self.backbone.parameters())


def save_model(path: Path, model: Model) -> None:
    """Write weights and `info` to a safetensors file, which holds no code."""
    tensors = _plain(
        {
            f"{part}.{name}": tensor
            for part, module in (("backbone", model.backbone), ("head", model.head))
            for name, tensor in module.state_dict().items()
        }
    )
    if model.people is not None:
        tensors["people"] = model.people
    metadata = {"format": MODEL_FORMAT, "info": json.dumps(model.info, sort_keys=True)}
    if model.origin:
        metadata["origin"] = json.dumps(model.origin, sort_keys=True)
    write_atomically(path, save(tensors, metadata))


def save_backbone(path: Path, backbone: nn.Module, info: dict[str, Any]) -> None:
    """Write a backbone without its head: all that embedding takes.

    The head is most of a small model's file, and its prototypes are personal data: one mean face
    for each identity that was trained on.

    Raises:
        ValueError: a weight that is NaN or infinite.
    """
    tensors = _plain(backbone.state_dict())
    bad = [n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise ValueError(
            f"the net's weights are not finite ({', '.join(bad[:3])}): there is nothing to export"
        )
    metadata = {"format": BACKBONE_FORMAT, "info": json.dumps(info, sort_keys=True)}
    write_atomically(path, save(tensors, metadata))


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each in memory of its own: safetensors refuses tied weights, which share it."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return tensors


def load_model(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    student: nn.Module | Callable[[], nn.Module] | None = None,
) -> Model:
    """Read what `save_model` wrote, in evaluation mode.

    Args:
        path: a run's folder, or its model.safetensors.
        device: where to put the model.
        student: the module to fill, or a function without arguments that makes it; needed for a
            net of your own (`fit(..., student=...)`), whose code no file holds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a model of ekd_lite, one that was saved without its head, a damaged one, or
            one of another net than `student`, which stays as it was.

    Example:
        >>> model = load_model("runs/mine", student=MyNet)  # doctest: +SKIP
    """
    path, metadata, info = _describe(path, student)
    if metadata["format"] != MODEL_FORMAT:
        raise ValueError(
            f"{path} is a backbone without its head: good for embedding, not for more training; "
            "expected the model.safetensors of a run"
        )

    def build() -> nn.ModuleDict:
        return nn.ModuleDict({"backbone": _backbone(info, given), "head": _head(info)})

    given = None if student is None else make_net(student)
    net = _load(path, build, own=("backbone.", "head."), given=given is not None)
    backbone, head = net["backbone"], net["head"]
    assert isinstance(head, NormFace)
    people = _people(path, len(head.prototypes))
    origin = _json_object(path, metadata.get("origin", "{}"))
    return Model(backbone.to(device).eval(), head.to(device).eval(), info, people, origin)


def load_backbone(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    student: nn.Module | Callable[[], nn.Module] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Read the backbone that `save_model` or `save_backbone` wrote, in evaluation mode.

    `student` is the module to fill, as for `load_model`.

    Returns:
        The backbone, image -> embedding, and `info` as in `Model`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a model of ekd_lite, a damaged one, or one of another net than `student`.
    """
    path, metadata, info = _describe(path, student)
    given = None if student is None else make_net(student)
    if metadata["format"] == MODEL_FORMAT:

        def build() -> nn.ModuleDict:
            return nn.ModuleDict({"backbone": _backbone(info, given)})

        net = _load(path, build, own=("backbone.",), given=given is not None)["backbone"]
    else:
        net = _load(path, lambda: _backbone(info, given), own=("",), given=given is not None)
    return net.to(device).eval(), info


def model_info(path: str | Path) -> dict[str, Any]:
    """What a model file says of itself, `Model.info`; no tensor is read."""
    return _describe(path, student="none is needed")[2]


def read_origin(path: Path) -> dict[str, str]:
    """What a model was trained on (`Model.origin`), without reading a tensor; {} if not known.

    Raises:
        ValueError: not a model of ekd_lite, or a damaged one.
    """
    path, metadata, _ = _describe(path, student="none is needed")
    return _json_object(path, metadata.get("origin", "{}"))


def _describe(
    path: str | Path, student: object = None
) -> tuple[Path, dict[str, str], dict[str, Any]]:
    """Path, metadata and description of a file of one of the two formats; no tensor is read."""
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}: expected a run folder or model.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        hint = ""
        if path.suffix.lower() in (".pt", ".pth", ".ckpt", ".onnx"):
            hint = "; ekd_lite.models.load_published and Teacher.from_file read files of others"
        raise ValueError(
            f"{path} is no safetensors file, or a damaged one: {error}{hint}"
        ) from error
    if metadata.get("format") not in (MODEL_FORMAT, BACKBONE_FORMAT):
        raise ValueError(f"{path} was not written by ekd_lite: its format is not {MODEL_FORMAT!r}")
    info = _json_object(path, metadata.get("info", ""))
    name = str(info.get("backbone"))
    if student is None and name.startswith(OWN):
        raise ValueError(
            f"{path} holds the weights of a net of somebody's own, {name.removeprefix(OWN)}, and "
            "no file holds its code: hand it over, load_model(path, student=net), or "
            "--student-module package:callable on the command line"
        )
    return path, metadata, info


def _load(
    path: Path, build: Callable[[], Net], *, own: tuple[str, ...], given: bool = False
) -> Net:
    """A net with the weights of a file.

    A file of some hundred bytes may describe a net of gigabytes: names and shapes are compared with
    those of a net without memory before the real one is built.

    Args:
        path: the file.
        build: makes the net.
        own: beginnings of the names that belong to it.
        given: whether the caller gave the net, and the file only names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(own)]  # noqa: SIM118
            found = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            with torch.device("meta"):
                state = build().state_dict()
            problems = shape_differences(state, found, "in the net", "in the file")
            if problems:
                raise ValueError("; ".join(problems))
            net = build()
            net.load_state_dict({name: file.get_tensor(name) for name in names})
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        raise _misfit(path, error, given=given) from error
    return net


def _people(path: Path, count: int) -> Tensor | None:
    """The numbers of the people; None in a file without."""
    with safe_open(path, framework="pt") as file:
        if "people" not in file.keys():  # noqa: SIM118
            return None
        people: Tensor = file.get_tensor("people")
    if people.dtype != torch.int64 or people.shape != (count,):
        raise _misfit(path, ValueError(f"people is {tuple(people.shape)} of {people.dtype}"))
    return people


def _backbone(info: dict[str, Any], given: nn.Module | None) -> nn.Module:
    if given is not None:
        return given
    return build_backbone(
        info["backbone"], embedding_dim=info["embedding_dim"], image_size=info["image_size"]
    )


def _head(info: dict[str, Any]) -> NormFace:
    return HEADS[info["head"]](
        info["embedding_dim"], info["num_identities"], scale=info["scale"], margin=info["margin"]
    )


def _json_object(path: Path, text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise _misfit(path, error) from error


def _misfit(path: Path, error: Exception, *, given: bool = False) -> ValueError:
    net = "the net that was given" if given else "the net that it names"
    return ValueError(f"{path} does not fit {net}: {one_line(error)}")
