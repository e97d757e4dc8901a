"""What a feedback says where no known mistake fits, and how it looks."""

import warnings

import torch
from torch.nn.functional import normalize

from ekd_lite.coursework import check_arcface, check_cosface, check_fitnet, check_tpr_at_fpr


def cosface(embeddings, prototypes, labels, scale, margin):
    cosine = normalize(embeddings) @ normalize(prototypes).T
    return scale * (cosine - margin * torch.nn.functional.one_hot(labels, len(prototypes)))


def test_a_constant_factor_is_named():
    feedback = check_fitnet(lambda s, t: 3 * (s - t.detach()).square().mean())
    assert "Every value is 3 times the right one" in repr(feedback)
    assert feedback.mistake == ""


def test_the_first_failing_case_is_shown_in_full():
    assert repr(check_tpr_at_fpr(lambda scores, is_genuine, fpr: 0.5)) == (
        "tpr_at_fpr: not correct yet, 0 of 6 parts right\n"
        "  Case 'by hand': scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], is_genuine = [True,\n"
        "  False, True, True, False, False, False], fpr = 0.25; expected 1, got 0.5."
    )


def test_an_exception_is_shown_with_its_line_and_shapes():
    def broken(scores, is_genuine, fpr):
        return scores @ torch.zeros(3, dtype=torch.float64)

    text = repr(check_tpr_at_fpr(broken)).replace("\n  ", " ")
    assert "On case 'by hand' the function raises RuntimeError: " in text
    assert "Its line: return scores @ torch.zeros(3, dtype=torch.float64)" in text
    assert "Called with scores (7,), is_genuine (7,), fpr 0.25." in text


def test_numpy_in_a_loss_is_explained():
    feedback = check_fitnet(lambda s, t: ((s.numpy() - t.numpy()) ** 2).mean())
    assert "Stay in torch" in repr(feedback)


def test_transposed_logits_are_told_so():
    feedback = check_cosface(lambda *a: cosface(*a).T)
    assert "Transposed, it would be right" in feedback.lines[0]


def test_one_value_per_image_is_told_so():
    feedback = check_fitnet(lambda s, t: (s - t.detach()).square().mean(1))
    assert "One value per row" in repr(feedback)


def test_nan_at_a_cosine_of_one_is_explained():
    def acos(embeddings, prototypes, labels, scale, margin):
        unit = [x / x.norm(dim=1, keepdim=True) for x in (embeddings, prototypes)]
        own = torch.nn.functional.one_hot(labels, len(prototypes))
        return scale * torch.cos(torch.acos(unit[0] @ unit[1].T) + margin * own)

    feedback = check_arcface(acos)
    assert feedback.lines[0].startswith("NaN or infinite on case 'parallel, float32'")
    assert "clamp" in feedback.lines[0]
    assert (feedback.num_right, feedback.num_parts) == (3, 5)


def test_chance_is_noticed():
    feedback = check_tpr_at_fpr(lambda s, g, f: float(torch.rand(()) + 2))
    assert "Two calls with the same input" in repr(feedback)


def test_the_reader_keeps_the_generator():
    torch.manual_seed(0)
    check_fitnet(lambda s, t: None)
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(3))


def test_wrong_number_of_arguments():
    text = repr(check_fitnet(lambda student: 0)).replace("\n  ", " ")
    assert "The check calls f(student, teacher), but your function takes (student)" in text


def test_a_function_with_defaults_is_fine():
    assert check_fitnet(lambda s, t, extra=None: (s - t.detach()).square().mean())


def test_markdown_shows_the_same_text():
    right = check_cosface(cosface)
    assert repr(right) == "cosface: correct"
    assert right._repr_markdown_() == "**cosface: correct**"
    wrong = check_cosface(lambda *a: 2 * cosface(*a))._repr_markdown_()
    assert wrong.startswith("**cosface: not correct yet, 0 of 4 parts right**\n\nCase 'by hand'")
    assert "embeddings = \\[\\[3, 4\\]\\]" in wrong


def test_float32_inside_is_precise_enough():
    assert check_fitnet(lambda s, t: (s.float() - t.detach().float()).square().mean())


def test_the_argument_without_gradient_is_named():
    def answer(embeddings, prototypes, labels, scale, margin):
        return cosface(embeddings, prototypes.detach(), labels, scale, margin)

    assert "gradient with respect to prototypes" in check_cosface(answer).lines[0]


def test_a_warning_of_the_answer_is_not_passed_on():
    def warns(student, teacher):
        warnings.warn("old function", DeprecationWarning, stacklevel=1)
        return (student - teacher.detach()).square().mean()

    assert check_fitnet(warns)
