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

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ekd_lite.models.iresnet import IResNet
from ekd_lite.models.mobilefacenet import MobileFaceNet
from ekd_lite.models.weights_file import read_weights

Shapes = Mapping[str, tuple[int, ...]]
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


@dataclass(frozen=True)
class Layout:
    """How others name the tensors of a net of ours.

    Attributes:
        about: whose it is.
        signature: a name that only this layout has.
        build: their shapes by name -> our net.
        rename: their shapes by name -> a function from their names to ours; a name that it does not
            know stays as it is.
    """

    about: str
    signature: str
    build: Callable[[Shapes], nn.Module]
    rename: Callable[[Shapes], Callable[[str], str]]


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
        image_size=_image_size(name, shapes),
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


# --- the four layouts -----------------------------------------------------------------------------


def _side(inputs: int, channels: int) -> int:
    side = math.isqrt(inputs // channels)
    if side < 1 or side * side * channels != inputs:
        raise ValueError(f"its last linear layer takes {inputs} numbers, no square map")
    return side


def _image_size(layout: str, shapes: Shapes) -> int:
    if layout == "ir":
        return 16 * _side(shapes["output_layer.3.weight"][1], 512)
    if layout == "arcface_iresnet":
        return 16 * _side(shapes["fc.weight"][1], 512)
    kernel = "output_layer.conv_6_dw.conv.weight" if layout == "mobilefacenet" else GDC
    return 16 * shapes[kernel][2]


def _depths(widths: list[int]) -> list[int]:
    """Blocks of every stage, from the widths of all blocks in order."""
    depths = [widths.count(width) for width in (64, 128, 256, 512)]
    expected = [w for w, d in zip((64, 128, 256, 512), depths, strict=True) for _ in range(d)]
    if widths != expected or 0 in depths:
        raise ValueError(f"its blocks have widths {sorted(set(widths))}, expected 64 to 512")
    return depths


def _build_ir(shapes: Shapes) -> nn.Module:
    kernels = {
        int(n.split(".")[1]): shape
        for n, shape in shapes.items()
        if re.fullmatch(r"body\.\d+\.res_layer\.1\.weight", n)
    }
    missing = set(range(len(kernels))) - kernels.keys()
    if missing:
        raise ValueError(f"body.{min(missing)}.res_layer.1.weight is missing")
    if any("se_block" in name for name in shapes):
        raise ValueError("its blocks have squeeze-and-excitation, which is not built here")
    if any(kernel[2:] != (3, 3) for kernel in kernels.values()):
        raise ValueError("its blocks are bottlenecks of 1x1 convolutions, not built here")
    depths = _depths([kernels[i][0] for i in sorted(kernels)])
    dim = shapes["output_layer.3.weight"][0]
    return IResNet(depths, embedding_dim=dim, image_size=_image_size("ir", shapes))


def _rename_ir(_: Shapes) -> Callable[[str], str]:
    def rename(name: str) -> str:
        name = re.sub(r"^input_layer\.", "stem.", name)
        name = re.sub(r"^output_layer\.", "output.", name)
        name = re.sub(r"^(body\.\d+)\.res_layer\.", r"\1.residual.", name)
        return re.sub(r"^(body\.\d+)\.shortcut_layer\.", r"\1.shortcut.", name)

    return rename


def _arcface_depths(shapes: Shapes) -> list[int]:
    pattern = re.compile(r"layer(\d)\.(\d+)\.conv1\.weight")
    blocks = [(int(m[1]), int(m[2])) for n in shapes if (m := pattern.fullmatch(n))]
    depths = [sum(stage == s for stage, _ in blocks) for s in (1, 2, 3, 4)]
    if 0 in depths:
        raise ValueError(f"its four stages have {depths} blocks")
    return depths


def _build_arcface_iresnet(shapes: Shapes) -> nn.Module:
    return IResNet(
        _arcface_depths(shapes),
        embedding_dim=shapes["fc.weight"][0],
        image_size=_image_size("arcface_iresnet", shapes),
        project_all=True,
        affine_output=True,
    )


def _rename_arcface_iresnet(shapes: Shapes) -> Callable[[str], str]:
    depths = _arcface_depths(shapes)
    inside = {"bn1": 0, "conv1": 1, "bn2": 2, "prelu": 3, "conv2": 4, "bn3": 5}
    around = {
        **{"conv1": "stem.0", "bn1": "stem.1", "prelu": "stem.2"},
        **{"bn2": "output.0", "fc": "output.3", "features": "output.4"},
    }

    def rename(name: str) -> str:
        if m := re.fullmatch(r"layer(\d)\.(\d+)\.(downsample\.\d|\w+)\.(\w+)", name):
            block = sum(depths[: int(m[1]) - 1]) + int(m[2])
            if m[3] in inside:
                return f"body.{block}.residual.{inside[m[3]]}.{m[4]}"
            return f"body.{block}.{m[3].replace('downsample', 'shortcut')}.{m[4]}"
        part, _, rest = name.partition(".")
        return f"{around[part]}.{rest}" if part in around else name

    return rename


def _build_mobilefacenet(shapes: Shapes) -> nn.Module:
    return MobileFaceNet(
        embedding_dim=shapes["output_layer.linear.weight"][0],
        image_size=_image_size("mobilefacenet", shapes),
    )


def _rename_mobilefacenet(_: Shapes) -> Callable[[str], str]:
    parts = {
        **{"conv1": 0, "conv2_dw": 1, "conv_23": 2, "conv_34": 7, "conv_45": 14, "conv_6_sep": 17},
        **{f"conv_3.model.{k}": 3 + k for k in range(4)},
        **{f"conv_4.model.{k}": 8 + k for k in range(6)},
        **{f"conv_5.model.{k}": 15 + k for k in range(2)},
    }
    units = {"conv": 0, "conv_dw": 1, "project": 2}
    leaves = {"conv": 0, "bn": 1, "prelu": 2}
    output = {"conv_6_dw.conv": 0, "conv_6_dw.bn": 1, "linear": 3, "bn": 4}

    def rename(name: str) -> str:
        part, _, last = name.rpartition(".")
        if part.startswith("output_layer.") and (inner := part[13:]) in output:
            return f"output.{output[inner]}.{last}"
        m = re.fullmatch(r"(conv_?\w+?(?:\.model\.\d)?)(?:\.(conv|conv_dw|project))?\.(\w+)", part)
        if m is None or m[1] not in parts or m[3] not in leaves:
            return name
        unit = "" if m[2] is None else f".layers.{units[m[2]]}"
        return f"body.{parts[m[1]]}{unit}.{leaves[m[3]]}.{last}"

    return rename


GDC = "features.layers.0.layers.0.weight"


def _mbf_blocks(shapes: Shapes) -> tuple[int, ...]:
    """Bottlenecks at each resolution; 1 at the first stands for a depthwise convolution."""
    counts = []
    for place in (1, 3, 5, 7):
        pattern = re.compile(rf"layers\.{place}\.layers\.(\d+)\.layers\.0\.layers\.0\.weight")
        counts.append(sum(bool(pattern.fullmatch(name)) for name in shapes))
    return (counts[0] or 1, *counts[1:])


def _build_arcface_mobilefacenet(shapes: Shapes) -> nn.Module:
    return MobileFaceNet(
        embedding_dim=shapes["features.layers.2.weight"][0],
        image_size=_image_size("arcface_mobilefacenet", shapes),
        blocks=_mbf_blocks(shapes),
        scale=max(1, shapes["layers.0.layers.0.weight"][0] // 64),
        affine_output=True,
    )


def _rename_arcface_mobilefacenet(shapes: Shapes) -> Callable[[str], str]:
    blocks = _mbf_blocks(shapes)
    first = [0]  # where each entry of their `layers` begins in our `body`
    for count in (1, blocks[0], 1, blocks[1], 1, blocks[2], 1, blocks[3]):
        first.append(first[-1] + count)

    def rename(name: str) -> str:
        if m := re.fullmatch(r"features\.layers\.0\.layers\.(\d)\.(\w+)", name):
            return f"output.{m[1]}.{m[2]}"
        if m := re.fullmatch(r"features\.layers\.(\d)\.(\w+)", name):
            return f"output.{int(m[1]) + 1}.{m[2]}"
        if m := re.fullmatch(r"conv_sep\.layers\.(\d)\.(\w+)", name):
            return f"body.{first[8]}.{m[1]}.{m[2]}"
        m = re.fullmatch(r"layers\.(\d)((?:\.layers\.\d+)+)\.(\w+)", name)
        if m is None:
            return name
        # A convolution has one number, a bottleneck two, one of several bottlenecks three.
        *block, leaf = map(int, re.findall(r"\d+", m[2]))
        place = first[int(m[1])] + (block[0] if len(block) == 2 else 0)
        unit = f".layers.{block[-1]}" if block else ""
        return f"body.{place}{unit}.{leaf}.{m[3]}"

    return rename


LAYOUTS: dict[str, Layout] = {
    "ir": Layout(
        "TFace, AdaFace, CVLface: IR_18, IR_34, IR_50, IR_101",
        "input_layer.0.weight",
        _build_ir,
        _rename_ir,
    ),
    "arcface_iresnet": Layout(
        "insightface arcface_torch: iresnet18 to iresnet200",
        "layer1.0.prelu.weight",
        _build_arcface_iresnet,
        _rename_arcface_iresnet,
    ),
    "mobilefacenet": Layout(
        "TFace: MobileFaceNet with GDC output",
        "conv_6_sep.conv.weight",
        _build_mobilefacenet,
        _rename_mobilefacenet,
    ),
    "arcface_mobilefacenet": Layout(
        "insightface arcface_torch: mbf and mbf_large",
        "conv_sep.layers.0.weight",
        _build_arcface_mobilefacenet,
        _rename_arcface_mobilefacenet,
    ),
}
