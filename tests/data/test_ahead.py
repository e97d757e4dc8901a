"""Bytes are what floats are made of, and a set that reads otherwise is read by itself."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.data import ImageFolder, PackedFaces
from ekd_lite.data.ahead import as_floats, read_ahead, read_bytes, reads_ahead
from tests.fakes import ColourFaces

ROWS = [3, 0, 3]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for person in range(2):
        (tmp_path / str(person)).mkdir()
        for number, kind in enumerate(("png", "jpg")):
            pixels = rng.integers(0, 256, (24 + 8 * number, 32, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).resize((32, 32)).save(file, {"jpg": "JPEG", "png": "PNG"}[kind])
            (tmp_path / str(person) / f"{number}.{kind}").write_bytes(file.getvalue())
    return ImageFolder(tmp_path, image_size=32)


def packed():
    pixels = torch.arange(4 * 3 * 16 * 16).view(4, 3, 16, 16) % 251
    return PackedFaces(pixels.to(torch.uint8), torch.arange(4))


def test_bytes_become_the_floats_that_a_set_gives(folder):
    for faces in (folder, packed()):
        images = read_bytes(faces, ROWS)
        assert images.dtype == torch.uint8
        floats = as_floats(images)
        assert torch.equal(floats, faces.batch(ROWS)) and floats.is_contiguous()
        assert torch.equal(floats, images.float() / 127.5 - 1)
    assert torch.equal(as_floats(floats), floats)


def test_a_set_without_bytes_gives_its_floats():
    faces = ColourFaces()
    assert torch.equal(read_bytes(faces, ROWS), faces.batch(ROWS))


def test_a_class_of_your_own_is_read_by_its_own_batch(folder):
    """What it is made from would give bytes that know nothing of the change."""

    class Darker(ImageFolder):
        def batch(self, indices):
            return super().batch(indices) * 0.5

    darker = Darker(folder.root, image_size=32)
    assert torch.equal(read_bytes(darker, ROWS), folder.batch(ROWS) * 0.5)
    assert reads_ahead(folder) and not reads_ahead(darker)
    changed = ImageFolder(folder.root, image_size=32)
    changed.batch = lambda indices: folder.batch(indices) * 0.5
    assert torch.equal(read_bytes(changed, ROWS), folder.batch(ROWS) * 0.5)
    assert not reads_ahead(changed)


def test_items_come_in_order_and_end(folder):
    for faces in (folder, packed()):
        assert list(read_ahead(range(5), faces)) == [0, 1, 2, 3, 4]
        assert list(read_ahead([], faces)) == []
