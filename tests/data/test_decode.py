"""Pixels as the file says they shall be seen: upright, and 16 bits as bright as 8."""

import io
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ekd_lite.data import ImageFolder, RecordIO, convert, open_faces, read_verification_bin
from ekd_lite.data.decode import decode_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
KINDS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}}


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def turned(orientation, kind="PNG", pixels=PIXELS):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(pixels, kind, exif=exif, **KINDS[kind])


def decoded(data):
    return decode_image(data, name="x").permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_all_eight_orientations(kind):
    wide = PIXELS[:10]
    plain = decoded(encoded(wide, kind, **KINDS[kind]))
    by_hand = {
        1: plain, 2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1],
        5: plain.swapaxes(0, 1), 6: np.rot90(plain, -1), 7: plain.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(plain),
    }  # fmt: skip
    for orientation, expected in by_hand.items():
        data = turned(orientation, kind, wide)
        assert np.array_equal(decoded(data), expected), orientation
        with Image.open(io.BytesIO(data)) as image:
            pillow = ImageOps.exif_transpose(image).convert("RGB")
        assert np.array_equal(decoded(data), np.asarray(pillow))
    for nonsense in (0, 9, 65535):
        assert np.array_equal(decoded(turned(nonsense, kind, wide)), plain)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own
def test_a_damaged_exif_block_turns_nothing_and_refuses_nothing():
    good = turned(6, "JPEG")
    plain = decoded(encoded(PIXELS, "JPEG", quality=95))
    start = good.index(b"Exif\0\0") + 6
    rng = np.random.default_rng(1)
    upright = np.rot90(plain, -1)
    for _ in range(200):
        data = bytearray(good)
        for _ in range(3):
            data[start + rng.integers(26)] = rng.integers(256)
        image = decoded(bytes(data))
        assert image.shape == plain.shape
        assert np.array_equal(np.sort(image, axis=None), np.sort(upright, axis=None))


def png16(pixels, colour_type):
    """A 16-bit PNG by hand; Pillow writes only grey ones."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_sixteen_bits_a_channel_keep_their_brightness(colour_type, channels):
    deep = RNG.integers(0, 1 << 16, (8, 8, channels), dtype=np.uint16)
    colours = deep if channels > 2 else deep[..., :1].repeat(3, axis=2)
    expected = (colours[..., :3] >> 8).astype(np.uint8)
    assert np.array_equal(decoded(png16(deep, colour_type)), expected)
    same = PIXELS[..., :channels] if channels < 4 else np.dstack([PIXELS, PIXELS[..., 0]])
    shallow = decoded(png16(same.astype(np.uint16) * 257, colour_type))
    assert np.array_equal(
        shallow, same[..., :3] if channels > 2 else same[..., :1].repeat(3, axis=2)
    )


def test_folder_rec_bin_and_converted_sets_decode_alike(tmp_path):
    grey = PIXELS[..., 0].astype(np.uint16) * 257
    images = [turned(6, "JPEG"), turned(8), encoded(grey), turned(3, "WEBP")]
    for number, data in enumerate(images):
        path = tmp_path / "faces" / "ab"[number // 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    folder = ImageFolder(tmp_path / "faces", image_size=16)
    expected = folder.batch(range(4))
    for row, data in zip(expected, images, strict=True):
        assert np.array_equal(((row + 1) * 127.5).round().permute(1, 2, 0), decoded(data))
    convert(folder, tmp_path / "rec", to="rec")
    convert(folder, tmp_path / "packed")
    (tmp_path / "x.bin").write_bytes(pickle.dumps((images, [False, True])))
    pairs = read_verification_bin(tmp_path / "x.bin", image_size=16)
    assert isinstance(open_faces(tmp_path / "rec", image_size=16), RecordIO)
    for opened in (tmp_path / "rec", tmp_path / "packed"):
        assert torch.equal(open_faces(opened, image_size=16).batch(range(4)), expected)
    assert torch.equal(pairs.left.batch([0, 1]), expected[0::2])
    assert torch.equal(pairs.right.batch([0, 1]), expected[1::2])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    for path in (tmp_path / "x.jpg", Path("/dev/zero"), tmp_path):
        with pytest.raises(ValueError, match="it is no regular file"):
            decode_image(path, name=str(path))


def test_bytes_of_any_kind_are_decoded_and_other_things_named(tmp_path):
    data = encoded(PIXELS)
    want = decode_image(data, name="x")
    for same in (bytearray(data), memoryview(data)):
        assert torch.equal(decode_image(same, name="x"), want)
    for bad in (np.frombuffer(data, np.uint8), io.BytesIO(data), 3, None):
        with pytest.raises(ValueError, match="x: an image is decoded from bytes or from the path"):
            decode_image(bad, name="x")
