"""WebDataset shards: images and labels in plain tar files, read at random.

MS1MV3, Glint360K and others are spread in this form. The package `webdataset` reads shards from end
to end, which batches with genuine pairs cannot do. Its indexed reader, `wids`, does not serve: the
package is without it in 1.0; that of 0.2.111 unpickles an `.index` file that lies beside a shard,
reads members called .pkl by pickle, and cuts names off after 100 letters. So the headers are walked
here, by Python's tarfile (`ekd_lite.data.tar_walk`).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ekd_lite.data.decode import VERSION, DecodedFaces, find_bad
from ekd_lite.data.names import is_foreign, natural, printable
from ekd_lite.data.shard_index import ShardIndex, index_shard, read_shards, stamp_of

_MOST = 100_000  # shards that a pattern may name
_OPEN = 128  # files kept open by a process
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVES = (".tar", *_PACKED)


class Shards(DecodedFaces):
    """The images of one or more shards, decoded when asked for.

    A shard is walked through once, some 7,000 images a second and process; where its images are is
    kept in the user's cache folder, as long as the shard is the same by size and time. An image is
    read by one call from its place, and nothing is unpacked. Members of other kinds are not looked
    at.

    Labels are numbers, or names of people, and are numbered anew from 0: numbers by size, names as
    a person would order them.

    Args:
        shards: a .tar, a folder of them, a pattern such as "faces-{000..127}.tar", or a list of
            files.
        label: where the label of `0001.jpg` is: with "cls" in `0001.cls`, else under that key in
            `0001.json`. By default `0001.cls`, or one of label, cls, class, identity and id in
            `0001.json`.
        image_size: side of the square images given out, a multiple of 16.
        max_bad_fraction: as for `ImageFolder`.

    Attributes:
        labels: (N,) int64, 0..num_identities - 1.
        identities: the numbers or names by label.
        files: the shards.
        bad: names of the images left out.

    Raises:
        FileNotFoundError: a shard that is not there.
        ValueError: a shard that is damaged or compressed, an image without a label, or a member
            that has no place in a shard; the shard and the member are named.
    """

    def __init__(
        self,
        shards: str | Path | Sequence[str | Path],
        *,
        label: str | None = None,
        image_size: int = 112,
        max_bad_fraction: float = 0.0,
    ) -> None:
        super().__init__(image_size)
        self.files = shard_files(shards)
        self.label = label
        self._opened: dict[int, _Handle] = {}
        self._stamps = [stamp_of(file) for file in self.files]
        self._parts = read_shards(self.files, label)
        self._rows = np.arange(sum(len(part.starts) for part in self._parts))
        self._firsts = np.cumsum([0, *(len(part.starts) for part in self._parts)])
        self.identities, labels = _numbered(self._parts)
        self.labels = torch.from_numpy(labels)
        bad = find_bad(self, max_bad_fraction)
        if bad:
            self.bad = [self.name(index) for index in bad]
            self._rows = np.delete(self._rows, bad)
            kept, labels = np.unique(labels[self._rows], return_inverse=True)
            self.identities = [self.identities[number] for number in kept.tolist()]
            self.labels = torch.from_numpy(labels.astype(np.int64))
            if not len(self):
                raise ValueError(f"no image of {self._named()} can be decoded")

    def source(self, index: int) -> bytes:
        """The encoded image as it stands in the shard."""
        number, row = self._place(index)
        part = self._parts[number]
        start, size = int(part.starts[row]), int(part.sizes[row])
        data = self._read(number, start, size)
        if len(data) != size:
            raise ValueError(f"{self.name(index)} is cut off after {len(data):,} of {size:,} bytes")
        return data

    def sizes(self) -> np.ndarray[Any, Any]:  # type: ignore[override]
        """Bytes of every encoded image, (N,)."""
        sizes: np.ndarray[Any, Any] = np.concatenate([part.sizes for part in self._parts])
        return sizes[self._rows]

    def name(self, index: int) -> str:
        """Shard and key of an image."""
        number, row = self._place(index)
        return f"{printable(str(self.files[number]))}: {printable(self._parts[number].key(row))}"

    def parameters(self) -> dict[str, object]:
        """What the pixels depend on, for the cache: the shards with their sizes and times."""
        files = [[file.name, *stamp] for file, stamp in zip(self.files, self._stamps, strict=True)]
        kind = {"kind": "shards", "decoder": VERSION, "image_size": self.image_size}
        return kind | {"files": files, "left_out": list(self.bad), "images": len(self)}

    def check(self) -> None:
        """Walk through all shards again, whatever the cache folder says.

        Raises:
            ValueError: a shard is damaged, or another one than was opened.
        """
        for file, part in zip(self.files, self._parts, strict=True):
            found = index_shard(file, self.label)
            pairs = zip(_arrays(found), _arrays(part), strict=True)
            if not all(np.array_equal(one, other) for one, other in pairs):
                raise ValueError(f"{file} was changed after it had been opened")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}  # other processes open their own

    def _place(self, index: int) -> tuple[int, int]:
        """The number of the shard of an image, and its row in it."""
        row = int(self._rows[index])
        number = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return number, row - int(self._firsts[number])

    def _read(self, number: int, start: int, size: int) -> bytes:
        handle = self._opened.get(number)
        if handle is None:
            path = self.files[number]
            if stamp_of(path) != self._stamps[number]:
                raise ValueError(f"{path} was changed after the set had been opened")
            handle = _Handle(path)
            if len(self._opened) < _OPEN:
                self._opened[number] = handle
        return handle.read(start, size)

    def _named(self) -> str:
        return str(self.files[0]) + (f" and {len(self.files) - 1} more" if self.files[1:] else "")


class _Handle:
    """A file to be read from any place, by any process that has it from another by fork."""

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def read(self, start: int, size: int) -> bytes:
        if hasattr(os, "pread"):  # forked readers share one position in the file
            return os.pread(self._number, size, start)
        os.lseek(self._number, start, os.SEEK_SET)
        return os.read(self._number, size)

    def __del__(self) -> None:
        os.close(self._number)


def _arrays(part: ShardIndex) -> tuple[Any, ...]:
    return part.starts, part.sizes, part.keys, np.array([part.texts[code] for code in part.codes])


def _numbered(parts: Sequence[ShardIndex]) -> tuple[list[Any], np.ndarray[Any, Any]]:
    """Numbers or names of all people in their order, and the label of every image."""
    texts = sorted({text for part in parts for text in part.texts}, key=natural)
    identities: list[Any] = texts
    if all(re.fullmatch("-?[0-9]+", text) and str(int(text)) == text for text in texts):
        identities = sorted(map(int, texts))
        if identities[0] < 0:
            raise ValueError(
                f"the shards have the label {identities[0]}: expected numbers of at least 0, or "
                "names. Images of nobody have to be left out"
            )
        texts = list(map(str, identities))
    number = {text: label for label, text in enumerate(texts)}
    own = [np.array([number[text] for text in part.texts], np.int64) for part in parts]
    labels = [numbers[part.codes] for numbers, part in zip(own, parts, strict=True)]
    return identities, np.concatenate(labels)


def shard_files(shards: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that a path, a folder, a pattern or a list of files names.

    Raises:
        FileNotFoundError: one of them is not there, or there is none.
        ValueError: one is named twice, or a pattern names very many.
    """
    if isinstance(shards, str | Path):
        files = shards_in(Path(shards)) if Path(shards).is_dir() else _expanded(str(shards))
    else:
        files = [Path(file) for file in shards]
    if not files:
        raise FileNotFoundError(f"no shard in {shards}: expected files whose names end in .tar")
    missing = [file for file in files if not file.exists()]
    if missing:
        raise FileNotFoundError(f"no such shard: {missing[0]} ({len(missing)} of {len(files)})")
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise ValueError(f"the shard {file} is named twice")
        seen.add(file.resolve())
    return files


