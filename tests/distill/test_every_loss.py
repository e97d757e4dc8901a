"""What holds for every distillation loss, one table for all of them."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from ekd_lite.distill import (
    DISTILLERS,
    NOTES,
    AdaDistillLoss,
    BatchHardDecisionLoss,
    CCKDLoss,
    ContrastiveDecisionLoss,
    DarkRankLoss,
    DDLLoss,
    EKDLoss,
    FineEKDLoss,
    FitNetLoss,
    GalleryEKDLoss,
    GroupedKDLoss,
    KDLoss,
    MarginDistillationLoss,
    PWRLoss,
    RKDLoss,
    ShrinkTeaNetLoss,
    SPLoss,
    TeacherHeadLoss,
    TeacherQueueLoss,
    TripletDistillationLoss,
    parse_method,
)
from ekd_lite.ops import generator_for
from tests.distill.batches import batches, gallery, golden_batch, make_setting, random_batch
from tests.oracles import distill as oracle

pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")

PROTOTYPES = torch.cos(torch.arange(4.0)[:, None] * torch.arange(1.0, 9)[None] + 1).double()


def margin_loss(dim, **options):
    return MarginDistillationLoss(PROTOTYPES[:, :dim], **options)


# What came after EKD; loops of their own and the authors' numbers are in test_successors.py.
SUCCESSORS: dict[str, Callable[[int], nn.Module]] = {
    "adadistill": lambda dim: AdaDistillLoss(4, dim),
    "gkd": lambda dim: GroupedKDLoss(group=2),
    "dkd": lambda dim: GroupedKDLoss(group=1, secondary=8.0),
    "lskd": lambda dim: KDLoss(standardize=True),
    "qud": lambda dim: TeacherQueueLoss(dim, size=12),
    "seed": lambda dim: TeacherQueueLoss(dim, teacher_temperature=0.1, size=12),
    "thkd": lambda dim: TeacherHeadLoss(torch.arange(5.0 * dim).sin().view(5, dim), scale=16.0),
}
FINE: dict[str, Any] = {"fprs": (0.5, 0.25, 0.1), "hard_fpr": 0.5}
# Every loss and option, as a function of the width, because MarginDistillation has prototypes.
LOSSES = {
    "kd": lambda dim: KDLoss(),
    "fitnet": lambda dim: FitNetLoss(),
    "fitnet normalize": lambda dim: FitNetLoss(normalize=True),
    "shrinkteanet": lambda dim: ShrinkTeaNetLoss(),
    "shrinkteanet cosine": lambda dim: ShrinkTeaNetLoss(variant="cosine"),
    "shrinkteanet chord": lambda dim: ShrinkTeaNetLoss(variant="chord"),
    "darkrank": lambda dim: DarkRankLoss(),
    "darkrank soft": lambda dim: DarkRankLoss(variant="soft", length=4, alpha=12.25, beta=4),
    "sp": lambda dim: SPLoss(),
    "sp row": lambda dim: SPLoss(row_normalize=True),
    "cckd": lambda dim: CCKDLoss(),
    "cckd order 5": lambda dim: CCKDLoss(order=5, gamma=0.7),
    "cckd order 1": lambda dim: CCKDLoss(order=1),
    "rkd": lambda dim: RKDLoss(),
    "rkd distance": lambda dim: RKDLoss(distance_weight=1, angle_weight=0),
    "rkd angle": lambda dim: RKDLoss(distance_weight=0, angle_weight=1, block=80),
    "triplet": lambda dim: TripletDistillationLoss(),
    "triplet l2": lambda dim: TripletDistillationLoss(distance="l2"),
    "margin": margin_loss,
    "pwr": lambda dim: PWRLoss(),
    "pwr hinge": lambda dim: PWRLoss(variant="hinge"),
    "pwr ranknet": lambda dim: PWRLoss(variant="ranknet", beta=2.0),
    **SUCCESSORS,
    "ddl": lambda dim: DDLLoss(),
    "ekd": lambda dim: EKDLoss(),
    "fine ekd": lambda dim: FineEKDLoss(dim, dim, **FINE),
    "fine ekd teacher": lambda dim: FineEKDLoss(dim, dim, **FINE, thresholds="teacher", memory=5),
    "fine ekd decisions": lambda dim: FineEKDLoss(
        dim, dim, **FINE, targets="decisions", threshold=0.3
    ),
    "fine ekd labels": lambda dim: FineEKDLoss(dim, dim, **FINE, targets="labels"),
    "fine ekd cosines": lambda dim: FineEKDLoss(dim, dim, **FINE, targets="cosines"),
    "gallery ekd": lambda dim: GalleryEKDLoss(*gallery(dim), **FINE, impostors=30),
    "contrastive decisions": lambda dim: ContrastiveDecisionLoss(
        dim, dim, fpr=0.25, hard_fpr=0.5, threshold=0.3
    ),
    "triplet decisions": lambda dim: BatchHardDecisionLoss(threshold=0.3),
}
NEEDS_LABELS = {
    "adadistill",
    "gkd",
    "dkd",
    "triplet",
    "triplet l2",
    "margin",
    "ddl",
    "ekd",
    "fine ekd",
    "fine ekd teacher",
    "fine ekd labels",
    "fine ekd cosines",
    "gallery ekd",
}
RELATIONS = ("darkrank", "sp", "cckd", "rkd", "triplet", "pwr", "ddl", "ekd")
is_relational = [name for name in LOSSES if name.startswith(RELATIONS)]


def gallery_oracle(dim):
    """The loop, told which rows the first batch draws."""
    rows, labels = gallery(dim)
    drawn = generator_for(0, 3, 0).choice(len(rows), 30, replace=False).tolist()
    slow = oracle.GalleryEKD(rows.double().tolist(), labels.tolist())
    return lambda s, t, y: slow(s, t, y, drawn)


def oracle_of(name):
    by_name = {
        "kd": oracle.kd,
        "fitnet": oracle.fitnet,
        "fitnet normalize": partial(oracle.fitnet, normalize=True),
        "shrinkteanet": oracle.shrinkteanet,
        "shrinkteanet cosine": partial(oracle.shrinkteanet, variant="cosine"),
        "shrinkteanet chord": partial(oracle.shrinkteanet, variant="chord"),
        "darkrank": oracle.darkrank,
        "darkrank soft": partial(oracle.darkrank, alpha=12.25, beta=4, length=4, soft=True),
        "sp": oracle.sp,
        "sp row": partial(oracle.sp, row_normalize=True),
        "cckd": oracle.cckd,
        "cckd order 5": partial(oracle.cckd, order=5, gamma=0.7),
        "cckd order 1": partial(oracle.cckd, order=1),
        "rkd": lambda s, t: 25 * oracle.rkd_distance(s, t) + 50 * oracle.rkd_angle(s, t),
        "rkd distance": oracle.rkd_distance,
        "rkd angle": oracle.rkd_angle,
        "triplet": oracle.triplet,
        "triplet l2": partial(oracle.triplet, kind="l2"),
        "margin": lambda s, t, y: oracle.margin(
            s, t, y, PROTOTYPES[:, : len(s[0]) if s else 1].tolist()
        ),
        "pwr": oracle.pwr,
        "pwr hinge": partial(oracle.pwr, variant="hinge"),
        "pwr ranknet": partial(oracle.pwr, variant="ranknet", beta=2.0),
        "ddl": oracle.ddl,
        "ekd": lambda s, t, y: oracle.EKD(corrected=True)(s, t, y),
        "fine ekd": lambda s, t, y: oracle.FineEKD()(s, t, y),
        "fine ekd teacher": lambda s, t, y: oracle.FineEKD(memory=5, own=False)(s, t, y),
        "fine ekd decisions": lambda s, t: oracle.FineEKD(targets="decisions", threshold=0.3)(
            s, t, [0] * len(s)
        ),
        "fine ekd labels": lambda s, t, y: oracle.FineEKD(targets="labels")(s, t, y),
        "fine ekd cosines": lambda s, t, y: oracle.FineEKD(targets="cosines")(s, t, y),
        "gallery ekd": lambda s, t, y: gallery_oracle(len(s[0]) if s else 2)(s, t, y),
        "contrastive decisions": lambda s, t: oracle.Contrastive(threshold=0.3)(s, t, [0] * len(s)),
        "triplet decisions": partial(oracle.batch_hard, accept=0.3),
    }
    return by_name[name]


@pytest.mark.parametrize(
    ("loss", "first", "second"),
    [
        (SPLoss(), 0.1364509370, 0.1453041744),
        (CCKDLoss(), 0.0175277364, 0.0232778850),
        (RKDLoss(), 2.2425949749, 3.2302865724),
        (RKDLoss(distance_weight=1, angle_weight=0), 0.0233615442, 0.0411802223),
        (RKDLoss(distance_weight=0, angle_weight=1), 0.0331711274, 0.0440156203),
        (DarkRankLoss(length=3), 2.6372501136, 3.0113670940),
        (DarkRankLoss(length=4), 5.0016687624, 5.1930153822),
        (FitNetLoss(), 0.8652843123, 0.9844588291),
        (ShrinkTeaNetLoss(variant="cosine"), 0.8350719920, 0.9867826609),
        (KDLoss(), 0.3857741653, 0.4776590547),
    ],
)
def test_golden_values_of_the_authors_code(loss, first, second):
    """METHODS 1.3: TFace 171ec14 (CCKD: its first commit) in float64 on two batches."""
    for shape, expected in (((16, 8), first), ((64, 16), second)):
        student, teacher, labels = golden_batch(*shape)
        assert loss(student, teacher, labels).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in SUCCESSORS])
@settings(deadline=None)
@given(batch=batches())
def test_equals_a_loop_in_float64(name, batch):
    student, teacher, labels = batch
    value = LOSSES[name](student.shape[1]).double()(student, teacher, labels)
    assert value.shape == ()
    assert value.dtype == torch.float64
    arguments = [student.tolist(), teacher.tolist()]
    if name in NEEDS_LABELS:
        arguments.append(labels.tolist())
    expected = oracle_of(name)(*arguments)
    assert value.item() == pytest.approx(expected, abs=1e-8, rel=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name):
    student, teacher, labels = random_batch(7, 5, seed=2)
    loss = LOSSES[name](5)
    if name == "ekd":
        loss = EKDLoss(fprs=(0.5, 0.2), temperature=0.1).double()
        loss(student, teacher, labels)
        loss.eval()
    if name.startswith(
        ("fine ekd", "gallery", "contrastive", "adadistill", "qud", "seed")
    ):  # their state would go on
        loss.double()(student, teacher, labels)
        loss.eval()
    student.requires_grad_()
    assert loss(student, teacher, labels).item() > 1e-4
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher, labels), student)


@pytest.mark.parametrize("name", LOSSES)
def test_the_teacher_gets_no_gradient_and_the_inputs_stay_as_they_are(name):
    student, teacher, labels = random_batch(8, 4)
    copies = student.clone(), teacher.clone(), labels.clone()
    student.requires_grad_()
    teacher.requires_grad_()
    LOSSES[name](4)(student, teacher, labels).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    for now, before in zip((student, teacher, labels), copies, strict=True):
        assert torch.equal(now.detach(), before)


# What a student equal to its teacher costs: zero, but for these.
AT_TEACHER = {"darkrank", "triplet", "triplet l2", "margin", "pwr ranknet", "adadistill", "qud"}
AT_TEACHER |= {"ddl"}  # its order loss; the rest is zero (test_ddl.py)
AT_TEACHER |= {"fine ekd decisions", "fine ekd labels"}
AT_TEACHER |= {"contrastive decisions", "triplet decisions"}


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_is_left_to_learn_from_a_teacher_equal_to_the_student(name):
    student, _, labels = random_batch(12, 5)
    x = student.clone().requires_grad_()
    loss = LOSSES[name](5)(x, student, labels)
    loss.backward()
    if name not in AT_TEACHER:
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert x.grad.abs().max() < 1e-7
    else:
        assert loss.item() > 0


@pytest.mark.parametrize("name", ["darkrank", "darkrank soft"])
def test_darkrank_depends_on_the_teacher_through_its_ranks(name):
    """Moving the student nearer to the teacher's order lowers the loss."""
    student, teacher, _ = random_batch(20, 4)
    loss = LOSSES[name](4)
    values = [loss(student + w * (teacher - student), teacher).item() for w in (0, 0.5, 1)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_batch_does_not_matter(name):
    student, teacher, labels = random_batch(16, 5)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    value = LOSSES[name](5)(student, teacher, labels).item()
    shuffled = LOSSES[name](5)(student[order], teacher[order], labels[order]).item()
    assert shuffled == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("name", is_relational)
def test_relations_do_not_see_rotations_nor_need_equal_widths(name):
    student, teacher, labels = random_batch(16, 5)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    value = LOSSES[name](5)(student, teacher, labels).item()
    turned = LOSSES[name](5)(student @ turn, teacher, labels).item()
    assert turned == pytest.approx(value, rel=1e-9)
    wide = torch.nn.functional.pad(teacher, (0, 3))
    assert LOSSES[name](5)(student, wide, labels).item() == pytest.approx(value, rel=1e-9)


SEES_LENGTHS = {"gkd", "dkd", "lskd", "kd", "fitnet", "sp row", "rkd", "rkd distance", "rkd angle"}


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in SEES_LENGTHS])
def test_directions_alone_count_where_the_loss_normalises(name):
    student, teacher, labels = random_batch(12, 5)
    lengths = torch.linspace(0.1, 9, 12, dtype=torch.float64)[:, None]
    value = LOSSES[name](5)(student, teacher, labels).item()
    scaled = LOSSES[name](5)(student * lengths, teacher / lengths, labels).item()
    assert scaled == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("name", ["rkd", "rkd distance", "rkd angle"])
