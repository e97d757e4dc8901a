"""Where a command may write: nowhere that it reads."""

from __future__ import annotations

import os
from pathlib import Path

from ekd_lite.files import make_folder

_WRITTEN = (".safetensors", ".onnx", ".csv")  # what may be written again beside what is read
_FORMS = (".safetensors", ".onnx", ".npy", ".pt", ".pth", ".ckpt")  # names that promise one


def check_output(path: Path, *sources: Path, form: str = "") -> None:
    """Raise a ValueError unless `path` can be written without touching what is read.

    Args:
        path: the file to write.
        sources: files and folders that the command reads.
        form: the suffix of what is written; a name that promises another form is refused.

    Raises:
        ValueError: `path` is a folder, its folder cannot be made or written to, or it is one of the
            sources, the model in one of them, or another file there that no command would write.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file to write")
    for source in sources:
        read = [source, source / "model.safetensors"] if source.is_dir() else [source]
        is_own = source.is_dir() and path.exists() and path.suffix.lower() not in _WRITTEN
        if any(_same_file(path, file) for file in read) or (
            is_own and source.resolve() in path.resolve().parents
        ):
            raise ValueError(f"{path} is what is read here, and would be lost: write another file")
    if form and path.suffix.lower() in {*_FORMS} - {form}:
        raise ValueError(f"{path} would hold no {path.suffix}: what is written is a {form} file")
    make_folder(path.parent)
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written: its folder is read-only")


def _same_file(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        # Also by a link, or in other letters on a disk that ignores case.
        return path.samefile(other)
    return path.resolve() == other.resolve()