def shards_in(folder: Path) -> list[Path]:
    """The shards that lie in a folder, in the order of their names; empty if it holds others.

    Raises:
        ValueError: there are only compressed ones.
    """
    entries = [entry for entry in folder.iterdir() if not is_foreign(entry.name)]
    if any(entry.is_dir() for entry in entries):
        return []  # people's folders, perhaps beside the archive that they came in
    names = sorted((entry.name for entry in entries), key=natural)
    found = [folder / name for name in names if name.lower().endswith(".tar")]
    packed = [name for name in names if name.lower().endswith(_PACKED)]
    if packed and not found:
        raise ValueError(
            f"{folder} holds {len(packed)} compressed archives such as {printable(packed[0])}: "
            "shards are read at random, so unpack each to a .tar first (gunzip, unxz)"
        )
    return found


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern of shards, such as faces-{000..127}.tar, and no file."""
    return "{" in str(path) and str(path).lower().endswith(".tar") and not path.exists()


def _expanded(pattern: str) -> list[Path]:
    """Files of a pattern with {000..127} or {a,b} in it, as shells read it."""
    if Path(pattern).exists():
        return [Path(pattern)]
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [_choices(part) if place % 2 else [part] for place, part in enumerate(parts)]
    count = np.prod([len(one) for one in choices], dtype=float)
    if count > _MOST:
        raise ValueError(f"{pattern} names {count:,.0f} shards, more than {_MOST:,}")
    return [Path("".join(one)) for one in itertools.product(*choices)]


def _choices(inside: str) -> Sequence[str]:
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if not ends:
        return inside.split(",")
    first, last = int(ends[1]), int(ends[2])
    if not 0 <= last - first <= _MOST:
        raise ValueError(f"{{{inside}}} is no range of at most {_MOST:,} numbers")
    return [f"{number:0{len(ends[1])}}" for number in range(first, last + 1)]