def test_rkd_does_not_see_scale_nor_shift(name):
    student, teacher, _ = random_batch(12, 5)
    value = LOSSES[name](5)(student, teacher).item()
    assert LOSSES[name](5)(student * 7 + 3, teacher).item() == pytest.approx(value, rel=1e-9)


def odd_batch(kind):
    student, teacher, labels = random_batch(9, 6)
    if kind.startswith("N="):
        rows = int(kind[2:])
        student, teacher, labels = student[:rows], teacher[:rows], labels[:rows]
    elif kind == "one identity":
        labels = torch.zeros_like(labels)
    elif kind == "all distinct":
        labels, student, teacher = torch.arange(4), student[:4], teacher[:4]
    elif kind == "duplicated rows":
        student, teacher, labels = (x[[0, 0, 1, 1, 1, 2, 3, 4]] for x in (student, teacher, labels))
    elif kind == "nearly duplicated rows":
        student[1], teacher[1] = student[0] * (1 + 1e-7), teacher[0] * (1 - 1e-7)
    elif kind == "a zero row":
        student[2], teacher[3] = 0, 0
    elif kind == "all zero":
        student, teacher = student * 0, teacher * 0
    elif kind == "collapsed":
        student = student[:1].expand(9, 6).clone()
    elif kind == "collapsed teacher":
        teacher = teacher[:1].expand(9, 6).clone()
    elif kind == "opposite":
        student = -teacher
    elif kind == "same":
        student = teacher.clone()
    elif kind == "long":
        student = student * 1e4
    return student, teacher, labels


