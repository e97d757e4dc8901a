"""Margin heads with cross-entropy, forward and backward, 128 images, 512 dimensions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Row, is_wanted, measure
from ekd_lite.heads import HEADS, ArcFace, PartialFC
from ekd_lite.train import TrainConfig, build_optimizer
from ekd_lite.train.objective import identity_loss
from ekd_lite.train.rowwise import BLOCK

N, DIM = 128, 512


def plain_arcface(embeddings: Tensor, prototypes: Tensor, labels: Tensor) -> Tensor:
    """Normalise both sides, turn the whole matrix, choose by a one-hot mask."""
    cosine = F.linear(F.normalize(embeddings), F.normalize(prototypes)).clamp(-1 + 1e-6, 1 - 1e-6)
    sine = (1 - cosine.square()).sqrt()
    turned = cosine * torch.cos(torch.tensor(0.5)) - sine * torch.sin(torch.tensor(0.5))
    one_hot = torch.zeros_like(cosine).scatter_(1, labels[:, None], 1.0)
    return F.cross_entropy(64 * (one_hot * turned + (1 - one_hot) * cosine), labels)


def three_products(embeddings: Tensor, prototypes: Tensor) -> None:
    """What no dense head can avoid: logits, and the two products of the backward pass."""
    logits = embeddings @ prototypes.T
    logits @ prototypes
    logits.T @ embeddings


def products_and_rows(
    embeddings: Tensor, some: Tensor, moments: dict[str, Tensor], prototypes: Tensor
) -> None:
    """The three products, and every tenth row of weights and moments read once and written once.

    Block by block, as the optimizer does it, so that what is read is in the cache when written.
    """
    three_products(embeddings, some)
    tables = [prototypes.detach(), moments["exp_avg"], moments["exp_avg_sq"]]
    step = len(prototypes) // len(some)
    rows = [table.numpy()[::step] for table in tables]
    for start in range(0, len(some), BLOCK):
        for table in rows:
            block = table[start : start + BLOCK]
            block[...] = block.copy()


def bench_heads(*, quick: bool) -> Iterator[Row]:
    """Plain head, closed form (PartialFC at rate 1), and a tenth of the prototypes."""
    generator = torch.Generator().manual_seed(0)
    for count in (10_000,) if quick else (10_000, 85_742, 360_000):
        embeddings = torch.randn(N, DIM, generator=generator, requires_grad=True)
        labels = torch.randint(count, (N,), generator=generator)
        ordinary = ArcFace(DIM, count)
        peer = torch.nn.Parameter(ordinary.prototypes.detach().clone())
        fixed, rows = peer.detach(), embeddings.detach()
        size = f"C={count // 1000}k"

        def back(loss: Tensor, *weights: Tensor, x: Tensor = embeddings) -> None:
            x.grad = None
            for weight in weights:
                weight.grad = None
            loss.backward()  # type: ignore[no-untyped-call]

        full, tenth = PartialFC(ArcFace, DIM, count), PartialFC(
            ArcFace, DIM, count, sample_rate=0.1, sparse=True
        )  # fmt: skip
        some = fixed[: count // 10]
        yield measure(
            "arcface, closed form",
            size,
            {
                "ours": lambda h=full, x=embeddings, y=labels: back(h(x, y), h.prototypes),
                "peer": lambda w=peer, x=embeddings, y=labels: back(plain_arcface(x, w, y), w),
                "bound": lambda w=fixed, x=rows: three_products(x, w),
            },
            goal="<= 1.5 bound, >= 2 peer at 85k",
        )
        yield measure(
            "arcface, a tenth",
            size,
            {
                "ours": lambda h=tenth, x=embeddings, y=labels: back(h(x, y), h.prototypes),
                "bound": lambda w=some, x=rows: three_products(x, w),
            },
            goal="<= 2 bound",
            note="sparse gradient; with the dense one that momentum needs: see the next row",
        )
        dense = PartialFC(ArcFace, DIM, count, sample_rate=0.1)
        yield measure(
            "arcface, a tenth, dense",
            size,
            {
                "ours": lambda h=dense, x=embeddings, y=labels: back(h(x, y), h.prototypes),
                "bound": lambda w=some, x=rows: three_products(x, w),
            },
        )
        if count > 100_000:
            continue
        for name, head in HEADS.items():
            module = head(DIM, count)
            yield measure(
                f"{name}, readable",
                size,
                {
                    "ours": lambda h=module, x=embeddings, y=labels: back(
                        F.cross_entropy(h(x, y), y), h.prototypes
                    ),
                    "bound": lambda w=fixed, x=rows: three_products(x, w),
                },
            )


def bench_fit(*, quick: bool) -> Iterator[Row]:
    """Heads as `fit` uses them; bound: the three products."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(N, DIM, generator=generator, requires_grad=True)

    def step(loss: Tensor, weight: Tensor, update: torch.optim.Optimizer | None = None) -> None:
        embeddings.grad = weight.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if update is not None:
            update.step()

    for count in (20_000,) if quick else (20_000, 85_742):
        labels = torch.randint(count, (N,), generator=generator)
        whole = ArcFace(DIM, count)
        fixed, size = whole.prototypes.detach().clone(), f"C={count // 1000}k"

        if is_wanted("arcface in fit", size):
            yield measure(
                "arcface in fit", size,
                {
                    "ours": lambda h=whole, y=labels: step(
                        identity_loss(h, embeddings, y), h.prototypes
                    ),
                    "peer": lambda h=whole, y=labels: step(
                        F.cross_entropy(h(embeddings, y), y), h.prototypes
                    ),
                    "bound": lambda w=fixed: three_products(embeddings.detach(), w),
                },
                repeats=3, goal="<= 1.5 bound",
                note="loss and gradient; peer: the readable head, as before",
            )  # fmt: skip
        if not is_wanted("a tenth in fit", size):
            continue
        config = TrainConfig(optimizer="adamw")
        rows, dense = (
            PartialFC(ArcFace, DIM, count, sample_rate=0.1, sparse=sparse)
            for sparse in (True, False)
        )
        updates = [build_optimizer([head], config) for head in (rows, dense)]
        some = fixed[: count // 10]
        row = measure(
            "a tenth in fit", size,
            {
                "ours": lambda h=rows, y=labels, u=updates[0]: step(
                    h(embeddings, y), h.prototypes, u
                ),
                "update": lambda u=updates[0]: u.step(),  # by the gradient that ours left
                "floor": lambda h=rows, w=some, u=updates[0]: products_and_rows(
                    embeddings.detach(), w, u.state[h.prototypes], h.prototypes
                ),
                "peer": lambda h=dense, y=labels, u=updates[1]: step(
                    h(embeddings, y), h.prototypes, u
                ),
                "bound": lambda w=some: three_products(embeddings.detach(), w),
            },
            repeats=3, goal="<= 1.6 bound",
        )  # fmt: skip
        row.note = (
            "loss, gradient and AdamW; peer: gradient and update of all rows, as before; ours "
            f"updates in {row.ms['update'] / row.ms['bound']:.2f} of the bound; the products and "
            f"moving the rows of three tables take {row.ms['floor'] / row.ms['bound']:.2f} of it"
        )
        yield row
