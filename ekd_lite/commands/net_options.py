"""How commands open a net of anybody's, and what their users may say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ekd_lite.models.onnx_net import OnnxNet
from ekd_lite.parallel import rank
from ekd_lite.train import Teacher, load_backbone
from ekd_lite.train.pixels import side_to_read
from ekd_lite.train.teacher_file import describe_file
from ekd_lite.train.teacher_fit import probe

USUAL_SIZE = 112  # of aligned crops, for nets that take any


@dataclass(frozen=True)
class NetOptions:
    """How the net (in train and demo the teacher's) takes images, if ekd_lite did not make it.

    What is left out is as its file says, or else RGB in [-1, 1]. That is right for insightface's
    ONNX files; OpenCV's SFace takes --pixel-range 0 255.
    """

    colour: Literal["rgb", "bgr"] | None = None
    """Order of the channels."""
    pixel_range: tuple[float, float] | None = None
    """Black and white, such as 0 255."""
    mean: tuple[float, ...] | None = None
    """Taken off the pixels of that range: one number, or one for each channel."""
    std: tuple[float, ...] | None = None
    """And divided by."""
    input_size: int | None = None
    """Side of the images, pixels."""
    output: str | None = None
    """Name or number of the embedding among several outputs."""
    flip_sum: bool = False
    """Add the embedding of the mirrored image."""

    def said(self) -> dict[str, Any]:
        """What was said, as `Teacher` takes it."""
        # By identity: 0 is equal to False, and was said.
        found = {n: value for n, value in vars(self).items() if value is not None}
        found = {n: value for n, value in found.items() if value is not False}
        for name in ("mean", "std"):
            if len(found.get(name, ())) == 1:
                found[name] = found[name][0]
        if self.output is not None and self.output.lstrip("-").isdigit():
            found["output"] = int(self.output)
        return found

    def names(self) -> str:
        """The options that were said, as they are typed."""
        return ", ".join(f"--{name.replace('_', '-')}" for name in self.said())


def open_net(
    path: Path,
    options: NetOptions,
    *,
    image_size: int = USUAL_SIZE,
    student: nn.Module | Callable[[], nn.Module] | None = None,
) -> Teacher:
    """Open a net or a table in any file that teaches.

    Of a published one it is printed before it is loaded what it is, and under which terms.

    Args:
        path: the file.
        options: what the user says of it.
        image_size: side of the images that a net of no size of its own will get.
        student: the module, if the file is of a student of the user's own.

    Raises:
        FileNotFoundError, ValueError: as `Teacher.from_file`; or it gives no embeddings.
    """
    if student is not None:
        backbone, info = load_backbone(path, student=student)
        return Teacher.of_backbone(backbone, info, name=str(path), **options.said())
    summary = describe_file(path)
    if summary is not None and rank() == 0:
        print(summary, flush=True)
    teacher = Teacher.from_file(path, **options.said())
    if isinstance(teacher.net, OnnxNet) and teacher.foreign and rank() == 0:
        print(teacher.net.summary, flush=True)
    if teacher.rows is None and teacher.width is None:
        probe(teacher, teacher.input_size or image_size)
    return teacher


def size_to_read(net: Teacher) -> int:
    """Side at which images are read for a net, a multiple of 16; it resizes them itself."""
    return side_to_read(net.input_size or USUAL_SIZE)
