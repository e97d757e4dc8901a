"""A folder of faces, good and bad."""

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.data import ImageFolder


def write(path, colour, size=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), colour, dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "bob" / "1.png", (255, 0, 0))
    write(tmp_path / "bob" / "2.png", (0, 255, 0))
    write(tmp_path / "ann" / "x.PNG", (0, 0, 255))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("not a face")
    return tmp_path


def test_identities_in_order_and_pixels_in_range(root):
    faces = ImageFolder(root, image_size=32)
    assert faces.identities == ["ann", "bob"]
    assert faces.labels.tolist() == [0, 1, 1]
    assert len(faces) == 3
    assert faces.num_identities == 2
    image, label = faces[1]
    assert label == 1
    assert image.shape == (3, 32, 32)
    assert image.flatten(1).mean(1).tolist() == [1, -1, -1]
    assert torch.equal(faces.batch([1]), image[None])


def test_grey_and_transparent_images_become_rgb(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (32, 32), 128).save(tmp_path / "a" / "grey.png")
    Image.new("RGBA", (32, 32), (255, 255, 255, 0)).save(tmp_path / "a" / "clear.png")
    assert ImageFolder(tmp_path, image_size=32).batch([0, 1]).shape == (2, 3, 32, 32)


def test_parameters_change_when_a_file_changes(root):
    before = ImageFolder(root, image_size=32).parameters()
    write(root / "bob" / "2.png", (1, 2, 3), size=64)
    assert ImageFolder(root, image_size=32).parameters() != before


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder of faces"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="one sub-folder per identity"):
        ImageFolder(tmp_path)
    write(tmp_path / "loose.png", (0, 0, 0))
    with pytest.raises(ValueError, match="1 images lie directly in it"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("damage", ["text", "truncated", "empty"])
def test_an_image_that_is_none_is_named(root, damage):
    good = (root / "bob" / "1.png").read_bytes()
    bad = {"text": b"hello", "truncated": good[: len(good) // 2], "empty": b""}[damage]
    (root / "bob" / "1.png").write_bytes(bad)
    faces = ImageFolder(root, image_size=32)
    with pytest.raises(ValueError, match=r"cannot read .*1\.png as an image"):
        faces.batch([1])


def test_sizes_are_checked(root):
    with pytest.raises(ValueError, match="multiple of 16"):
        ImageFolder(root, image_size=33)
