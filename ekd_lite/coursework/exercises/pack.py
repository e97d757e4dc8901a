"""Check of chapter 3: one record of a RecordIO file."""

from __future__ import annotations

import functools
import struct
from typing import Any

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge

MAGIC = 0xCED7230A


def _padding(payload: bytes) -> bytes:
    return bytes(-len(payload) % 4)


def _record(
    *,
    header: Function = lambda label, key: struct.pack("<IfQQ", 0, label, key, 0),
    start: Function = lambda payload: struct.pack("<II", MAGIC, len(payload)),
    padding: Function = _padding,
) -> Function:
    """A record, as numbers 0 to 255, with one part changed."""

    def pack(label: float, key: int, image: bytes) -> list[int]:
        payload = header(label, key) + image
        return [*(start(payload) + payload + padding(payload))]

    return pack


def _pack(label: float, key: int, image: bytes) -> Any:
    return _record()(label, key, image)


MISTAKES = {
    "key forgotten": Mistake(
        "The key is missing: its place holds zeros. It comes after the label, as an unsigned "
        "64-bit number.",
        _record(header=lambda label, key: struct.pack("<IfQQ", 0, label, 0, 0)),
    ),
    "key and zero exchanged": Mistake(
        "The key and the zero after it are exchanged: flag, label, key, zero.",
        _record(header=lambda label, key: struct.pack("<IfQQ", 0, label, 0, key)),
    ),
    "flag and label exchanged": Mistake(
        "Flag and label are exchanged: the flag, an unsigned 0, comes first, then the label.",
        _record(header=lambda label, key: struct.pack("<fIQQ", label, 0, key, 0)),
    ),
    "label as a whole number": Mistake(
        "The label was written as a whole number. It is a float32, `f` in struct's format.",
        _record(header=lambda label, key: struct.pack("<IIQQ", 0, int(label), key, 0)),
    ),
    "key of four bytes": Mistake(
        "Key and zero have four bytes each. They are 64-bit numbers, `Q` in struct's format.",
        _record(header=lambda label, key: struct.pack("<IfII", 0, label, key % 2**32, 0)),
    ),
    "zero after the key left out": Mistake(
        "The zero after the key is missing. It is a second key, of 64 bits.",
        _record(header=lambda label, key: struct.pack("<IfQ", 0, label, key)),
    ),
    "big endian": Mistake(
        "The numbers were written with the largest byte first (`>`). They are little-endian, `<`.",
        _record(
            header=lambda label, key: struct.pack(">IfQQ", 0, label, key, 0),
            start=lambda payload: struct.pack(">II", MAGIC, len(payload)),
        ),
    ),
    "not padded": Mistake(
        "The record was not padded: add zeros until its length is a multiple of four.",
        _record(padding=lambda payload: b""),
    ),
    "four zeros where none is needed": Mistake(
        "A record whose length is a multiple of four already gets no padding: `-n % 4` bytes, "
        "not `4 - n % 4`.",
        _record(padding=lambda payload: bytes(4 - len(payload) % 4)),
    ),
    "length with the padding": Mistake(
        "The length counts the padding. It is that of the payload alone; a reader works out the "
        "padding by itself.",
        _record(
            start=lambda payload: struct.pack("<II", MAGIC, len(payload) + len(_padding(payload)))
        ),
    ),
    "length of the image": Mistake(
        "The length is that of the image alone. The payload begins with the flag, so that its 24 "
        "bytes before the image count too.",
        _record(start=lambda payload: struct.pack("<II", MAGIC, len(payload) - 24)),
    ),
    "length with magic and itself": Mistake(
        "The length counts the eight bytes of magic number and length. It is that of the payload, "
        "which begins after them.",
        _record(start=lambda payload: struct.pack("<II", MAGIC, len(payload) + 8)),
    ),
    "magic number left out": Mistake(
        "The record does not begin with the magic number 0xCED7230A.",
        _record(start=lambda payload: struct.pack("<I", len(payload))),
    ),
}


def _cases() -> list[Case]:
    return [
        Case("three bytes", (3.0, 7, b"abc")),
        Case("five bytes", (4.0, 8, b"defgh")),
        Case("four bytes, large key", (2.5, 2**40 + 3, b"\xff\xd8\x00\x01")),
        Case("no image", (0.0, 1, b"")),
    ]


PACK = Exercise("pack", _pack, _cases, MISTAKES)


def check_pack(f: Any) -> Feedback:
    """Check a function for one RecordIO image record.

    Args:
        f: f(label, key, image bytes) -> bytes: the magic number and the length of the payload, two
            uint32; the payload, which is flag 0 (uint32), label (float32), key (uint64), a zero
            (uint64) and the image; zeros up to a multiple of four. All numbers little-endian.
    """
    if not callable(f):
        return judge(PACK, f)

    @functools.wraps(f)
    def numbers(*arguments: Any) -> Any:
        result = f(*arguments)
        return [*bytes(result)] if isinstance(result, (bytes, bytearray, memoryview)) else result

    return judge(PACK, numbers)
