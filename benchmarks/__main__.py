"""Time the parts against the plain formula and the lower bound, interleaved in one process.

    python -m benchmarks [ekd] [pairs] [faces]

Every figure is a median after warm-up. Read the ratios: milliseconds belong to a machine.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ekd_lite.data import SyntheticFaces
from ekd_lite.distill import EKDLoss
from ekd_lite.evaluate import all_pairs_tpr_at_fpr

FPRS = (1e-2, 1e-3, 1e-4, 1e-5)
Timed = dict[str, Callable[[], object]]


def median_ms(variants: Timed, *, repeats: int) -> dict[str, float]:
    """Run all variants in turn, so that a change of load hits them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 2):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def plain_ekd(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The paper's formula written down directly: every pair, two full sorts."""
    student, teacher = F.normalize(student), F.normalize(teacher)
    upper = torch.ones(len(labels), len(labels), dtype=torch.bool).triu(1)
    same = (labels[:, None] == labels)[upper]
    a, b = (student @ student.T)[upper], (teacher @ teacher.T)[upper]
    ranks = [int((~same).sum()) // 10**k for k in range(1, 7)]
    a_sorted, order = a[~same].sort(descending=True)
    b_sorted = b[~same].sort(descending=True).values
    thresholds = a_sorted[ranks].detach(), b_sorted[ranks]

    def gap(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        ranked = [
            torch.sigmoid(((z[:, None] - t) / 0.01).clamp(-50, 50)).sum(1)
            for z, t in zip((x, y), thresholds, strict=True)
        ]
        return F.mse_loss(*ranked)

    hardest = order[:2000]
    return 0.02 * gap(a[same], b[same]) + 0.01 * gap(a[~same][hardest], b[~same][hardest])


def bench_ekd() -> list[dict[str, float]]:
    """EKD forward and backward, 512 dimensions; the bound is one product of all pairs, likewise."""
    rows = []
    for n in (64, 128, 256, 512, 1024, 2048):
        generator = torch.Generator().manual_seed(n)
        student = torch.randn(n, 512, generator=generator, requires_grad=True)
        teacher = torch.randn(n, 512, generator=generator)
        people = torch.randint(85_742, (n // 2,), generator=generator)
        labels = torch.cat([people, 90_000 + torch.arange(n // 2) // 4])
        ours = EKDLoss()

        def backward(
            loss: Callable[..., torch.Tensor],
            inputs: tuple[torch.Tensor, ...] = (student, teacher, labels),
        ) -> None:
            inputs[0].grad = None
            loss(*inputs).backward()

        def bound(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return (x @ x.T).sum()

        ms = median_ms(
            {
                "ours": lambda run=backward, loss=ours: run(loss),
                "plain": lambda run=backward: run(plain_ekd),
                "bound": lambda run=backward, loss=bound: run(loss),
            },
            repeats=9,
        )
        rows.append({"n": n, **ms})
    return rows


def bench_pairs() -> list[dict[str, float]]:
    """All-pairs TPR at FPR; the bound is the product of the upper triangle alone."""
    rows = []
    for n in (5_000, 10_000, 20_000):
        embeddings = F.normalize(torch.randn(n, 512, generator=torch.Generator().manual_seed(0)))
        labels = torch.arange(n) // 10

        def product(x: torch.Tensor = embeddings) -> None:
            for first in range(0, len(x), 1024):
                x[first : first + 1024] @ x[first:].T

        ms = median_ms(
            {
                "ours": lambda x=embeddings, y=labels: all_pairs_tpr_at_fpr(x, y, FPRS),
                "bound": product,
            },
            repeats=3,
        )
        rows.append({"n": n, **ms})
    return rows


def bench_faces() -> list[dict[str, float]]:
    """Images a second of the renderer on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows = []
    for size, count in ((32, 1024), (48, 512), (64, 256), (112, 128)):
        faces = SyntheticFaces(count, 1, image_size=size)
        ms = median_ms({"ours": lambda f=faces: f.batch(range(len(f)))}, repeats=3)["ours"]
        rows.append({"size": size, "images_per_second": 1000 * count / ms})
    torch.set_num_threads(threads)
    return rows


BENCHES = {"ekd": bench_ekd, "pairs": bench_pairs, "faces": bench_faces}


def main(names: list[str]) -> int:
    """Print a table for every bench asked for, and all of it as JSON at the end."""
    warnings.simplefilter("ignore")
    unknown = set(names) - BENCHES.keys()
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    results: dict[str, object] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    for name in names or list(BENCHES):
        print(f"\n{name}: {(BENCHES[name].__doc__ or '').strip()}")
        results[name] = rows = BENCHES[name]()
        for row in rows:
            cells = [f"{key} {value:,.1f}" for key, value in row.items()]
            if "bound" in row:
                cells.append(f"ours/bound {row['ours'] / row['bound']:.2f}")
            if "plain" in row:
                cells.append(f"plain/ours {row['plain'] / row['ours']:.2f}")
            print("  " + "   ".join(cells), flush=True)
    print("\n" + json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
