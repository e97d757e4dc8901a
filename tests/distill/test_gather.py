"""Distributed truth: W processes on their shares equal one process on the whole batch.

Four processes do all losses, in float64; two of them then do them once more as a group of two.
"""

import datetime
import warnings

import pytest
import torch
import torch.distributed as dist

from ekd_lite.distill import DISTILLERS, FineEKDLoss, GalleryEKDLoss
from ekd_lite.parallel import gather_batch
from tests.distill.batches import make_setting, random_batch
from tests.processes import launch

pytestmark = [
    pytest.mark.starts_process,
    pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs"),
]

PER_RANK, DIM = 8, 6
PAIRWISE = [name for name, method in DISTILLERS.items() if method.compares_images]


def make_net_and_losses():
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Linear(DIM, DIM).double()
    for parameter in net.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    prototypes = torch.randn(4, DIM, generator=generator, dtype=torch.float64)
    setting = make_setting(DIM, prototypes=prototypes)
    losses = {name: DISTILLERS[name].build(setting).double() for name in PAIRWISE}
    for loss in losses.values():
        if isinstance(loss, FineEKDLoss | GalleryEKDLoss):  # levels that so few pairs can show
            loss.fprs, loss.hard_fpr = (0.3, 0.1)[: len(loss.fprs)], 0.5
    return net, losses


def make_batch(world_size, step):
    images, teacher, labels = random_batch(PER_RANK * world_size, DIM, seed=step)
    return images, teacher, labels


def train_steps(net, losses, share):
    """Value, gradient and buffers of every loss after two steps on this process's share."""
    results = {}
    for name, loss in losses.items():
        for step in range(2):
            images, teacher, labels = share(step)
            net.zero_grad()
            value = loss(gather_batch(net(images)), gather_batch(teacher), gather_batch(labels))
            value.backward()
            gradient = [p.grad.clone() for p in net.parameters()]
            results[name, step] = (value.detach(), *gradient, *map(torch.clone, loss.buffers()))
    return results


def work(rank, folder):
    warnings.simplefilter("ignore")
    for world_size in (4, 2):
        if rank < world_size:
            work_in_group(rank, world_size, folder)


def work_in_group(rank, world_size, folder):
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet{world_size}",
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(seconds=60),
    )
    net, losses = make_net_and_losses()
    rows = slice(rank * PER_RANK, (rank + 1) * PER_RANK)
    results = train_steps(
        torch.nn.parallel.DistributedDataParallel(net),
        losses,
        lambda step: tuple(x[rows] for x in make_batch(world_size, step)),
    )
    error = ""
    try:
        gather_batch(torch.zeros(rank + 1, 2))
    except ValueError as raised:
        error = str(raised)
    torch.save((results, error), f"{folder}/{world_size}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    launch(work, str(folder), ranks=4, log=folder / "log")
    return folder


@pytest.fixture(params=[2, 4])
def distributed(request, folder):
    """What every rank got: [(results, error)]."""
    files = [folder / f"{request.param}-{rank}.pt" for rank in range(request.param)]
    return [torch.load(file, weights_only=True) for file in files]


def test_every_loss_and_gradient_equals_the_single_process(distributed):
    world_size = len(distributed)
    net, losses = make_net_and_losses()
    expected = train_steps(net, losses, lambda step: make_batch(world_size, step))
    assert {name for name, _ in expected} >= {"ekd", "rkd", "sp", "cckd", "darkrank", "triplet"}
    for rank, (results, _) in enumerate(distributed):
        for key, tensors in expected.items():
            for got, wanted in zip(results[key], tensors, strict=True):
                torch.testing.assert_close(
                    got, wanted, atol=1e-12, rtol=1e-9, msg=lambda m, r=rank, k=key: f"{r} {k} {m}"
                )
            assert tensors[1].abs().sum() > 0


def test_shapes_that_differ_between_processes_are_named(distributed):
    for _, error in distributed:
        assert "(1, 2), (2, 2)" in error


def test_without_a_process_group_the_batch_is_the_batch():
    x = torch.ones(3, 2, requires_grad=True)
    assert gather_batch(x) is x
