"""Faces from vectors are those of the set whose vectors they are."""

import pytest
import torch

from ekd_lite.data import SyntheticFaces
from ekd_lite.data.latents import NUM_LATENTS, faces_from_latents
from ekd_lite.data.renderer import identity_latents


def strangers(count, seed=0):
    return torch.randn(count, NUM_LATENTS, generator=torch.Generator().manual_seed(seed))


def test_vectors_of_a_set_give_its_faces():
    """First pictures, of the same seed; also over the border of what is rendered at a time."""
    faces = SyntheticFaces(100, 1, seed=5)
    numbers = torch.arange(100)
    latents = identity_latents(5, numbers, family_share=0.3, family_likeness=0.6)
    assert torch.equal(faces_from_latents(latents, 5), faces.batch(numbers))
    again = faces_from_latents(latents[:2], 5, nuisance_strength=0.0)
    still = SyntheticFaces(2, 1, seed=5, nuisance_strength=0.0).batch([0, 1])
    assert torch.equal(again, still)


def test_the_vector_is_the_person_and_the_seed_is_the_picture():
    people = strangers(2)
    studio = faces_from_latents(people[[0, 0, 1]], 1, nuisance_strength=0.0)
    assert torch.equal(studio[0], studio[1]) and not torch.equal(studio[0], studio[2])
    near = faces_from_latents(people[:1] + 0.01, 1, nuisance_strength=0.0)
    assert 0 < (near - studio[:1]).abs().mean() < 0.1 * (studio[0] - studio[2]).abs().mean()
    one, same, other = (faces_from_latents(people, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.dtype == torch.float32 and one.abs().max() <= 1
    assert faces_from_latents(people[:0], 0, image_size=48).shape == (0, 3, 48, 48)


def test_what_is_refused():
    people = strangers(3)
    for bad in (people[:, 1:], people[0], people.long()):
        with pytest.raises(ValueError, match=rf"expected latents \(N, {NUM_LATENTS}\)"):
            faces_from_latents(bad, 0)
    people[1, 4] = float("nan")
    with pytest.raises(ValueError, match="vector 1 of latents"):
        faces_from_latents(people, 0)
    with pytest.raises(ValueError, match="nuisance_seed must not be negative"):
        faces_from_latents(strangers(1), -1)
    for size in (16, 40, 240):
        with pytest.raises(ValueError, match="image_size must be a multiple of 16"):
            faces_from_latents(strangers(1), 0, image_size=size)
