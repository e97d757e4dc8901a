"""Verification sets: every genuine form of the pickle is read, nothing in any pickle is run."""

import contextlib
import io
import pickle
import random
import struct
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.data import cache_faces, read_verification_bin
from ekd_lite.data.safe_pickle import load_plain

COLOURS = [(255, 0, 0), (255, 0, 10), (0, 255, 0), (0, 0, 255)]


def png(colour, size=16):
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "png")
    return file.getvalue()


IMAGES = [png(colour) for colour in COLOURS]
TRUTH = [True, False]


def _python2(images, truth, protocol):
    """What Python 2 writes: its `str` is bytes, by opcodes that Python 3 never writes."""
    if protocol == 0:
        strings = [b"S" + repr(image).removeprefix("b").encode() + b"\n" for image in images]
        flags = [b"I01\n" if flag else b"I00\n" for flag in truth]
        items = b"".join(item + b"a" for item in strings), b"".join(item + b"a" for item in flags)
        return b"((lp0\n" + items[0] + b"(lp1\n" + items[1] + b"tp2\n."
    strings = b"".join(b"T" + struct.pack("<i", len(image)) + image for image in images)
    flags = b"".join(b"\x88" if flag else b"\x89" for flag in truth)
    return b"\x80\x02]q\x00(" + strings + b"e]q\x01(" + flags + b"e\x86q\x02."


def genuine():
    forms = {}
    for protocol in range(6):
        for name, content in {
            "tuple": (IMAGES, TRUTH),
            "list": [IMAGES, TRUTH],
            "uint8 arrays": ([np.frombuffer(i, np.uint8) for i in IMAGES], TRUTH),
            "array of flags": (IMAGES, np.array(TRUTH)),
            "flags of numpy": (IMAGES, list(np.array(TRUTH))),
            "array of objects": (np.array(IMAGES, dtype=object), np.array(TRUTH)),
            "bytearrays": ([bytearray(i) for i in IMAGES], TRUTH),
            "integers": (IMAGES, [1, 0]),
            "floats": (IMAGES, [1.0, 0.0]),
            "array of floats": (IMAGES, np.array([1.0, 0.0])),
            "float32": (IMAGES, np.array([1, 0], np.float32)),
            "column of flags": (IMAGES, np.array([[1], [0]])),
            "floats of numpy": (IMAGES, list(np.array([1.0, 0.0]))),
            "columns, as cv2.imencode gives": (
                [np.frombuffer(i, np.uint8)[:, None] for i in IMAGES],
                TRUTH,
            ),
            "rows": ([np.frombuffer(i, np.uint8)[None] for i in IMAGES], TRUTH),
        }.items():
            forms[f"{name}, protocol {protocol}"] = pickle.dumps(content, protocol)
    forms["python 2, protocol 0"] = _python2(IMAGES, TRUTH, 0)
    forms["python 2, protocol 2"] = _python2(IMAGES, TRUTH, 2)
    old = pickle.dumps((IMAGES, np.array(TRUTH)), 2).replace(b"numpy._core", b"numpy.core")
    forms["numpy 1"] = old
    return forms


@pytest.mark.parametrize("form", genuine())
def test_every_genuine_form(form, tmp_path):
    (tmp_path / "lfw.bin").write_bytes(genuine()[form])
    pairs: Any = read_verification_bin(tmp_path / "lfw.bin", image_size=16)
    assert len(pairs) == len(pairs.left) == len(pairs.right) == 2
    assert pairs.is_genuine.tolist() == TRUTH
    assert [pairs.left.source(i) for i in range(2)] == IMAGES[0::2]
    assert [pairs.right.source(i) for i in range(2)] == IMAGES[1::2]
    left, right = ((side.batch([0, 1]) + 1) * 127.5 for side in (pairs.left, pairs.right))
    assert left[:, :, 3, 3].round().tolist() == [list(c) for c in COLOURS[0::2]]
    assert right[:, :, 3, 3].round().tolist() == [list(c) for c in COLOURS[1::2]]
    assert ((pairs.left.labels == pairs.right.labels) == pairs.is_genuine).all()


def test_python_2_forms_are_what_pickle_reads_too():
    for protocol in (0, 2):
        read = pickle.loads(_python2(IMAGES, TRUTH, protocol), encoding="bytes")  # noqa: S301
        assert list(read) == [IMAGES, TRUTH]


