"""What came after EKD: golden values of the authors' code, and what each loss promises.

The golden values are those of SUCCESSORS 2: official programs in float64 on the batch of
`golden_batch`, with prototypes W_kj = sin(0.11 (k+1)(j+2)) and a queue of unit rows
cos(0.17 (k+2)(j+3)). A pair is the loss and the Frobenius norm of its gradient.
"""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ekd_lite.distill import (
    AdaDistillLoss,
    GroupedKDLoss,
    KDLoss,
    MarginDistillationLoss,
    TeacherHeadLoss,
    TeacherQueueLoss,
)
from tests.distill.batches import golden_batch, random_batch

SHAPES = [(16, 8), (64, 16)]


def prototypes(count, dim):
    k = torch.arange(count, dtype=torch.float64)[:, None]
    j = torch.arange(dim, dtype=torch.float64)
    return torch.sin(0.11 * (k + 1) * (j + 2))


def queue_rows(count, dim):
    k = torch.arange(count, dtype=torch.float64)[:, None]
    j = torch.arange(dim, dtype=torch.float64)
    return F.normalize(torch.cos(0.17 * (k + 2) * (j + 3)), dim=1)


def value_and_norm(loss, student, *others):
    student = student.clone().requires_grad_()
    value = loss(student, *others)
    value.backward()
    return value.item(), student.grad.norm().item()


def centred(shape, one_image=True, **options):
    """AdaDistill whose centres start at W."""
    rows, dim = shape
    people = rows if one_image else rows // 4
    start = prototypes(people, dim)
    return AdaDistillLoss(people, dim, start=start, **options).double()


ADA: dict[str, Any] = {
    "arc": (
        {},
        True,
        [(59.89960813, 8.657872), (59.88775541, 8.6564991)],
        [(74.36290542, 5.753393), (74.32318881, 5.7548864)],
    ),
    "cos": (
        {"kind": "cos", "margin": 0.35},
        True,
        [(55.14715482, 8.963825), (55.13578919, 8.9621754)],
        [(69.67093232, 6.2604372), (69.57417338, 6.2617217)],
    ),
    "in order": (
        {"several": "in_order"},
        False,
        [(34.09255548, 8.9724994)],
        [(52.44514941, 5.8480883)],
    ),
    "mean": (
        {},
        False,
        [(27.46128643, 9.6367861), (27.46658489, 9.3115451)],
        [(53.99739147, 7.3809812), (53.32393255, 7.1465034)],
    ),
    "plain": (
        {"typical": False},
        True,
        [(68.65760523, None), (65.56115296, None)],
        [(76.50158882, None), (75.40734398, None)],
    ),
}


@pytest.mark.parametrize("name", ADA)
@pytest.mark.parametrize("which", [0, 1])
def test_adadistill_equals_the_authors_numbers(name, which):
    options, one_image, *expected = ADA[name]
    student, teacher, labels = golden_batch(*SHAPES[which])
    if one_image:
        labels = torch.arange(len(student))
    loss = centred(SHAPES[which], one_image, **options)
    for value, norm in expected[which]:
        found = value_and_norm(loss, student, teacher, labels)
        assert found[0] == pytest.approx(value, rel=1e-6)
        if norm is not None:
            assert found[1] == pytest.approx(norm, rel=1e-6)


def test_adadistills_alpha_is_the_papers():
    student, teacher, _ = golden_batch(16, 8)
    loss = centred((16, 8))
    for alpha in (7.820484e-4, 0.1991522):
        loss(student, teacher, torch.arange(16))
        assert loss.stats["alpha"].item() == pytest.approx(alpha, rel=1e-5)


