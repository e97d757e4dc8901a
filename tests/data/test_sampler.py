"""The identity-balanced sampler: what a batch holds, and what it never holds."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from ekd_lite.data import IdentityBalancedSampler
from ekd_lite.data import sampler as module
from ekd_lite.data.sampler import shuffled

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


@pytest.mark.parametrize("count", [1, 2, 63, 64, 200])
def test_the_lazy_shuffle_is_one(count):
    """Beside the shuffle that writes everything down, with the same draws."""
    wanted = list(range(count))
    found = list(shuffled(count, np.random.default_rng(3)))
    assert sorted(found) == wanted
    generator, jumps = np.random.default_rng(3), []
    for start in range(0, count, 64):
        jumps += generator.integers(count - np.arange(start, min(start + 64, count))).tolist()
    for place, jump in enumerate(jumps):
        wanted[place], wanted[place + jump] = wanted[place + jump], wanted[place]
    assert found == wanted


def test_every_order_of_the_lazy_shuffle_comes_as_often():
    generator, counts = np.random.default_rng(0), {}
    for _ in range(2400):
        order = tuple(shuffled(4, generator))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 50  # chi^2, 23 degrees: p < 1e-3


def test_large_sets_have_the_same_properties(monkeypatch):
    """The draw for many identities, of a set in which every image can be looked up."""
    monkeypatch.setattr(module, "MANY", 1)
    options = {"general": 8, "identities": 5, "images_per_identity": 3, "seed": 4}
    ranks = [
        IdentityBalancedSampler(LABELS, rank=rank, world_size=2, **options) for rank in range(2)
    ]
    seen = set()
    for step in range(40):
        people = []
        for sampler in ranks:
            batch = sampler.batch(step)
            assert len(batch) == len(set(batch)) == 23
            who = LABELS[batch[8:]].tolist()
            counts = [who.count(person) for person in dict.fromkeys(who)]
            assert min(counts[:-1]) >= 2
            people += dict.fromkeys(who)
            assert sampler.batch(step) == batch
        assert len(people) == len(set(people))  # the ranks share none
        seen |= set(people)
    assert len(seen) > 0.9 * len(LABELS.unique())
    monkeypatch.undo()
    assert IdentityBalancedSampler(LABELS, **options).batch(0) != ranks[0].batch(0)


def test_the_cost_does_not_grow_with_the_set():
    """By counting what is looked at: images of a few people, not millions of people."""
    labels = torch.arange(200_000) // 2
    sampler = IdentityBalancedSampler(labels, general=0, identities=8, images_per_identity=2)
    with count_operations() as found:
        sampler.batch(3)
    assert found.largest <= 2  # elements of the largest tensor that was made


class count_operations(TorchDispatchMode):
    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.largest = max(self.largest, out.numel())
        return out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"general": "a"}, "expected general >= 0"),
        ({"identities": 2.5}, "expected general >= 0"),
        ({"seed": -1}, "seed >= 0"),
        ({"num_steps": -1}, "num_steps >= 0"),
    ],
)
def test_options_that_no_sampler_can_have(options, message):
    with pytest.raises(ValueError, match=message):
        IdentityBalancedSampler(torch.arange(64) // 4, **{"general": 4, "identities": 2} | options)
