"""Published checkpoints as nets of this library: the layout is recognised by names and shapes.

    ir                     TFace, AdaFace, CVLface: IR_18, IR_34, IR_50, IR_101
    arcface_iresnet        insightface's arcface_torch: iresnet18 ... iresnet200
    mobilefacenet          TFace: MobileFaceNet with GDC output
    arcface_mobilefacenet  insightface's arcface_torch: mbf, mbf_large

Their forward passes were compared with the original code on random weights (Tencent/TFace 171ec14,
mk-minchul/AdaFace c60eaa7, mk-minchul/CVLface d3d09c9, deepinsight/insightface 7fadd42). AdaFace
and CVLface return unit embeddings and their lengths; here the net returns the embedding before that
division, as all nets of the library do, which has the same cosines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ekd_lite.models.layouts import LAYOUTS, image_size_of
from ekd_lite.models.weights_file import read_weights

# What stands beside a backbone in a checkpoint: the classifier, by the names that its authors use.
HEAD = re.compile(r"(head|kernel|loss|criterion|classifier|margin\w*|weight|t|h|batch_\w+)(\.|$)")


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
        colour_source: how that is known.
        licence: what the file says of its terms; None if it says nothing.
        left_out: tensors that are not the backbone's, such as a classifier's.
    """

    path: Path
    layout: str
    parameters: int
    embedding_dim: int
    image_size: int
    colour: Literal["rgb", "bgr"]
    colour_source: str
    licence: str | None
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        """A line an attribute."""
        licence = self.licence or "not stated in the file: read the terms where you took it from"
        lines = [
            f"file        {self.path}",
            f"layout      {self.layout}, {LAYOUTS[self.layout].about}",
            f"parameters  {self.parameters:,}",
            f"embedding   {self.embedding_dim} numbers",
            f"input       {self.image_size}x{self.image_size} aligned faces in [-1, 1]",
            f"colour      {self.colour.upper()}, {self.colour_source}",
            f"licence     {licence}",
        ]
        if self.left_out:
            lines.append(f"left out    {len(self.left_out)} tensors: {_some(self.left_out)}")
        return "\n".join(lines)


def load_published(path: str | Path, *, layout: str = "auto") -> nn.Module:
    """Load a published checkpoint into a net of this library, in evaluation mode.

    Prefixes such as `model.`, `module.`, `net.` or `_orig_mod.` are taken off, tensors of a
    classifier are left out. The colour order is the one that the net was trained with: see
    `summary.colour`, and hand it to `Teacher`.

    Args:
        path: a .pt, .pth, .ckpt or .safetensors file.
        layout: a name of `LAYOUTS`, or "auto" to recognise it.

    Returns:
        The backbone, image in [-1, 1] -> embedding (N, D), in float32. Its attribute `summary`, a
        `Summary`, says what the file held.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or its tensors fit no known layout; says what was found.

    Example:
        >>> net = load_published("adaface_ir50_ms1mv2.ckpt")  # doctest: +SKIP
        >>> print(net.summary)  # doctest: +SKIP
    """
    path = Path(path)
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    tensors, metadata = read_weights(path)
    if metadata.get("format", "").startswith("ekd_lite."):
        raise ValueError(f"{path} is a file of ekd_lite: `load_backbone` and `load_model` read it")
    name, prefix = _recognise(path, tensors, layout)
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    shapes = {n: tuple(t.shape) for n, t in own.items()}
    try:
        with torch.device("meta"):
            net = LAYOUTS[name].build(shapes)
    except (KeyError, ValueError) as error:
        raise _unknown(path, tensors, f"it looks like {name}, but {error}") from error
    rename = LAYOUTS[name].rename(shapes)
    heads = [n for n in own if HEAD.match(n) and rename(n) not in net.state_dict()]
    left_out = [n for n in tensors if not n.startswith(prefix)] + [prefix + n for n in heads]
    renamed = {rename(n): t for n, t in own.items() if n not in heads}
    _fill(path, tensors, name, net, renamed)
    colour, source = _colour_of(name, prefix)
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    net.summary = Summary(  # type: ignore[assignment]
        path=path,
        layout=name,
        parameters=sum(p.numel() for p in net.parameters()),
        embedding_dim=last.out_features,
        image_size=image_size_of(name, shapes),
        colour=colour,
        colour_source=source,
        licence=metadata.get("license") or metadata.get("licence"),
        left_out=tuple(left_out),
    )
    return net.eval()


def _recognise(path: Path, tensors: Mapping[str, Tensor], layout: str) -> tuple[str, str]:
    """The layout and the prefix that its names have in the file."""
    names = list(LAYOUTS) if layout == "auto" else [layout]
    for name in names:
        signature = LAYOUTS[name].signature
        for found in tensors:
            if found == signature or found.endswith("." + signature):
                return name, found.removesuffix(signature)
    raise _unknown(path, tensors, "no tensor has a name of a known layout")


def _fill(
    path: Path,
    tensors: Mapping[str, Tensor],
    layout: str,
    net: nn.Module,
    renamed: dict[str, Tensor],
) -> None:
    """Put the tensors into the net, whose own are still without memory."""
    wanted = net.state_dict()
    for name in wanted:  # how many batches a norm has seen does not change what it computes
        if name.endswith("num_batches_tracked"):
            renamed.setdefault(name, torch.tensor(0))
    problems = [f"{n} is missing" for n in wanted if n not in renamed]
    problems += [f"{n} has no place" for n in renamed if n not in wanted]
    problems += [
        f"{n} is {tuple(t.shape)}, expected {tuple(wanted[n].shape)}"
        for n, t in renamed.items()
        if n in wanted and t.shape != wanted[n].shape
    ]
    if problems:
        raise _unknown(path, tensors, f"it looks like {layout}, but {_some(problems)}")
    with torch.no_grad():
        made = {n: t.to(wanted[n].dtype, copy=True).contiguous() for n, t in renamed.items()}
    bad = [n for n, t in made.items() if not t.isfinite().all()]
    if bad:
        raise ValueError(f"{path} holds NaN or infinite weights: {_some(bad)}")
    net.load_state_dict(made, assign=True)
    net.requires_grad_(True)


def _colour_of(layout: str, prefix: str) -> tuple[Literal["rgb", "bgr"], str]:
    """AdaFace is the only one that takes BGR, and the only one whose names begin with `model.`."""
    if layout == "ir" and "model." in prefix:
        return "bgr", "since the names begin with `model.`, as AdaFace's do"
    return "rgb", "as this layout's authors train; the file does not say"


def _unknown(path: Path, tensors: Mapping[str, Tensor], why: str) -> ValueError:
    found = [f"{n} {tuple(t.shape)}" for n, t in tensors.items()]
    known = "; ".join(f"{name} ({layout.about})" for name, layout in LAYOUTS.items())
    return ValueError(
        f"{path} fits no known layout: {why}. It holds {len(tensors)} tensors: {_some(found)}. "
        f"Known layouts: {known}. Any other net can be built by its own code and handed over as an "
        "nn.Module"
    )


def _some(items: list[str] | tuple[str, ...], count: int = 4) -> str:
    rest = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(items[:count]) + rest