QUEUE: dict[str, Any] = {
    "qud": (
        {},
        [(7.138298751, 1.2069019), (6.993711024, 1.1786746), (6.439877757, 1.3407727)],
        [(8.923781932, 0.90196991), (9.339883163, 0.90662296), (8.808053315, 0.96641006)],
    ),
    "seed": (
        {"teacher_temperature": 0.1},
        [(6.683148603, 1.1834417)],
        [(8.022652569, 0.88810479)],
    ),
    "seed, sharp": (
        {"temperature": 0.2, "teacher_temperature": 0.01},
        [(4.170093534, 0.57240215)],
        [(5.877892260, 0.42210493)],
    ),
}


def with_queue(rows, dim, **options):
    loss = TeacherQueueLoss(dim, size=2 * rows, **options).double()
    loss.queue.copy_(queue_rows(2 * rows, dim))
    return loss


@pytest.mark.parametrize("name", QUEUE)
@pytest.mark.parametrize("which", [0, 1])
def test_queues_equal_the_authors_numbers(name, which):
    options, *expected = QUEUE[name]
    student, teacher, _ = golden_batch(*SHAPES[which])
    loss = with_queue(*SHAPES[which], **options)
    for value, norm in expected[which]:
        found = value_and_norm(loss, student, teacher)
        assert found == pytest.approx((value, norm), rel=1e-7)


