"""Single options of the losses that the table of all losses does not reach."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ekd_lite.distill import (
    AdaDistillLoss,
    CCKDLoss,
    DarkRankLoss,
    EKDLoss,
    FineEKDLoss,
    FitNetLoss,
    GroupedKDLoss,
    KDLoss,
    MarginDistillationLoss,
    PWRLoss,
    RKDLoss,
    TeacherQueueLoss,
    TripletDistillationLoss,
)
from ekd_lite.distill.triplet import semi_hard_triplets
from ekd_lite.heads import ArcFace
from tests.distill.batches import random_batch
from tests.oracles import distill as oracle


@pytest.mark.parametrize("normalize", [False, True])
def test_fitnet_learns_a_map_where_widths_differ(normalize):
    torch.manual_seed(0)
    student, teacher, _ = random_batch(10, 5)
    loss = FitNetLoss(student_dim=3, teacher_dim=5, normalize=normalize).double()
    narrow = student[:, :3].clone().requires_grad_()
    value = loss(narrow, teacher)
    weight = loss.projection.weight.detach().tolist()
    expected = oracle.fitnet(student[:, :3].tolist(), teacher.tolist(), normalize, weight)
    assert value.item() == pytest.approx(expected, abs=1e-12)
    value.backward()
    assert loss.projection.weight.grad.abs().sum() > 0
    assert narrow.grad.abs().sum() > 0
    assert [*dict(loss.named_parameters())] == ["projection.weight"]
    with pytest.raises(ValueError, match=r"maps width 3 to 5, got student \(10, 4\)"):
        loss(student[:, :4], teacher)


def test_fitnet_has_nothing_to_learn_where_widths_agree():
    assert FitNetLoss(student_dim=4, teacher_dim=4).projection is None
    assert not [*FitNetLoss().parameters()]


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), labels=st.lists(st.integers(0, 3), max_size=9))
def test_triplets_are_the_nearest_impostors_beyond_the_positive(seed, labels):
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(len(labels), 3, generator=generator))
    cosine = unit @ unit.T
    cosine = (cosine + cosine.T) / 2
    triplets = torch.stack(semi_hard_triplets(cosine, torch.tensor(labels)), dim=1)
    found = {tuple(triplet) for triplet in triplets.tolist()}
    assert len(found) == len(triplets)
    expected = set()
    for a, p in itertools.permutations(range(len(labels)), 2):
        others = [n for n in range(len(labels)) if labels[n] != labels[a]]
        if labels[a] == labels[p] and others:
            beyond = [n for n in others if cosine[a, n] < cosine[a, p]]
            pick = max(beyond, key=lambda n: cosine[a, n]) if beyond else None
            expected.add((a, p, min(others, key=lambda n: cosine[a, n]) if pick is None else pick))
    assert found == expected


def test_an_impostor_as_near_as_the_positive_is_not_beyond_it():
    cosine = torch.tensor(
        [[1.0, 0.5, 0.5, 0.3], [0.5, 1.0, 0.9, 0.9], [0.5, 0.9, 1.0, 0.0], [0.3, 0.9, 0.0, 1.0]]
    )
    a, p, n = semi_hard_triplets(cosine, torch.tensor([0, 0, 1, 2]))
    assert (a[0], p[0], n[0]) == (0, 1, 3)


def test_the_triplet_margin_is_the_least_one_where_the_teacher_has_no_gap():
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    teacher, labels = torch.ones_like(student), torch.tensor([0, 0, 1])
    # d(a, p) - d(a, n) is 0 - 2 for squared distances: hinge at 0.2 - 2 < 0, at 2.3 - 2 > 0.
    assert TripletDistillationLoss(distance="l2")(student, teacher, labels).item() == 0
    loss = TripletDistillationLoss(distance="l2", min_margin=2.3, max_margin=9.0)
    assert loss(student, teacher, labels).item() == pytest.approx(0.3)


def test_margin_distillation_with_one_margin_is_arcface_on_frozen_prototypes():
    student, teacher, labels = random_batch(12, 6)
    head = ArcFace(6, 4, margin=0.4).double()
    loss = MarginDistillationLoss(head.prototypes, min_margin=0.4, max_margin=0.4)
    expected = torch.nn.functional.cross_entropy(head(student, labels), labels)
    assert loss(student, teacher, labels).item() == pytest.approx(expected.item(), abs=1e-12)
    student.requires_grad_()
    loss(student, teacher, labels).backward()
    assert head.prototypes.grad is None
    assert not [*loss.parameters()]
    assert not loss.state_dict()


def test_margin_distillation_names_a_label_out_of_range():
    student, teacher, labels = random_batch(6, 4)
    labels[2] = 9
    with pytest.raises(ValueError, match=r"label 9 at position 2 .* 0\.\.3"):
        MarginDistillationLoss(torch.randn(4, 4))(student, teacher, labels)
    with pytest.raises(ValueError, match="prototypes have width 5"):
        MarginDistillationLoss(torch.randn(4, 5))(student, teacher, labels.clamp(max=3))


def test_pwr_takes_evenly_spaced_pairs_above_its_limit():
    student, teacher, _ = random_batch(10, 4)  # 45 pairs
    whole = PWRLoss(max_pairs=45)(student, teacher)
    assert whole.item() == pytest.approx(oracle.pwr(student.tolist(), teacher.tolist()))
    assert PWRLoss()(student, teacher).item() == whole.item()
    some = PWRLoss(max_pairs=20)(student, teacher)
    assert some.item() != whole.item()
    assert some.item() == pytest.approx(whole.item(), rel=0.5)


def test_darkrank_does_not_take_a_duplicate_for_the_query():
    """TFace drops the first of the sorted row, which may be the copy and not the query."""
    student, teacher, _ = random_batch(6, 4)
    student[1], teacher[1] = student[0], teacher[0]
    value = DarkRankLoss(length=2)(student, teacher).item()
    assert value == pytest.approx(
        oracle.darkrank(student.tolist(), teacher.tolist(), length=2), abs=1e-8
    )


@pytest.mark.parametrize("options", [{"distance_weight": 0.0}, {"angle_weight": 0.0}])
def test_rkd_leaves_out_a_part_of_weight_zero(options):
    student, teacher, _ = random_batch(6, 4)
    s, t = student.tolist(), teacher.tolist()
    whole = 25 * oracle.rkd_distance(s, t) + 50 * oracle.rkd_angle(s, t)
    value = RKDLoss(**options)(student, teacher).item()
    others: dict[str, Any] = {"distance_weight": 0.0, "angle_weight": 0.0}
    left = RKDLoss(**{k: v for k, v in others.items() if k not in options})
    assert value + left(student, teacher).item() == pytest.approx(whole, abs=1e-10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdaDistillLoss(True, 8),
        lambda: AdaDistillLoss(8, 8, typical="x"),  # type: ignore[arg-type]
        lambda: KDLoss(standardize="x"),  # type: ignore[arg-type]
        lambda: FitNetLoss(normalize=1),  # type: ignore[arg-type]
        lambda: TeacherQueueLoss(True),
        lambda: FineEKDLoss(student_dim=8, teacher_dim=8, memory=True),
        lambda: EKDLoss(topk=True),
        lambda: CCKDLoss(order=True),
        lambda: GroupedKDLoss(group=True),
        lambda: KDLoss(temperature=True),
    ],
)
def test_truth_values_are_no_numbers_and_nothing_else_is_one(make):
    with pytest.raises(ValueError, match=r"got .*(True|x|1)"):
        make()
