"""Draws that must differ, numbers that must stay, and teachers and checkpoints that do not fit."""

import pytest
import torch
import torch.nn.functional as F

from ekd_lite.distill import DISTILLERS
from ekd_lite.heads import HEADS
from ekd_lite.ops import generator_for
from tests.distill.batches import make_setting

HALVES = (torch.float16, torch.bfloat16)


@pytest.mark.slow
def test_no_two_processes_or_steps_draw_alike(count):
    """First draws of a million generators: 2 seeds x 2 streams x 25,000 steps x 10 ranks.

    Of 64 bits each, so that by chance alone no two agree; torch's own generator failed this, with
    a hundred duplicates, because it looks at 32 bits of its seed.
    """
    draws = set()
    for seed in (0, 1):
        for stream in (2, 4):
            for step in range(25_000):
                for rank in range(10):
                    generator = generator_for(seed, stream, step, rank)
                    draws.add(int(generator.integers(1 << 63)))
    duplicates = 1_000_000 - len(draws)
    count("streams over seeds, steps and ranks", f"{duplicates} duplicates in 1,000,000 draws")
    assert duplicates == 0


def batch(seed, dtype):
    """Student and teacher (32, 16) rounded to a half precision, 8 people with 4 images."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(32) // 4
    centres = torch.randn(8, 16, generator=generator)
    student, teacher = (
        centres[labels] + noise * torch.randn(32, 16, generator=generator) for noise in (0.8, 0.4)
    )
    return student.to(dtype), teacher.to(dtype), labels


def value_and_gradient(module, *inputs):
    module.zero_grad()
    student = inputs[0].detach().requires_grad_()
    loss = module(student, *inputs[1:])
    loss.backward()
    leaves = [student, *module.parameters()]
    return loss.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]


class HeadLoss(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, embeddings, labels):
        return F.cross_entropy(self.head(embeddings, labels), labels)


@pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")
def test_half_precision(count):
    """Every head and every method under autocast, against float64 of the same rounded input."""
    worst, gradients, cases = 0.0, 0, 0
    setting = make_setting(
        16, prototypes=torch.randn(8, 16, generator=torch.Generator().manual_seed(9))
    )
    made = {name: lambda h=head: HeadLoss(h(16, 8)) for name, head in HEADS.items()}
    made |= {name: lambda m=m: m.build(setting) for name, m in DISTILLERS.items()}
    for dtype in HALVES:
        for seed in range(5):
            student, teacher, labels = batch(seed, dtype)
            for name, make in made.items():
                inputs = (student, labels) if name in HEADS else (student, teacher, labels)
                if name not in HEADS and DISTILLERS[name].needs == "logits":
                    inputs = (student[:, :8], teacher[:, :8], labels)
                torch.manual_seed(seed)
                half = make()
                torch.manual_seed(seed)
                exact = make().double()
                with torch.autocast("cpu", dtype):
                    loss, grads = value_and_gradient(half, *inputs)
                wide = [x.double() if x.is_floating_point() else x for x in inputs]
                true, _ = value_and_gradient(exact, *wide)
                cases += 1
                gradients += all(bool(g.isfinite().all()) for g in grads)
                worst = max(worst, float((loss - true).abs() / true.abs().clamp(min=1e-6)))
    count(
        "heads and losses under autocast (fp16, bf16)",
        f"{cases} cases of {len(HEADS)} heads and {len(DISTILLERS)} methods, largest relative "
        f"error {worst:.1e}, {gradients} gradients finite",
    )
    assert gradients == cases
    assert worst < 1e-3
