"""Where the records of a RecordIO file are, and what their heads say, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ekd_lite.data.record_format import (
    HEAD,
    IMAGE_HEAD,
    LENGTH_MASK,
    MAGIC,
    WHOLE,
    Buffer,
    part_head,
    read_record,
    unpack_image,
)
from ekd_lite.files import check_regular

Int64Array = np.ndarray[Any, np.dtype[np.int64]]
_CHUNK = 1 << 16  # heads looked at together


def read_index(path: Path, size: int) -> tuple[Int64Array, Int64Array]:
    """Keys and offsets of an index, (N,) each, in the order of the file.

    Args:
        path: the .idx file.
        size: of the .rec file, bytes.

    Raises:
        ValueError: not lines of key TAB offset, an offset outside the file or not a multiple of 4,
            or a key or an offset that comes twice.
    """
    check_regular(path)
    text = path.read_bytes()
    counts = np.bincount(np.frombuffer(text, np.uint8), minlength=256)
    lines = int(counts[ord("\n")]) + (text[-1:] not in (b"", b"\n"))
    allowed = sum(int(counts[byte]) for byte in b"0123456789\t\r\n")
    damaged = f"{path} is no index: expected lines of a key, a tab and an offset"
    if not text or allowed != len(text) or counts[ord("\t")] != lines:
        raise ValueError(f"{damaged}. Without the .idx file the .rec file is read from end to end")
    numbers = np.fromstring(text.decode(), np.int64, sep=" ")  # C speed: 5.8 M lines in a second
    if len(numbers) != 2 * lines:
        raise ValueError(f"{damaged}, found {len(numbers)} numbers in {lines} lines")
    keys, offsets = numbers[0::2], numbers[1::2]
    wrong = np.flatnonzero((offsets < 0) | (offsets + HEAD.size > size) | (offsets % 4 != 0))
    if len(wrong):
        raise ValueError(
            f"{path}, line {wrong[0] + 1}: offset {offsets[wrong[0]]} of record {keys[wrong[0]]} "
            f"is not in the file of {size} bytes or no multiple of 4"
        )
    for what, values in (("record", keys), ("offset", offsets)):
        ordered = np.sort(values)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(twice):
            raise ValueError(f"{path}: {what} {twice[0]} is listed more than once")
    return keys, offsets


def scan(data: Buffer, *, name: str) -> Int64Array:
    """Offsets of all records, (N,), found by walking from one to the next.

    Raises:
        ValueError: what stands between two records is none; its offset and number are named.
    """
    offsets = []
    offset = 0
    while offset < len(data):
        offsets.append(offset)
        # No payload is copied for whole records, so that this runs at the speed of the disk.
        part, length = part_head(data, offset, f"{name}, record {len(offsets) - 1}")
        if part == WHOLE:
            offset += HEAD.size + length + (-length) % 4
        else:
            _, offset = read_record(data, offset, name=f"{name}, record {len(offsets) - 1}")
    return np.array(offsets, np.int64)


def read_heads(
    data: Buffer, keys: Int64Array, offsets: Int64Array, *, name: str, whole: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """First label (N,) float64 and whether there is no image (N,) bool, of every record.

    Args:
        data: the whole file.
        keys: of the records, (N,).
        offsets: of the records, (N,).
        name: what errors call the file.
        whole: whether the records must be all there are, one after the other.

    Raises:
        ValueError: a damaged head, records that overlap, or bytes that belong to no record;
            offsets and keys are named.
    """
    ends = np.empty(len(keys), np.int64)
    labels = np.empty(len(keys))
    empty = np.empty(len(keys), bool)
    array = np.frombuffer(data, np.uint8)
    for start in range(0, len(keys), _CHUNK):
        part = slice(start, start + _CHUNK)
        heads = _gather(array, offsets[part])
        length = heads["word"].astype(np.int64) & LENGTH_MASK
        ends[part] = offsets[part] + HEAD.size + length
        flag = heads["flag"].astype(np.int64)
        labels[part] = np.where(flag == 0, heads["label"], heads["first"])
        empty[part] = length == IMAGE_HEAD.size + 4 * flag
        simple = (heads["magic"] == MAGIC) & (heads["word"] <= LENGTH_MASK)
        simple &= (ends[part] <= len(data)) & (length >= IMAGE_HEAD.size + 4 * flag)
        for row in np.flatnonzero(~simple) + start:  # records in parts, and damage
            record = f"{name}, record {keys[row]}"
            payload, ends[row] = read_record(data, int(offsets[row]), name=record)
            image = unpack_image(payload, name=f"{record} at offset {offsets[row]}")
            labels[row], empty[row] = image.labels[0], not image.image
    order = np.argsort(offsets)
    ends += -ends % 4
    following = np.append(offsets[order][1:], max(len(data), ends.max()))
    unlisted = np.flatnonzero(
        np.insert(ends[order], 0, 0) < np.append(offsets[order][0], following)
    )
    if whole and len(unlisted):
        at = np.insert(ends[order], 0, 0)[unlisted[0]]
        raise ValueError(
            f"{name}: the index beside it lists no record at offset {at}: one of the two is "
            "damaged. To read a part of the records, name its index"
        )
    over = np.flatnonzero(ends[order] > following)
    if len(over):
        one, two = order[over[0]], order[over[0] + 1]
        raise ValueError(
            f"{name}: record {keys[one]} at offset {offsets[one]} reaches into record "
            f"{keys[two]} at offset {offsets[two]}; the file is damaged"
        )
    return labels, empty


_WORDS = {"magic": "<u4", "word": "<u4", "flag": "<u4", "label": "<f4", "id": "<u8", "id2": "<u8"}
_HEADS = np.dtype([*_WORDS.items(), ("first", "<f4")])  # the first label of an array of labels


def _gather(data: np.ndarray[Any, Any], offsets: Int64Array) -> np.ndarray[Any, Any]:
    """The heads at some offsets, (n,) of `_HEADS`; beyond the end of the file they are zeros."""
    where = offsets[:, None] + np.arange(_HEADS.itemsize)
    heads = data[np.minimum(where, len(data) - 1)]
    heads[where >= len(data)] = 0
    rows: np.ndarray[Any, Any] = heads.view(_HEADS)[:, 0]
    return rows