def test_sides_are_face_sets(tmp_path):
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps((IMAGES, TRUTH)))
    pairs: Any = read_verification_bin(tmp_path / "lfw.bin", image_size=16)
    cached = cache_faces(pairs.left, tmp_path / "cache", workers=1)
    assert torch.equal(cached.batch([0, 1]), pairs.left.batch([0, 1]))
    assert pairs.left.parameters() != pairs.right.parameters()
    assert pairs.left[1][1] == 1
    bad = ([*IMAGES[:3], b"no image"], TRUTH)
    (tmp_path / "bad.bin").write_bytes(pickle.dumps(bad))
    with pytest.raises(ValueError, match=r"cannot read .*bad.bin, image 3 as an image"):
        read_verification_bin(tmp_path / "bad.bin").right.batch([1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((IMAGES, [True]), "4 images for 1 booleans"),
        ((IMAGES[:3], TRUTH), "3 images for 2 booleans"),
        (([], []), "0 images for 0 booleans"),
        ((IMAGES, [True, 7]), "Entry 1 of the booleans is 7"),
        ((IMAGES, [True, None]), "Entry 1 of the booleans is None"),
        (([1, 2, 3, 4], TRUTH), "Image 0 is of type int, expected bytes"),
        ((IMAGES, TRUTH, 1), "does not hold two lists"),
        ("text", "does not hold two lists"),
        ({1: 2}, "opcode EMPTY_DICT at offset"),
        ({1, 2}, "opcode EMPTY_SET"),
        ((IMAGES, np.array([0.0, 1.0], complex)), "arrays of 'c16' are not expected"),
        ((IMAGES, np.array([0.5, 1.0])), "Entry 0 of the booleans is 0.5"),
        ((IMAGES, np.array([np.nan, 1.0])), "Entry 0 of the booleans is nan"),
        ((IMAGES, np.ones((1, 2, 1))), "arrays of 3 dimensions are not expected"),
        (([np.ones((4, 4), np.uint8)] * 4, TRUTH), "arrays of 2 dimensions are not expected"),
    ],
)
def test_what_is_no_verification_set(content, message, tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps(content, 4))
    with pytest.raises(ValueError, match=rf"x\.bin is no verification set.*{message}"):
        read_verification_bin(path)


def test_missing_empty_and_large_files(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such verification set"):
        read_verification_bin(tmp_path / "x.bin")
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="is no verification set"):
        read_verification_bin(tmp_path / "x.bin")
    monkeypatch.setattr("ekd_lite.data.verification.MAX_BYTES", 10)
    (tmp_path / "x.bin").write_bytes(bytes(11))
    with pytest.raises(ValueError, match="has 11 bytes, more than 10"):
        read_verification_bin(tmp_path / "x.bin")


# What hostile pickles call. Each would leave its mark in EXECUTED, or stop this process.
EXECUTED = []


def mark(*_):
    EXECUTED.append(1)


class Calls:
    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


def hostile(rng):
    """One hostile pickle: a call hidden somewhere in a set that is genuine otherwise."""
    code = f"import {__name__}; {__name__}.mark()"
    bombs = [
        Calls(mark), Calls(exec, code), Calls(eval, f"exec({code!r})"),
        Calls(map, mark, [1]),
        Calls(bytearray, 1 << 45), Calls(np.ndarray, (1 << 45,)), Calls(__import__, "antigravity"),
        Calls(np.load, "x"), Calls(open, "hostile.txt", "w"), Calls(sys.exit, 3),
    ]  # fmt: skip
    images: list = list(IMAGES)
    truth: list = list(TRUTH)
    bomb = images[rng.randrange(4)] = rng.choice(bombs)
    content = rng.choice([(images, truth), [truth, images], (images, Calls(mark)), bomb])
    data = bytearray(pickle.dumps(content, rng.randrange(6)))
    kind = rng.randrange(4)
    if kind == 0:  # a huge number where a memo number is
        data[-1:-1] = b"r" + struct.pack("<I", 0xFFFFFFFF)
    elif kind == 1:  # a string longer than the file
        data[-1:-1] = b"\x8e" + struct.pack("<Q", 1 << rng.randrange(30, 63))
    elif kind == 2:  # state set upon what find_class gave
        data = bytearray(b"c_codecs\nencode\n(I1\nI2\ntb.") + data
    return bytes(data)


