"""Steps of other projects' training loops, made of their own code from a checkout of yours.

None of it is in this repository: `python -m benchmarks.gpu --insightface PATH --tface PATH` names
the folders of github.com/deepinsight/insightface and github.com/Tencent/TFace. Heads and losses are
theirs, and so is the order of a step, read in `recognition/arcface_torch/train_v2.py` and
`recognition/tasks/ekd/train.py`: optimizers that are not fused, DistributedDataParallel around a
single process, the losses fetched in every step, TFace's accuracies. The net is ours in all loops,
its images, labels and teacher's rows are at hand; so what differs is the loop.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ekd_lite.train.objective import HALF


@dataclass
class Task:
    """What a loop trains.

    Attributes:
        net: images -> embeddings.
        method: "none", "fitnet" or "ekd".
        precision: of the net, a name of `HALF`.
        images: (N, 3, H, H), on the net's device.
        labels: (N,) int64.
        rows: the teacher's embeddings, (N, D).
        people: C.
    """

    net: nn.Module
    method: str
    precision: str
    images: Tensor
    labels: Tensor
    rows: Tensor
    people: int

    def wrapped(self, **options: Any) -> Callable[[], Tensor]:
        """The net as these loops call it: in DistributedDataParallel, half precision inside."""
        device, dtype = self.images.device, HALF[self.precision]
        ids = [device.index or 0] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch 2.13 has another name for broadcast_buffers
            net = DistributedDataParallel(self.net, device_ids=ids, **options)

        def embed() -> Tensor:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                embeddings: Tensor = net(self.images)
            return embeddings.float()

        return embed


@dataclass(frozen=True)
class Peer:
    """Another project's loop.

    Attributes:
        source: where its code is to be had.
        option: of the command line, names a checkout of it.
        methods: that it trains.
        step: makes a step of its loop, given a checkout and a task.
    """

    source: str
    option: str
    methods: tuple[str, ...]
    step: Callable[[Path, Task], Callable[[], None]]


def insightface_step(folder: Path, task: Task) -> Callable[[], None]:
    """`arcface_torch`: PartialFC at rate 1, SGD, the gradient clipped, a scheduler's step."""
    root = folder / "recognition" / "arcface_torch"
    with imported([root], "losses", "partial_fc_v2") as (losses, partial_fc):
        combined = getattr(losses, "CombinedMarginLoss", None)  # older checkouts have it not
        margin = losses.ArcFace(64.0, 0.5) if combined is None else combined(64, 1.0, 0.5, 0.0)
        width = task.rows.shape[1]
        head = partial_fc.PartialFC_V2(margin, width, task.people, 1.0, False)
    head = head.train().to(task.images.device)
    embed = task.wrapped(broadcast_buffers=False, bucket_cap_mb=16)
    groups = [{"params": task.net.parameters()}, {"params": head.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)

    def step() -> None:
        loss = head(embed(), task.labels.clone())
        loss.backward()
        nn.utils.clip_grad_norm_(task.net.parameters(), 5)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        loss.item()

    return step


def tface_step(folder: Path, task: Task) -> Callable[[], None]:
    """TFace's `ekd` task: its ArcFace and its loss, two optimizers, four numbers fetched."""
    root = folder / "recognition"
    loss_module = f"distillation.{task.method}"
    modules = "torchkit.head.localfc.arcface", loss_module
    with imported([root, root / "tasks" / "ekd"], *modules) as (heads, losses):
        head = heads.ArcFace(task.rows.shape[1], task.people, scale=64.0, margin=0.5)
        distill = losses.EKD() if task.method == "ekd" else losses.HintLoss()
    device = task.images.device
    head, distill, embed = head.train().to(device), distill.to(device), task.wrapped()
    optimizers = [
        torch.optim.SGD(part.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        for part in (task.net, head)
    ]
    given = (task.rows, task.labels) if task.method == "ekd" else (task.rows,)

    def step() -> None:
        embeddings = embed()
        logits, plain = head(embeddings, task.labels)
        identity = nn.functional.cross_entropy(logits, task.labels)
        distilled = distill(embeddings, *given)
        found = plain.detach().topk(5).indices == task.labels[:, None]
        for number in (identity, distilled, found[:, :1].sum(), found.sum()):
            number.item()
        for optimizer in optimizers:
            optimizer.zero_grad()
        (identity + distilled).backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


PEERS = {
    "insightface": Peer(
        "github.com/deepinsight/insightface", "--insightface", ("none",), insightface_step
    ),
    "TFace": Peer("github.com/Tencent/TFace", "--tface", ("fitnet", "ekd"), tface_step),
}


@contextlib.contextmanager
def imported(folders: list[Path], *names: str) -> Iterator[list[ModuleType]]:
    """Modules from some folders; what was imported for them is forgotten at the end.

    Raises:
        FileNotFoundError: one of the folders is not there.
    """
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not there: is the path that of a checkout?")
    before, path = set(sys.modules), list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield [importlib.import_module(name) for name in names]
    finally:
        sys.path[:] = path
        new = {name: sys.modules[name] for name in set(sys.modules) - before}
        places = {
            name: [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
            for name, module in new.items()
        }
        for name, own in places.items():
            if any(str(folder) in place for folder in folders for place in own):
                del sys.modules[name]


@contextlib.contextmanager
def group_of_one(device: torch.device) -> Iterator[None]:
    """A process group of this process alone, which the loops ask for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1,
    )  # fmt: skip
    try:
        yield
    finally:
        dist.destroy_process_group()
