"""Weights to start from (`init_from`): what fits is copied, the rest is named."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ekd_lite.models import load_published
from ekd_lite.models.weights_file import SUFFIXES, read_weights
from ekd_lite.train.model_file import MODEL_FORMAT, Model
from ekd_lite.train.origin import tensors_digest

SHOWN = 4  # names in a message


@dataclass(frozen=True)
class Start:
    """What a net has been given to start from; `print` it.

    Attributes:
        source: what messages call it, such as its path.
        copied: the net's tensors that it gave, by name.
        kept: those that stay as they were, each with the reason.
        left_out: tensors of the source that the net has no place for.
        numbers: how many numbers the copied tensors hold, and all of the net.
        digest: of what was copied.
    """

    source: str
    copied: tuple[str, ...]
    kept: tuple[str, ...]
    left_out: tuple[str, ...]
    numbers: tuple[int, int]
    digest: str

    def __str__(self) -> str:
        """One line."""
        total = len(self.copied) + len(self.kept)
        text = (
            f"starts from {self.source}: {len(self.copied)} of {total} tensors copied "
            f"({self.numbers[0]:,} of {self.numbers[1]:,} numbers)"
        )
        if self.kept:
            text += f"; {len(self.kept)} stay as they were: {_some(self.kept)}"
        if self.left_out:
            text += f"; {len(self.left_out)} of its tensors left out: {_some(self.left_out)}"
        return text

    def record(self) -> dict[str, Any]:
        """The line of log.jsonl."""
        return {
            "step": 0,
            "init_from": {
                "source": self.source,
                "copied": len(self.copied),
                "kept": list(self.kept),
                "left_out": list(self.left_out),
            },
        }


@torch.no_grad()
def start_from(net: nn.Module, source: Any) -> Start:
    """Copy into a net the weights that fit it by name and shape; none fits in part.

    Prefixes that all names of the source share, such as `module.` or `backbone.`, are taken off. A
    classifier (a head) is never taken.

    Args:
        net: image -> embedding; changed in place.
        source: a run's folder or its model.safetensors; a checkpoint (.pt, .pth, .ckpt,
            .safetensors), whose names are the net's own or those of a layout that
            `ekd_lite.models.load_published` knows; a state dict; an nn.Module; a `Model`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, no tensor that fits, or weights that are not finite.
    """
    name, candidates = _open(source)
    wanted = {n: t for n, t in net.state_dict().items() if isinstance(t, Tensor)}
    learned = {n for n, _ in net.named_parameters(remove_duplicate=False)}
    found: dict[str, Tensor] = {}
    fits: list[str] = []
    for tensors in candidates:
        renamed = _without_prefix(tensors, wanted)
        fitting = [n for n in wanted if n in renamed and _fits(renamed[n], wanted[n])]
        if not found or _numbers(wanted, fitting) > _numbers(wanted, fits):
            found, fits = renamed, fitting
    if not learned.intersection(fits):
        raise ValueError(
            f"{name} holds no weights for this net: it has {_shapes(found)}; the net has "
            f"{_shapes(wanted)}"
        )
    bad = [n for n in fits if found[n].is_floating_point() and not found[n].isfinite().all()]
    if bad:
        raise ValueError(f"{name} holds NaN or infinite weights: {_some(bad)}")
    for n in fits:
        wanted[n].copy_(found[n])
    # How many batches a norm has seen does not change what it computes.
    shown = [n for n in wanted if not n.endswith("num_batches_tracked")]
    return Start(
        source=name,
        copied=tuple(n for n in shown if n in fits),
        kept=tuple(_why(n, wanted[n], found.get(n)) for n in shown if n not in fits),
        left_out=tuple(
            n for n in found if n not in wanted and not n.endswith("num_batches_tracked")
        ),
        numbers=(_numbers(wanted, fits), _numbers(wanted, wanted)),
        digest=tensors_digest((n, found[n]) for n in sorted(fits)),
    )


def _open(source: Any) -> tuple[str, list[dict[str, Tensor]]]:
    """What to call the source, and its tensors; under published names too if they are such."""
    if isinstance(source, Model):
        source = source.backbone
    if isinstance(source, nn.Module):
        return type(source).__name__, [_tensors(source.state_dict())]
    if isinstance(source, Mapping):
        return "a state dict", [_tensors(source)]
    if not isinstance(source, str | Path):
        raise ValueError(
            "expected as init_from a path, an nn.Module or a state dict, got "
            f"{type(source).__name__}"
        )
    path = Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.exists() and path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is no file of weights: expected one of {', '.join(SUFFIXES)}")
    tensors, metadata = read_weights(path)
    if metadata.get("format") == MODEL_FORMAT:
        own = ("backbone.", "head.")
        return str(source), [{n: t for n, t in tensors.items() if n.startswith(own)}]
    candidates = [tensors]
    if not metadata.get("format", "").startswith("ekd_lite."):
        with contextlib.suppress(ValueError):  # of no known layout: by its own names, then
            candidates.append(load_published(path).state_dict())
    return str(source), candidates


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {n: t for n, t in state.items() if isinstance(n, str) and isinstance(t, Tensor)}


def _without_prefix(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors by the net's names; others keep theirs."""
    prefixes: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        cuts = (".".join(parts[k:]) for k in range(len(parts)))
        prefixes.update(name.removesuffix(rest) for rest in cuts if rest in wanted)
    if not prefixes:
        return dict(tensors)
    prefix = max(prefixes, key=lambda p: (prefixes[p], -len(p)))
    ours = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    rest = {n: t for n, t in tensors.items() if not n.startswith(prefix) and n not in ours}
    return ours | {n: t for n, t in rest.items() if n not in wanted}


def _fits(tensor: Tensor, place: Tensor) -> bool:
    return tensor.shape == place.shape and tensor.is_floating_point() == place.is_floating_point()


def _numbers(tensors: Mapping[str, Tensor], names: Iterable[str]) -> int:
    return sum(tensors[name].numel() for name in names if tensors[name].is_floating_point())


def _why(name: str, place: Tensor, found: Tensor | None) -> str:
    if found is None:
        return f"{name} (not there)"
    if found.shape != place.shape:
        return f"{name} {tuple(place.shape)} (there {tuple(found.shape)})"
    return f"{name} {place.dtype} (there {found.dtype})"


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    if not tensors:
        return "no tensors"
    return f"{len(tensors)} tensors, {_some([f'{n} {tuple(t.shape)}' for n, t in tensors.items()])}"


def _some(items: list[str] | tuple[str, ...]) -> str:
    rest = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + rest
