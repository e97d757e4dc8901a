"""A folder of faces, one sub-folder an identity: `root/identity/image.jpg`, or nested deeper."""

from __future__ import annotations

import os
import stat
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from ekd_lite.data.decode import SUFFIXES, VERSION, DecodedFaces, find_bad
from ekd_lite.data.names import FileNames, is_foreign, natural, printable
from ekd_lite.files import UNFINISHED

# What describes images may lie beside them; it is no image that was overlooked.
_NOTES = frozenset(
    [
        *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml"),
        *(".toml", ".html", ".pdf", ".log", ".lst", ".py", ".pts", ".mat"),
    ]
)

Nested: TypeAlias = Literal["first", "last"] | None
_PLACES = {None: "identity/", "first": "identity/.../", "last": ".../identity/"}
_Place: TypeAlias = tuple[int, int]  # device and number of a folder, by whatever name


class ImageFolder(DecodedFaces):
    """Images of `root/identity/image.jpg`, decoded when asked for.

    Identities are numbered in the order of their folders' names, numbers in them by size (1, 2,
    10), and so are the images of each. Images are taken to be aligned crops; they are turned
    upright (EXIF) and scaled to the wanted size, nothing else.

    Hidden files and folders, and those that systems leave behind, are not looked at. What else is
    passed over, files of other kinds and deeper folders, is counted in one warning.

    Two conventions of deeper folders exist, and nothing in a tree tells them apart:

    - `nested="first"`: `root/identity/.../image.jpg`. All images below one of the first folders
      show one person, as in YouTube Faces or VoxCeleb, which keep a folder for every video.
    - `nested="last"`: `root/.../identity/image.jpg`. The folder that holds the images is the
      person, as in sets kept in parts (`train` and `test`, ranges of numbers, countries). Its name
      is the path below the root, since two parts may use one name for two people.

    Args:
        root: folder with one sub-folder an identity.
        image_size: side of the square images given out, a multiple of 16.
        nested: None, "first" or "last", as above.
        max_bad_fraction: with 0, the first image that cannot be decoded stops whoever reads it;
            with more, all images are read now and up to this share of bad ones is left out, with
            a warning that names them (`ekd_lite.data.decode`).

    Attributes:
        labels: (N,) int64, 0..num_identities - 1.
        files: the N paths, a sequence.
        identities: the folder names, by label; with "last" their paths below the root.
        bad: names of the images left out.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing usable in it, faces lie directly in it without identity folders, too
            many bad images, a pipe or device that has the name of an image, folders linked in a
            circle, or with "last" a folder that holds both images and folders of images.
    """

    nested: Nested = None

    def __init__(
        self,
        root: str | Path,
        *,
        image_size: int = 112,
        nested: Nested = None,
        max_bad_fraction: float = 0.0,
    ) -> None:
        super().__init__(image_size)
        if nested not in (None, "first", "last"):
            raise ValueError(
                f"nested must be None, 'first' (root/identity/.../image.jpg) or 'last' "
                f"(root/.../identity/image.jpg), got {nested!r}"
            )
        self.nested = nested
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"no such folder of faces: {self.root}")
        if (self.root / UNFINISHED).exists():
            raise ValueError(f"{self.root} is not finished: what wrote it was killed; run it again")
        found = _Search(self.root, nested)
        if not found.images:
            raise ValueError(
                f"no face found in {self.root}{found.hint()}: expected one sub-folder per identity "
                f"with {', '.join(SUFFIXES)} files in it"
            )
        self._use_names(found.images)
        found.warn()
        bad = set(find_bad(self, max_bad_fraction))
        if bad:
            self.bad = [self.name(index) for index in sorted(bad)]
            self._use_names([name for i, name in enumerate(found.images) if i not in bad])
            if not len(self):
                raise ValueError(f"no image in {self.root} can be decoded")

    def _use(self, files: Sequence[Path]) -> None:
        """Take these files, below the root, for the set."""
        self._use_names([file.relative_to(self.root).as_posix() for file in files])

    def _use_names(self, names: Sequence[str]) -> None:
        self.files = FileNames(self.root, names)
        people = [_person(name, self.nested) for name in names]
        self.identities = list(dict.fromkeys(people))
        number = {name: label for label, name in enumerate(self.identities)}
        self.labels = torch.tensor([number[name] for name in people], dtype=torch.int64)

    def source(self, index: int) -> str:
        """The path of an image."""
        return self.files.path(index)

    def name(self, index: int) -> str:
        """The file of an image, as text that can be printed."""
        return printable(self.files.path(index))

    def parameters(self) -> dict[str, object]:
        """What the pixels depend on, for the cache: every file with its size and time."""
        files = []
        for index, file in enumerate(self.files):
            status = file.stat()
            files.append([self.files.relative(index), status.st_size, status.st_mtime_ns])
        kind = {"kind": "folder", "decoder": VERSION, "image_size": self.image_size}
        return kind | {"files": files}


