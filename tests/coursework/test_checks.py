"""Every check: right answers of another make pass, wrong ones get their own explanation."""

import functools
import inspect

import pytest
import torch

from ekd_lite import coursework
from ekd_lite.coursework import EXERCISES
from ekd_lite.coursework.judge import judge
from tests.coursework import (
    ekd_answers,
    head_answers,
    later_answers,
    loss_answers,
    measuring_answers,
)

ANSWERS = {
    answer.__name__: (answer, bugs)
    for module in (measuring_answers, head_answers, loss_answers, ekd_answers, later_answers)
    for answer, bugs in module.WRONG.items()
}
BY_NAME = {exercise.name: exercise for exercise in EXERCISES}
WITHOUT_TENSORS = {"conv_macs", "learning_rate", "pack"}
BUGS = [(name, bug) for name, (_, bugs) in ANSWERS.items() for bug in bugs]


def check(name, answer):
    return getattr(coursework, f"check_{name}")(answer)


def test_every_exercise_has_answers_and_enough_mistakes():
    assert ANSWERS.keys() == BY_NAME.keys()
    for name, exercise in BY_NAME.items():
        assert len(ANSWERS[name][1]) >= 3
        assert len(exercise.mistakes) >= 3
        assert f"check_{name}" in coursework.__all__


@pytest.mark.parametrize("name", ANSWERS)
def test_a_right_answer_of_another_make_is_right(name):
    feedback = check(name, ANSWERS[name][0])
    assert repr(feedback) == f"{name}: correct"
    assert feedback and feedback.ok and feedback.score == 1


@pytest.mark.parametrize(("name", "bug"), BUGS)
def test_a_wrong_answer_is_explained(name, bug):
    feedback = check(name, functools.partial(ANSWERS[name][0], bug=bug))
    assert feedback.mistake == bug, repr(feedback)
    assert not feedback and feedback.score < 1
    if bug == "missing detach":
        assert "detach" in repr(feedback)
    else:
        assert feedback.lines[0] == BY_NAME[name].mistakes[bug].explanation


@pytest.mark.parametrize("name", ANSWERS)
def test_mistakes_do_not_pass_for_each_other(name):
    for bug, mistake in BY_NAME[name].mistakes.items():
        assert judge(BY_NAME[name], mistake.function).mistake == bug


@pytest.mark.parametrize("name", ANSWERS)
def test_garbage_is_wrong_and_never_raises(name):
    exercise = BY_NAME[name]
    target = torch.as_tensor(exercise.reference(*exercise.cases()[0].arguments))
    answers = {
        "none": lambda *a: None,
        "zeros": lambda *a: torch.zeros_like(target),
        "one case by heart": lambda *a: target,
        "nan": lambda *a: torch.full(target.shape, torch.nan),
        "text": lambda *a: "42",
        "the input": lambda *a: a[0],
        "a list of lists": lambda *a: [[1.0], [2.0, 3.0]],
        "empty": lambda *a: torch.zeros(0),
        "complex": lambda *a: torch.zeros(2, dtype=torch.complex64),
        "raises": lambda *a: 1 / 0,
        "too few": lambda x: x,
        "no function": 3,
        "a class": dict,
    }
    for what, answer in answers.items():
        feedback = check(name, answer)
        assert not feedback.ok, what
        assert feedback.score < 1, what
        assert repr(feedback) == repr(check(name, answer)), what
    assert repr(check(name, answers["none"])) == f"{name}: not written yet"


@pytest.mark.parametrize("name", [e.name for e in EXERCISES if e.gradient])
def test_an_answer_without_gradient_is_told_so(name):
    exercise = BY_NAME[name]

    def cut(*arguments):
        return torch.as_tensor(exercise.reference(*arguments)).detach()

    feedback = check(name, cut)
    assert feedback.mistake == "no gradient"
    assert 0 < feedback.score < 1


@pytest.mark.parametrize("name", [name for name in ANSWERS if name not in WITHOUT_TENSORS])
def test_an_answer_that_changes_its_input_is_told_so(name):
    exercise = BY_NAME[name]

    def careless(*arguments):
        result = exercise.reference(*arguments)
        with torch.no_grad():
            next(a for a in arguments if isinstance(a, torch.Tensor)).zero_()
        return result

    feedback = check(name, careless)
    assert not feedback.ok
    assert "in place" in feedback.lines[0] or "inplace" in feedback.lines[0]


def test_interfaces_are_those_promised():
    """The chapters call the checks with these."""
    promised = {
        "tpr_at_fpr": "scores, is_genuine, fpr",
        "similarity_transform": "source, target",
        "cosine_logits": "embeddings, prototypes, scale",
        "arcface": "embeddings, prototypes, labels, scale, margin",
        "cosface": "embeddings, prototypes, labels, scale, margin",
        "conv_macs": "in_channels, out_channels, kernel, stride, padding, groups, height, width",
        "learning_rate": "step, steps, warmup_steps, peak",
        "kd": "student_logits, teacher_logits, temperature",
        "ekd": "student, teacher, labels, student_thresholds, teacher_thresholds, "
        "temperature, topk",
    }
    for name, parameters in promised.items():
        assert ", ".join(BY_NAME[name].parameters) == parameters
    for exercise in EXERCISES:
        documented = inspect.getdoc(getattr(coursework, f"check_{exercise.name}"))
        for parameter in exercise.parameters:
            assert parameter in documented
