"""NaN is never compared away, and what is no tensor is named: every loss, option and function."""

import inspect
import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import ekd_lite.distill
from ekd_lite.distill import (
    DISTILLERS,
    BatchHardDecisionLoss,
    ContrastiveDecisionLoss,
    EKDLoss,
    FineEKDLoss,
    GalleryEKDLoss,
    MarginDistillationLoss,
    Setting,
    TripletDistillationLoss,
    distribution_gap,
    parse_method,
    semi_hard_triplets,
    soft_rank,
)
from tests.distill.batches import gallery, make_setting, random_batch
from tests.distill.test_every_loss import LOSSES, NEEDS_LABELS, PROTOTYPES

pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")

EVERY = {
    **LOSSES,
    "ekd official": lambda dim: EKDLoss(mode="official"),
    **{
        f"method {name}": lambda dim, method=method: method.build(
            make_setting(dim, prototypes=PROTOTYPES[:, :dim])
        )
        for name, method in DISTILLERS.items()
    },
}


@pytest.mark.parametrize("net", ["student", "teacher"])
@pytest.mark.parametrize("name", EVERY)
def test_a_nan_row_gives_nan(name, net):
    """A loss that leaves the row out would train on, and nobody would know."""
    # The official loss needs both kinds of pairs.
    counts = (9, 40) if name == "ekd official" else (1, 2, 3, 9, 40)
    for dtype, rows in itertools.product((torch.float32, torch.float64, torch.float16), counts):
        whole, one = (slice(None),), (rows // 2, 1)
        for value in (math.nan, math.inf):
            for where in ((rows // 2,), one, whole) if rows == 9 else (one,):
                student, teacher, _ = random_batch(rows, 6)
                labels = torch.arange(rows) // 2 % 4
                (student if net == "student" else teacher)[where] = value
                loss = EVERY[name](6)(student.to(dtype), teacher.to(dtype), labels)
                assert not loss.isfinite(), (dtype, rows, value, where)


@pytest.mark.parametrize("name", EVERY)
def test_showing_nan_changes_no_other_value(name, monkeypatch):
    student, teacher, labels = random_batch(24, 6)
    with_check = EVERY[name](6)(student, teacher, labels)
    for module in vars(ekd_lite.distill).values():
        if inspect.ismodule(module) and hasattr(module, "show_nan"):
            monkeypatch.setattr(module, "show_nan", lambda loss, student, teacher: loss)
    torch.manual_seed(0)
    assert torch.equal(with_check, EVERY[name](6)(student, teacher, labels))


@pytest.mark.parametrize("mode", ["official", "corrected"])
@pytest.mark.parametrize("net", [0, 1])
def test_a_nan_does_not_outlive_its_batch_in_the_thresholds(mode, net):
    loss = EKDLoss(mode=mode, fprs=(0.3, 0.1))
    batch = [x.float() for x in random_batch(24, 6)[:2]]
    labels = torch.arange(24) % 4
    loss(*batch, labels)
    before = loss.student_thresholds.clone(), loss.teacher_thresholds.clone()
    batch[net][5] = math.nan
    assert loss(*batch, labels).isnan()
    assert torch.equal(loss.student_thresholds, before[0])
    assert torch.equal(loss.teacher_thresholds, before[1])
    assert loss.num_updates.tolist() == [1, 1]


def others(tensor):
    """A tensor's values in forms that are no tensor."""
    return tensor.numpy(), tensor.tolist(), "x", None


@pytest.mark.parametrize("name", EVERY)
def test_losses_want_tensors(name):
    student, teacher, labels = random_batch(6, 4)
    loss = EVERY[name](4)
    for value in others(student):
        with pytest.raises(ValueError, match="student must be a torch Tensor, got "):
            loss(value, teacher, labels)
    for value in others(teacher):
        with pytest.raises(ValueError, match="teacher must be a torch Tensor, got "):
            loss(student, value, labels)
    for bad in (student.long(), student.bool(), student + 0j):
        with pytest.raises(ValueError, match="floating-point type"):
            loss(bad, teacher, labels)
        with pytest.raises(ValueError, match="floating-point type"):
            loss(student, bad, labels)
    with pytest.raises(ValueError, match=r"student .* got student"):
        loss(student[:, :, None, None], teacher[:, :, None, None], labels)  # feature maps


@pytest.mark.parametrize("name", sorted(NEEDS_LABELS))
def test_labels_are_whole_numbers_in_a_tensor(name):
    student, teacher, labels = random_batch(6, 4)
    loss = LOSSES[name](4)
    for value in (labels.numpy(), labels.tolist(), "x"):
        with pytest.raises(ValueError, match="labels must be a torch Tensor, got "):
            loss(student, teacher, value)
    for value in (labels.float(), labels == 1, labels + 0j):
        with pytest.raises(ValueError, match="labels of a type of whole numbers"):
            loss(student, teacher, value)
    assert torch.equal(
        LOSSES[name](4)(student, teacher, labels.int()), LOSSES[name](4)(student, teacher, labels)
    )


def test_functions_and_prototypes_want_tensors():
    cosine, labels = torch.eye(3), torch.tensor([0, 0, 1])
    calls = {
        "prototypes": (lambda x: MarginDistillationLoss(x), PROTOTYPES),
        "cosine": (lambda x: semi_hard_triplets(x, labels), cosine),
        "labels": (lambda x: semi_hard_triplets(cosine, x), labels),
        "similarity": (lambda x: soft_rank(x, torch.zeros(2), temperature=1), cosine[0]),
        "thresholds": (lambda x: soft_rank(cosine[0], x, temperature=1), cosine[0]),
        "teacher embeddings": (
            lambda x: MarginDistillationLoss(PROTOTYPES).margins(x, labels), PROTOTYPES[:3],
        ),
    }  # fmt: skip
    for name, (call, good) in calls.items():
        call(good)
        for value in others(good):
            with pytest.raises(ValueError, match=f"{name} must be a torch Tensor, got "):
                call(value)


@pytest.mark.parametrize(
    "make",
    [
        EKDLoss,
        lambda fprs: FineEKDLoss(4, 4, fprs=fprs),
        lambda fprs: GalleryEKDLoss(*gallery(4), fprs=fprs),
    ],
)
def test_rates_come_in_any_form(make):
    rates = [0.1, 0.01]
    for form in (rates, tuple(rates), np.array(rates), torch.tensor(rates, dtype=torch.float64)):
        assert make(fprs=form).fprs == tuple(rates)
    with pytest.raises(ValueError, match="between 0 and 1"):
        make(fprs=np.array([]))


def test_the_table_of_public_names_is_whole():
    """A new loss must stand in the tables above."""
    losses = {
        name
        for name in ekd_lite.distill.__all__
        if inspect.isclass(getattr(ekd_lite.distill, name)) and name.endswith("Loss")
    }
    assert losses == {type(make(4)).__name__ for make in EVERY.values()}
    functions = {
        name
        for name in ekd_lite.distill.__all__
        if inspect.isfunction(getattr(ekd_lite.distill, name))
    }
    assert functions == {"distribution_gap", "parse_method", "semi_hard_triplets", "soft_rank"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarginDistillationLoss(PROTOTYPES, max_margin=28.6), "pi \\(radians\\)"),
        (lambda: MarginDistillationLoss(PROTOTYPES, min_margin=-0.1), "0 <= min_margin"),
        (lambda: TripletDistillationLoss(max_margin=28.6), "angles in radians"),
        (lambda: TripletDistillationLoss(min_margin=-0.1), "0 <= min_margin"),
    ],
)
def test_margins_in_degrees_and_negative_ones(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_methods_on_logits_and_prototypes_say_that_they_look_people_up():
    for name, method in DISTILLERS.items():
        kept = []

        class Watched(Setting):
            @property
            def teacher_prototypes(self, kept=kept):
                kept.append(1)
                return PROTOTYPES[:, :6]

            @teacher_prototypes.setter
            def teacher_prototypes(self, value):
                pass

        setting = object.__new__(Watched)
        values = {"student_dim": 6, "teacher_dim": 6, "scale": 8.0, "num_identities": 4}
        values |= {"teacher_threshold": 0.3, "gallery": gallery(6)}
        for field, value in values.items():
            object.__setattr__(setting, field, value)
        method.build(setting)
        assert (method.by_person or method.needs_prototypes) == (
            bool(kept) or method.needs == "logits"
        ), name
        assert not (method.by_person and method.needs_prototypes), name


@pytest.mark.parametrize(
    "make",
    [
        lambda x: EKDLoss(temperature=x),
        lambda x: EKDLoss(positive_weight=x),
        lambda x: FineEKDLoss(4, 4, temperature=x),
        lambda x: FineEKDLoss(4, 4, negative_weight=x),
        lambda x: ekd_lite.distill.RKDLoss(angle_weight=x),
        lambda x: ekd_lite.distill.CCKDLoss(gamma=x),
        lambda x: ekd_lite.distill.DarkRankLoss(alpha=x),
        lambda x: ekd_lite.distill.DarkRankLoss(beta=x),
        lambda x: ekd_lite.distill.PWRLoss(beta=x),
        lambda x: ekd_lite.distill.KDLoss(temperature=x),
        lambda x: ekd_lite.distill.GroupedKDLoss(group=2, binary=x),
        lambda x: ekd_lite.distill.TeacherQueueLoss(4, temperature=x),
        lambda x: ekd_lite.distill.TeacherHeadLoss(PROTOTYPES, scale=x),
        lambda x: ekd_lite.distill.AdaDistillLoss(4, 4, margin=x),
        lambda x: TripletDistillationLoss(max_margin=x),
        lambda x: MarginDistillationLoss(PROTOTYPES, scale=x),
    ],
)
def test_options_that_no_loss_can_have(make):
    """With NaN every comparison is false, so that "at most 0 is wrong" lets it through."""
    for bad in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match=r"expected|must be|radians"):
            make(bad)


def test_a_margin_in_degrees_and_prototypes_that_are_no_numbers():
    kind: Any
    for kind, message in (("arc", "radians"), ("cos", "units of the cosine")):
        with pytest.raises(ValueError, match=message):
            ekd_lite.distill.AdaDistillLoss(4, 4, margin=28.6, kind=kind)
    bad = PROTOTYPES.clone()
    bad[2, 1] = math.nan
    with pytest.raises(ValueError, match="prototype 2 holds NaN"):
        MarginDistillationLoss(bad)
    with pytest.raises(ValueError, match="prototype 2 holds NaN"):
        ekd_lite.distill.TeacherHeadLoss(bad, scale=8.0)


def test_one_rate_is_a_list_of_one():
    assert EKDLoss(fprs=0.1).fprs == (0.1,)
    bad: Any
    for bad in ("0.1", None, [0.1, "x"], math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            EKDLoss(fprs=bad)


@pytest.mark.parametrize("net", ["student", "teacher"])
@pytest.mark.parametrize("name", EVERY)
def test_a_row_too_long_for_its_type_gives_nan(name, net):
    """Its square is no number of float32: a loss that compares cosines trained on zero."""
    student, teacher, _ = random_batch(40, 6)
    rows = {"student": student.float(), "teacher": teacher.float()}
    rows[net][7] *= 1e30
    loss = EVERY[name](6)(*rows.values(), torch.arange(40) // 2 % 4)
    on_logits = name.removeprefix("method ") in ("kd", "gkd", "dkd", "lskd")
    assert on_logits or not loss.isfinite(), loss  # a softmax may have logits of any size


def test_scores_that_are_no_numbers_show_in_the_gap_of_distributions():
    good = torch.rand(5)
    for place in range(4):
        scores = [good.clone() for _ in range(4)]
        scores[place][2] = math.nan
        assert distribution_gap(*scores).isnan(), place
        for bad in (good[:, None], good.long()):
            scores[place] = bad
            with pytest.raises(ValueError, match="of a floating-point type"):
                distribution_gap(*scores)


BAD = (math.nan, math.inf, -1, "a", None, [1.0], torch.ones(2))
MADE: dict[str, Any] = {
    "AdaDistillLoss": (4, 6),
    "ContrastiveDecisionLoss": (6, 6),
    "FineEKDLoss": (6, 6),
    "GalleryEKDLoss": gallery(6),
    "MarginDistillationLoss": (PROTOTYPES,),
    "TeacherHeadLoss": (PROTOTYPES,),
    "TeacherQueueLoss": (6,),
}
NEEDED: dict[str, dict[str, Any]] = {
    "BatchHardDecisionLoss": {"threshold": 0.3},
    "ContrastiveDecisionLoss": {"threshold": 0.3},
    "TeacherHeadLoss": {"scale": 64.0},
    "GroupedKDLoss": {"group": 2},
}
# Options that are no number, or may be left out; thresholds have a test of their own.
FREE = {"threshold", "start", "typical", "normalize", "standardize", "row_normalize"}
OPTIONS = [
    (name, option)
    for name in ekd_lite.distill.__all__
    if name.endswith("Loss")
    for option, default in inspect.signature(getattr(ekd_lite.distill, name)).parameters.items()
    if default.kind is default.KEYWORD_ONLY and option not in FREE
]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_an_option_that_cannot_be_is_refused_in_one_line(name, option):
    kind = getattr(ekd_lite.distill, name)
    default = inspect.signature(kind).parameters[option].default
    for bad in BAD:
        if bad is default:
            continue
        with pytest.raises(ValueError, match=r"expected|must|give both|above t|need threshold"):
            kind(*MADE.get(name, ()), **{**NEEDED.get(name, {}), option: bad})


@pytest.mark.parametrize("bad", [math.nan, math.inf, "a", [0.1], torch.ones(2)])
def test_a_threshold_of_decisions_is_a_cosine(bad):
    for kind in (partial(FineEKDLoss, targets="decisions"), ContrastiveDecisionLoss):
        with pytest.raises(ValueError, match="need threshold, the cosine"):
            kind(6, 6, threshold=bad)
    with pytest.raises(ValueError, match="must be a cosine between -1 and 1"):
        BatchHardDecisionLoss(threshold=bad)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, "a", None])
def test_soft_ranks_and_methods_of_other_kinds(bad):
    with pytest.raises(ValueError, match="temperature must be positive"):
        soft_rank(torch.rand(3), torch.rand(2), temperature=bad)
    with pytest.raises(ValueError, match=r"similarity \(P,\) and thresholds \(L,\)"):
        soft_rank(torch.rand(3, 3), torch.rand(2), temperature=1)
    with pytest.raises(ValueError, match=r"a method is text such as 'ekd'|unknown method 'a'"):
        parse_method(bad)
    for cosine, labels in (
        (torch.eye(3), torch.zeros(2).long()),
        (torch.ones(3, 2), torch.arange(3)),
    ):
        with pytest.raises(ValueError, match=r"cosine \(N, N\) and labels \(N,\), got"):
            semi_hard_triplets(cosine, labels)
