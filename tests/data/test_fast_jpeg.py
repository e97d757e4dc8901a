"""simplejpeg decodes what Pillow decodes, bit for bit, and leaves it what is not plain."""

import io
import random
import sys
import types
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ekd_lite.data import ImageFolder, fast_jpeg
from ekd_lite.data.decode import decode_image

simplejpeg = pytest.importorskip("simplejpeg")
RNG = np.random.default_rng(0)
ROUGH = Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8))


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def both(data, monkeypatch, **options):
    """What comes out with simplejpeg and without: pixels, or the error; and whether it was used."""
    used = fast_jpeg.fast_jpeg(data, max_pixels=10**6) is not None
    found: list[Any] = []
    for library in (simplejpeg, None):
        with monkeypatch.context() as patch:
            patch.setattr(fast_jpeg, "_library", lambda library=library: library)
            try:
                found.append(decode_image(data, name="x", **options).numpy())
            except ValueError as error:
                found.append(str(error))
    return *found, used


def check_same(data, monkeypatch, **options):
    one, other, used = both(data, monkeypatch, **options)
    assert type(one) is type(other), (one, other)
    assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other
    return used, one


def test_it_is_used_here():
    assert fast_jpeg._library() is simplejpeg


@pytest.mark.filterwarnings("ignore:.*not square")
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_equal_bit_for_bit(mode, monkeypatch):
    """Every subsampling Pillow writes, odd sizes, all qualities, plain and progressive."""
    rng = random.Random(0)  # noqa: S311
    for _ in range(60):
        width, height = rng.randint(1, 70), rng.randint(1, 70)
        options = {
            "quality": rng.randint(1, 100), "subsampling": rng.choice([0, 1, 2]),
            "progressive": rng.random() < 0.4, "restart_marker_blocks": rng.choice([0, 0, 2]),
        }  # fmt: skip
        data = jpeg(
            ROUGH.resize((width, height), Image.Resampling.BICUBIC).convert(mode), **options
        )
        assert check_same(data, monkeypatch)[0], options
        assert check_same(data, monkeypatch, image_size=48)[0]


@pytest.mark.parametrize("subsampling", ["440", "411"])
def test_subsamplings_that_pillow_does_not_write(subsampling, monkeypatch):
    for size in (16, 37):
        pixels = np.asarray(ROUGH.resize((size, size + 3)))
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), colorsubsampling=subsampling)
        assert check_same(data, monkeypatch)[0]


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


LEFT_TO_PILLOW = {
    "EXIF": jpeg(ROUGH.crop((0, 0, 30, 40)), exif=exif(6)),
    "CMYK": jpeg(ROUGH.convert("CMYK")),
    "RGB": jpeg(ROUGH, keep_rgb=True),
    "cut": jpeg(ROUGH)[:-200],
    "text": b"\xff\xd8\xffno image",
}


@pytest.mark.parametrize("kind", LEFT_TO_PILLOW)
def test_what_is_not_plain_is_left_to_pillow(kind, monkeypatch):
    used, found = check_same(LEFT_TO_PILLOW[kind], monkeypatch)
    assert not used
    if kind == "EXIF":
        assert found.shape == (3, 30, 40)  # turned
    assert isinstance(found, str) == (kind in ("cut", "text"))


def test_large_images_and_other_formats_are_left_to_pillow():
    data = jpeg(ROUGH)
    assert fast_jpeg.fast_jpeg(data, max_pixels=1599) is None
    assert fast_jpeg.fast_jpeg(data, max_pixels=1600) is not None
    file = io.BytesIO()
    ROUGH.save(file, "PNG")
    assert fast_jpeg.fast_jpeg(file.getvalue(), max_pixels=1600) is None


def test_damage_is_judged_as_by_pillow(monkeypatch):
    """Flipped, cut, inserted, dropped bytes: the same pixels, or the same error."""
    rng = random.Random(2)  # noqa: S311
    outcomes = set()
    for number in range(200):
        data = bytearray(jpeg(ROUGH, quality=80, progressive=number % 3 == 0))
        place = rng.randrange(2, len(data) if number % 2 else 600)
        match number % 4:
            case 0 | 1:
                data[place] ^= 1 << rng.randrange(8)
            case 2:
                data = data[:place] if rng.random() < 0.5 else data + data[:place]
            case 3:
                data[place : place + 1] = bytes(rng.randrange(3))
        used, found = check_same(bytes(data), monkeypatch)
        outcomes.add((used, isinstance(found, str)))
    assert outcomes == {(True, False), (False, False), (False, True)}


def test_another_library_is_not_used(monkeypatch):
    def decode(data, colours):
        pixels = simplejpeg.decode_jpeg(data, colours, fastdct=True, fastupsample=True)
        return pixels ^ (len(data) % 2 == 0)

    header = simplejpeg.decode_jpeg_header
    other = types.SimpleNamespace(decode_jpeg=decode, decode_jpeg_header=header)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "simplejpeg", other)
        with pytest.warns(UserWarning, match="simplejpeg decodes to other pixels than Pillow does"):
            assert fast_jpeg._library.__wrapped__() is None
        patch.setitem(sys.modules, "simplejpeg", None)  # as if it were not installed
        assert fast_jpeg._library.__wrapped__() is None


def test_a_set_is_the_same_with_and_without(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for number in range(6):
        ROUGH.resize((20 + 4 * number,) * 2).save(tmp_path / "a" / f"{number}.jpg", quality=90)
    faces = ImageFolder(tmp_path, image_size=32)
    fast = faces.batch(range(6)), faces.digest(), faces.parameters()
    monkeypatch.setattr(fast_jpeg, "_library", lambda: None)
    plain = faces.batch(range(6)), faces.digest(), faces.parameters()
    assert (fast[0] == plain[0]).all()
    assert fast[1:] == plain[1:]
