"""Backbones: inference and training steps, memory formats, half precision, compilation."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.timing import Row, Variants, measure, products
from ekd_lite.data import SyntheticFaces
from ekd_lite.distill import DISTILLERS
from ekd_lite.heads import ArcFace
from ekd_lite.models import build_backbone, profile_backbone
from ekd_lite.train import Batch, Model, TrainConfig, build_state, train_step

# name, side of the images, images of a batch for inference and of a training step
NETS = (
    ("tiny_student", 32, 32, 96),
    ("tiny_teacher", 32, 32, 96),
    ("mobilefacenet", 112, 32, 32),
    ("iresnet18", 112, 32, 16),
    ("iresnet34", 112, 8, 8),
    ("iresnet50", 112, 8, 8),
    ("iresnet100", 112, 4, 4),
)
COMPILED = ("tiny_student", "tiny_teacher", "mobilefacenet", "iresnet18")  # minutes for the others


def _note(row: Row, count: int) -> Row:
    speeds = {k: 1000 * count / ms for k, ms in row.ms.items() if k != "products"}
    row.note = ", ".join(f"{name} {speed:,.0f}/s" for name, speed in speeds.items())
    return row


def _compiles(name: str) -> bool:
    return name in COMPILED and shutil.which("g++") is not None


def bench_inference(*, quick: bool) -> Iterator[Row]:
    """Images a second without gradient; "peer" is torch's default format."""
    for name, size, count, _ in NETS[:2] if quick else NETS:
        images = torch.randn(count, 3, size, size)
        last = images.to(memory_format=torch.channels_last)
        net = build_backbone(name, image_size=size).eval()
        net_last = build_backbone(name, image_size=size).eval()
        net_last = net_last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def run(model: Callable[..., object], x: torch.Tensor, *, half: bool = False) -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                model(x)

        variants: dict[str, Callable[[], object]] = {
            "ours": lambda m=net_last, x=last: run(m, x),
            "peer": lambda m=net, x=images: run(m, x),
            "products": products(count * profile_backbone(net, image_size=size, repeats=1).macs),
            "bf16": lambda m=net_last, x=last: run(m, x, half=True),
        }
        if not quick and _compiles(name):
            torch.compiler.reset()
            compiled = torch.compile(copy.deepcopy(net_last))
            variants["compiled"] = lambda m=compiled, x=last: run(m, x)
        yield _note(measure(f"{name} inference", f"{size} px", variants), count)


def bench_training(*, quick: bool) -> Iterator[Row]:
    """Steps: ArcFace, 1,000 people, AdamW; "peer" is torch's default format."""
    for name, size, _, count in NETS[:2] if quick else NETS:
        options: dict[str, dict[str, Any]] = {"ours": {}, "peer": {"channels_last": False}}
        options["bf16"] = {"precision": "bf16"}
        if not quick and _compiles(name):
            torch.compiler.reset()
            options["compiled"] = {"compile": True}
        variants: Variants = {}
        for variant, changes in options.items():
            config = TrainConfig(
                backbone=name, image_size=size, steps=10_000, device="cpu", general=count, **changes
            )
            state = build_state(config, 1000, None, "cpu")
            state.objective.train()
            form = torch.channels_last if config.channels_last else torch.contiguous_format
            images = torch.randn(count, 3, size, size).to(memory_format=form)
            batch = Batch(images, torch.arange(count) % 1000)
            variants[variant] = lambda s=state, b=batch: train_step(s, b)
        macs = profile_backbone(build_backbone(name, image_size=size), image_size=size, repeats=1)
        variants["products"] = products(3 * count * macs.macs)
        yield _note(measure(f"{name} training", f"{size} px", variants), count)


def student_step(method: str, count: int = 96) -> Callable[[], object]:
    """A training step of the demo's student, with the teacher's embeddings at hand."""
    backbone = build_backbone("tiny_teacher", embedding_dim=128, image_size=32)
    teacher = Model(backbone, ArcFace(128, 1000, scale=28.0), {"embedding_dim": 128})
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 32, 32, generator=generator)
    images = images.to(memory_format=torch.channels_last)
    rows = torch.randn(count, 128, generator=generator)
    config = TrainConfig(
        method=method, teacher=None if method == "none" else "in memory", device="cpu",
        steps=100_000,
    )  # fmt: skip
    state = build_state(config, 1000, None if method == "none" else teacher, "cpu")
    return lambda: train_step(state, Batch(images, torch.arange(count) // 4, rows))


def bench_methods(*, quick: bool) -> Iterator[Row]:
    """A student's step under each method with cached teacher, against the student alone."""
    alone = student_step("none")
    for name in DISTILLERS:
        if name == "ekd_paper":  # ekd with other constants
            continue
        yield measure(
            f"student's step, {name}", "N=96", {"ours": student_step(name), "bound": alone},
            goal="<= 1.15 bound" if name in ("fitnet", "kd", "ekd") else "",
        )  # fmt: skip


def bench_demo(*, quick: bool) -> Iterator[Row]:
    """A student's step of the demo (FitNet), and what it would take without what was removed."""
    generator = torch.Generator().manual_seed(0)
    teacher = Model(
        build_backbone("tiny_teacher", embedding_dim=128, image_size=32).eval(),
        ArcFace(128, 1000, scale=28.0),
        {"embedding_dim": 128},
    )
    faces = SyntheticFaces(24, 4, image_size=32)
    images = faces.batch(range(96))
    rows = torch.randn(96, 128, generator=generator)
    labels = torch.arange(96) // 4

    def make(**changes: Any) -> Callable[..., object]:
        config = TrainConfig(
            method="fitnet", teacher="in memory", device="cpu", steps=100_000, **changes
        )
        state = build_state(config, 1000, teacher, "cpu")
        form = torch.channels_last if config.channels_last else torch.contiguous_format
        return lambda x=images, t=rows: train_step(
            state, Batch(x.to(memory_format=form), labels, t)
        )

    def ask_teacher(step: Callable[..., object]) -> None:
        with torch.inference_mode():
            found = teacher.backbone(images)
        step(images, found.clone())

    plain = make(channels_last=False)
    last, asking, rendering = make(), make(), make()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the demo's processes have it
    row = measure(
        "demo: a student's step",
        "N=96",
        {
            "ours": last,
            "torch's memory format": plain,
            "teacher asked in every step": lambda: ask_teacher(asking),
            "faces rendered in every step": lambda: rendering(faces.batch(range(96))),
        },
    )
    torch.set_num_threads(threads)
    row.note = ", ".join(f"{name} {ms:.1f} ms" for name, ms in row.ms.items())
    yield row
