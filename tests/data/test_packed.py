"""Faces as bytes in one array: what it takes, and how a process that is started gets it."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
import torch

from ekd_lite.data.packed import PackedFaces


def test_bad_arrays_and_indices():
    good = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match="images must be uint8 of shape"):
        PackedFaces(good.float(), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="images must be uint8 of shape"):
        PackedFaces(good[:, :1], torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels must be int64 of shape"):
        PackedFaces(good, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels must be int64 of shape"):
        PackedFaces(good, torch.zeros(2))
    with pytest.raises(ValueError, match="labels must be a tensor, an array or a list of numbers"):
        PackedFaces(good, ["ann", "bob"])
    with pytest.raises(ValueError, match="images must be"):
        PackedFaces("faces.npy", [0, 1])  # type: ignore[arg-type]
    for labels in ([0, 1], np.array([0, 1], np.int32), np.array([0, 1], ">i8"), (0, 1)):
        assert PackedFaces(good.numpy(), labels).labels.tolist() == [0, 1]
    cached = PackedFaces(good, torch.tensor([0, 1]))
    wrong: Any
    for wrong in (2, -3, 0.5):
        with pytest.raises(IndexError, match="index"):
            cached[wrong]
    with pytest.raises(IndexError, match="out of range"):
        cached.batch([0, 2])
    assert cached.batch([]).shape == (0, 3, 32, 32)
    for wrong in ("ab", None, {0, 1}, [None], [0.0], [True], [[0]], [2**70]):
        with pytest.raises(IndexError, match="ind"):
            cached.batch(wrong)
    right: Any
    for right in (
        np.array([1, 0], np.uint16),
        np.array([1, 0], ">i8"),
        (1, 0),
        [torch.tensor(1), 0],
    ):
        assert torch.equal(cached.batch(right), cached.batch([1, 0]))


def test_a_set_may_be_empty():
    for images in (np.zeros((0, 3, 16, 16), np.uint8), torch.zeros(0, 3, 16, 16).byte()):
        faces = PackedFaces(images, [])
        assert (len(faces), faces.image_size, faces.num_identities) == (0, 16, 0)
        assert faces.batch([]).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_spawned_process_maps_the_file_itself(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 3, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    whole = np.load(tmp_path / "x.npy", mmap_mode=mode)
    for images, rows in ((whole, slice(None)), (whole[2:7], slice(2, 7))):  # with its own offset
        faces = PackedFaces(images, np.arange(len(images)))
        for again in (
            pickle.loads(pickle.dumps(faces)),  # noqa: S301
            pickle.loads(ForkingPickler.dumps(faces)),  # noqa: S301
        ):
            assert len(pickle.dumps(faces)) < 3000
            assert torch.equal(again.batch(range(len(images))), faces.batch(range(len(images))))
            assert torch.equal(again.labels, faces.labels)
            expected = torch.from_numpy(pixels[rows]).float() / 127.5 - 1
            assert torch.equal(again.batch(range(len(images))), expected)
    gaps = PackedFaces(whole[::2], np.arange(5))  # no place in the file: goes with its pixels
    again = pickle.loads(pickle.dumps(gaps))  # noqa: S301
    assert torch.equal(again.batch(range(5)), torch.from_numpy(pixels[::2]).float() / 127.5 - 1)
    sent = pickle.dumps(PackedFaces(whole, np.arange(9)))
    (tmp_path / "x.npy").unlink()
    with pytest.raises(ValueError, match=r"x\.npy was changed or removed after"):
        pickle.loads(sent)  # noqa: S301
