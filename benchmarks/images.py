"""Images: rendered, decoded, gathered."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.timing import Row, measure
from ekd_lite.data import ImageFolder, RecordIO, SyntheticFaces, fast_jpeg
from ekd_lite.data.decode import DecodedFaces
from ekd_lite.data.opening import open_packed
from ekd_lite.data.packed import PackedFaces
from ekd_lite.data.sets import convert
from ekd_lite.evaluate import embed
from ekd_lite.evaluate.embedding import embed_views
from ekd_lite.models import build_backbone
from ekd_lite.ops import fresh


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
            goal=goals.get(size, ""),
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
        for i, image in enumerate(pixels):
            path = root / "jpeg" / f"{i // 4:03}" / f"{i % 4}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, quality=95)
        files = ImageFolder(root / "jpeg", image_size=112)
        convert(files, root / "rec", to="rec", progress=False)
        convert(files, root / "packed", progress=False)
        record = RecordIO(root / "rec" / "train.rec", image_size=112)
        packed = open_packed(root / "packed")
        index = torch.randperm(256, generator=torch.Generator().manual_seed(0))[:128]
        chosen = [files.files[i] for i in index.tolist()]
        encoded = [path.read_bytes() for path in chosen]
        with mock.patch.object(fast_jpeg, "_library", return_value=None):  # as without simplejpeg
            yield bench_decoded("JPEG files", files, index, lambda: chosen)
            yield bench_decoded("RecordIO", record, index, lambda: [io.BytesIO(x) for x in encoded])
        if fast_jpeg._library() is not None:
            yield bench_fast(files, record, index, encoded)
        yield bench_packed(packed, index)


def bench_embed(*, quick: bool) -> Iterator[Row]:
    """Images to embeddings: both views of one reading, and one array for the result."""
    count = 64
    net = build_backbone("tiny_student", embedding_dim=128, image_size=112)
    faces = SyntheticFaces(count // 4, 4, image_size=112)
    pixels = ((faces.batch(range(count)) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(pixels):
            path = Path(folder) / f"{i // 4:03}" / f"{i % 4}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, quality=95)
        files = ImageFolder(folder, image_size=112)
        yield measure(
            "both views of JPEG files",
            f"{count} images",
            {
                "ours": lambda: embed_views(net, files, batch_size=32),
                "peer": lambda: [
                    embed(net, files, mirrored=m, batch_size=32) for m in (False, True)
                ],
                "bound": lambda: plain_views(net, files, 32),
            },
            repeats=3,
            memory=False,
            goal="<= 1.1 bound",
            note="tiny student; peer: a reading for each view; bound: batches and nets alone",
        )
    rows, width = (4_096, 512) if quick else (32_768, 512)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, width))
    packed = PackedFaces(torch.zeros(rows, 3, 16, 16, dtype=torch.uint8), torch.zeros(rows).long())
    row = measure(
        "embed into one array",
        f"{rows // 1000}k x {width}",
        {"ours": lambda: embed(linear, packed), "peer": lambda: joined_batches(linear, packed)},
        repeats=3,
        goal="peak <= 1.2 of the result",
    )
    result = rows * width * 4 / 2**20
    row.note = f"peak {row.mb['ours'] / result:.2f} of the result" if row.mb else ""
    yield row


@torch.inference_mode()
def plain_views(net: nn.Module, faces: ImageFolder, size: int) -> None:
    """Read and embed twice, nothing else."""
    net.eval()
    for start in range(0, len(faces), size):
        images = faces.batch(range(start, min(start + size, len(faces))))
        net(images), net(images.flip(-1))


@torch.inference_mode()
def joined_batches(net: nn.Module, faces: PackedFaces) -> torch.Tensor:
    """As before: a list of batches, joined, copied, looked at as a whole."""
    starts = range(0, len(faces), 256)
    rows = [net(faces.batch(range(s, min(s + 256, len(faces))))).float() for s in starts]
    joined = torch.cat(rows).clone()
    (~joined.isfinite().all(dim=1)).nonzero()
    return joined


def bench_decoded(
    name: str,
    source: DecodedFaces,
    index: torch.Tensor,
    opened: Callable[[], Sequence[Path | io.BytesIO]],
) -> Row:
    """A batch of floats, beside Pillow alone, from where the bytes are to an array of bytes."""

    def decode() -> list[np.ndarray]:
        return [np.asarray(Image.open(file).convert("RGB")) for file in opened()]

    def plainly() -> torch.Tensor:
        images = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in decode()]
        return torch.stack([image.float() / 127.5 - 1 for image in images])

    assert torch.equal(plainly(), source.batch(index))
    pixels = torch.from_numpy(np.stack(decode())).permute(0, 3, 1, 2)
    row = measure(
        name,
        "128 images",
        {
            "ours": lambda: source.batch(index),
            "peer": plainly,
            "bound": decode,
            "floats": lambda: fresh(*pixels.shape).copy_(pixels).div_(127.5).sub_(1),
        },
        goal="<= 1.1 bound",
    )
    row.note = (
        f"{128_000 / row.ms['ours']:,.0f} images/s; the bound is Pillow alone, which makes bytes; "
        f"making floats of them takes {row.ms['floats'] / row.ms['bound']:.2f} of it"
    )
    return row


def bench_fast(
    files: ImageFolder, record: RecordIO, index: torch.Tensor, encoded: Sequence[bytes]
) -> Row:
    """The same with simplejpeg; the peer is ours by Pillow, the bound simplejpeg alone."""
    library = fast_jpeg._library()

    def by_pillow() -> torch.Tensor:
        with mock.patch.object(fast_jpeg, "_library", return_value=None):
            return record.batch(index)

    assert torch.equal(by_pillow(), record.batch(index))
    row = measure(
        "RecordIO by simplejpeg",
        "128 images",
        {
            "ours": lambda: record.batch(index),
            "peer": by_pillow,
            "bound": lambda: [library.decode_jpeg(data, "RGBX") for data in encoded],
            "files": lambda: files.batch(index),
        },
        goal="<= 1.5 bound",
    )
    row.note = (
        f"{128_000 / row.ms['ours']:,.0f} images/s, {128_000 / row.ms['files']:,.0f} from files; "
        f"{128_000 / row.ms['peer']:,.0f} by Pillow; the bound makes bytes"
    )
    return row


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
