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

import torch
from torch import Tensor, nn

from ekd_lite.models.layouts import LAYOUTS, image_size_of
from ekd_lite.models.summary import Summary, publisher_of, some
from ekd_lite.models.weights_file import read_weights

# What stands beside a backbone in a checkpoint: the classifier, by the names that its authors use.
HEAD = re.compile(r"(head|kernel|loss|criterion|classifier|margin\w*|weight|t|h|batch_\w+)(\.|$)")


@dataclass
class _Fitted:
    """A net without memory in which a checkpoint fits, and the file's names for its tensors."""

    net: nn.Module
    names: dict[str, str]  # ours: theirs
    summary: Summary


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
    tensors, metadata = read_weights(path)
    found = _fit(path, tensors, metadata, layout)
    _fill(path, found.net, {ours: tensors[theirs] for ours, theirs in found.names.items()})
    found.net.summary = found.summary  # type: ignore[assignment]
    return found.net.eval()


def describe_published(path: str | Path, *, layout: str = "auto") -> Summary:
    """What `load_published` would load, by the names and shapes in the file alone.

    Args:
        path: as there.
        layout: as there.

    Returns:
        What is printed before a checkpoint is loaded: layout, size, input, colours, terms.

    Raises:
        FileNotFoundError, ValueError: as there.
    """
    path = Path(path)
    tensors, metadata = read_weights(path, shapes_only=True)
    return _fit(path, tensors, metadata, layout).summary


def _fit(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], layout: str
) -> _Fitted:
    """The net that takes these tensors; a ValueError if none does."""
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    if metadata.get("format", "").startswith("ekd_lite."):
        raise ValueError(f"{path} is a file of ekd_lite: `load_backbone` and `load_model` read it")
    name, prefix = _recognise(path, tensors, layout)
    shapes = {
        n.removeprefix(prefix): tuple(t.shape) for n, t in tensors.items() if n.startswith(prefix)
    }
    try:
        with torch.device("meta"):
            net = LAYOUTS[name].build(shapes)
    except (KeyError, ValueError) as error:
        raise _unknown(path, tensors, f"it looks like {name}, but {error}") from error
    rename, wanted = LAYOUTS[name].rename(shapes), net.state_dict()
    heads = [n for n in shapes if HEAD.match(n) and rename(n) not in wanted]
    names = {rename(n): prefix + n for n in shapes if n not in heads}
    # How many batches a norm has seen does not change what it computes.
    needed = [n for n in wanted if not n.endswith("num_batches_tracked")]
    problems = [f"{n} is missing" for n in needed if n not in names]
    problems += [f"{n} has no place" for n in names if n not in wanted]
    problems += [
        f"{n} is {tuple(tensors[names[n]].shape)}, expected {tuple(wanted[n].shape)}"
        for n in names
        if n in wanted and tensors[names[n]].shape != wanted[n].shape
    ]
    if problems:
        raise _unknown(path, tensors, f"it looks like {name}, but {some(problems)}")
    publisher = publisher_of(name, prefix)
    summary = Summary(
        path=path,
        layout=name,
        parameters=sum(p.numel() for p in net.parameters()),
        embedding_dim=[m for m in net.modules() if isinstance(m, nn.Linear)][-1].out_features,
        image_size=image_size_of(name, shapes),
        colour=publisher.colour,
        pixel_range=(-1.0, 1.0),
        publisher=publisher,
        licence=metadata.get("license") or metadata.get("licence"),
        left_out=tuple([n for n in tensors if not n.startswith(prefix)])
        + tuple(prefix + n for n in heads),
    )
    return _Fitted(net, names, summary)


def _recognise(path: Path, tensors: Mapping[str, Tensor], layout: str) -> tuple[str, str]:
    """The layout and the prefix that its names have in the file."""
    names = list(LAYOUTS) if layout == "auto" else [layout]
    for name in names:
        signature = LAYOUTS[name].signature
        for found in tensors:
            if found == signature or found.endswith("." + signature):
                return name, found.removesuffix(signature)
    raise _unknown(path, tensors, "no tensor has a name of a known layout")


def _fill(path: Path, net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put the tensors into the net, whose own are still without memory."""
    wanted = net.state_dict()
    with torch.no_grad():
        made = {n: t.to(wanted[n].dtype, copy=True).contiguous() for n, t in tensors.items()}
    for name in wanted.keys() - made.keys():  # the counters that a file may leave out
        made[name] = torch.tensor(0)
    bad = [n for n, t in made.items() if not t.isfinite().all()]
    if bad:
        raise ValueError(f"{path} holds NaN or infinite weights: {some(bad)}")
    net.load_state_dict(made, assign=True)
    net.requires_grad_(True)


def _unknown(path: Path, tensors: Mapping[str, Tensor], why: str) -> ValueError:
    found = [f"{n} {tuple(t.shape)}" for n, t in tensors.items()]
    known = "; ".join(f"{name} ({layout.about})" for name, layout in LAYOUTS.items())
    return ValueError(
        f"{path} fits no known layout: {why}. It holds {len(tensors)} tensors: {some(found)}. "
        f"Known layouts: {known}. Any other net can be built by its own code and handed over as an "
        "nn.Module"
    )
