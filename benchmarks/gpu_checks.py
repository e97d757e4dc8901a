"""What a GPU must do as the CPU does it: losses, heads, nets, whole steps, images.

A check returns how far off it is, a number that must not exceed its bound. Losses and heads are
compared in float64, where no pair changes sides of a threshold by rounding, and so are the
buffers that they keep; nets in float32 with TF32 off.
"""

from __future__ import annotations

import contextlib
import copy
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.comparing import (
    CPU,
    alike,
    as_on_a_gpu,
    deviation,
    exact_products,
    small_state,
)
from ekd_lite.data import NeighbourSampler, SyntheticFaces
from ekd_lite.distill import DISTILLERS, Setting
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.heads import HEADS, ArcFace, PartialFC
from ekd_lite.models import build_backbone
from ekd_lite.parallel import AllGather, AllSum
from ekd_lite.train import train_step
from ekd_lite.train.distributed import process_group


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: what is compared.
        run: device, whether sizes shall be tiny -> how far off.
        bound: the largest value that is fine.
        unit: of both.
    """

    name: str
    run: Callable[[torch.device, bool], float]
    bound: float
    unit: str = "of the largest number"


def all_checks() -> Iterator[Check]:
    """Cheap ones first: time may run out."""
    for name in DISTILLERS:
        yield Check(f"loss {name}", partial(_on_both, partial(_loss, name)), 1e-6)
    for name in HEADS:
        yield Check(f"head {name}", partial(_on_both, partial(_head, name)), 1e-6)
    for rate in (1.0, 0.1):
        yield Check(f"PartialFC {rate}", partial(_on_both, partial(_partial_fc, rate)), 1e-6)
    for name in ("tiny_student", "mobilefacenet", "iresnet50"):
        yield Check(f"net {name}", partial(_on_both, partial(_net, name)), 5e-3)
    yield Check("renderer", _renderer, 1e-3, "of the values are off by more than a level")
    yield Check("embed", partial(_on_both, _embed), 1e-3)
    yield Check("all pairs", partial(_on_both, _all_pairs), 1e-9)
    yield Check("neighbours", partial(_on_both, _neighbours), 0.0)
    for method in ("none", "fitnet", "kd", "ekd", "ekd_fine", "ekd_gallery", "triplet", "pwr"):
        yield Check(f"steps {method}", partial(_on_both, partial(_steps, method, 0.0)), 2e-2)
    yield Check("steps with PartialFC", partial(_on_both, partial(_steps, "none", 0.5)), 2e-2)
    for precision in ("bf16", "fp16"):
        yield Check(
            f"learning in {precision}", partial(_learning, precision), 0.3, "of float32's loss"
        )
    yield Check("one process in a group", _one_process, 1e-4)
    yield Check("compiled", _compiled, 5e-3)


def _on_both(
    make: Callable[[torch.device, bool], list[Tensor]], device: torch.device, tiny: bool
) -> float:
    with exact_products():
        return deviation(make(device, tiny), make(CPU, tiny))


def _backward(value: Tensor, *leaves: Tensor) -> list[Tensor]:
    gradients = torch.autograd.grad(value, leaves, materialize_grads=True)
    return [value, *(g.to_dense() if g.is_sparse else g for g in gradients)]


def _loss(name: str, device: torch.device, tiny: bool) -> list[Tensor]:
    """Two batches: values, gradients, and what the loss has kept."""
    count, width = (24, 8) if tiny else (128, 128)
    method = DISTILLERS[name]
    _, rows, labels = alike(4 * count, width, seed=9)
    people = len(labels) // 4
    setting = Setting(
        width, width, rows[::4], scale=16.0, num_identities=people, teacher_threshold=0.5,
        gallery=(rows, labels),
    )  # fmt: skip
    torch.manual_seed(0)
    loss = method.build(setting).double().to(device)
    found = []
    for seed in range(2):
        student, teacher, who = alike(count, people if method.needs == "logits" else width)
        student = (student + seed).to(device).requires_grad_(True)
        value = loss(student, teacher.to(device), who.to(device))
        found += _backward(value, student)
    return found + [buffer for buffer in loss.buffers() if buffer.is_floating_point()]


def _head(name: str, device: torch.device, tiny: bool) -> list[Tensor]:
    count, width, people = (16, 8, 20) if tiny else (128, 512, 10_000)
    torch.manual_seed(0)
    head = HEADS[name](width, people).double().to(device)
    found = []
    for seed in range(2):
        rows, _, labels = alike(count, width, seed=seed)
        embeddings, labels = rows.to(device).requires_grad_(True), labels.to(device)
        loss = F.cross_entropy(head(embeddings, labels), labels)
        found += _backward(loss, embeddings, head.prototypes)
    return found + [buffer for buffer in head.buffers() if buffer.is_floating_point()]


def _partial_fc(rate: float, device: torch.device, tiny: bool) -> list[Tensor]:
    count, width, people = (16, 8, 40) if tiny else (128, 512, 10_000)
    head = PartialFC(ArcFace, width, people, sample_rate=rate, sparse=rate < 1)
    head = head.double().to(device)
    rows, _, labels = alike(count, width)
    embeddings = rows.to(device).requires_grad_(True)
    with as_on_a_gpu():  # so that both draw the same identities
        return _backward(head(embeddings, labels.to(device)), embeddings, head.prototypes)


def _net(name: str, device: torch.device, tiny: bool) -> list[Tensor]:
    """Embeddings in training mode and the gradient of the first layer."""
    if tiny:
        name = "tiny_student"
    size, count = (32, 4) if name == "tiny_student" else (112, 8)
    torch.manual_seed(0)
    net = build_backbone(name, embedding_dim=32, image_size=size).to(device)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, size, size, generator=generator)
    embeddings = net(images.to(device, memory_format=torch.channels_last))
    first = next(net.parameters())
    return [embeddings, *torch.autograd.grad(embeddings.square().mean(), [first])]


def _renderer(device: torch.device, tiny: bool) -> float:
    faces = SyntheticFaces(2 if tiny else 12, 2 if tiny else 5, image_size=32)
    everyone = range(len(faces))
    gap = (faces.render(everyone, device=device).cpu() - faces.render(everyone)).abs() * 127.5
    return float((gap > 1.5).double().mean())


def _embed(device: torch.device, tiny: bool) -> list[Tensor]:
    torch.manual_seed(0)
    net = build_backbone("tiny_student", embedding_dim=32, image_size=32).to(device)
    return [embed(net, SyntheticFaces(3, 2, image_size=32), batch_size=4)]


def _all_pairs(device: torch.device, tiny: bool) -> list[Tensor]:
    rows, _, labels = alike(40 if tiny else 4000, 16)
    found = all_pairs_tpr_at_fpr(rows.float().to(device), labels.to(device), [1e-1, 1e-2])
    return [torch.as_tensor(found)]


def _neighbours(device: torch.device, tiny: bool) -> list[Tensor]:
    rows, _, _ = alike(80 if tiny else 8000, 16)
    sampler = NeighbourSampler(rows, 0.6, general=8, anchors=4, device=device)
    return [torch.tensor(sampler.batch(step)) for step in range(3)]


def _steps(method: str, share: float, device: torch.device, tiny: bool) -> list[Tensor]:
    """Losses of some whole steps of training, with a share of the prototypes or (0) all of them."""
    state, batch = small_state(method, device, share=share)
    with as_on_a_gpu() if share else contextlib.nullcontext():
        return [train_step(state, batch(number))["loss"] for number in range(3)]


def _learning(precision: str, device: torch.device, tiny: bool) -> float:
    """The loss after some steps in half precision, less that in float32, relative to it."""
    ends = {}
    for name in ("float32", precision):
        state, batch = small_state("ekd+fitnet", device, precision=name)
        losses = [
            float(train_step(state, batch(number % 4))["loss"])
            for number in range(3 if tiny else 60)
        ]
        if not tiny and losses[-1] >= losses[0]:
            return float("inf")
        ends[name] = losses[-1]
    return abs(ends[precision] / ends["float32"] - 1)


def _one_process(device: torch.device, tiny: bool) -> float:
    """Steps under DistributedDataParallel, and our collectives, in a group of one (NCCL, gloo)."""

    def losses() -> list[Tensor]:
        state, batch = small_state("ekd+fitnet", device)
        return [train_step(state, batch(number))["loss"] for number in range(2)]

    alone = losses()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    announced = {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    before = dict(os.environ)
    os.environ.update(announced)
    try:
        with process_group(device):
            grouped = losses()
            x = torch.arange(6.0, device=device).view(3, 2).requires_grad_(True)
            for collective in (AllGather, AllSum):
                grouped += _backward((collective.apply(x) ** 2).sum(), x)  # type: ignore[no-untyped-call]
                alone += [x.square().sum(), 2 * x]
    finally:
        os.environ.clear()
        os.environ.update(before)
    return deviation(grouped, alone)


def _compiled(device: torch.device, tiny: bool) -> float:
    """Embeddings and a gradient of the compiled student; a dry run only traces it."""
    torch.manual_seed(0)
    net = build_backbone("tiny_student", embedding_dim=32, image_size=32).to(device)
    images = torch.randn(8, 3, 32, 32, device=device)
    torch.compiler.reset()
    twin = copy.deepcopy(net)
    compiled = torch.compile(twin, backend="eager" if tiny else "inductor")

    def found(model: Callable[..., Tensor], parameter: nn.Parameter) -> list[Tensor]:
        embeddings = model(images)
        return [embeddings, *torch.autograd.grad(embeddings.square().mean(), [parameter])]

    with exact_products():
        wanted = found(net, next(net.parameters()))
        return deviation(found(compiled, next(twin.parameters())), wanted)
