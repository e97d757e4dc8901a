"""The net that learns: built by its name, or anybody's own module, tried out before it trains."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ekd_lite.data.faceset import digest_of
from ekd_lite.models import build_backbone
from ekd_lite.ops import check_embeddings, one_line
from ekd_lite.train.checks import check_net
from ekd_lite.train.config import OWN, TrainConfig
from ekd_lite.train.net_form import make_net
from ekd_lite.train.origin import SHOWN, Origin

TRIED = 4  # images, of noise: enough for a batch norm in training mode


@dataclasses.dataclass(frozen=True)
class Student:
    """A net that is about to be trained.

    Attributes:
        config: of the run; of an own net it has the name and the width.
        net: image -> embedding.
        generator: torch's, as the making of the net has left it.
        idle: parameters without effect on the embedding, by name; they stay as they are.
    """

    config: TrainConfig
    net: nn.Module
    generator: Tensor
    idle: tuple[str, ...] = ()

    def origin(self) -> Origin:
        """Names and shapes of an own net, which a resumed run must share; {} of a built one.

        Weights are left out: a script that is started again makes its net anew, and only then goes
        on from the checkpoint.
        """
        if not self.config.backbone.startswith(OWN):
            return {}
        state = self.net.state_dict()
        digest = digest_of([f"{name} {tuple(tensor.shape)}" for name, tensor in state.items()])
        kind = type(self.net).__name__
        return {"student": f"{kind} of {len(state)} tensors (digest {digest[:SHOWN]})"}


def build_student(
    config: TrainConfig, student: Any = None, *, device: torch.device | str = "cpu"
) -> Student:
    """Make the net that a configuration names, or take somebody's own, and try it out.

    Args:
        config: of the run; its seed decides every weight that is drawn here.
        student: None, for `config.backbone`; an nn.Module, image (N, 3, H, H) in [-1, 1] ->
            (N, D), with whatever weights it has; or a function of no arguments that makes one,
            called after the seed is set, so that the seed decides its weights too.
        device: where to put it.

    Raises:
        ValueError: a net that cannot be trained so; the message says what it gives.
    """
    device = torch.device(device)
    torch.manual_seed(config.seed)
    if student is None:
        if config.backbone.startswith(OWN):
            raise ValueError(
                f"the configuration names somebody's own net ({config.backbone}), which only its "
                "own code can make: give it to fit, student=net, or --student-module "
                "package:callable on the command line"
            )
        net = build_backbone(
            config.backbone, embedding_dim=config.embedding_dim, image_size=config.image_size
        )
    else:
        net = make_net(student)
        _check_weights(net)
    generator = torch.get_rng_state()
    net = net.to(device)
    if config.channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if student is None:
        check_net(net, image_size=config.image_size, width=config.embedding_dim, name="the student")
        return Student(config, net, generator)
    width, idle = _try_out(net, config.image_size)
    name = f"{OWN}{type(net).__name__}"
    config = dataclasses.replace(config, backbone=name, embedding_dim=width)
    return Student(config, net, generator, idle)


def check_apart(student: nn.Module, teacher: nn.Module) -> None:
    """Raise a ValueError if a student shares weights with its teacher, which must not change."""
    theirs = {id(p) for p in teacher.parameters()}
    theirs |= {p.untyped_storage().data_ptr() for p in teacher.parameters() if p.numel()}
    shared = [
        name
        for name, p in student.named_parameters()
        if id(p) in theirs or (p.numel() and p.untyped_storage().data_ptr() in theirs)
    ]
    if shared:
        raise ValueError(
            f"student and teacher share {len(shared)} weights ({', '.join(shared[:3])}), and the "
            "teacher must stay as it is: give it a copy, copy.deepcopy(net)"
        )


def _check_weights(net: nn.Module) -> None:
    """Raise a ValueError if the weights cannot be trained, or not be saved."""
    tensors = [*net.named_parameters(), *net.named_buffers()]
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"the student's {lazy[0]} has no shape yet (a lazy module): put one batch of images "
            "through the net first"
        )
    if not any(p.requires_grad for p in net.parameters()):
        count = sum(1 for _ in net.parameters())
        why = f"all {count} parameters are frozen" if count else "it has no parameters"
        raise ValueError(f"the student cannot learn: {why}")
    for name, value in net.state_dict().items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_complex():
            kind = f"{value.layout}, {value.dtype}" if isinstance(value, Tensor) else type(value)
            raise ValueError(
                f"the student's state holds {name} ({kind}): model files hold plain tensors of "
                "real numbers"
            )
        if value.is_meta:
            raise ValueError(f"the student's {name} has no memory (device meta)")
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"the student's {name} holds NaN or infinite numbers")
    for name, weight in net.named_parameters():
        if weight.dtype != torch.get_default_dtype():  # as images come
            raise ValueError(
                f"the student's weights are {weight.dtype} ({name}): expected float32, which "
                "net.float() gives; `precision` in the configuration makes the arithmetic half"
            )


def _try_out(net: nn.Module, image_size: int) -> tuple[int, tuple[str, ...]]:
    """Width D of a net, and the names of parameters that its embeddings do not depend on.

    Noise is put through it in evaluation mode, in batches of two sizes, and in training mode, where
    some nets give something else. Weights, buffers, modes and generators are as before.
    """
    like = next(net.parameters())
    noise = torch.rand(
        (TRIED, 3, image_size, image_size), generator=torch.Generator().manual_seed(0)
    )
    images = (2 * noise - 1).to(like)
    with _untouched(net, like.device):
        net.eval()
        with torch.no_grad():
            widths = [_rows(net, images[:count], "").shape[1] for count in (TRIED, 1)]
        net.train()
        rows = _rows(net, images, " in training mode")
        widths.append(rows.shape[1])
        if len(set(widths)) > 1:
            raise ValueError(
                f"the student cannot be used: its embeddings are {widths[0]} numbers wide for "
                f"{TRIED} images, {widths[1]} for one and {widths[2]} in training mode"
            )
        if not rows.requires_grad:
            raise ValueError(
                "the student cannot learn: its embeddings have no gradient (it detaches them, or "
                "works under torch.no_grad)"
            )
        learned = {name: p for name, p in net.named_parameters() if p.requires_grad}
        with torch.enable_grad():
            found = torch.autograd.grad(rows.sum(), [*learned.values()], allow_unused=True)
    idle = tuple(name for name, grad in zip(learned, found, strict=True) if grad is None)
    return widths[0], idle


def _rows(net: nn.Module, images: Tensor, when: str) -> Tensor:
    """The embeddings that a net gives for images; a ValueError if they are none."""
    try:
        output: Any = net(images)
    except Exception as error:  # whatever others' nets raise over images that they do not know
        raise ValueError(
            f"the student {type(net).__name__} cannot embed images {tuple(images.shape)}{when}: "
            f"{one_line(error)}"
        ) from error
    try:
        rows = check_embeddings(output, len(images))
    except ValueError as error:
        raise ValueError(f"the student cannot be used{when}: {error}") from error
    if rows.dtype == torch.float64 and torch.get_default_dtype() != torch.float64:
        raise ValueError(
            f"the student cannot be used{when}: it gives embeddings in float64, and the head "
            "works in float32: return rows.float()"
        )
    if not rows.isfinite().all():
        raise ValueError(f"the student cannot be used{when}: it gives NaN or infinite embeddings")
    return rows


@contextlib.contextmanager
def _untouched(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Put buffers, modes and generators back at the end."""
    modes = [(module, module.training) for module in net.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