@pytest.mark.parametrize(
    ("shape", "value", "norm"),
    [((16, 8), 43.51106642, 20.677408), ((64, 16), 99.32601678, 13.769897)],
)
def test_teacher_head_equals_the_authors_numbers(shape, value, norm):
    student, teacher, _ = golden_batch(*shape)
    loss = TeacherHeadLoss(prototypes(shape[0] // 4, shape[1]), scale=64.0).double()
    assert value_and_norm(loss, student, teacher) == pytest.approx((value, norm), rel=1e-7)


LOGITS = {
    "kd": (KDLoss(), (18.10982929, 0.50357738), (21.58182828, 0.18802279)),
    "lskd": (
        KDLoss(temperature=2.0, standardize=True),
        (0.7020949226, 0.017146334),
        (0.8728638696, 0.018831725),
    ),
    "gkd binary": (
        GroupedKDLoss(group=3, primary=0.0),
        (4.620510827, 0.3120014),
        (2.909454033, 0.10339911),
    ),
    "gkd primary": (
        GroupedKDLoss(group=3, binary=0.0, primary=1.0),
        (10.55710244, 0.53094277),
        (11.64211665, 0.28197951),
    ),
    "gkd secondary": (
        GroupedKDLoss(group=3, binary=0.0, primary=0.0, secondary=1.0),
        (15.55597448, 0.63701059),
        (20.08012226, 0.21323466),
    ),
    "gkd 3": (GroupedKDLoss(group=3), (89.07733035, 4.2901823), (96.04638723, 2.2701786)),
    "gkd 5": (GroupedKDLoss(group=5), (114.5749974, 4.3907982), (104.1762588, 2.0186766)),
    "dkd": (
        GroupedKDLoss(group=1, primary=0.0, secondary=8.0),
        (138.1642710, 4.2197522),
        (173.4763085, 1.5582153),
    ),
    "dkd target": (GroupedKDLoss(group=1), (3.714203635, None), (1.676096030, None)),
    "dkd others": (
        GroupedKDLoss(group=1, binary=0.0, secondary=1.0),
        (16.80625842, None),
        (21.47502655, None),
    ),
}


@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("which", [0, 1])
def test_losses_on_logits_equal_the_authors_numbers(name, which):
    loss, *expected = LOGITS[name]
    student, teacher, _ = golden_batch(*SHAPES[which])
    labels = torch.arange(len(student)) % student.shape[1]
    found = value_and_norm(loss, 8 * student, 8 * teacher, labels)
    value, norm = expected[which]
    assert found[0] == pytest.approx(value, rel=1e-7)
    if norm is not None:
        assert found[1] == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "margin", "first", "second"),
    [
        ("arc", 0.45, (39.37902246, 5.8061652), (55.62136953, 5.3484899)),
    ],
)
def test_arcdistill_is_margin_distillation_with_one_margin(kind, margin, first, second):
    for shape, expected in ((SHAPES[0], first), (SHAPES[1], second)):
        student, teacher, labels = golden_batch(*shape)
        loss = MarginDistillationLoss(
            prototypes(shape[0] // 4, shape[1]), min_margin=margin, max_margin=margin
        ).double()
        assert value_and_norm(loss, student, teacher, labels) == pytest.approx(expected, rel=1e-6)


# --- AdaDistill ---


def test_a_typical_centre_stays_and_the_loss_is_arcdistill():
    _, teacher, labels = random_batch(12, 6, identities=12)
    start = F.normalize(teacher, dim=1)
    loss = AdaDistillLoss(12, 6, start=start).double()
    found = loss(3 * teacher, teacher, labels)
    assert torch.allclose(loss.centres, start, atol=1e-6)
    same = MarginDistillationLoss(start, min_margin=0.45, max_margin=0.45).double()
    assert found.item() == pytest.approx(same(3 * teacher, teacher, labels).item(), rel=1e-6)
    assert found.item() > 0  # not at rest where the student equals the teacher


def test_an_image_far_from_its_teacher_replaces_the_centre():
    _, teacher, labels = random_batch(5, 6, identities=5)
    loss = AdaDistillLoss(5, 6, start=prototypes(5, 6)).double()
    loss(-teacher, teacher, labels)
    assert torch.allclose(loss.centres, F.normalize(teacher, dim=1), atol=2e-6)


def by_hand(start, student, teacher, labels, *, several):
    """The centres after a batch, in plain loops."""
    centres = start.clone()
    s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
    updates = {}
    for i, y in enumerate(labels.tolist()):
        old = centres[y] if several == "in_order" else start[y]
        length = old.norm()
        typical = max(float(old @ t[i] / length) if length > 0 else 0.0, 1e-6)
        alpha = min(max(float(s[i] @ t[i]) * typical, 1e-6), 1.0)
        new = alpha * old + (1 - alpha) * t[i]
        updates.setdefault(y, []).append(new)
        if several == "in_order":
            centres[y] = new
    if several == "mean":
        for y, rows in updates.items():
            centres[y] = torch.stack(rows).mean(0)
    return centres


@pytest.mark.parametrize("several", ["mean", "in_order"])
@pytest.mark.parametrize("seed", range(5))
def test_centres_move_as_in_plain_loops(several, seed):
    student, teacher, labels = random_batch(23, 5, seed=seed, identities=7)
    labels = labels[torch.randperm(23, generator=torch.Generator().manual_seed(seed))]
    start = prototypes(9, 5)
    start[3] = 0
    loss = AdaDistillLoss(9, 5, start=start, several=several).double()
    for _ in range(2):
        expected = by_hand(loss.centres, student, teacher, labels, several=several)
        before = loss.centres.clone()
        loss(student, teacher, labels)
        assert torch.allclose(loss.centres, expected, atol=1e-12)
        assert torch.equal(loss.centres[7:], before[7:])  # nobody of the batch
    assert (loss.centres.norm(dim=1) <= max(1, start.norm(dim=1).max()) + 1e-12).all()


def test_adadistill_does_not_see_order_rotation_or_length():
    student, teacher, labels = random_batch(12, 5)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    start = prototypes(4, 5)
    value = AdaDistillLoss(4, 5, start=start).double()(student, teacher, labels).item()
    order = torch.randperm(12)
    lengths = torch.rand(12, 1, dtype=torch.float64) + 0.1
    for s, t, y, w in (
        (student[order], teacher[order], labels[order], start),
        (student @ turn, teacher @ turn, labels, start @ turn),
        (student * lengths, teacher / lengths, labels, start),
    ):
        other = AdaDistillLoss(4, 5, start=w).double()(s, t, y).item()
        assert other == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["arc", "cos"])
