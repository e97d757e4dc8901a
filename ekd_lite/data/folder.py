"""A folder of faces, one sub-folder an identity: `root/identity/image.jpg`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ekd_lite.ops import check_image_size

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class ImageFolder:
    """Images of `root/identity/image.jpg`, decoded when asked for.

    Identities are numbered in the alphabetical order of their folders. Images are taken to be
    aligned crops; they are scaled to the wanted size, nothing else.

    Args:
        root: folder with one sub-folder an identity.
        image_size: side of the square images given out, a multiple of 16.

    Attributes:
        labels: (N,) int64, 0..num_identities - 1.
        files: the N paths.
        identities: the folder names, by label.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing usable in it, or faces lie directly in it without identity folders.
    """

    def __init__(self, root: str | Path, *, image_size: int = 112) -> None:
        check_image_size(image_size)
        self.root = Path(root)
        self.image_size = image_size
        if not self.root.is_dir():
            raise FileNotFoundError(f"no such folder of faces: {self.root}")
        folders = sorted(path for path in self.root.iterdir() if path.is_dir())
        found = {path.name: _images_in(path) for path in folders}
        self.identities = [name for name, files in found.items() if files]
        self.files = [file for name in self.identities for file in found[name]]
        if not self.files:
            loose = len(_images_in(self.root))
            hint = f" ({loose} images lie directly in it, outside any folder)" if loose else ""
            raise ValueError(
                f"no face found in {self.root}{hint}: expected one sub-folder per identity with "
                f"{', '.join(sorted(SUFFIXES))} files in it"
            )
        counts = torch.tensor([len(found[name]) for name in self.identities])
        self.labels = torch.repeat_interleave(torch.arange(len(counts)), counts)

    @property
    def num_identities(self) -> int:
        """Number of identity folders with an image in them."""
        return len(self.identities)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.batch([index])[0], int(self.labels[index])

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Images in [-1, 1], (B, 3, image_size, image_size) float32."""
        index = torch.as_tensor(indices).tolist()
        return torch.stack([self._read(self.files[i]) for i in index]).float() / 127.5 - 1

    def parameters(self) -> dict[str, object]:
        """What the pixels depend on, for the cache: every file with its size and time."""
        stats = [file.stat() for file in self.files]
        files = [
            [file.relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime_ns]
            for file, stat in zip(self.files, stats, strict=True)
        ]
        return {"kind": "folder", "image_size": self.image_size, "files": files}

    def _read(self, file: Path) -> Tensor:
        try:
            with Image.open(file) as image:
                # Image.open reads only the header; convert() decodes, and raises on missing data.
                pixels = image.convert("RGB")
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as e:
            raise ValueError(f"cannot read {file} as an image: {e}") from e
        size = (self.image_size, self.image_size)
        if pixels.size != size:
            pixels = pixels.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
