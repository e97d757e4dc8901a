"""InsightFace's training sets: images and labels in one RecordIO file, without mxnet.

Public sets (CASIA-WebFace, MS1MV2, MS1MV3, Glint360K) come as `train.rec` and `train.idx`. Two
flavours exist, and both are read:

- with a head: record 0 holds no image but two counts (n + 1, n + 1 + identities); then n images,
  then one record without image for every identity, the range of its images. The counts are
  *float32*, exact only to 16,777,216 (42,474,557 is kept as 42,474,556), so they are compared, not
  used: images are what holds an image.
- flat: every record is an image.

A label may stand alone or lead an array (flag > 0); the first one counts. Labels are float32 too:
whole numbers to 16,777,216, anything else is refused.
"""

from __future__ import annotations

import glob
import mmap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ekd_lite.data.decode import VERSION, DecodedFaces, find_bad
from ekd_lite.data.names import printable
from ekd_lite.data.record_format import read_record, unpack_image
from ekd_lite.data.record_index import Int64Array, read_heads, read_index, scan

_EXACT = 1 << 24  # whole numbers below it are exact in float32


class RecordIO(DecodedFaces):
    """The images of a .rec file, memory-mapped, decoded when asked for.

    Opening reads the head of every record (a million a second), and nothing is decoded. Identities
    are numbered anew from 0 in the order of their numbers in the file.

    Args:
        path: the .rec file.
        index: the .idx file, which may list a part of the records; by default the one beside the
            file, which must list all, and without one the file is scanned.
        image_size: side of the square images given out, a multiple of 16.
        max_bad_fraction: as for `ImageFolder`.

    Attributes:
        labels: (N,) int64, 0..num_identities - 1.
        identities: the numbers of the identities in the file, by label.
        keys: the N keys of the image records.
        bad: names of the images left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file damaged in its structure; offset and record are named.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        index: str | Path | None = None,
        image_size: int = 112,
        max_bad_fraction: float = 0.0,
    ) -> None:
        super().__init__(image_size)
        self.path = Path(path)
        self.index = _index_beside(self.path) if index is None else Path(index)
        if not self.path.is_file():
            raise FileNotFoundError(f"no such RecordIO file: {self.path}")
        if index is not None and not self.index.is_file():
            raise FileNotFoundError(f"no such index: {self.index}")
        self._map: mmap.mmap | None = None
        keys, offsets = self._records()
        labels, empty = read_heads(
            self._data(), keys, offsets, name=str(self.path), whole=index is None
        )
        is_image = self._is_image(keys, offsets, empty)
        self._use(keys[is_image], offsets[is_image], labels[is_image])
        bad = find_bad(self, max_bad_fraction)
        if bad:
            self.bad = [self.name(i) for i in bad]
            good = np.delete(np.arange(len(self)), bad)
            raw = np.array(self.identities)[self.labels[good]]
            self._use(self.keys[good], self._offsets[good], raw)

    def source(self, index: int) -> bytes:
        """The encoded image as it stands in the file."""
        record = f"{printable(str(self.path))}, record {self.keys[index]}"
        payload, _ = read_record(self._data(), int(self._offsets[index]), name=record)
        return unpack_image(payload, name=self.name(index)).image

    def sizes(self) -> Int64Array:  # type: ignore[override]
        """Bytes from every image's record to the next one's, (N,): without reading any."""
        ends = np.append(np.sort(self._offsets), self.path.stat().st_size)
        sizes: Int64Array = ends[np.searchsorted(ends, self._offsets) + 1] - self._offsets
        return sizes

    def name(self, index: int) -> str:
        """File, record and offset of an image."""
        record = f"record {self.keys[index]} at offset {self._offsets[index]}"
        return f"{printable(str(self.path))}, {record}"

    def parameters(self) -> dict[str, object]:
        """What the pixels depend on, for the cache: the files with their sizes and times."""
        files = [file for file in (self.path, self.index) if file.is_file()]
        stats = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        left_out = list(self.bad)
        kind = {"kind": "recordio", "decoder": VERSION, "image_size": self.image_size}
        return kind | {"files": stats, "left_out": left_out, "images": len(self)}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}  # a map cannot be pickled; workers open their own

    def _data(self) -> mmap.mmap:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def _records(self) -> tuple[Int64Array, Int64Array]:
        """Keys and offsets of all records, ordered by key."""
        size = self.path.stat().st_size
        if size == 0:
            raise ValueError(f"{self.path} is empty: expected a RecordIO file")
        if not self.index.is_file():
            offsets = scan(self._data(), name=str(self.path))
            return np.arange(len(offsets)), offsets
        keys, offsets = read_index(self.index, size)
        order = np.argsort(keys)
        return keys[order], offsets[order]

    def _is_image(self, keys: Int64Array, offsets: Int64Array, empty: Any) -> Any:
        """Which records are images, (N,) bool: all, or those between the head and the ranges."""
        first = f"{self.path}, record {keys[0]}"
        payload, _ = read_record(self._data(), int(offsets[0]), name=first)
        counts = unpack_image(payload, name=first).labels
        if keys[0] != 0 or not empty[0] or len(counts) < 2:
            return np.ones(len(keys), bool)
        # The ranges of the identities are the last records; an empty one among the images stays in
        # and will be named as damaged.
        is_image = ~empty
        holding = np.flatnonzero(is_image)
        is_image[1 : holding[-1] + 1 if len(holding) else 1] = True
        num_images = int(is_image.sum())
        if counts[0] > np.float32(num_images + 1):
            raise ValueError(
                f"{self.path} announces {int(counts[0]) - 1} images in record 0 and holds "
                f"{num_images}: it is cut off, or its index {self.index.name} is"
            )
        if counts[0] < np.float32(num_images + 1):
            warnings.warn(
                f"{self.path} announces {int(counts[0]) - 1} images in record 0 and holds "
                f"{num_images}: all are used",
                stacklevel=3,
            )
        return is_image

    def _use(self, keys: Int64Array, offsets: Int64Array, labels: Any) -> None:
        if not len(keys):
            raise ValueError(f"{self.path} holds no image")
        wrong = np.flatnonzero(~((labels >= 0) & (labels < _EXACT) & (labels == np.floor(labels))))
        if len(wrong):
            row = wrong[0]
            raise ValueError(
                f"{self.path}, record {keys[row]} at offset {offsets[row]}: label {labels[row]} is "
                f"no whole number from 0 to {_EXACT - 1}; the record is damaged"
            )
        self.keys, self._offsets = keys, offsets
        numbers, inverse = np.unique(labels.astype(np.int64), return_inverse=True)
        self.identities: list[int] = numbers.tolist()
        self.labels = torch.from_numpy(inverse.astype(np.int64))


def _index_beside(path: Path) -> Path:
    """The index of a file: the same name with .idx, in small or capital letters."""
    index = path.with_suffix(".idx")
    if not index.is_file() and path.parent.is_dir():
        for file in path.parent.glob(f"{glob.escape(path.stem)}.*"):
            if file.suffix.lower() == ".idx":
                return file
    return index
