"""A teacher: any net, file or table of rows that gives embeddings of faces."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ekd_lite.heads import NormFace
from ekd_lite.models import load_published
from ekd_lite.models.onnx_net import OnnxNet
from ekd_lite.models.weights_file import SUFFIXES
from ekd_lite.train.model_file import (
    BACKBONE_FORMAT,
    MODEL_FORMAT,
    Model,
    load_backbone,
    load_model,
)
from ekd_lite.train.origin import Origin, tensors_digest

VIEWS = ("embeddings", "mirrored")
OURS = ("ekd_lite.onnx.", MODEL_FORMAT, BACKBONE_FORMAT)
DEFAULTS: dict[str, Any] = {
    "input_size": None,
    "colour": "rgb",
    "pixel_range": (-1.0, 1.0),
    "mean": 0.0,
    "std": 1.0,
    "output": 0,
    "flip_sum": False,
}


class Teacher(nn.Module):
    """A net with all that turns the student's images into what it was trained on.

    Images come as everywhere in this library: RGB, (N, 3, H, H), in [-1, 1]. They are resized
    (bicubic with antialiasing), put into the net's colour order and scaled:

        v = low + (x + 1) / 2 · (high - low)        input = (v - mean) / std

    Args:
        net: image -> embedding; put into evaluation mode and left there. See the other
            constructors for rows and files.
        input_size: side of the images that it takes, pixels; None takes them as they come.
        colour: order of its channels; OpenCV's is "bgr".
        pixel_range: its black and its white, before mean and standard deviation are taken off;
            (0, 255), (0, 1) and (-1, 1) are usual.
        mean: taken off the scaled pixels: a number, or three in the order of the net's channels.
        std: and divided by.
        output: which of its outputs is the embedding: a number in a tuple or list, a key of a
            dictionary, an attribute. A net that gives a single tensor needs none.
        flip_sum: add the embedding of the mirrored image, as many evaluations do.
        prototypes: a row for every identity of the training set, in the order of its labels,
            (C, D'); only `kd`, `margin` and their like look at them. Left out: the unit means of
            the teacher's unit rows by identity.

    Attributes:
        name: what messages call it, such as its path.
        rows: its embeddings of a set, one or two tables; then there is no net.
        head: its classifier, if it has one: of a file of this library, or of the prototypes given.
        width: D', once it is known.
        foreign: whether colour order and range are only said by the user.

    Raises:
        ValueError: an option that cannot be.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
        >>> teacher = Teacher(net, input_size=16, colour="bgr", pixel_range=(0, 255))
        >>> teacher(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 8])
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        input_size: int | None = None,
        colour: Literal["rgb", "bgr"] = "rgb",
        pixel_range: tuple[float, float] = (-1.0, 1.0),
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        output: int | str = 0,
        flip_sum: bool = False,
        prototypes: Any = None,
    ) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise ValueError(
                f"a teacher needs an nn.Module, image -> embedding, got {type(net).__name__}; "
                "Teacher.from_rows takes tables, Teacher.from_file files"
            )
        if colour not in ("rgb", "bgr"):
            raise ValueError(f"colour must be 'rgb' or 'bgr', got {colour!r}")
        if input_size is not None and (not isinstance(input_size, int) or input_size < 1):
            raise ValueError(f"input_size must be a number of pixels, got {input_size!r}")
        self.input_size, self.colour = input_size, colour
        self.output, self.flip_sum = output, flip_sum
        mean, std = _plain(mean), _plain(std)
        scale, shift = _affine(pixel_range, mean, std)
        # None: pixels stay as they are, to the bit.
        self._is_plain = bool((scale == 1).all() and (shift == 0).all())
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        # What says how pixels are scaled, for `seen_as`.
        self.pixels = {"pixel_range": tuple(pixel_range), "mean": mean, "std": std}
        given: dict[str, Any] = {
            "input_size": input_size,
            "colour": colour,
            "pixel_range": tuple(pixel_range),
        }
        given |= {"mean": mean, "std": std, "output": output, "flip_sum": flip_sum}
        self._said = {name: v for name, v in given.items() if v != DEFAULTS[name]}
        self.net: nn.Module | None = net.eval()
        self._begin(type(net).__name__, prototypes)
        self.eval()

    def _begin(self, kind: str, prototypes: Any) -> None:
        """What teachers of all kinds have."""
        self.kind = self.name = kind
        self.foreign = True
        self.rows: list[Any] | None = None
        self.prototypes = None if prototypes is None else _table(prototypes, "prototypes")
        self.head: NormFace | None = None
        self.width: int | None = None
        self.people: Tensor | None = None
        self.trained_on: Origin = {}
        self.made_for: Origin = {}

    @classmethod
    def from_rows(cls, rows: Any, *, mirrored: Any = None, prototypes: Any = None) -> Teacher:
        """A teacher that is nothing but its embeddings of the training images, in their order.

        Args:
            rows: (N, D'), a tensor, an array or lists; lengths of the rows do not matter to most
                methods.
            mirrored: the same of the mirrored images, needed where `TrainConfig.flip` mirrors
                half of them; `rows` again, if a mirrored face shall keep its embedding.
            prototypes: as in `Teacher`.

        Example:
            >>> Teacher.from_rows(torch.eye(4)).width
            4
        """
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self.net, self.input_size, self._said = None, None, {}
        self._begin("rows", prototypes)
        self.foreign = False
        views = [rows] if mirrored is None else [rows, mirrored]
        self.rows = [
            _table(view, f"a teacher's {n}") for view, n in zip(views, VIEWS, strict=False)
        ]
        self.width = self.rows[0].shape[1]
        return self.eval()

    @classmethod
    def from_onnx(
        cls, path: str | Path, *, output: int | str = 0, threads: int = 0, **options: Any
    ) -> Teacher:
        """A net in an ONNX file, run by onnxruntime on the CPU.

        Args:
            path: the file; batch size and image size of its graph may be free or fixed.
            output: name or number of the graph's output.
            threads: of onnxruntime; 0 takes every core.
            **options: of `Teacher`. `input_size` is the graph's if it fixes one.

        Raises:
            FileNotFoundError: no such file.
            ModuleNotFoundError: the extra `export` is not installed.
            ValueError: a damaged file, or a graph of other inputs and outputs.
        """
        net = OnnxNet(path, output=output, threads=threads)
        size = options.pop("input_size", None)
        if net.input_size is not None and size not in (None, net.input_size):
            raise ValueError(f"{path} takes images of {net.input_size} pixels, not {size}")
        self = cls(net, input_size=size or net.input_size, **options)
        if output != 0:
            self._said["output"] = output
        self.kind, self.name = "ONNX", str(path)
        self.foreign = not net.metadata.get("format", "").startswith(OURS[0])
        return self

    @classmethod
    def from_model(cls, model: Model, *, name: str = "", **options: Any) -> Teacher:
        """A model of this library with its head; `options` are those of `Teacher`."""
        size = options.pop("input_size", None)
        self = cls(model.backbone, **options)
        self.input_size = size or model.info.get("image_size")
        self.kind = str(model.info.get("backbone", "a net"))
        self.name = name or self.kind
        self.width = model.info["embedding_dim"]
        self.people, self.trained_on, self.foreign = model.people, model.origin, False
        if self.prototypes is None:
            self.head = model.head
        return self

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Teacher:
        """A teacher in any file that one comes in; nothing in it is executed.

        Args:
            path: a run's folder or its model.safetensors, with or without head; a checkpoint that
                `ekd_lite.models.load_published` knows (.safetensors, .pt, .pth, .ckpt); an .onnx
                file; or a table of rows: .npy (N, D'), or .safetensors with `embeddings` and, if
                there are, `mirrored` and `prototypes`.
            **options: of `Teacher`, or of `Teacher.from_rows` for a table; those of a checkpoint
                known to the library are set by it.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file, or one of another kind.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(
                f"no model at {path}: expected a run folder, a checkpoint "
                f"({', '.join(SUFFIXES)}), an .onnx file or a table of rows (.npy)"
            )
        suffix = path.suffix.lower()
        if suffix == ".onnx":
            return cls.from_onnx(path, **options)
        if suffix == ".npy":
            self = cls.from_rows(_read_npy(path), **options)
        elif suffix == ".safetensors" and path.is_file():
            self = _from_safetensors(path, options)
        elif suffix in SUFFIXES:
            self = _from_published(path, options)
        else:
            self = _from_own(path, options)
        self.name = str(path)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Embed images in [-1, 1], (N, 3, H, H) -> (N, D'), not normalised."""
        images = self.prepared(images)
        rows = self._embed(images)
        return rows + self._embed(images.flip(-1)) if self.flip_sum else rows

    def prepared(self, images: Tensor) -> Tensor:
        """The images as the net wants them: its size, its colour order, its range."""
        size = self.input_size
        if size is not None and images.shape[-2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
            images = images.clamp(-1, 1)  # bicubic shoots beyond the range at edges
        if self.colour == "bgr":
            images = images.flip(1)
        return images if self._is_plain else images * self.scale + self.shift

    def _embed(self, images: Tensor) -> Tensor:
        if self.net is None:
            raise ValueError("this teacher is a table of rows: it cannot embed images")
        rows: Any = self.net(images)
        if self.kind != "ONNX":  # whose output is chosen in the graph
            rows = _chosen(rows, self.output)
        if isinstance(rows, Tensor) and rows.ndim == 4 and rows.shape[2:] == (1, 1):
            rows = rows.flatten(1)
        return rows  # type: ignore[no-any-return]

    def seen_as(self, **options: Any) -> Teacher:
        """The same net with other options, to try whether it does better so."""
        kept = {"input_size": self.input_size, "output": self.output, "flip_sum": self.flip_sum}
        assert self.net is not None
        other = Teacher(self.net, **(kept | {"colour": self.colour} | options))
        other.kind = self.kind
        return other

    @property
    def num_parameters(self) -> int:
        """Parameters of the net; 0 of rows and of an ONNX file, which hold none that torch sees."""
        return 0 if self.net is None else sum(p.numel() for p in self.net.parameters())

    def origin(self, *, head: bool = True) -> Origin:
        """What the run depends on: weights or rows, options, and the prototypes if wanted."""
        tensors = [*(self.rows_by_view().items())]
        if self.net is not None:
            tensors = [(f"backbone.{n}", t) for n, t in self.net.state_dict().items()]
        if head and self.head is not None:
            tensors += [(f"head.{n}", t) for n, t in self.head.state_dict().items()]
        elif head and self.prototypes is not None:
            tensors += [("prototypes", self.prototypes)]
        digests = [f"file {self.net.digest[:16]}"] if isinstance(self.net, OnnxNet) else []
        digests += [tensors_digest(tensors)] if tensors else []
        digests += [f"{name}={value}" for name, value in self._said.items()]
        return {"teacher": f"{self.kind} ({', '.join(digests)})"}

    def rows_by_view(self) -> dict[str, Tensor]:
        """Its rows by the names that they have in files; {} for a net."""
        return dict(zip(VIEWS, self.rows or [], strict=False))

    def with_head(
        self, prototypes: Tensor, *, scale: float, people: Tensor | None = None
    ) -> Teacher:
        """The same teacher with other prototypes, (C, D'); this one stays as it is."""
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other.head = NormFace(prototypes.shape[1], len(prototypes), scale=scale).eval()
        other.head.prototypes = nn.Parameter(prototypes.detach().float(), requires_grad=False)
        other.people = people
        return other


def as_teacher(teacher: Any) -> Teacher:
    """A teacher from whatever `fit` takes for one: itself, a model, a net, rows or a path."""
    if isinstance(teacher, Teacher):
        return teacher
    if isinstance(teacher, Model):
        return Teacher.from_model(teacher)
    if isinstance(teacher, nn.Module):
        return Teacher(teacher)
    if isinstance(teacher, str | Path):
        return Teacher.from_file(teacher)
    if isinstance(teacher, Tensor | np.ndarray) and teacher.ndim == 2:
        return Teacher.from_rows(teacher)
    if isinstance(teacher, Sequence) and len(teacher) in (1, 2):
        return Teacher.from_rows(teacher[0], mirrored=teacher[1] if len(teacher) == 2 else None)
    raise ValueError(
        "expected as teacher a Teacher, an nn.Module, a table of rows (N, D) or two, or a path, got "
        f"{type(teacher).__name__}"
    )


def _plain(value: Any) -> Any:
    """A number or a tuple of numbers, of a tensor, an array or a list."""
    values = value.tolist() if isinstance(value, Tensor | np.ndarray) else value
    return tuple(values) if isinstance(values, list) else values


def _affine(pixel_range: Any, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift (3, 1, 1) that take pixels from [-1, 1] to what the net wants."""
    try:
        low, high = (float(x) for x in pixel_range)
        parts = [torch.as_tensor(x, dtype=torch.float64).expand(3) for x in (mean, std)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            "expected pixel_range as two numbers, mean and std as one number or three, got "
            f"{pixel_range!r}, {mean!r}, {std!r}"
        ) from error
    (average, spread), finite = parts, torch.tensor([low, high]).isfinite().all()
    if not (low < high and finite and average.isfinite().all() and (spread > 0).all()):
        raise ValueError(
            "pixel_range must rise, and std be positive, got "
            f"{pixel_range!r}, mean {mean!r}, std {std!r}"
        )
    scale = (high - low) / 2 / spread
    shift = ((high + low) / 2 - average) / spread
    return scale.float().view(3, 1, 1), shift.float().view(3, 1, 1)


def _chosen(found: Any, output: int | str) -> Any:
    """One of a net's outputs."""
    names: list[Any] = [0]
    if isinstance(found, Mapping):
        names = list(found)
        if output in names:
            return found[output]
        found = list(found.values())
    elif isinstance(found, str | Tensor):
        if output == 0:
            return found
    elif isinstance(output, str) and hasattr(found, output):
        return getattr(found, output)
    if (
        isinstance(found, Sequence)
        and isinstance(output, int)
        and -len(found) <= output < len(found)
    ):
        return found[output]
    if isinstance(found, Sequence) and len(names) < len(found):
        names = list(range(len(found)))
    raise ValueError(
        f"the net gives {type(found).__name__} with {', '.join(map(repr, names))}: there is no "
        f"output {output!r}"
    )


def _table(rows: Any, what: str) -> Tensor:
    """A table of numbers as it came, in floating point and two dimensions."""
    try:
        table = torch.as_tensor(rows).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} are no table of numbers: {error}") from error
    if table.ndim != 2 or not table.is_floating_point() or 0 in table.shape:
        raise ValueError(
            f"expected {what} as (N, D) of a floating-point type, got {tuple(table.shape)} of "
            f"{table.dtype}"
        )
    if not table.isfinite().all():
        row = int((~table.isfinite().all(dim=1)).nonzero()[0])
        raise ValueError(f"{what} hold NaN or infinite numbers, first in row {row}")
    return table.cpu()


def _read_npy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is no table of rows, or a damaged one: {error}") from error


def _from_own(path: Path, options: dict[str, Any]) -> Teacher:
    """A run's folder or file; without its head it teaches what needs no prototypes of its own."""
    file = path / "model.safetensors" if path.is_dir() else path
    is_headless = file.is_file() and _metadata(file)[0].get("format") == BACKBONE_FORMAT
    if not is_headless:
        return Teacher.from_model(load_model(path), **options).requires_grad_(False)
    backbone, info = load_backbone(path)
    size = options.pop("input_size", None)
    self = Teacher(backbone, **options)
    self.input_size, self.width = size or info["image_size"], info["embedding_dim"]
    self.kind, self.foreign = str(info["backbone"]), False
    return self


def _from_published(path: Path, options: dict[str, Any]) -> Teacher:
    net = load_published(path)
    known: Any = net.summary
    return Teacher(net, **({"colour": known.colour, "input_size": known.image_size} | options))


def _from_safetensors(path: Path, options: dict[str, Any]) -> Teacher:
    metadata, names = _metadata(path)
    if metadata.get("format") in OURS:
        return _from_own(path, options)
    if VIEWS[0] in names:
        with safe_open(path, framework="pt") as file:
            held = {n: file.get_tensor(n) for n in (*VIEWS, "prototypes") if n in names}
        rows = held.pop(VIEWS[0])
        return Teacher.from_rows(rows, **(held | options))
    try:
        return _from_published(path, options)
    except ValueError as error:
        raise ValueError(
            f"{path} was not written by ekd_lite, and is no table of rows ('embeddings'): {error}"
        ) from error


def _metadata(path: Path) -> tuple[dict[str, str], list[str]]:
    """What a safetensors file says of itself, and the names of its tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from error
