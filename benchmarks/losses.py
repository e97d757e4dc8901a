"""Losses on pairs, forward and backward, beside the same formula written down plainly."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import timing
from benchmarks.timing import Row, Variants, measure
from ekd_lite.distill import (
    CCKDLoss,
    DarkRankLoss,
    EKDLoss,
    FineEKDLoss,
    FitNetLoss,
    KDLoss,
    PWRLoss,
    RKDLoss,
    ShrinkTeaNetLoss,
    SPLoss,
    TripletDistillationLoss,
)

Loss = Callable[..., Tensor]
DIM = 512
SIZES = (64, 128, 256, 512, 1024, 2048, 4096)


def make_batch(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Half random people of 85,742, half four images each, as TFace's sampler has it."""
    generator = torch.Generator().manual_seed(n)
    student = torch.randn(n, DIM, generator=generator, requires_grad=True)
    teacher = torch.randn(n, DIM, generator=generator)
    people = torch.randint(85_742, (n // 2,), generator=generator)
    return student, teacher, torch.cat([people, 90_000 + torch.arange(n - n // 2) // 4])


class PlainEKD:
    """Every pair, two full sorts, running thresholds, gradient through all pairs."""

    def __init__(self, momentum: float = 0.01) -> None:
        self.momentum = momentum
        self.running = torch.zeros(2, 6)

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch."""
        student, teacher = F.normalize(student), F.normalize(teacher)
        upper = torch.ones(len(labels), len(labels), dtype=torch.bool).triu(1)
        same = (labels[:, None] == labels)[upper]
        a, b = (student @ student.T)[upper], (teacher @ teacher.T)[upper]
        ranks = [int((~same).sum()) // 10**k for k in range(1, 7)]
        a_sorted, order = a[~same].sort(descending=True)
        b_sorted = b[~same].sort(descending=True).values
        newest = torch.stack([a_sorted.detach()[ranks], b_sorted[ranks]])
        self.running = (1 - self.momentum) * self.running + self.momentum * newest
        hardest = order[:2000]
        impostor = self.gap(a[~same][hardest], b[~same][hardest])
        return 0.02 * self.gap(a[same], b[same]) + 0.01 * impostor

    def gap(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared difference of the soft ranks."""
        ranked = [
            (1 / (1 + torch.exp(-((z[:, None] - t) / 0.01).clamp(-50, 50)))).sum(1)
            for z, t in zip((a, b), self.running, strict=True)
        ]
        student, teacher = ranked
        return F.mse_loss(student, teacher)


def plain_sp(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Two similarity matrices, their mean squared difference."""
    student, teacher = F.normalize(student), F.normalize(teacher)
    return F.mse_loss(student @ student.T, teacher @ teacher.T)


def plain_cckd(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Taylor terms of the Gaussian kernel, one power of the matrix at a time."""
    kernels = []
    for x in (F.normalize(student), F.normalize(teacher)):
        product = x @ x.T
        total = torch.zeros_like(product)
        for p, factorial in ((0, 1), (1, 1), (2, 2)):
            total = total + 0.8**p / factorial * product**p
        kernels.append(total * torch.exp(torch.tensor(-0.8)))
    first, second = kernels
    return F.mse_loss(first, second)


def plain_darkrank(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Full sort of every row of the teacher's scores."""
    scores = []
    for x in (F.normalize(student), F.normalize(teacher)):
        squared = x.square().sum(1)
        distance = (squared[:, None] + squared - 2 * x @ x.T).clamp(min=1e-12).sqrt()
        scores.append(-3 * distance**3)
    order = scores[1].sort(dim=1, descending=True).indices[:, 1:4]
    chosen = scores[0].gather(1, order)
    return (chosen.flip(1).logcumsumexp(1).flip(1) - chosen).sum(1).mean()


def plain_rkd(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Distances, and the angles from N x N x D differences."""

    def distances(x: Tensor) -> Tensor:
        squared = x.square().sum(1)
        d = (squared[:, None] + squared - 2 * x @ x.T).clamp(min=1e-12).sqrt()
        d = d * (1 - torch.eye(len(x)))
        return d / d[d > 0].mean()

    def angles(x: Tensor) -> Tensor:
        difference = F.normalize(x[None] - x[:, None], dim=2)
        return (difference @ difference.transpose(1, 2)).flatten()

    with torch.no_grad():
        t_distance, t_angle = distances(teacher), angles(teacher)
    distance = F.smooth_l1_loss(distances(student), t_distance)
    return 25 * distance + 50 * F.smooth_l1_loss(angles(student), t_angle)


PAIRWISE: dict[str, tuple[Loss, Loss | None, str, int]] = {
    # name: ours, the plain formula, the goal, the largest N that the plain formula is timed at
    "ekd": (EKDLoss(), PlainEKD(), "<= 1.8 bound at N >= 512, >= 5 peer", 4096),
    "ekd_fine": (FineEKDLoss(DIM, DIM), None, "", 0),
    "ekd_memory": (FineEKDLoss(DIM, DIM, thresholds="teacher", memory=4096), None, "", 0),
    "sp": (SPLoss(), plain_sp, "<= 1.2 bound", 4096),
    "cckd": (CCKDLoss(), plain_cckd, "<= 1.3 bound", 4096),
    "darkrank": (DarkRankLoss(), plain_darkrank, "<= 1.2 bound", 4096),
    "triplet": (TripletDistillationLoss(), None, "", 0),
    "rkd": (RKDLoss(), plain_rkd, ">= 7 peer at 64, >= 10 at 256", 256),
    "pwr": (PWRLoss(), None, "", 0),
}
MOST = {"rkd": 1024}  # N^3: 4096 would take minutes


def step(loss: Loss, *inputs: Tensor) -> None:
    """Forward and backward."""
    inputs[0].grad = None
    loss(*inputs).backward()  # type: ignore[no-untyped-call]


def bound(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """All cosines of the student with their gradient, and of the teacher without."""
    teacher @ teacher.T
    return (student @ student.T).sum()


def ekd_bound(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """One product of all pairs and its backward: EKD's teacher side is not counted."""
    return (student @ student.T).sum()


def ekd_products(student: Tensor, teacher: Tensor) -> None:
    """What EKD cannot avoid: all cosines of both, and one product for the gradient."""
    gradient = student @ student.T
    teacher @ teacher.T
    gradient @ student


def bench_pairwise(*, quick: bool) -> Iterator[Row]:
    """Losses that compare the images of a batch with one another, 512 dimensions."""
    for name, (ours, plain, goal, most_plain) in PAIRWISE.items():
        for n in SIZES[:4] if quick else SIZES:
            if n > MOST.get(name, n) or not timing.is_wanted(name, f"N={n}"):
                continue
            batch = make_batch(n)
            floor = ekd_bound if name.startswith("ekd") else bound
            variants: Variants = {"ours": lambda x=batch, f=ours: step(f, *x)}
            if plain is not None and n <= most_plain:
                variants["peer"] = lambda x=batch, f=plain: step(f, *x)
            variants["bound"] = lambda x=batch, f=floor: step(f, *x)
            if name.startswith("ekd"):
                s, t = batch[0].detach(), batch[1]
                variants["products"] = lambda s=s, t=t: ekd_products(s, t)
            yield measure(name, f"N={n}", variants, goal=goal)


def bench_pointwise(*, quick: bool) -> Iterator[Row]:
    """Losses that compare an image with itself: they should cost next to nothing."""
    for n in (128, 512) if quick else (128, 512, 2048):
        student, teacher, _ = make_batch(n)
        for name, loss in (("fitnet", FitNetLoss()), ("shrinkteanet", ShrinkTeaNetLoss())):
            yield measure(
                name,
                f"N={n}",
                {
                    "ours": lambda f=loss, s=student, t=teacher: step(f, s, t),
                    "bound": lambda s=student, t=teacher: step(lambda a, b: (a - b).sum(), s, t),
                },
            )
        wide = torch.randn(n, 10_000)
        logits = torch.randn(n, 10_000, requires_grad=True)
        yield measure(
            "kd",
            f"N={n} C=10k",
            {
                "ours": lambda s=logits, t=wide: step(KDLoss(), s, t),
                "peer": lambda s=logits, t=wide: step(plain_kd, s, t),
            },
            repeats=5,
        )


def plain_kd(student: Tensor, teacher: Tensor) -> Tensor:
    """Hinton's formula with torch's own loss."""
    soft = F.log_softmax(student / 4, dim=1)
    return 16 * F.kl_div(soft, F.softmax(teacher / 4, dim=1), reduction="batchmean")
