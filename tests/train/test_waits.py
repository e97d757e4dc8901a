"""A step asks the device for one thing, all losses at once, and adds few launches of its own.

The counts are of calls on the CPU (benchmarks/counting.py says which), with losses and heads in the
form that they have where numbers are dear to fetch; that form must give what the CPU's gives.
"""

import contextlib
from collections import Counter
from typing import Any

import pytest
import torch

from benchmarks.comparing import alike, as_on_a_gpu, deviation, small_state
from benchmarks.counting import bare_step, count
from ekd_lite.distill import (
    DISTILLERS,
    ContrastiveDecisionLoss,
    EKDLoss,
    FineEKDLoss,
    GalleryEKDLoss,
    distribution_gap,
)
from ekd_lite.distill.masked_pairs import false_accepts_on_device, remember_usable
from ekd_lite.heads import HEADS, ArcFace, PartialFC
from ekd_lite.ops import false_accepts_at, hashed_uniforms
from ekd_lite.train import train_step
from tests.distill.batches import make_setting

CPU = torch.device("cpu")
# What else a step with them asks for; book/scaling.md says why. It must not become more.
STILL_ASK = {"ddl": {"nonzero": 1}, "rkd": {"tolist": 1}}
STEPS: list[tuple[str, dict[str, Any]]] = [
    *((method, {}) for method in ("none", *DISTILLERS)),
    *(("none", {"head": h, "margin": 1.5 if h == "sphereface" else 0.4}) for h in HEADS),
    ("none", {"share": 0.5}),
]
pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")


@pytest.mark.parametrize(("method", "options"), STEPS)
def test_a_step_waits_once_and_adds_a_tenth_of_launches_at_most(method, options):
    with as_on_a_gpu():
        state, batch = small_state(method, CPU, **options)
        for number in range(3):
            train_step(state, batch(number))
        group = batch(5)
        ours = count(lambda: train_step(state, group), state)
        if DISTILLERS[method].needs != "logits" if method != "none" else True:
            bare = count(lambda: bare_step(state, group), state)
            assert ours.launches.total() <= 1.1 * bare.launches.total()
    assert ours.waits == Counter(tolist=1) + Counter(STILL_ASK.get(method))


def test_waits_and_launches_are_seen():
    """Each of these stops the host on a GPU."""
    x = torch.arange(6.0)
    state, _ = small_state("none", CPU)

    def asks():
        float(x[0]), bool(x[1]), x.tolist(), x.numpy(), x.cpu(), x.nonzero(), x[x > 2]
        x.new_tensor([1.0]), torch.tensor([1.0], device="cpu"), x.long().bincount()
        x[x > 2] = 1.0
        x.view(2, 3)  # free

    found = count(asks, state)
    assert found.waits == {
        "_local_scalar_dense": 2, "tolist": 1, "numpy": 1, "cpu": 1, "nonzero": 1,
        "index by booleans": 1, "new_tensor": 1, "tensor": 1, "bincount": 1,
        "index_put_ by booleans": 1,
    }  # fmt: skip
    assert "view" not in found.launches and found.launches["gt"] == 2


def both(make, batches):
    """What a loss gives and keeps over some batches, on the CPU's way and on the GPU's."""
    found = []
    for masked in (False, True):
        torch.manual_seed(0)
        loss, parts = make(), []
        for student, teacher, labels in batches:
            x = student.clone().requires_grad_(True)
            if masked:
                with as_on_a_gpu():
                    value = loss(x, teacher, labels)
            else:
                value = loss(x, teacher, labels)
            parts += [value, *torch.autograd.grad(value, x, materialize_grads=True)]
        kept = [b for b in loss.buffers() if b.is_floating_point()]
        found.append(parts + kept + list(getattr(loss, "stats", {}).values()))
    return found


def some(count=40, batches=4, width=12):
    return [alike(count, width, seed=seed) for seed in range(batches)]


@pytest.mark.parametrize("topk", [5, 100, 2000])
@pytest.mark.parametrize("mode", ["corrected", "official"])
def test_ekd_by_masks(mode, topk):
    cpu, gpu = both(lambda: EKDLoss(mode=mode, topk=topk, temperature=0.1).double(), some())
    assert cpu[0].item() > 0
    assert deviation(gpu, cpu) < 1e-12


@pytest.mark.parametrize("labels", ["alone", "one person", "a person each"])
def test_ekd_by_masks_without_pairs_of_a_kind(labels):
    rows, teacher, _ = alike(1 if labels == "alone" else 12, 8)
    who = torch.zeros(len(rows)) if labels != "a person each" else torch.arange(len(rows))
    batch = [(rows, teacher, who.long())] * 2
    cpu, gpu = both(lambda: EKDLoss(temperature=0.1).double(), batch)
    assert deviation(gpu, cpu) < 1e-12


def test_ekd_by_masks_shows_a_nan_and_forgets_it():
    batches = some()
    batches[1][0][3] = float("nan")
    cpu, gpu = both(lambda: EKDLoss(temperature=0.1).double(), batches)
    assert cpu[2].isnan() and gpu[2].isnan()
    del cpu[2:4], gpu[2:4]
    assert deviation(gpu, cpu) < 1e-12


@pytest.mark.parametrize(
    "options",
    [
        {}, {"thresholds": "teacher", "memory": 30}, {"memory": 200},
        {"targets": "decisions", "threshold": 0.5}, {"targets": "labels"},
        {"targets": "cosines"},
    ],
)  # fmt: skip
def test_fine_ekd_by_masks(options):
    cpu, gpu = both(
        lambda: FineEKDLoss(12, 12, fprs=(0.05, 1e-2, 1e-3), hard_fpr=0.1, **options).double(),
        some(batches=6),
    )
    assert max(value.item() for value in cpu[0:12:2]) > 0
    assert deviation(gpu, cpu) < 1e-9