def test_adadistill_has_a_finite_gradient_at_its_centres(sign, kind):
    _, teacher, labels = random_batch(6, 5, identities=6)
    loss = AdaDistillLoss(6, 5, start=teacher.float(), kind=kind)
    student = (sign * teacher).float().requires_grad_()
    loss(student, teacher.float(), labels).backward()
    assert student.grad.isfinite().all()


def test_adadistill_keeps_its_centres_in_evaluation_and_over_empty_batches():
    student, teacher, labels = random_batch(6, 5)
    loss = AdaDistillLoss(4, 5).double()
    before = loss.centres.clone()
    assert loss(student[:0], teacher[:0], labels[:0]).item() == 0
    loss.eval()
    loss(student, teacher, labels)
    assert torch.equal(loss.centres, before)


def test_a_nan_image_shows_in_adadistill_but_not_in_its_centres():
    student, teacher, labels = random_batch(8, 5)
    for broken in ("student", "teacher"):
        loss = AdaDistillLoss(4, 5).double()
        rows = {"student": student.clone(), "teacher": teacher.clone()}
        rows[broken][2] = torch.nan
        assert loss(rows["student"], rows["teacher"], labels).isnan()
        assert loss.centres.isfinite().all()
        assert loss(student, teacher, labels).isfinite()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaDistillLoss(0, 4), "num_identities >= 1"),
        (lambda: AdaDistillLoss(3, 4, margin=-1), "a margin in 0"),
        (lambda: AdaDistillLoss(3, 4, kind="ada"), "'ada'"),  # type: ignore[arg-type]
        (lambda: AdaDistillLoss(3, 4, several="last"), "'last'"),  # type: ignore[arg-type]
        (lambda: AdaDistillLoss(3, 4, start=torch.zeros(3, 5)), r"start \(3, 4\), got \(3, 5\)"),
        (lambda: AdaDistillLoss(3, 4, start=torch.full((3, 4), math.nan)), "finite start"),
        (lambda: AdaDistillLoss(1, 2, start=[[0.1, 0.2]]), "start must be"),  # type: ignore[arg-type]
        (lambda: GroupedKDLoss(group=0), "group must be"),
        (lambda: GroupedKDLoss(group=1.5), "group must be"),
        (lambda: GroupedKDLoss(group=2, binary=-1), "weights >= 0"),
        (lambda: TeacherQueueLoss(4, size=0), "size >= 1"),
        (lambda: TeacherQueueLoss(4, temperature=0), "temperatures must be positive"),
        (lambda: TeacherQueueLoss(4, teacher_temperature=0), "temperatures must be positive"),
        (lambda: TeacherHeadLoss(torch.zeros(4), scale=1), r"prototypes \(C, D\)"),
        (lambda: TeacherHeadLoss(torch.zeros(4, 2), scale=0), "scale must be positive"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- groups ---


def parts(student, teacher, labels, n, temperature):
    """Binary, primary, secondary of one image each, by plain sums in float64."""
    made = []
    for z, w, y in zip(student, teacher, labels.tolist(), strict=True):
        q, p = (z / temperature).softmax(0).tolist(), (w / temperature).softmax(0).tolist()
        others = sorted((k for k in range(len(q)) if k != y), key=lambda k: -float(z[k]))
        group = {y, *others[: n - 1]}
        rest = set(range(len(q))) - group
        mass = {
            name: [sum(x[k] for k in g) for x in (p, q)]
            for name, g in (("in", group), ("out", rest))
        }
        binary = sum(a * math.log(a / b) for a, b in mass.values() if a > 0)
        inner = [
            sum(p[k] / a * math.log((p[k] / a) / (q[k] / b)) for k in g)
            for g, (a, b) in ((group, mass["in"]), (rest, mass["out"]))
            if g
        ]
        made.append((binary, inner[0], inner[1] if rest else 0.0, mass["in"][0], mass["out"][0]))
    return made


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_groups_split_kd_exactly(n):
    student, teacher, labels = random_batch(10, 6, identities=6)
    by_loop = parts(student * 3, teacher * 3, labels, n, 2.0)
    whole = KDLoss(temperature=2.0)(student * 3, teacher * 3).item()
    assert 4 * sum(b + g * i + r * o for b, i, o, g, r in by_loop) / 10 == pytest.approx(whole)
    for weights in ((1.0, 8.0, 0.0), (1.0, 0.0, 8.0), (0.3, 0.2, 0.1)):
        binary, primary, secondary = weights
        loss = GroupedKDLoss(
            group=n, binary=binary, primary=primary, secondary=secondary, temperature=2.0
        )
        expected = sum(binary * b + primary * i + secondary * o for b, i, o, _, _ in by_loop)
        found = loss(student * 3, teacher * 3, labels).item()
        assert found == pytest.approx(4 * expected / 10, rel=1e-9)


def test_a_group_of_all_classes_is_kd():
    student, teacher, labels = random_batch(10, 6)
    for group in (6, 9, 10_000):
        loss = GroupedKDLoss(group=group, primary=1.0)
        expected = KDLoss()(student, teacher).item()
        assert loss(student, teacher, labels).item() == pytest.approx(expected, rel=1e-12)


def test_a_group_holds_its_target_and_exactly_n_classes():
    student, _, labels = random_batch(30, 7, identities=7)
    student[:, 2] = student[:, 4]  # a tie
    for group, n in ((1, 1), (3, 3), (0.5, 4), (0.01, 1), (7, 7)):
        chosen = GroupedKDLoss(group=group).groups(student, labels)
        assert (chosen.sum(1) == n).all()
        assert chosen.gather(1, labels[:, None]).all()


def test_a_sure_student_gives_no_infinity():
    student = torch.tensor([[64.0, -64.0, -64.0, -60.0]], requires_grad=True)
    teacher = torch.tensor([[-64.0, 64.0, -64.0, 60.0]])
    for group in (1, 2, 4):
        loss = GroupedKDLoss(group=group, secondary=1.0, temperature=1.0)
        value = loss(student, teacher, torch.tensor([0]))
        value.backward()
        assert value.isfinite()
        assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", [GroupedKDLoss(group=2), GroupedKDLoss(group=0.9), KDLoss()])
def test_a_constant_added_to_the_logits_of_an_image_changes_nothing(loss):
    student, teacher, labels = random_batch(8, 5)
    shift = torch.randn(8, 1, dtype=torch.float64)
    value = loss(student, teacher, labels).item()
    assert loss(student + shift, teacher - shift, labels).item() == pytest.approx(value, rel=1e-9)


def test_standardised_logits_have_no_scale_and_their_gradient_none_along_them():
    student, teacher, _ = random_batch(8, 5)
    loss = KDLoss(temperature=2.0, standardize=True)
    value = loss(student, teacher).item()
    assert loss(7 * student + 3, 0.1 * teacher - 2).item() == pytest.approx(value, rel=1e-6)
    z = student.clone().requires_grad_()
    loss(z, teacher).backward()
    assert z.grad.sum(1).abs().max() < 1e-12
    assert (z.grad * z).sum(1).abs().max() < 1e-7
    z = torch.ones(4, 5, requires_grad=True)
    loss(z, torch.ones(4, 5)).backward()
    assert z.grad.isfinite().all()
    assert loss(torch.ones(4, 1), torch.ones(4, 1)).item() == 0


# --- queue ---


def test_the_queue_holds_the_last_rows_in_ring_order():
    loss = TeacherQueueLoss(4, size=7).double()
    seen = []
    for step, rows in enumerate((3, 3, 3, 12, 2)):
        student, teacher, _ = random_batch(rows, 4, seed=step)
        loss(student, teacher)
        seen += list(F.normalize(teacher, dim=1))
    age = [(int(loss.position) + k) % 7 for k in range(7)]
    assert torch.allclose(loss.queue[age], torch.stack(seen[-7:]))


def test_a_queue_waits_in_evaluation_and_takes_no_nan():
    student, teacher, _ = random_batch(5, 4)
    loss = TeacherQueueLoss(4, size=8).double()
    before = loss.queue.clone()
    loss.eval()(student, teacher)
    assert torch.equal(loss.queue, before)
    loss.train()(student[:0], teacher[:0])
    assert torch.equal(loss.queue, before)
    teacher[1] = torch.nan
    assert loss(student, teacher).isnan()
    assert loss.queue.isfinite().all()
    assert int(loss.position) == 4


def test_every_queue_starts_alike_and_goes_on_where_it_was_saved():
    student, teacher, _ = random_batch(5, 4)
    first, second = (TeacherQueueLoss(4, size=8).double() for _ in range(2))
    assert torch.equal(first.queue, second.queue)
    first(student, teacher)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert first(student, teacher) == second(student, teacher)
    assert torch.equal(first.queue, second.queue)


def test_qud_pulls_to_the_own_row_and_away_from_the_queue():
    student, teacher, _ = random_batch(6, 5)
    s = F.normalize(student, dim=1).requires_grad_()
    t = F.normalize(teacher, dim=1)
    loss = TeacherQueueLoss(5, size=9).double()
    queue = loss.queue.clone()
    loss(s, t).backward()
    p = torch.cat([(s * t).sum(1, keepdim=True), s @ queue.T], 1).detach().div(0.1).softmax(1)
    pull = (p[:, 1:] @ queue - (1 - p[:, :1]) * t) / 0.1 / 6
    along = (pull * s.detach()).sum(1, keepdim=True) * s.detach()  # unit rows turn, not stretch
    assert s.grad is not None
    assert torch.allclose(s.grad, pull - along, atol=1e-12)


def test_seed_rests_at_the_teacher_and_is_qud_where_the_teacher_is_sure():
    student, teacher, _ = random_batch(6, 5)
    x = teacher.clone().requires_grad_()
    seed = TeacherQueueLoss(5, teacher_temperature=0.1).double()
    value = seed(x, teacher)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert x.grad.abs().max() < 1e-12
    qud, sure = (
        TeacherQueueLoss(5, temperature=0.2, teacher_temperature=t).double() for t in (None, 1e-4)
    )
    assert sure(student, teacher).item() == pytest.approx(qud(student, teacher).item(), abs=1e-4)
    flat = TeacherQueueLoss(5, temperature=1e9, size=10).double()
    assert flat(student, teacher).item() == pytest.approx(math.log(11), rel=1e-6)


# --- teacher's head ---


def test_the_teachers_head_is_kd_on_its_logits():
    student, teacher, _ = random_batch(6, 5)
    w = F.normalize(prototypes(7, 5), dim=1)
    logits = [20 * F.normalize(x, dim=1) @ w.T for x in (student, teacher)]
    loss = TeacherHeadLoss(prototypes(7, 5), scale=20.0, temperature=3.0).double()
    expected = KDLoss(temperature=3.0)(*logits).item()
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-9)
    assert loss.state_dict() == {}
    x = (2 * teacher).requires_grad_()
    loss(x, teacher).backward()
    assert x.grad.abs().max() < 1e-9
    sharp = TeacherHeadLoss(prototypes(7, 5), scale=64.0, temperature=1.0)
    assert sharp(student.float(), teacher.float()).isfinite()


@pytest.mark.parametrize(
    "loss", [AdaDistillLoss(4, 5), TeacherQueueLoss(5), TeacherHeadLoss(torch.ones(3, 5), scale=1)]
)
def test_another_width_is_named(loss):
    student, teacher, labels = random_batch(6, 4)
    with pytest.raises(ValueError, match=r"width 5, got student \(6, 4\)"):
        loss(student, teacher, labels)
