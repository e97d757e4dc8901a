"""Batches without labels: what stands in them, and that any of them can be had again."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ekd_lite.data import NeighbourSampler, neighbours
from ekd_lite.ops import unit_rows
from tests.data.test_sampler import Numbers

LABELS = torch.arange(60).repeat_interleave(6)
NOISE = torch.randn(360, 16, generator=torch.Generator().manual_seed(0))
CENTRES = torch.randn(60, 16, generator=torch.Generator().manual_seed(1))
ROWS = CENTRES[LABELS] * 3 + NOISE
COSINES = unit_rows(ROWS) @ unit_rows(ROWS).T


def make(**options):
    return NeighbourSampler(ROWS, 0.75, **{"general": 8, "anchors": 3, **options})


def with_one(number):
    """The rows, one number replaced."""
    rows = ROWS.clone()
    rows[7, 3] = number
    return rows


def test_partners_are_rows_that_the_teacher_accepts():
    sampler, wrong = NeighbourSampler(ROWS, 0.6, general=8, anchors=3), 0
    for step in range(40):
        batch = sampler.batch(step)
        assert len(batch) == len(set(batch)) == 8 + 12
        for anchor, *partners in torch.tensor(batch[8:]).view(3, 4).tolist():
            assert (COSINES[anchor, partners] >= 0.6).all()
            wrong += sum(bool(LABELS[anchor] != LABELS[i]) for i in partners)
    assert 0 < wrong < 60  # of 360: some that it accepts are others


def test_partners_are_drawn_from_all_that_are_accepted_not_the_nearest():
    rows = torch.cat([torch.eye(4), torch.eye(4) + 0.01, torch.eye(4) + 0.02, torch.eye(4) + 0.03])
    sampler = NeighbourSampler(rows, 0.9, general=0, anchors=1, images_per_anchor=2)
    pairs = {tuple(sampler.batch(step)) for step in range(600)}
    assert pairs == {(i, j) for i in range(16) for j in range(16) if i != j and i % 4 == j % 4}


def test_what_is_found_does_not_depend_on_the_blocks(monkeypatch):
    expected = [make(seed=3).batch(step) for step in range(30)]
    monkeypatch.setattr(neighbours, "ANCHORS", 7)
    monkeypatch.setattr(neighbours, "CHUNK", 50)
    assert [make(seed=3).batch(step) for step in range(30)] == expected


def test_any_step_can_be_replayed_and_seeds_differ():
    batches = list(make(num_steps=40, seed=3))
    again = make(num_steps=40, seed=3)
    again.step = 17
    assert list(again) == batches[17:]
    assert make(seed=4).batch(0) != batches[0]


def test_the_general_part_is_that_of_the_labelled_sampler():
    sampler = make(general=30)
    seen = [i for step in range(sampler.steps_per_epoch) for i in sampler.batch(step)[:30]]
    assert sorted(seen) == list(range(360))


def test_ranks_draw_different_images_and_anchors():
    ranks = [make(rank=rank, world_size=4) for rank in range(4)]
    for step in range(5):
        batches = [sampler.batch(step) for sampler in ranks]
        assert len({i for batch in batches for i in batch[:8]}) == 32
        assert len({i for batch in batches for i in batch[8::4]}) == 12


def test_anchors_with_few_or_no_partners_give_their_place_to_others():
    rows = torch.eye(40)
    rows[1:3] = rows[0]  # three images of one person, the others alone
    sampler = NeighbourSampler(rows, 0.5, general=0, anchors=10, images_per_anchor=4)
    for step in range(50):
        batch = sampler.batch(step)
        assert len(batch) == len(set(batch)) == 40
    assert sampler.accepted < 1
    sampler = NeighbourSampler(ROWS, 0.999, general=4, anchors=2)
    with pytest.raises(ValueError, match="accepts no other image for any of 1024"):
        sampler.batch(0)


def test_a_threshold_that_accepts_everybody_ends_before_memory_does(monkeypatch):
    monkeypatch.setattr(neighbours, "MAX_HELD", 10_000)
    with pytest.raises(ValueError, match="choose a larger one"):
        NeighbourSampler(ROWS, -1.0, general=4, anchors=2).batch(0)


@pytest.mark.parametrize("form", ["float64", "float16", "array", "memory map"])
def test_rows_come_in_any_form(form, tmp_path):
    rows = {
        "float64": lambda: ROWS.double(),
        "float16": lambda: ROWS.half(),
        "array": lambda: ROWS.numpy(),
        "memory map": lambda: np.load(tmp_path / "rows.npy", mmap_mode="c"),
    }
    np.save(tmp_path / "rows.npy", ROWS.numpy())
    sampler = NeighbourSampler(rows[form](), 0.75, general=8, anchors=3)
    if form != "float16":
        assert sampler.batch(5) == make().batch(5)
    assert len(sampler.batch(5)) == 20


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.starts_process)])
def test_serves_a_data_loader(workers):
    sampler = make(num_steps=3)
    loader = DataLoader(Numbers(), batch_sampler=sampler, num_workers=workers)
    expected = [sampler.batch(step) for step in range(6)]
    for epoch in range(2):
        assert [batch.tolist() for batch in loader] == expected[3 * epoch : 3 * epoch + 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"general": 0, "anchors": 0}, "not both 0"),
        ({"images_per_anchor": 1}, "images_per_anchor >= 2"),
        ({"rank": 1}, "rank 1 of 1"),
        ({"general": 400}, "too few"),
        ({"anchors": 100}, "too few"),
        ({"threshold": 28.0}, "must be a cosine"),
        ({"threshold": None}, "must be a cosine, got None"),
        ({"threshold": True}, "must be a cosine, got True"),
        ({"general": "8"}, "expected whole numbers, .* got .'8'"),
        ({"num_steps": 2.5}, "expected whole numbers"),
        ({"seed": -1}, "seed >= 0, .* -1"),
        ({"rows": "rows.npy"}, r"expected rows \(N, D\), numbers"),
        ({"rows": torch.arange(8)}, r"expected rows \(N, D\)"),
        ({"rows": torch.zeros(360, 0)}, r"expected rows \(N, D\)"),
        ({"rows": ROWS.to("meta")}, r"expected rows \(N, D\) .* of meta"),
        ({"rows": ROWS.to_sparse()}, r"expected rows \(N, D\) .* of torch.sparse_coo"),
        ({"rows": with_one(torch.nan)}, "row 7 holds NaN or infinity"),
        ({"rows": with_one(torch.inf)}, "row 7 holds NaN or infinity"),
        *(({"device": d}, "cannot compute on the device") for d in ("nowhere", None, 3.5, "meta")),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        NeighbourSampler(**{"rows": ROWS, "threshold": 0.75, **options})