@pytest.mark.parametrize("fprs", [(0.05, 1e-2, 1e-3), (0.05, 1e-6), (0.05,)])
def test_gallery_ekd_by_masks(fprs):
    _, rows, labels = alike(160, 12, seed=9)
    cpu, gpu = both(
        lambda: GalleryEKDLoss(
            rows, labels, fprs=fprs, hard_fpr=0.1, impostors=50, genuine=3
        ).double(),
        some(),
    )
    assert max(value.item() for value in cpu[0:8:2]) > 0
    assert deviation(gpu, cpu) < 1e-9


def test_the_contrastive_hinge_by_masks():
    cpu, gpu = both(
        lambda: ContrastiveDecisionLoss(
            12, 12, threshold=0.5, fpr=1e-2, hard_fpr=0.1, memory=30
        ).double(),
        some(batches=6),
    )
    assert max(value.item() for value in cpu[0:12:2]) > 0
    assert deviation(gpu, cpu) < 1e-9


@pytest.mark.parametrize(
    "method", ["triplet", "triplet_decisions", "pwr", "ddl", "sp", "rkd", "darkrank", "qud", "gkd"]
)
def test_other_losses_do_the_same_where_numbers_are_dear(method):
    setting = make_setting(12)
    cpu, gpu = both(lambda: DISTILLERS[method].build(setting).double(), some())
    assert deviation(gpu, cpu) < 1e-12


@pytest.mark.parametrize("above", ["some", "none of the easy", "none"])
def test_distributions_by_masks(above):
    """Scores of genuine pairs up to 0 are left out; the gradient goes to all four."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(4, 9, generator=generator, dtype=torch.float64)
    scores = list(numbers - 0.4)
    for place in {"some": (), "none of the easy": (0,), "none": (0, 2)}[above]:
        scores[place] = scores[place] - 0.6
    scores = [own.requires_grad_(True) for own in scores]
    found = []
    for way in (contextlib.nullcontext(), as_on_a_gpu()):
        with way:
            value = distribution_gap(*scores)
        gradients = torch.autograd.grad(value, scores, materialize_grads=True)
        found.append([value, *gradients])
    assert deviation(found[1], found[0]) < 1e-12


def test_triplets_by_masks_where_there_are_none():
    rows, teacher, _ = alike(8, 6)
    for labels in (torch.zeros(8).long(), torch.arange(8)):
        cpu, gpu = both(
            lambda: DISTILLERS["triplet"].build(make_setting(6)).double(), [(rows, teacher, labels)]
        )
        assert deviation(gpu, cpu) == 0 == cpu[0].item()


def test_false_accepts_are_counted_alike():
    """Decimal levels, of numbers of pairs where binary floating point falls short."""
    rates = (0.1, 0.29, 0.07, 1e-2, 1e-3, 1e-6)
    counts = [0, 1, 9, 10, 29, 100, 1000, 4560, 130_816, 2_096_128, 10_000_000, 999_999_999]
    for n in counts:
        found = false_accepts_on_device(torch.tensor(n), rates).tolist()
        assert found == [false_accepts_at(rate, n) for rate in rates], n


@pytest.mark.parametrize("count", [3, 5, 8])
def test_the_ring_keeps_the_newest_usable_rows(count):
    """Beside a list that drops its first."""
    generator = torch.Generator().manual_seed(0)
    memory, seen = torch.full((5,), -1), torch.zeros((), dtype=torch.int64)
    kept = [-1] * 5
    put, number = 0, 0
    for _ in range(6):
        new = torch.arange(number, number + count)
        number += count
        usable = torch.rand(count, generator=generator) < 0.6
        remember_usable([memory], [new], seen, usable)
        for value in new[usable].tolist()[-5:]:
            kept[put % 5] = value
            put += 1
        assert sorted(memory.tolist()) == sorted(kept) and int(seen) == put


def test_partial_fc_draws_on_the_device_what_the_rows_need():
    with as_on_a_gpu():
        head = PartialFC(ArcFace, 8, 400, sample_rate=0.1).double()
        rows, _, labels = alike(24, 8)
        x = rows.requires_grad_(True)
        loss = head(x, labels)
        (grad,) = torch.autograd.grad(loss, head.prototypes, retain_graph=True)
        chosen = grad.abs().sum(1) > 0
        assert chosen.sum() == 40 and chosen[labels].all()
        other = torch.autograd.grad(head(x, labels), head.prototypes)[0].abs().sum(1) > 0
    assert (chosen != other).any()
    # The loss over the drawn ones alone, by the ordinary head.
    plain = ArcFace(8, 40).double()
    plain.prototypes.data.copy_(head.prototypes[chosen])
    place = torch.searchsorted(chosen.nonzero().flatten(), labels)
    wanted = torch.nn.functional.cross_entropy(plain(x, place), place)
    torch.testing.assert_close(loss, wanted)


def test_hashed_numbers_are_splitmix64():
    """By Steele, Lea and Flood's program in Python's whole numbers."""
    start, mask, wanted = 123, 2**64 - 1, []
    for i in range(1, 6):
        z = (start + i * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        wanted.append(((z ^ (z >> 31)) >> 11) * 2.0**-53)
    assert hashed_uniforms(5, start, CPU).tolist() == wanted
    many = hashed_uniforms(100_000, 7, CPU)
    assert abs(float(many.mean()) - 0.5) < 0.005 and len(many.unique()) == 100_000
