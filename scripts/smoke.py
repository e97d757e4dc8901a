"""Run every command of the installed package once: its --help, then a tiny job from faces to ONNX.

    python scripts/smoke.py

Needs nothing but the package and its extras export, align, tensorboard and fast, so that
versions.py can run it in an environment of the lowest or the newest versions. It imports what is
installed, not the package beside it, as long as PYTHONPATH does not say otherwise.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from ekd_lite.__main__ import Command, main
from ekd_lite.data.detect import LandmarkDetector
from ekd_lite.data.fast_jpeg import fast_jpeg

SHOWN = (
    *("torch", "numpy", "pillow", "safetensors", "tqdm", "tyro", "matplotlib", "onnxruntime"),
    "simplejpeg",
)
SMALL = [
    *("--image-size", "32", "--embedding-dim", "32", "--steps", "20", "--device", "cpu"),
    *("--general", "16", "--identities", "4", "--images-per-identity", "4"),
]


def commands(tree: Any = Command, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group of commands, such as ("data", "verify")."""
    for member in get_args(tree):
        inside, *marks = get_args(member)
        words = (*before, *(mark.name for mark in marks if hasattr(mark, "name")))
        yield words
        if not isinstance(inside, type):  # a group: a union of commands
            yield from commands(inside, words)


def show_help(words: tuple[str, ...]) -> None:
    """Ask for the help of one command; a help that is empty or fails ends the program."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    if "--help" not in text.getvalue():
        sys.exit(f"ekd-lite {' '.join(words)} --help printed no help: {text.getvalue()!r}")


def write_faces(root: Path) -> None:
    """Twenty identities of six images: a pattern of colours each, and noise."""
    rng = np.random.default_rng(0)
    for identity in range(20):
        folder = root / f"person{identity:02}"
        folder.mkdir(parents=True)
        pattern = rng.uniform(30, 220, (16, 16, 3))
        for image in range(6):
            pixels = (pattern + rng.normal(0, 20, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.png")


def decode_jpeg() -> None:
    """Decode one image; if Pillow would have to do it, the extra fast is of no use here."""
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "JPEG")
    if fast_jpeg(file.getvalue(), max_pixels=256 * 256) is None:
        sys.exit(
            "simplejpeg is installed, but not used: it decodes to other pixels than this Pillow, "
            "so that pyproject.toml must allow other versions of them"
        )


def jobs(work: Path) -> list[list[str]]:
    """A tiny job of every kind; each may use what those before it wrote."""
    faces, teacher, student = str(work / "faces"), str(work / "teacher"), str(work / "student")
    rows = str(work / "rows.safetensors")
    large = ["--backbone", "tiny_teacher", "--tensorboard"]
    distil = ["--method", "ekd+fitnet+kd", "--teacher", f"{teacher}/model.safetensors"]
    return [
        ["data", "preview", "--out", str(work / "faces.png")],
        ["data", "info", "--faces", faces],
        ["data", "convert", "--faces", faces, "--out", str(work / "packed")],
        ["train", "--faces", faces, "--out", teacher, *SMALL, *large],
        ["train", "--faces", faces, "--out", student, *SMALL, *distil],
        ["embed", "--model", student, "--faces", faces, "--out", rows],
        ["evaluate", "--source", rows, "--fprs", "0.1", "0.01", "--resamples", "20"],
        ["export", student, "--out", str(work / "net.safetensors"), "--to", "safetensors"],
        ["export", student, "--out", str(work / "net.onnx")],
        ["export", student, "--out", str(work / "int8.onnx"), "--to", "int8-dynamic"],
    ]


def run() -> None:
    """Print the versions, run everything, and stop at the first failure."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SHOWN)
    print(f"Python {platform.python_version()}, {versions}", flush=True)
    every = [(), *commands()]
    for words in every:
        show_help(words)
    print(f"ok: --help of {len(every)} commands and groups", flush=True)
    with tempfile.TemporaryDirectory(prefix="ekd_lite-") as folder:
        work = Path(folder)
        write_faces(work / "faces")
        for job in jobs(work):
            print(f"== ekd-lite {' '.join(job).replace(folder, '.')}", flush=True)
            status = main(job)
            if status:
                sys.exit(f"failed with status {status}")
    LandmarkDetector()(torch.zeros(3, 64, 64, dtype=torch.uint8))
    decode_jpeg()
    print("ok: every job, the detector of the extra align, the decoder of the extra fast")


if __name__ == "__main__":
    run()
