"""A folder of faces, good and bad."""

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.data import ImageFolder, decode


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


@pytest.mark.parametrize("together", [1, 3, 32])
def test_a_batch_is_what_pillow_decodes_whatever_the_mode(tmp_path, monkeypatch, together):
    monkeypatch.setattr(decode, "TOGETHER", together)
    rng = np.random.default_rng(0)
    kinds = ["RGB.jpg", "L.jpg", "CMYK.jpg", "RGB.png", "RGBA.png", "P.png", "1.png", "I;16.png"]
    (tmp_path / "a").mkdir()
    for name in [*kinds, "RGB.webp", "RGBA.webp", "RGB.bmp", "L.bmp"]:
        noise = rng.integers(0, 256, (32, 32, 4), dtype=np.uint8)
        image = Image.fromarray(noise)
        mode, _, kind = name.rpartition(".")
        if mode == "I;16":
            image = Image.fromarray(noise[..., :2].copy().view(np.uint16)[..., 0])
        elif image.mode != mode:
            image = image.convert("RGB").convert(mode)
        image.save(tmp_path / "a" / f"{mode[0]}{len(mode)}.{kind}")
    faces = ImageFolder(tmp_path, image_size=32)
    order = rng.permutation(np.repeat(np.arange(len(faces)), 2))
    expected = []
    for i in order:
        with Image.open(faces.files[i]) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        expected.append(pixels.permute(2, 0, 1).float() / 127.5 - 1)
    batch = faces.batch(order.tolist())
    assert batch.is_contiguous()
    assert torch.equal(batch, torch.stack(expected))


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