def _person(name: str, nested: Nested) -> str:
    return name.rpartition("/")[0] if nested == "last" else name.partition("/")[0]


class _Search:
    """All images of a folder of identities, and the count of what is none of them."""

    def __init__(self, root: Path, nested: Nested) -> None:
        self.root = root
        self.nested = nested
        self.images: list[str] = []
        self._unknown: Counter[str] = Counter()  # files, by their suffix
        self._deeper = self._deeper_images = self._loose = self._without = self._nowhere = 0
        people = []
        for entry in _entries(root):
            if _is_folder(entry):
                people.append(entry)
            elif _suffix(entry.name) in SUFFIXES:
                self._loose += 1
            elif entry.is_symlink() and not os.path.exists(entry.path):
                self._nowhere += 1  # perhaps to a person's folder on a disk that is not there
        for person in sorted(people, key=lambda entry: natural(entry.name)):
            self._without += self._look_at(person, person.name, (_place(root),))

    def _look_at(self, folder: os.DirEntry[str], name: str, above: tuple[_Place, ...]) -> bool:
        """Add the images of a folder; whether there are only other things in it."""
        here = _place(folder.path)
        if here in above:
            raise ValueError(f"{printable(folder.path)} leads back to a folder that it lies in")
        images, folders, overlooked = [], [], 0
        for entry in _entries(folder.path):
            suffix = _suffix(entry.name)
            if _is_folder(entry):
                inside = 0 if self.nested else _count_images(entry.path)
                self._deeper += inside > 0
                self._deeper_images += inside
                overlooked += inside
                folders += [entry] if self.nested else []
            elif suffix in SUFFIXES:
                _check_regular(entry)
                images.append(entry.name)
            elif suffix not in _NOTES:
                self._unknown[suffix or "no suffix"] += 1
                overlooked += 1
        self.images += [f"{name}/{image}" for image in sorted(images, key=natural)]
        before = len(self.images)
        for entry in sorted(folders, key=lambda entry: natural(entry.name)):
            overlooked += self._look_at(entry, f"{name}/{entry.name}", (*above, here))
        deeper = len(self.images) - before
        if images and deeper and self.nested == "last":
            raise ValueError(
                f"{printable(folder.path)} holds {len(images):,} images and {deeper:,} in folders "
                "below it, so that it is not plain whose they are: nested='first' takes all below "
                f"{self.root} / a folder for one person"
            )
        return not images and not deeper and overlooked > 0

    def hint(self) -> str:
        """What was found instead of images in folders, in brackets."""
        return f" ({'; '.join(self._parts())})" if self._parts() else ""

    def warn(self) -> None:
        """Say what was passed over, if anything was."""
        if self._parts():
            warnings.warn(
                f"{self.root}: passed over: {'; '.join(self._parts())}. Images are read from "
                f"root/{_PLACES[self.nested]}*{{{','.join(SUFFIXES)}}}",
                stacklevel=3,
            )

    def _parts(self) -> list[str]:
        parts = []
        if self._loose:
            parts.append(f"{self._loose:,} images lie directly in it, outside any folder")
        if self._deeper:
            parts.append(
                f"{self._deeper_images:,} images in {self._deeper:,} deeper folders, which nested "
                "reads"
            )
        if self._unknown:
            often = sorted(self._unknown.items(), key=lambda item: (-item[1], item[0]))
            kinds = ", ".join(f"{count:,} {printable(suffix)}" for suffix, count in often[:8])
            more = ", ..." if len(self._unknown) > 8 else ""
            parts.append(f"{sum(self._unknown.values()):,} files of other kinds ({kinds}{more})")
        if self._without:
            parts.append(f"{self._without:,} folders that hold nothing else")
        if self._nowhere:
            parts.append(f"{self._nowhere:,} links that lead nowhere")
        return parts


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not is_foreign(entry.name)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself leads nowhere
        return False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _place(folder: str | Path) -> _Place:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _check_regular(entry: os.DirEntry[str]) -> None:
    # A link that leads nowhere is left to whoever reads it, as any other damaged image.
    if not os.path.exists(entry.path) or entry.is_file():
        return
    kind = stat.filemode(entry.stat().st_mode)[0]
    raise ValueError(
        f"{printable(entry.path)} has the name of an image and is no regular file (kind {kind!r}: "
        "a pipe, a socket or a device): remove it"
    )


def _count_images(folder: str) -> int:
    """Images in a folder and all below it, links not followed."""
    count = 0
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_foreign(name)]
        count += sum(_suffix(name) in SUFFIXES and not is_foreign(name) for name in files)
    return count
