"""Right answers of any make are right, and what a check says of wrong ones is true.

Each test stands for a kind of false accusation, or of wrong answer that used to pass.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from ekd_lite import coursework
from ekd_lite.coursework import (
    check_adadistill,
    check_best_accuracy,
    check_cosface,
    check_dkd,
    check_ekd,
    check_fitnet,
    check_kd,
    check_margin,
    check_paired_interval,
    check_qud,
    check_rkd,
    check_soft_rank,
    check_sp,
    check_tpr_at_fpr,
    check_triplet,
)
from tests.coursework.test_checks import ANSWERS, BY_NAME, check


def cast(function, dtype):
    def answer(*arguments):
        return function(
            *(
                x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x
                for x in arguments
            )
        )

    return answer


def text(feedback):
    return " ".join(repr(feedback).split())


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_in_float32_is_right_with_its_gradient(name):
    feedback = check(name, cast(ANSWERS[name][0], torch.float32))
    assert feedback.ok, repr(feedback)


@pytest.mark.parametrize("name", ["arcface", "cosface", "cosine_logits", "kd", "rkd", "ekd"])
def test_a_result_in_float32_is_right(name):
    feedback = check(name, lambda *a: ANSWERS[name][0](*a).float())
    assert feedback.ok, repr(feedback)


@pytest.mark.parametrize("name", ["cosine_logits", "cosface", "fitnet", "sp", "soft_rank"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_named_and_not_accused_of_more(name, dtype):
    feedback = check(name, cast(BY_NAME[name].reference, dtype))
    # unit_rows computes in float32, so that some references round their input alone.
    assert feedback.mistake == ""
    assert "half precision" in text(feedback)
    assert "hidden" not in text(feedback)


@pytest.mark.parametrize("name", [e.name for e in coursework.EXERCISES if e.detached])
@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_one_number_is_right_in_any_number_of_dimensions(name, shape):
    feedback = check(name, lambda *a: BY_NAME[name].reference(*a).reshape(shape))
    assert feedback.ok, repr(feedback)


def test_a_wrong_number_in_one_dimension_is_not_called_right():
    feedback = check_kd(lambda student, teacher, temperature: student.sum()[None])
    assert "shape" not in text(feedback)
    assert "per row" not in text(feedback)


def test_one_value_per_row_is_shown_where_there_are_rows():
    def kd(student, teacher, temperature):
        p = (teacher.detach() / temperature).softmax(1)
        q = (student / temperature).log_softmax(1)
        return temperature**2 * (p * (p.log() - q)).sum(1)

    feedback = text(check_kd(kd))
    assert "'3 images, 4 identities': expected (), got (3,). One value per row" in feedback


def test_a_column_is_told_apart_from_wrong_numbers():
    def rank(similarity, thresholds, temperature):
        return torch.sigmoid((similarity[:, None] - thresholds) / temperature).sum(1, keepdim=True)

    assert "The numbers are right" in text(check_soft_rank(rank))


def test_arguments_in_another_order_are_told_so():
    def kd(teacher_logits, student_logits, temperature):
        return BY_NAME["kd"].reference(student_logits, teacher_logits, temperature)

    feedback = check_kd(kd)
    assert "the same arguments in another order" in text(feedback)
    assert feedback.mistake == ""
    assert check_kd(lambda s, t, temperature: BY_NAME["kd"].reference(s, t, temperature))


QUANTILES = (
    "inverted_cdf averaged_inverted_cdf closest_observation interpolated_inverted_cdf hazen "
    "weibull linear median_unbiased normal_unbiased lower higher midpoint nearest"
)


@pytest.mark.parametrize("method", QUANTILES.split())
def test_any_rule_for_quantiles_is_right(method):
    def interval(first, second, confidence):
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        return np.quantile((first - second).numpy(), tails, method=method)

    assert check_paired_interval(interval)
    swapped = check_paired_interval(lambda *a: interval(*a)[::-1].copy())
    assert swapped.mistake == "ends exchanged"


def test_expected_and_got_are_shown_to_where_they_differ():
    feedback = text(
        check_best_accuracy(lambda s, g: BY_NAME["best_accuracy"].reference(s, g) + 1e-4)
    )
    assert "expected 0.8, got 0.8001" in feedback
    feedback = text(check_fitnet(lambda s, t: (s - t.detach()).square().mean() * (1 + 3e-5)))
    assert "expected 2, got 2.0001" in feedback


def test_a_gradient_that_is_not_finite_is_not_called_hidden():
    def rkd(student, teacher):
        def relative(x):
            distances = (x[:, None] - x).square().sum(2).sqrt()
            return distances * (len(x) * (len(x) - 1) / distances.sum())

        gap = torch.nn.functional.smooth_l1_loss
        return gap(relative(student), relative(teacher.detach()))

    feedback = text(check_rkd(rkd))
    assert "gradient with respect to student is NaN or infinite" in feedback
    assert "hidden" not in feedback


def test_a_wrong_gradient_is_shown():
    def sp(student, teacher):
        s, t = normalize(student), normalize(teacher.detach())
        return (s @ s.detach().T - t @ t.T).square().mean()

    feedback = text(check_sp(sp))
    assert "(case 'by hand': expected [[" in feedback
    assert "hidden" in feedback


SIGMOIDS = {
    "torch": (torch.sigmoid, True),
    "tanh": (lambda z: (1 + torch.tanh(z / 2)) / 2, True),
    "cut": (lambda z: 1 / (1 + torch.exp(-z.clamp(-50, 50))), True),
    "logsigmoid": (lambda z: torch.nn.functional.logsigmoid(z).exp(), True),
    "plain": (lambda z: 1 / (1 + torch.exp(-z)), False),
    "the other way round": (lambda z: torch.exp(z) / (1 + torch.exp(z)), False),
    "one minus": (lambda z: 1 - 1 / (1 + torch.exp(z)), False),
    "where after it": (
        lambda z: torch.where(z < -50, torch.zeros_like(z), 1 / (1 + torch.exp(-z))),
        False,
    ),
}


@pytest.mark.parametrize("name", SIGMOIDS)
def test_a_soft_rank_must_not_overflow(name):
    sigmoid, is_right = SIGMOIDS[name]
    feedback = check_soft_rank(lambda a, at, tau: sigmoid((a[:, None] - at) / tau).sum(1))
    assert feedback.ok == is_right
    assert is_right or "overflow" in text(feedback)
    assert "hidden" not in text(feedback)


def ekd_with(side):
    """EKD whose mean over a side, (P,), is up to the caller."""

    def ekd(student, teacher, labels, mine, theirs, temperature, topk):
        i, j = torch.triu_indices(len(labels), len(labels), 1)
        a = cosine_similarity(student[i], student[j])
        b = cosine_similarity(teacher[i], teacher[j]).detach()
        rank, target = (
            torch.sigmoid((c[:, None] - at) / temperature).sum(1)
            for c, at in ((a, mine), (b, theirs))
        )
        squares, same = (rank - target).square(), labels[i] == labels[j]
        hardest = a[~same].topk(min(topk, int((~same).sum()))).indices
        return 0.02 * side(squares[same]) + 0.01 * side(squares[~same][hardest])

    return ekd


@pytest.mark.parametrize(
    "guarded",
    [
        lambda x: x.sum() / max(1, len(x)),
        lambda x: x.mean() if len(x) else x.sum(),
        lambda x: x.mean() if len(x) else 0.0,
        lambda x: x.mean().nan_to_num() if len(x) else torch.zeros(()),
    ],
)
def test_ekd_with_a_guard_is_right(guarded):
    assert check_ekd(ekd_with(guarded))


@pytest.mark.parametrize(
    "careless",
    [
        torch.mean,
        lambda x: x.sum() / len(x),
        lambda x: sum(x) / len(x),
        lambda x: x.sum() / x.numel(),
        lambda x: (x.max() * 0 + x).mean(),
        lambda x: x.mean() if len(x) else torch.ones(()),
    ],
)
def test_ekd_without_a_guard_for_an_empty_side_is_told_so(careless):
    feedback = check_ekd(ekd_with(careless))
    assert not feedback
    assert "no genuine pair" in text(feedback)
    assert "That side counts 0" in text(feedback)


def test_the_other_side_counts_where_one_is_empty():
    def ekd(student, teacher, labels, *others):
        full = ekd_with(lambda x: x.sum() / max(1, len(x)))(student, teacher, labels, *others)
        return full if 1 < len(labels.unique()) < len(labels) else 0 * student.sum()

    feedback = check_ekd(ekd)
    assert not feedback
    assert "That side counts 0, and the other one as always" in text(feedback)


def test_a_missing_guard_does_not_hide_a_missing_detach():
    def ekd(student, teacher, *others):
        loss = ekd_with(torch.mean)(student, teacher, *others)
        return loss + (teacher - teacher.detach()).sum()

    feedback = check_ekd(ekd)
    assert feedback.mistake == "missing detach"
    assert "That side counts 0" in text(feedback)


def test_triplets_without_a_gap_in_the_teacher_have_the_smallest_margin():
    def triplet(student, teacher, triplets, low, high):
        def gap(x):
            a, p, n = normalize(x)[triplets].unbind(1)
            angles = [(a * b).sum(1).clamp(-1 + 1e-6, 1 - 1e-6).acos() for b in (n, p)]
            return angles[0] - angles[1]

        delta = gap(teacher.detach()).clamp(min=0)
        return (low + (high - low) * delta / delta.max() - gap(student)).clamp(min=0).mean()

    assert "Take m = M_min then" in text(check_triplet(triplet))


def test_the_ratio_of_margins_is_kept_between_0_and_1():
    from ekd_lite.heads.margin import add_angle

    def margin(student, teacher, prototypes, labels, scale, low, high):
        w, own = normalize(prototypes.detach()), labels[:, None]
        c = (normalize(teacher.detach()) @ w.T).gather(1, own)
        cosine = normalize(student) @ w.T
        target = add_angle(cosine.gather(1, own), low + (high - low) * c / c.max())
        logits = scale * cosine.scatter(1, own, target)
        return torch.nn.functional.cross_entropy(logits, labels)

    assert "Keep the ratio c / max c between 0 and 1" in text(check_margin(margin))


def test_every_impostor_may_pass():
    def tpr(scores, is_genuine, fpr):
        impostor = scores[~is_genuine].sort(descending=True).values
        return (scores[is_genuine] > impostor[int(fpr * len(impostor))]).double().mean()

    assert "the TPR is 1" in text(check_tpr_at_fpr(tpr))


def test_a_transposed_answer_that_is_wrong_is_not_called_right():
    feedback = check_cosface(lambda e, p, y, scale, margin: (e @ p.T).T)
    assert "it would be right" not in text(feedback)


def numpy_centres(student, teacher, centres, labels, least=1e-6):
    s, t, moved, y = (x.numpy().copy() for x in (student, teacher, centres, labels))
    s, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (s, t))
    t /= np.linalg.norm(t, axis=1, keepdims=True)  # once more does no harm
    for person in np.unique(y):
        mine, w = t[y == person], moved[person]
        alpha = (s[y == person] * mine).sum(1) * np.maximum(mine @ w / np.linalg.norm(w), least)
        alpha = np.clip(alpha, least, 1)[:, None]
        moved[person] = (alpha * w + (1 - alpha) * mine).mean(0)  # in place, of a copy
    return moved


@pytest.mark.parametrize("least", [0.0, 1e-6])
def test_centres_in_numpy_with_the_authors_bound_or_none_are_right(least):
    assert check_adadistill(lambda *given: numpy_centres(*given, least=least))


def test_a_queue_that_is_normalised_again_is_right():
    def qud(student, teacher, queue, temperature):
        choice = torch.cat([teacher[:, None], queue.expand(len(teacher), *queue.shape)], 1)
        cosine = cosine_similarity(student[:, None], choice.detach(), dim=2)
        right = torch.zeros(len(student), dtype=torch.int64)
        return torch.nn.functional.cross_entropy(cosine / temperature, right)

    assert check_qud(qud)


def dkd(student, teacher, labels, target, others, t, log_masses):
    """The authors' form of the others: a logit far below all stands for minus infinity."""
    own = torch.nn.functional.one_hot(labels, student.shape[1])
    s, t_ = student / t, teacher.detach() / t
    q, p = (log_masses(x, own.bool()) for x in (s, t_))
    loss = target * (p.exp() * (p - q)).sum(1)
    q, p = ((x - 1e5 * own).log_softmax(1) for x in (s, t_))
    return t**2 * (loss + others * (p.exp() * (p - q)).sum(1)).mean()


def test_the_authors_mask_is_right_and_their_logarithm_of_a_sum_underflows():
    def safe(x, own):
        logs = x.log_softmax(1)
        masses = [logs.where(mask, -torch.inf).logsumexp(1) for mask in (own, ~own)]
        return torch.stack(masses, 1)

    def authors(x, own):
        p = x.softmax(1)
        return torch.stack([(p * own).sum(1), (p * ~own).sum(1)], 1).log()

    assert check_dkd(lambda s, t, y, a, b, tau: dkd(s, t, y, a, b, tau, safe))
    feedback = check_dkd(lambda s, t, y, a, b, tau: dkd(s, t, y, a, b, tau, authors))
    assert "'a sure student'" in text(feedback)
    assert "log_softmax" in text(feedback)
    assert feedback.mistake == ""
