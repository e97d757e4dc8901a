"""The identity-balanced sampler: what a batch holds, and what it never holds."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from ekd_lite.data import IdentityBalancedSampler

LABELS = torch.arange(50).repeat_interleave(6)
GOLDEN = [[165, 84, 178, 284, 101, 98, 234, 239], [13, 43, 180, 2, 81, 82, 10, 6]]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=30, max_size=60),
    seed=st.integers(0, 10**6),
    world_size=st.sampled_from([1, 2]),
)
def test_batches_have_their_size_and_no_image_twice(sizes, seed, world_size):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    options = {"general": 8, "identities": 3, "images_per_identity": 4, "seed": seed}
    for rank in range(world_size):
        try:
            sampler = IdentityBalancedSampler(labels, **options, rank=rank, world_size=world_size)
        except ValueError:
            return
        for step in range(5):
            batch = sampler.batch(step)
            assert len(batch) == len(set(batch)) == 8 + 12
            assert all(0 <= index < len(labels) for index in batch)


def test_balanced_part_is_some_identities_with_some_images_each():
    sampler = IdentityBalancedSampler(LABELS, general=0, identities=8, images_per_identity=4)
    for step in range(20):
        people = Counter(LABELS[sampler.batch(step)].tolist())
        assert len(people) == 8
        assert set(people.values()) == {4}


def test_general_part_covers_the_set_once_an_epoch():
    sampler = IdentityBalancedSampler(LABELS, general=30, identities=0)
    seen = [index for step in range(sampler.steps_per_epoch) for index in sampler.batch(step)]
    assert sorted(seen) == list(range(300))
    assert seen[:30] != sampler.batch(sampler.steps_per_epoch)


def test_ranks_draw_different_images_and_different_people():
    ranks = [
        IdentityBalancedSampler(LABELS, general=20, identities=4, rank=rank, world_size=4)
        for rank in range(4)
    ]
    for step in range(5):
        batches = [rank.batch(step) for rank in ranks]
        general = [index for batch in batches for index in batch[:20]]
        assert len(set(general)) == 80
        people = [set(LABELS[batch[20:]].tolist()) for batch in batches]
        assert sum(len(p) for p in people) == len(set().union(*people))


def test_any_step_can_be_replayed():
    first = IdentityBalancedSampler(LABELS, num_steps=40, seed=3)
    batches = list(first)
    again = IdentityBalancedSampler(LABELS, num_steps=40, seed=3)
    again.step = 17
    assert len(again) == 23
    assert list(again) == batches[17:]
    other = IdentityBalancedSampler(LABELS, num_steps=40, seed=4)
    assert other.batch(0) != batches[0]


class Numbers(Dataset[int]):
    """What stands at every index is the index."""

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.starts_process)])
def test_serves_a_data_loader(workers):
    sampler = IdentityBalancedSampler(LABELS, num_steps=3)
    loader = DataLoader(Numbers(), batch_sampler=sampler, num_workers=workers)
    expected = [sampler.batch(step) for step in range(9)]
    for epoch in range(3):
        assert [batch.tolist() for batch in loader] == expected[3 * epoch : 3 * epoch + 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"general": 0, "identities": 0}, "not both 0"),
        ({"images_per_identity": 1}, "images_per_identity >= 2"),
        ({"rank": 1}, "rank 1 of 1"),
        ({"general": 400}, "too few"),
        ({"identities": 100}, "too few"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        IdentityBalancedSampler(LABELS, **options)


def test_one_image_each_has_no_balanced_part():
    with pytest.raises(ValueError, match=r"\(0 with two images or more\)"):
        IdentityBalancedSampler(torch.arange(500))


def test_each_pass_of_a_loop_draws_anew_and_the_first_is_what_it_always_was():
    sampler = IdentityBalancedSampler(LABELS, num_steps=5, seed=3)
    stream = [sampler.batch(step) for step in range(15)]
    assert [list(sampler) for _ in range(3)] == [stream[:5], stream[5:10], stream[10:]]
    assert len({tuple(batch) for batch in stream}) == 15
    long = IdentityBalancedSampler(LABELS, num_steps=15, seed=3)
    assert list(long) == stream  # a pass is a part of one stream, however long it is
    # A pass that was left early, or begun in the middle, is followed by a whole one.
    again = IdentityBalancedSampler(LABELS, num_steps=5, seed=3)
    again.step = 3
    assert list(again) == stream[3:5]
    next(iter(again))
    assert list(again) == stream[10:]


def test_a_pass_can_be_chosen():
    sampler = IdentityBalancedSampler(LABELS, num_steps=5, seed=3)
    first = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == first
    sampler.set_epoch(7)
    assert next(iter(sampler)) == sampler.batch(35)
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="epoch must be a whole number"):
            sampler.set_epoch(wrong)  # type: ignore[arg-type]


def test_the_order_of_batches_has_not_changed():
    """What runs of earlier versions drew; a resumed one goes on with it."""
    sampler = IdentityBalancedSampler(
        LABELS, general=4, identities=2, images_per_identity=2, seed=5
    )
    assert [sampler.batch(step) for step in (0, 90)] == GOLDEN


def test_labels_may_be_arrays_and_lists():
    expected = IdentityBalancedSampler(LABELS).batch(3)
    for labels in (LABELS.numpy(), LABELS.tolist(), LABELS.numpy().astype("int32")):
        assert IdentityBalancedSampler(labels).batch(3) == expected
    for wrong in (LABELS.float(), LABELS[None], ["ann"], 3):
        with pytest.raises(ValueError, match="labels must be"):
            IdentityBalancedSampler(wrong)
