"""Write RecordIO files that mxnet and InsightFace's training code read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from torch import Tensor

from ekd_lite.data.decode import DecodedFaces
from ekd_lite.data.record_format import frame, pack_image
from ekd_lite.files import replacing


class RecordWriter:
    """Writes `path` and the .idx beside it; both appear when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._index = self._stack.enter_context(replacing(path.with_suffix(".idx")))
        self._file = self._stack.enter_context(replacing(path))
        self._offset = 0

    def write(self, key: int, labels: float | Sequence[float], image: bytes = b"") -> None:
        """Append one record; an empty image makes a head or the range of an identity."""
        data = frame(pack_image(labels, key, image))
        self._index.write(f"{key}\t{self._offset}\n".encode())
        self._file.write(data)
        self._offset += len(data)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def write_recordio(faces: DecodedFaces, path: Path) -> None:
    """Write a set in the flavour with a head, the encoded images byte for byte as they are.

    Args:
        faces: the set; the images of an identity need not be neighbours.
        path: the .rec file.

    Raises:
        ValueError: an image that cannot be decoded, by name; nothing is left behind.
    """
    order = faces.labels.argsort(stable=True)
    labels = faces.labels[order]
    total = len(faces)
    with RecordWriter(path) as writer:
        writer.write(0, [float(total + 1), float(total + 1 + faces.num_identities)])
        for key, (row, label) in enumerate(zip(order.tolist(), labels.tolist(), strict=True), 1):
            faces.batch([row])  # a damaged image must not become a damaged set
            source = faces.source(row)
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            writer.write(key, [float(label), 0.0], data)
        for identity, (first, last) in enumerate(_ranges(labels, faces.num_identities)):
            writer.write(total + 1 + identity, [float(first), float(last)])


def _ranges(labels: Tensor, num_identities: int) -> list[tuple[int, int]]:
    """First key and the one after the last of every identity; labels are sorted."""
    counts = labels.bincount(minlength=num_identities)
    last = counts.cumsum(0) + 1
    return list(zip((last - counts).tolist(), last.tolist(), strict=True))
