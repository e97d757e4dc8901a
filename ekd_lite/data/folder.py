"""A folder of faces, one sub-folder an identity: `root/identity/image.jpg`."""

from __future__ import annotations

from pathlib import Path

import torch

from ekd_lite.data.decode import SUFFIXES, DecodedFaces, find_bad


class ImageFolder(DecodedFaces):
    """Images of `root/identity/image.jpg`, decoded when asked for.

    Identities are numbered in the alphabetical order of their folders. Images are taken to be
    aligned crops; they are scaled to the wanted size, nothing else.

    Args:
        root: folder with one sub-folder an identity.
        image_size: side of the square images given out, a multiple of 16.
        max_bad_fraction: with 0, the first image that cannot be decoded stops whoever reads it;
            with more, all images are read now and up to this share of bad ones is left out, with
            a warning that names them (`ekd_lite.data.decode`).

    Attributes:
        labels: (N,) int64, 0..num_identities - 1.
        files: the N paths.
        identities: the folder names, by label.
        bad: names of the images left out.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing usable in it, faces lie directly in it without identity folders, or too
            many bad images.
    """

    def __init__(
        self, root: str | Path, *, image_size: int = 112, max_bad_fraction: float = 0.0
    ) -> None:
        super().__init__(image_size)
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"no such folder of faces: {self.root}")
        folders = sorted(path for path in self.root.iterdir() if path.is_dir())
        self._use([file for folder in folders for file in _images_in(folder)])
        bad = set(find_bad(self, max_bad_fraction))
        if bad:
            self.bad = [self.name(index) for index in sorted(bad)]
            self._use([file for index, file in enumerate(self.files) if index not in bad])

    def _use(self, files: list[Path]) -> None:
        if not files:
            loose = len(_images_in(self.root))
            hint = f" ({loose} images lie directly in it, outside any folder)" if loose else ""
            raise ValueError(
                f"no face found in {self.root}{hint}: expected one sub-folder per identity with "
                f"{', '.join(SUFFIXES)} files in it"
            )
        self.files = files
        self.identities = list(dict.fromkeys(file.parent.name for file in files))
        number = {name: label for label, name in enumerate(self.identities)}
        self.labels = torch.tensor([number[file.parent.name] for file in files])

    def source(self, index: int) -> Path:
        """The file of an image."""
        return self.files[index]

    def name(self, index: int) -> str:
        """The file of an image, as text."""
        return str(self.files[index])

    def parameters(self) -> dict[str, object]:
        """What the pixels depend on, for the cache: every file with its size and time."""
        stats = [file.stat() for file in self.files]
        files = [
            [file.relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime_ns]
            for file, stat in zip(self.files, stats, strict=True)
        ]
        return {"kind": "folder", "image_size": self.image_size, "files": files}


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
