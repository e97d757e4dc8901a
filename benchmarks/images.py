"""Images: rendered, decoded, gathered."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import Row, measure
from ekd_lite.data import ImageFolder, RecordIO, SyntheticFaces
from ekd_lite.data.packed import PackedFaces
from ekd_lite.data.sets import convert, open_packed


def bench_renderer(*, quick: bool) -> Iterator[Row]:
    """Procedural faces on one thread; ms a batch, images a second in the note."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    goals = {48: ">= 1000 a second"}
    for size, count in ((32, 1024), (48, 512), (64, 256), (112, 128)):
        faces = SyntheticFaces(count, 1, image_size=size)
        row = measure(
            "renderer", f"{size} px", {"ours": lambda f=faces: f.batch(range(len(f)))},
            repeats=3, goal=goals.get(size, ""),
        )  # fmt: skip
        row.note = f"{1000 * count / row.ms['ours']:,.0f} images/s"
        yield row
    torch.set_num_threads(threads)


def bench_readers(*, quick: bool) -> Iterator[Row]:
    """128 images of 112 pixels: JPEG, RecordIO, packed pixels; the bound decodes or copies."""
    faces = SyntheticFaces(64, 4, image_size=112)
    pixels = ((faces.batch(range(256)) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        encoded = []
        for i, image in enumerate(pixels):
            path = root / "jpeg" / f"{i // 4:03}" / f"{i % 4}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, quality=95)
            encoded.append(path.read_bytes())
        files = ImageFolder(root / "jpeg", image_size=112)
        convert(files, root / "rec", to="rec", progress=False)
        convert(files, root / "packed", progress=False)
        record = RecordIO(root / "rec" / "train.rec", image_size=112)
        packed = open_packed(root / "packed")
        index = torch.randperm(256, generator=torch.Generator().manual_seed(0))[:128]

        def decode() -> None:
            for i in index.tolist():
                np.asarray(Image.open(io.BytesIO(encoded[i])).convert("RGB"))

        for name, source in (("JPEG files", files), ("RecordIO", record)):
            row = measure(
                name,
                "128 images",
                {"ours": lambda s=source: s.batch(index), "bound": decode},
                goal="<= 1.1 bound",
            )
            row.note = f"{128_000 / row.ms['ours']:,.0f} images/s; the bound is Pillow alone"
            yield row
        yield bench_packed(packed, index)


def bench_packed(packed: PackedFaces, index: torch.Tensor) -> Row:
    """Gather bytes from a memory map and scale them to [-1, 1]."""
    kept = torch.from_numpy(np.array(packed.batch(index).numpy()))
    row = measure(
        "packed pixels",
        "128 images",
        {"ours": lambda: packed.batch(index), "bound": lambda: kept.clone()},
        goal=">= 20,000 a second",
    )
    row.note = f"{128_000 / row.ms['ours']:,.0f} images/s; the bound copies float images"
    return row
