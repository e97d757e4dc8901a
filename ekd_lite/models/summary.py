"""What a published checkpoint turned out to be, and under which terms such weights are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ekd_lite.models.layouts import LAYOUTS


@dataclass(frozen=True)
class Publisher:
    """Who names tensors in a way, what its nets take, and what it says of its weights.

    Attributes:
        name: of the project.
        colour: order of the channels that it trains with.
        terms: what it says of the use of its weights.
        source: where it says so.
    """

    name: str
    colour: Literal["rgb", "bgr"]
    terms: str
    source: str


ADAFACE = Publisher(
    "AdaFace",
    "bgr",
    "code MIT; of commercial use of the weights the author says to ask MSU Technologies",
    "https://github.com/mk-minchul/AdaFace/issues/174",
)
CVLFACE = Publisher(
    "CVLface",
    "rgb",
    "MIT on the model card, which asks to follow the licence of the training data as well",
    "https://huggingface.co/minchul/cvlface_adaface_ir101_webface12m",
)
TFACE = Publisher(
    "TFace",
    "rgb",
    "the project is under Apache-2.0; of its training data (MS1MV2) it says nothing",
    "https://github.com/Tencent/TFace/blob/master/License.txt",
)
INSIGHTFACE = Publisher(
    "insightface",
    "rgb",
    "code MIT; all its models for non-commercial research only",
    "https://github.com/deepinsight/insightface/blob/master/model_zoo/README.md",
)


def publisher_of(layout: str, prefix: str) -> Publisher:
    """Whose names these are: a guess, for others may write their own weights so.

    AdaFace's checkpoints name its net `model`, and CVLface's theirs `net`; the copies of CVLface
    on Hugging Face say `model.net`.

    Args:
        layout: one of `LAYOUTS`.
        prefix: what stands before the names of the layout.
    """
    inner = prefix.rstrip(".").rpartition(".")[2]
    if inner == "net" and layout in ("ir", "arcface_iresnet"):
        return CVLFACE
    if layout == "ir":
        return ADAFACE if inner == "model" else TFACE
    return TFACE if layout == "mobilefacenet" else INSIGHTFACE


@dataclass(frozen=True)
class Summary:
    """What a published checkpoint turned out to be; `print` it.

    Attributes:
        path: the file.
        layout: one of `LAYOUTS`.
        parameters: of the backbone.
        embedding_dim: D.
        image_size: side of the images that it takes, pixels.
        colour: order of the channels that it was trained on.
        pixel_range: its black and its white.
        publisher: whose names the tensors have, and so, probably, whose weights they are.
        licence: what the file says of its terms; None if it says nothing.
        left_out: tensors that are not the backbone's, such as a classifier's.
    """

    path: Path
    layout: str
    parameters: int
    embedding_dim: int
    image_size: int
    colour: Literal["rgb", "bgr"]
    pixel_range: tuple[float, float]
    publisher: Publisher
    licence: str | None
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        """A line an attribute."""
        low, high = self.pixel_range
        who = self.publisher
        lines = [
            f"file        {self.path}",
            f"layout      {self.layout}, {LAYOUTS[self.layout].about}",
            f"parameters  {self.parameters:,}",
            f"embedding   {self.embedding_dim} numbers",
            f"input       {self.image_size}x{self.image_size} aligned faces in [{low:g}, {high:g}]",
            f"colour      {self.colour.upper()}, as {who.name} trains, whose names the tensors "
            "have; the file does not say",
            f"licence     {self.licence or 'not stated in the file'}",
            f"terms       if these are weights of {who.name}: {who.terms} ({who.source})",
        ]
        if self.left_out:
            lines.append(f"left out    {len(self.left_out)} tensors: {some(self.left_out)}")
        return "\n".join(lines)


def some(items: list[str] | tuple[str, ...], count: int = 4) -> str:
    """The first of many names, and how many more there are."""
    rest = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(items[:count]) + rest