ODD = ["N=0", "N=1", "N=2", "one identity", "all distinct", "duplicated rows", "a zero row"]
ODD += ["nearly duplicated rows", "all zero", "collapsed", "collapsed teacher", "opposite", "same"]
ODD += ["long"]
# What the docstrings promise beyond "finite": the batch in which there is nothing to distil.
ZERO = {("N=0", name) for name in LOSSES}
ZERO |= {("N=1", name) for name in [*is_relational] if not name.startswith(("sp", "cckd"))}
ZERO |= {("N=2", name) for name in LOSSES if name.startswith("pwr")}
ZERO |= {(kind, name) for kind in ("one identity", "all distinct") for name in ("triplet",)}
ZERO |= {(kind, "ddl") for kind in ("one identity", "all distinct")}
ZERO |= {(kind, "triplet l2") for kind in ("one identity", "all distinct")}


PRECISIONS = [(torch.float64, False), (torch.float32, False), (torch.float16, False)]
PRECISIONS += [(torch.bfloat16, False), (torch.float32, True)]


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", LOSSES)
def test_odd_batches_give_a_finite_value_and_gradient(name, kind):
    for precision in PRECISIONS:  # a test each would cost more than what it tests
        dtype, autocast = precision
        student, teacher, labels = odd_batch(kind)
        student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = LOSSES[name](6)(student, teacher, labels)
        assert loss.shape == (), precision
        wanted = torch.float64 if dtype == torch.float64 else torch.float32
        assert loss.dtype == wanted, precision
        loss.backward()
        assert loss.isfinite(), precision
        assert student.grad.isfinite().all(), precision
        if (kind, name) in ZERO:
            assert loss.item() == 0, precision
            assert (student.grad == 0).all(), precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_input_is_computed_in_float32(name, dtype):
    """Against float64 on the same rounded input; a batch away from ties."""
    student, teacher, labels = random_batch(32, 16, seed=5)
    student, teacher = student.to(dtype), teacher.to(dtype)
    loss = LOSSES[name](8) if name == "margin" else LOSSES[name](16)
    if name == "margin":
        student, teacher = student[:, :8], teacher[:, :8]
    with torch.autocast("cpu", dtype):
        value = loss(student, teacher, labels).item()
    dim = student.shape[1]
    exact = LOSSES[name](dim)(student.double(), teacher.double(), labels).item()
    assert value == pytest.approx(exact, rel=1e-3)
    single = LOSSES[name](dim)(student.float(), teacher.float(), labels).item()
    assert value == pytest.approx(single, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_rows_that_do_not_match_are_named(name):
    student, teacher, labels = random_batch(6, 4)
    with pytest.raises(ValueError, match=r"student \(6, 4\) and teacher \(5, 4\)"):
        LOSSES[name](4)(student, teacher[:5], labels)
    with pytest.raises(ValueError, match=r"student \(24,\) and teacher \(24,\)"):
        LOSSES[name](4)(student.flatten(), teacher.flatten(), labels)


@pytest.mark.parametrize("name", sorted(NEEDS_LABELS))
def test_missing_or_too_few_labels_are_named(name):
    student, teacher, labels = random_batch(6, 4)
    with pytest.raises(ValueError, match="needs labels"):
        LOSSES[name](4)(student, teacher)
    with pytest.raises(ValueError, match=r"expected labels \(6,\), got \(5,\)"):
        LOSSES[name](4)(student, teacher, labels[:5])


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name not in is_relational and name != "margin"]
)
def test_widths_that_must_agree_are_named(name):
    student, teacher, labels = random_batch(6, 4)
    with pytest.raises(ValueError, match=r"widths must agree; got student \(6, 4\)"):
        LOSSES[name](4)(student, teacher[:, :3], labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KDLoss(temperature=0), "temperature"),
        (lambda: FitNetLoss(student_dim=4), "both student_dim and teacher_dim"),
        (lambda: ShrinkTeaNetLoss(variant="angular"), "'angular'"),  # type: ignore[arg-type]
        (lambda: DarkRankLoss(beta=1), "beta >= 2"),
        (lambda: DarkRankLoss(variant="soft", length=7), "length <= 6"),
        (lambda: CCKDLoss(order=0), r"a whole order, 1\.\.100"),
        (lambda: RKDLoss(angle_weight=-1), "weights >= 0"),
        (lambda: TripletDistillationLoss(distance="l1"), "'l1'"),  # type: ignore[arg-type]
        (lambda: TripletDistillationLoss(min_margin=0.6), "min_margin <= max_margin"),
        (lambda: BatchHardDecisionLoss(threshold=45), "a cosine between -1 and 1, got 45"),
        (lambda: BatchHardDecisionLoss(threshold=math.nan), "a cosine between -1 and 1"),
        (lambda: BatchHardDecisionLoss(threshold=0.5, margin=-0.1), "margin from 0 to 2"),
        (lambda: ContrastiveDecisionLoss(4, 4, threshold=0.5, fpr=0), "rates between 0 and 1"),
        (lambda: MarginDistillationLoss(torch.zeros(4)), r"prototypes \(C, D\)"),
        (lambda: MarginDistillationLoss(PROTOTYPES, min_margin=0.6), "min_margin <= max_margin"),
        (lambda: PWRLoss(variant="rank"), "'rank'"),  # type: ignore[arg-type]
        (lambda: PWRLoss(max_pairs=1), "max_pairs >= 2"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", DISTILLERS)
def test_every_method_is_built_for_a_setting_and_says_what_it_needs(name):
    """The metadata is checked against what the loss does."""
    method = DISTILLERS[name]
    setting = make_setting(6, prototypes=PROTOTYPES[:, :6])
    loss = method.build(setting)
    half = 160 if name == "contrastive_decisions" else 24  # shows 1e-4, or 1e-3
    student, teacher, labels = random_batch(2 * half, 6)
    student.requires_grad_()
    whole = loss.double()(student, teacher, labels)
    whole.backward()
    assert student.grad.abs().sum() > 0
    if method.needs_labels:
        with pytest.raises(ValueError, match="needs labels"):
            loss(student, teacher)
    else:
        again = method.build(setting).double()(student, teacher)
        assert again.item() == pytest.approx(whole.item(), abs=1e-12)
    if name == "adadistill":  # its centres, which the whole batch moves, stay where they are
        loss.eval()
        loss.centres.copy_(PROTOTYPES[:, :6])
        whole = loss(student, teacher, labels)
    parts = [
        (loss if name == "adadistill" else method.build(setting).double())(
            student[r], teacher[r], labels[r]
        )
        for r in (slice(0, half), slice(half, 2 * half))
    ]
    is_mean = math.isclose(sum(p.item() for p in parts) / 2, whole.item(), rel_tol=1e-9)
    assert is_mean != method.compares_images
    if method.needs == "embeddings":
        wide = torch.nn.functional.pad(PROTOTYPES[:, :6], (0, 2))
        loss = method.build(make_setting(6, 8, wide)).double()
        wide_teacher = torch.nn.functional.pad(teacher, (0, 2))
        if method.needs_same_width:
            with pytest.raises(ValueError, match="width"):
                loss(student, wide_teacher, labels)
        else:
            assert loss(student, wide_teacher, labels).isfinite()
    assert method.weight >= 0
    scaled = method.build(dataclasses.replace(setting, scale=5.0, margin=0.25))
    assert getattr(scaled, "scale", 5.0) == 5.0
    if method.takes_margin:
        options = vars(scaled)
        assert {options[key] for key in options if "margin" in key} == {0.25}
    note = NOTES[name]
    assert all((note.paper, note.cost, note.differs, note.weight_source))


def test_methods_combine_with_weights():
    defaults = {name: DISTILLERS[name].weight for name in ("ekd", "fitnet")}
    assert parse_method("ekd+fitnet") == defaults
    assert parse_method("ekd:2+fitnet") == {**defaults, "ekd": 2.0}
    assert parse_method("rkd:0.5 + sp:3e3") == {"rkd": 0.5, "sp": 3000.0}
    assert parse_method("none") == {}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("edk", "did you mean 'ekd'"),
        ("darkrnk", "did you mean 'darkrank'"),
        ("ekd+ekd", "stands twice"),
        ("ekd:-1", "must be a number >= 0"),
        ("ekd:much", "must be a number >= 0"),
        ("ekd:nan", "must be a number >= 0"),
        ("", "unknown method ''"),
    ],
)
def test_a_method_that_cannot_be_read_is_named(method, message):
    with pytest.raises(ValueError, match=message):
        parse_method(method)
