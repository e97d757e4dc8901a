"""Changed images: still images, the same people, the same draws from the same generator."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ekd_lite.data import SyntheticFaces
from ekd_lite.data import augment as module
from ekd_lite.data.augment import SHIFT, augment, coarser, compressed, shifted


def faces(count=8, side=32):
    return SyntheticFaces(count, 2, image_size=side).batch(range(count))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 32, 48]), st.integers(0, 5))
def test_images_stay_images_and_the_given_ones_stay_as_they_are(seed, side, count):
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = images.clone()
    changed = augment(images, np.random.default_rng(seed))
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert not count or float(changed.abs().max()) <= 1
    assert torch.equal(images, before)


def test_the_generator_decides_all():
    images = faces()
    first, again, other = (augment(images, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_image_is_changed_alike_whatever_the_others_are():
    images = faces()
    alone = augment(torch.cat([images[:1], images[1:].flip(0)]), np.random.default_rng(0))
    assert torch.equal(alone[0], augment(images, np.random.default_rng(0))[0])


def test_shift_against_a_loop_over_pixels():
    images, by = faces(3), np.array([[1.0, -1.0], [0.0, 0.4], [-1.0, 1.0]])
    reach = round(SHIFT * 32)
    moved = shifted(images, by)
    for image, result, (down, right) in zip(images, moved, np.rint(by * reach), strict=True):
        for y in range(32):
            for x in range(32):
                source = [int(np.clip(k, 0, 31)) for k in (y + down, x + right)]
                assert torch.equal(result[:, y, x], image[:, source[0], source[1]])


def test_a_coarse_image_keeps_its_mean_and_loses_its_edges():
    image = faces(1, 64)[0]
    small = coarser(image, 0.34)
    rough = [float(x.diff(dim=2).abs().mean()) for x in (image, small)]
    assert abs(float(small.mean() - image.mean())) < 0.01 and rough[1] < 0.7 * rough[0]
    assert torch.allclose(coarser(image, 1.0), image, atol=1e-6)


def test_compression_is_that_of_pillow():
    image = faces(1, 64)[0]
    pixels = ((image.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40)
    with Image.open(file) as again:
        expected = torch.from_numpy(np.array(again)).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.equal(compressed(image, 40), expected)
    gaps = [float((compressed(image, q) - image).abs().mean()) for q in (30, 60, 90)]
    assert gaps[0] > gaps[1] > gaps[2]


def only(monkeypatch, kind):
    """`augment` with one kind of change, on two thousand copies of a face."""
    for name in {"SHIFT", "GAIN", "OFFSET", "COARSE", "JPEG"} - {kind}:
        monkeypatch.setattr(module, name, 0)
    image = faces(1)[0]
    return image, augment(image.expand(2000, -1, -1, -1).clone(), np.random.default_rng(0))


def test_all_shifts_occur_alike(monkeypatch):
    image, changed = only(monkeypatch, "SHIFT")
    reach = round(SHIFT * 32)
    steps = [k / reach for k in range(-reach, reach + 1)]
    counts = [
        int((changed == shifted(image[None], np.array([[y, x]]))).all(dim=(1, 2, 3)).sum())
        for y in steps
        for x in steps
    ]
    assert sum(counts) == 2000 and min(counts) > 50  # the outermost are half as frequent


def test_contrast_and_light_go_to_both_ends(monkeypatch):
    image, changed = only(monkeypatch, "GAIN")
    inside = image.abs() < 0.7
    gain = (changed / image)[:, inside & (image.abs() > 0.2)].mean(dim=1)
    assert 0.75 <= gain.min() < 0.76 and 1.24 < gain.max() <= 1.2501
    monkeypatch.undo()
    image, changed = only(monkeypatch, "OFFSET")
    offset = (changed - image)[:, inside].mean(dim=1)
    assert -0.1501 < offset.min() < -0.145 and 0.145 < offset.max() < 0.1501


@pytest.mark.parametrize("kind", ["COARSE", "JPEG"])
def test_a_quarter_is_coarser_and_a_quarter_compressed_each_by_its_own_measure(monkeypatch, kind):
    image, changed = only(monkeypatch, kind)
    is_changed = (changed != image).flatten(1).any(dim=1)
    assert 0.21 < float(is_changed.float().mean()) < 0.29
    gap = (changed[is_changed] - image).abs().flatten(1).mean(dim=1)
    assert gap.max() > 1.5 * gap.min() and len(gap.unique()) > 15