def test_none_of_a_thousand_hostile_files_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)  # noqa: S311
    refused = 0
    for _ in range(1000):
        data = hostile(rng)
        with pytest.raises(ValueError, match=r"Error: |not expected|not allowed"):
            load_plain(data)
        refused += 1
    assert refused == 1000
    assert not EXECUTED
    assert list(tmp_path.iterdir()) == []
    assert "antigravity" not in sys.modules


def test_the_hostile_files_would_be_executed_by_pickle():
    """The test above can fail: plain pickle runs such a file."""
    pickle.loads(pickle.dumps((IMAGES, Calls(mark))))  # noqa: S301
    assert EXECUTED.pop()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "asks for os.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "asks for builtins.eval"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "asks for posix.system"),
        (b"(S'x'\nios\nsystem\n.", "opcode INST"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"Pid\n.", "opcode PERSID"),
        (b"Nr\xff\xff\xff\xff.", "memo number 4294967295"),
        (b"c_codecs\nencode\n.", "_Call is not expected"),
        (b"c_codecs\nencode\n}S'__call__'\nNsb.", "opcode EMPTY_DICT"),
        (b"c_codecs\nencode\n(NNtb.", "slot state"),
        (b"c_codecs\nencode\n(Vx\nS'zlib'\ntR.", "expected bytes"),
        (b"cbuiltins\nbytearray\n(L99999999999999L\ntR.", "expected bytes"),
        (b"(" * 100_000 + b"t" * 100_000 + b".", "nested deeper|Error"),
        *(
            (
                b"cnumpy.core.multiarray\n_reconstruct\n)R(I1\n"
                + side
                + b"tcnumpy\ndtype\n(S"
                + code
                + b"\ntRI00\n"
                + content
                + b"tb.",
                "an array of no possible shape",
            )
            for side in (b"(I-1\n", b"(I1\nI-1\n", b"(F2.0\n", b"(N")
            for code, content in ((b"'u1'", b"S'ab'\n"), (b"'O8'", b"(NNl"))
        ),
    ],
)
def test_single_attacks(data, message):
    with pytest.raises(ValueError, match=message):
        load_plain(data)


def nested(width, depth, item=b"a"):
    """A list whose items are one list each time: width ** depth items in some hundred bytes."""
    for _ in range(depth):
        item = [item] * width
    return item


def repeated(opcodes, times):
    """A list of what some opcodes make, which call for what was memoised as 0 and 1."""
    text = "a" * 1000
    start = b"\x80\x02c_codecs\nencode\nq\x00X" + struct.pack("<I", 1000) + text.encode() + b"q\x01"
    return start + b"(" + opcodes * times + b"l."


HUNGRY = {
    "shared lists": pickle.dumps(nested(250, 4)),
    "shared lists as flags": pickle.dumps(([b"x"] * 400, nested(200, 3))),
    "shared lists as images": pickle.dumps((nested(200, 3, [b"x" * 500]), [True] * 100)),
    "shared tuples": pickle.dumps(([tuple(nested(100, 3))] * 100, [1] * 50)),
    "one text encoded again and again": repeated(b"h\x00h\x01\x85R", 20_000),
    "one array copied again and again": pickle.dumps(
        ([np.zeros(1_000_000, np.uint8)] * 10_000, [True] * 5_000), 4
    ),
    "one bytearray copied again and again": pickle.dumps(
        ([bytearray(1_000_000)] * 10_000, [True] * 5_000), 5
    ),
}


@pytest.mark.parametrize("kind", HUNGRY)
def test_time_and_memory_are_those_of_the_file(kind, tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(HUNGRY[kind])
    size = path.stat().st_size
    tracemalloc.start()
    try:
        start = time.process_time()
        with contextlib.suppress(ValueError):
            read_verification_bin(path, image_size=16)
        seconds = time.process_time() - start
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 0.5 + 20 * size / 1e6
    assert peak < 1e6 + 60 * size


def test_what_grows_beyond_its_size_is_refused():
    with pytest.raises(ValueError, match="grows to many times its size"):
        load_plain(HUNGRY["one text encoded again and again"])
    for value in (nested(250, 4), nested(250, 5)):
        try:
            read = load_plain(pickle.dumps(value))
        except ValueError as error:
            assert "nested deeper" in str(error)  # noqa: PT017
        else:
            assert len(read) == 250
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested deeper"):
        load_plain(pickle.dumps(loop))
