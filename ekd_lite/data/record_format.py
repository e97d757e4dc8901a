"""The bytes of one record of a RecordIO file (.rec), read with every length checked.

Layout, as dmlc's recordio writes it (little endian, records start at multiples of 4):

    uint32 magic 0xced7230a | uint32 part << 29 | length | payload | zeros to a multiple of 4

`part` is 0 for a whole record. A payload that holds the magic number at a multiple of 4 is cut
there, and the magic left out: parts 1 (first), 2 (middle) and 3 (last) are joined by it again.

A payload of an image record: uint32 flag | float32 label | uint64 id | uint64 id2, then, if flag
is not 0, that many float32 labels in place of the one, then the encoded image.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
HEAD = struct.Struct("<II")
IMAGE_HEAD = struct.Struct("<IfQQ")
LENGTH_MASK = (1 << 29) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)

Buffer = Any  # a memory map or bytes: what struct.unpack_from and slices work on


class ImageRecord(NamedTuple):
    """A payload taken apart; `labels` float32 (L,), L >= 1."""

    labels: np.ndarray[Any, Any]
    image: bytes


def read_record(data: Buffer, offset: int, *, name: str) -> tuple[bytes, int]:
    """The payload of the record at an offset, and the offset behind it.

    Args:
        data: the whole file.
        offset: where the record starts.
        name: what errors call the record.

    Raises:
        ValueError: no record there, or it reaches beyond the end of the file.
    """
    parts: list[bytes] = []
    start, expected = offset, (WHOLE, FIRST)
    while True:
        part, length = part_head(data, start, name)
        if part not in expected:
            raise ValueError(
                f"{name} at offset {offset}: part of kind {part} at offset {start}, expected kind "
                f"{' or '.join(map(str, expected))}; the file is damaged"
            )
        begin = start + HEAD.size
        parts.append(data[begin : begin + length])
        start = begin + length + (-length) % 4
        if part in (WHOLE, LAST):
            return (parts[0] if part == WHOLE else MAGIC_BYTES.join(parts)), start
        expected = (MIDDLE, LAST)


def part_head(data: Buffer, start: int, name: str) -> tuple[int, int]:
    """Kind of the part that starts at an offset, and its length, which lies within the file."""
    if start + HEAD.size > len(data):
        raise ValueError(
            f"{name} starts at offset {start}, beyond or at the end of the file ({len(data)} "
            "bytes): it is cut off, or its index belongs to another file"
        )
    magic, word = HEAD.unpack_from(data, start)
    if magic != MAGIC:
        raise ValueError(
            f"{name} at offset {start}: magic number {magic:#010x} instead of {MAGIC:#010x}; the "
            "file is damaged or no RecordIO file, or its index belongs to another one"
        )
    length = word & LENGTH_MASK
    end = start + HEAD.size + length
    if end > len(data):
        raise ValueError(
            f"{name} at offset {start} is {length} bytes long, but the file ends after "
            f"{len(data) - start - HEAD.size}: it is cut off or damaged"
        )
    return word >> 29, length


def unpack_image(payload: bytes, *, name: str) -> ImageRecord:
    """Take the payload of an image record apart.

    Raises:
        ValueError: it is too short for its header or for the labels it announces.
    """
    if len(payload) < IMAGE_HEAD.size:
        raise ValueError(f"{name} has {len(payload)} bytes, fewer than its header of 24: damaged")
    flag, label, _, _ = IMAGE_HEAD.unpack_from(payload)
    if flag == 0:
        return ImageRecord(np.array([label], np.float32), payload[IMAGE_HEAD.size :])
    start = IMAGE_HEAD.size + 4 * flag
    if len(payload) < start:
        raise ValueError(
            f"{name} announces {flag} labels, which its {len(payload)} bytes cannot hold: damaged"
        )
    labels = np.frombuffer(payload, "<f4", flag, IMAGE_HEAD.size)
    return ImageRecord(labels.astype(np.float32), payload[start:])


def pack_image(labels: float | Sequence[float], key: int, image: bytes) -> bytes:
    """The payload of an image record: one label in the header, or several behind it."""
    several = np.asarray(labels, "<f4")
    if several.ndim:
        return IMAGE_HEAD.pack(several.size, 0.0, key, 0) + several.tobytes() + image
    return IMAGE_HEAD.pack(0, labels, key, 0) + image


def frame(payload: bytes) -> bytes:
    """A payload as it stands in the file: cut where it holds the magic, with heads and padding."""
    cuts = []
    position = payload.find(MAGIC_BYTES)
    while position >= 0:
        if position % 4 == 0:
            cuts.append(position)
        position = payload.find(MAGIC_BYTES, position + (4 if position % 4 == 0 else 1))
    starts = [0, *(cut + 4 for cut in cuts)]
    pieces = [payload[a:b] for a, b in zip(starts, [*cuts, len(payload)], strict=True)]
    framed = []
    for number, piece in enumerate(pieces):
        if len(piece) > LENGTH_MASK:
            raise ValueError(f"a record holds less than {LENGTH_MASK + 1} bytes, got {len(piece)}")
        last = number == len(pieces) - 1
        part = (WHOLE if last else FIRST) if number == 0 else (LAST if last else MIDDLE)
        framed += [HEAD.pack(MAGIC, part << 29 | len(piece)), piece, bytes(-len(piece) % 4)]
    return b"".join(framed)
