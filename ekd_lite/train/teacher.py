"""A teacher: any net, file or table of rows that gives embeddings of faces."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from ekd_lite.heads import NormFace
from ekd_lite.models.onnx_net import OnnxNet
from ekd_lite.train.model_file import Model
from ekd_lite.train.net_form import checked_prototypes, checked_table, chosen
from ekd_lite.train.origin import Origin, tensors_digest
from ekd_lite.train.pixels import Pixels
from ekd_lite.train.teacher_file import Headless, read_teacher_file
from ekd_lite.train.threshold import threshold_at

VIEWS = ("embeddings", "mirrored")
OUR_ONNX = "ekd_lite.onnx."


class Teacher(nn.Module):
    """A net with all that turns the student's images into what it was trained on.

    Images come as everywhere in this library: RGB, (N, 3, H, H), in [-1, 1].

    Args:
        net: image -> embedding; put into evaluation mode and left there. See the other
            constructors for rows and files.
        input_size: side of the images that it takes, pixels; None takes them as they come.
        colour, pixel_range, mean, std: order and scale of its pixels, as in `Pixels`.
        output: which of its outputs is the embedding: a number in a tuple or list, a key of a
            dictionary, an attribute. A net that gives a single tensor needs none.
        flip_sum: add the embedding of the mirrored image, as many evaluations do.
        prototypes: a row for every identity of the training set, in the order of its labels,
            (C, D'), or a dictionary of them by the names of the people; only `kd`, `margin` and
            their like look at them. Left out: the unit means of its unit rows by identity.

    Attributes:
        name: what messages call it, such as its path.
        rows: its embeddings of a set, one or two tables; then there is no net.
        head: its classifier, if a file of this library or the prototypes given make one.
        width: D', once it is known.
        people: whose its prototypes are, as `people_keys`; None if that is not known.
        made_for: what its rows are of, so far as their file says it.
        foreign: whether only its user says what it takes.

    Raises:
        ValueError: an option that cannot be.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
        >>> teacher = Teacher(net, input_size=16, colour="bgr", pixel_range=(0, 255))
        >>> teacher(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 8])
    """

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
        self.pixels = Pixels(
            input_size=input_size, colour=colour, pixel_range=pixel_range, mean=mean, std=std
        )
        self.output: int | str | None = output  # None: it gives its embedding, and nothing else
        self.flip_sum = flip_sum
        self._said: dict[str, Any] = dict(self.pixels.said)
        self._said |= {"output": output} if output != 0 else {}
        self._said |= {"flip_sum": True} if flip_sum else {}
        self.net: nn.Module | None = net.eval()
        self._begin(type(net).__name__, prototypes)
        self.eval()

    def _begin(self, kind: str, prototypes: Any) -> None:
        """What teachers of all kinds have."""
        self.kind = self.name = kind
        self.foreign = True
        self.rows: list[Any] | None = None
        self.prototypes, self.people = checked_prototypes(prototypes)
        self.head: NormFace | None = None
        self.width: int | None = None
        self.trained_on: Origin = {}
        self.made_for: dict[str, Any] = {}

    @classmethod
    def from_rows(cls, rows: Any, *, mirrored: Any = None, prototypes: Any = None) -> Teacher:
        """A teacher that is nothing but its embeddings of the training images, in their order.

        Args:
            rows: (N, D'), a tensor, an array or lists; their lengths matter to few methods.
            mirrored: those of the mirrored images, if `TrainConfig.flip` mirrors half of them; or
                `rows` again, if a mirrored face shall keep its embedding.
            prototypes: as in `Teacher`.

        Example:
            >>> Teacher.from_rows(torch.eye(4)).width
            4
        """
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self.net, self._said = None, {}
        self._begin("rows", prototypes)
        self.foreign = False
        views = [rows] if mirrored is None else [rows, mirrored]
        self.rows = [
            checked_table(view, f"a teacher's {n}") for view, n in zip(views, VIEWS, strict=False)
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
        size = options.get("input_size")
        if net.input_size is not None and size not in (None, net.input_size):
            raise ValueError(f"{path} takes images of {net.input_size} pixels, not {size}")
        self = cls(net, **options)
        self.pixels.input_size = size or net.input_size
        if output != 0:  # chosen in the graph
            self._said["output"] = output
        self.kind, self.name = "ONNX", str(path)
        self.foreign = not net.metadata.get("format", "").startswith(OUR_ONNX)
        return self

    @classmethod
    def from_model(cls, model: Model, *, name: str = "", **options: Any) -> Teacher:
        """A model of this library with its head; `options` are those of `Teacher`."""
        self = cls.of_backbone(model.backbone, model.info, name=name, **options)
        self.people, self.trained_on = model.people, model.origin
        if self.prototypes is None:
            self.head = model.head
        return self

    @classmethod
    def of_backbone(
        cls, backbone: nn.Module, info: dict[str, Any], *, name: str = "", **options: Any
    ) -> Teacher:
        """A net and the `info` of its file, which says itself what it takes and gives."""
        self = cls(backbone, **options)
        self.output = options.get("output")
        self.pixels.input_size = self.input_size or info.get("image_size")
        self.kind = str(info.get("backbone", "a net"))
        self.name = name or self.kind
        self.width, self.foreign = info["embedding_dim"], False
        return self

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Teacher:
        """A teacher in any file that one comes in; nothing in it is executed.

        Args:
            path: a run's folder or its model.safetensors, with or without head; a checkpoint that
                `ekd_lite.models.load_published` knows (.safetensors, .pt, .pth, .ckpt); an .onnx
                file; or a table of rows: .npy (N, D'), or .safetensors with `embeddings` and, if
                there are, `mirrored`, `labels`, `prototypes` and `people`, their `people_keys`.
            **options: of `Teacher`, or of `from_rows` for a table; a published checkpoint sets its.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file, or one of another kind.
        """
        path = Path(path)
        if path.suffix.lower() == ".onnx":
            return cls.from_onnx(path, **options)
        found = read_teacher_file(path)
        if isinstance(found, Model):
            return cls.from_model(found, name=str(path), **options).requires_grad_(False)
        if isinstance(found, Headless):
            self = cls.of_backbone(found.backbone, found.info, **options)
        elif isinstance(found, nn.Module):
            known: Any = found.summary
            takes = {"colour": known.colour, "pixel_range": known.pixel_range}
            self = cls(found, **(takes | {"input_size": known.image_size} | options))
        else:
            if unknown := options.keys() - {"mirrored", "prototypes"}:
                raise ValueError(
                    f"{path} is a table of rows, which has no {', '.join(sorted(unknown))}"
                )
            told = {str(n): found.pop(n) for n in ("origin", "labels", "people") if n in found}
            self = cls.from_rows(found.pop(VIEWS[0]), **(found | options))
            self.made_for = told
            if "prototypes" not in options:
                self.people = told.get("people")
        self.name = str(path)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Embed images in [-1, 1], (N, 3, H, H) -> (N, D'), not normalised."""
        images = self.pixels(images)
        rows = self._embed(images)
        return rows + self._embed(images.flip(-1)) if self.flip_sum else rows

    def _embed(self, images: Tensor) -> Tensor:
        if self.net is None:
            raise ValueError("this teacher is a table of rows: it cannot embed images")
        rows: Any = self.net(images)
        if self.output is not None:
            rows = chosen(rows, self.output)
            if isinstance(rows, Tensor) and rows.ndim == 4 and rows.shape[2:] == (1, 1):
                rows = rows.flatten(1)
        return rows  # type: ignore[no-any-return]

    def seen_as(self, **options: Any) -> Teacher:
        """The same net with other options, to try whether it does better so."""
        assert self.net is not None
        kept = {name: getattr(self, name) for name in ("input_size", "output", "flip_sum")}
        return Teacher(self.net, **(kept | {"colour": self.pixels.colour} | options))

    @property
    def input_size(self) -> int | None:
        """Side of the images that its net takes, pixels; None if it takes any, or has no net."""
        return None if self.net is None else self.pixels.input_size

    def threshold_at(self, faces: Any, fpr: float = 1e-4, *, labels: Any = None) -> float:
        """The cosine from which it accepts pairs at an FPR; see `train.threshold.threshold_at`."""
        return threshold_at(self, faces, fpr, labels=labels)

    @property
    def num_parameters(self) -> int:
        """Parameters of the net; 0 of rows and of an ONNX file, which hold none that torch sees."""
        return 0 if self.net is None else sum(p.numel() for p in self.net.parameters())

    def origin(self, *, head: bool = True) -> Origin:
        """What the run depends on: weights or rows, options, and the prototypes if wanted."""
        tensors = list(zip(VIEWS, self.rows or [], strict=False))
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
        "expected as teacher a Teacher, an nn.Module, a table of rows (N, D) or two, or a path, "
        f"got {type(teacher).__name__}"
    )
