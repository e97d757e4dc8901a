"""How others name the tensors of nets that are ours too, and how to build those from shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from ekd_lite.models.iresnet import IResNet
from ekd_lite.models.mobilefacenet import MobileFaceNet

Shapes = Mapping[str, tuple[int, ...]]


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


def _side(inputs: int, channels: int) -> int:
    side = math.isqrt(inputs // channels)
    if side < 1 or side * side * channels != inputs:
        raise ValueError(f"its last linear layer takes {inputs} numbers, no square map")
    return side


def image_size_of(layout: str, shapes: Shapes) -> int:
    """Side of the images that a net with these tensors takes, pixels."""
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
    return IResNet(depths, embedding_dim=dim, image_size=image_size_of("ir", shapes))


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
        image_size=image_size_of("arcface_iresnet", shapes),
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
        image_size=image_size_of("mobilefacenet", shapes),
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
        image_size=image_size_of("arcface_mobilefacenet", shapes),
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
