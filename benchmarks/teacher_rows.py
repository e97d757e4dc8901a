"""Losses and batches that look at the teacher's rows of a whole set."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.memory import status_mb
from benchmarks.timing import Row, interleave, measure
from ekd_lite.data import NeighbourSampler
from ekd_lite.data.neighbours import CHUNK
from ekd_lite.distill import GalleryEKDLoss
from ekd_lite.ops import unit_rows

WIDTH, EACH = 512, 24
MS1MV2 = 5_822_653  # images


def some_rows(count: int) -> tuple[Tensor, Tensor]:
    """Rows (N, 512) of people with 24 images each, two of whom have a cosine of some 0.7."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) // EACH
    rows = torch.randn(count, WIDTH, generator=generator).mul_(0.65)
    rows += torch.randn(int(labels[-1]) + 1, WIDTH, generator=generator)[labels]
    return rows, labels


def bench_gallery(*, quick: bool) -> Iterator[Row]:
    """Gallery EKD from a mapped file, 96 images; peer: the table in memory. MB: own, not shared."""
    for count in (24_000,) if quick else (24_000, 240_000):
        rows, labels = some_rows(count)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.npy"
            np.save(path, rows.numpy())
            del rows
            size = f"G={count // 1000}k"
            mb = {name: own_mb(path, labels, mapped=name == "ours") for name in ("ours", "peer")}
            mapped, whole = (gallery_step(path, labels, mapped=m) for m in (True, False))
            row = measure(
                "gallery from a file", size, {"ours": mapped, "peer": whole}, memory=False,
                note="the file is in the system's cache, whose pages are not counted",
            )  # fmt: skip
            del mapped, whole
            row.mb = {name: held for name, held in mb.items() if held is not None}
            yield row


def gallery_step(path: Path, labels: Tensor, *, mapped: bool) -> Callable[[], object]:
    """The loss of 96 images of 24 people and its gradient; the rows are opened now."""
    # Copy on write: torch wants tables that it could write to, and nothing is written.
    table = torch.from_numpy(np.load(path, mmap_mode="c" if mapped else None))
    loss = GalleryEKDLoss(table, labels)
    batch = torch.arange(96) // 4 * EACH + torch.arange(96) % 4
    teacher, people = table[batch], labels[batch]

    def run() -> None:
        student = (teacher + torch.randn(teacher.shape)).requires_grad_(True)
        loss(student, teacher, people).backward()

    return run


def own_mb(path: Path, labels: Tensor, *, mapped: bool) -> float | None:
    """What the process holds of its own after opening the rows and a step; None if not told.

    Pages of a mapped file are not among it: they are the system's, which takes them back when
    memory is needed, and are there once for all processes. (With 1,000 random rows a step nearly
    all of them are soon mapped: the system reads and maps pages by the dozen.)
    """
    before = status_mb("RssAnon")
    step = gallery_step(path, labels, mapped=mapped)
    step()
    after = status_mb("RssAnon")
    return None if before is None or after is None else after - before


def bench_neighbours(*, quick: bool) -> Iterator[Row]:
    """NeighbourSampler's first batch of a block, for which all rows are read; bound: products."""
    for count in (24_000,) if quick else (24_000, 48_000, 96_000):
        rows, _ = some_rows(count)
        sampler = NeighbourSampler(rows, 0.5, general=48, anchors=12)
        block = sampler._steps_at_once
        anchors = unit_rows(rows[: block * sampler._each])

        def products(anchors: Tensor = anchors, rows: Tensor = rows) -> None:
            for chunk in torch.split(rows, CHUNK):
                anchors @ chunk.T

        size = f"{count // 1000}k x {WIDTH}"
        first = measure(
            "neighbours, first batch", size,
            {
                "ours": lambda r=rows: NeighbourSampler(r, 0.5, general=48, anchors=12).batch(0),
                "bound": products,
            },
            repeats=3, goal="<= 1.5 bound",
        )  # fmt: skip
        whole = first.ms["ours"] / 1000 * MS1MV2 / count
        first.note = (
            f"once in {block} batches; in proportion {whole:.0f} s at 5.8 M rows, "
            f"{1000 * whole / block:.0f} ms a batch"
        )
        yield first
        sampler.batch(0)
        steps = iter(range(1, 10**9))
        later = interleave(
            {"ours": lambda s=sampler, n=steps, b=block: s.batch(1 + next(n) % (b - 1))}
        )
        yield Row("neighbours, later batch", size, later)
