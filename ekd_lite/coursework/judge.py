"""Run a reader's function on the cases of an exercise and say what is wrong.

Values are equal within 1e-6 + 1e-5 |expected|, computed from float64 inputs. A wrong answer is
compared with those of the known mistakes on the same cases; if none fits, the smallest case that
fails is shown. Nothing that a reader's function does or raises stops the check.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import (
    Case,
    Exercise,
    Function,
    explanation,
    mistake_name,
)
from ekd_lite.coursework.outcome import Outcome, call, show, show_arguments
from ekd_lite.coursework.verdict import Verdict

MISSING_DETACH = (
    "Missing detach: the value is right, but the gradient also flows into {name}. The teacher is "
    "the target and must stand still; otherwise the loss can fall by making the teacher worse. "
    "Write {name}.detach() where it enters."
)


def judge(exercise: Exercise, function: Function) -> Verdict:
    """The verdict on a reader's function."""
    cases = exercise.cases()
    problem = wrong_signature(exercise, function, cases[0])
    if problem:
        return Verdict(exercise.name, ok=False, lines=(problem,), num_parts=parts(exercise, cases))
    answers = [call(exercise, function, case) for case in cases]
    if all(answer.is_missing for answer in answers):
        return Verdict(exercise.name, ok=False, num_parts=parts(exercise, cases), is_written=False)
    expected = [call(exercise, exercise.reference, case) for case in cases]
    findings = [
        find(case, answer, want)
        for case, answer, want in zip(cases, answers, expected, strict=True)
    ]
    num_right = findings.count("")
    if any(
        finding and not case.unless_finite for case, finding in zip(cases, findings, strict=True)
    ):
        # Finite but wrong is no merit.
        num_right -= sum(
            bool(case.unless_finite and not finding)
            for case, finding in zip(cases, findings, strict=True)
        )
    if any(findings):
        mistake, lines = explain(exercise, function, cases, answers, expected, findings)
    else:
        mistake, lines = explain_gradient(exercise, cases, answers, expected)
        num_right += bool(exercise.gradient and not lines)
    return Verdict(
        exercise.name,
        ok=not lines,
        lines=lines,
        num_right=num_right,
        num_parts=parts(exercise, cases),
        mistake=mistake,
    )


def parts(exercise: Exercise, cases: list[Case]) -> int:
    """How many things can be right: every case, and the gradient."""
    return len(cases) + bool(exercise.gradient)


def wrong_signature(exercise: Exercise, function: Any, case: Case) -> str:
    """What is wrong before the function is even called, or ""."""
    if not callable(function):
        return (
            f"Expected a function, got {type(function).__name__}: hand over its name without "
            "parentheses, for the check calls it."
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C tell nothing
        return ""
    try:
        signature.bind(*case.arguments)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        return f"The check calls {exercise.interface}, but your function takes ({names}): {error}."
    return ""


def find(case: Case, answer: Outcome, want: Outcome) -> str:
    """What is wrong with one answer, or "": the same input must give the same, finite output."""
    if answer.error:
        return f"On case {case.name!r} {answer.error}"
    if answer.changed:
        return (
            f"The function changes its argument {answer.changed} in place (case {case.name!r}). "
            f"The caller still needs it: work on a copy, {answer.changed}.clone()."
        )
    value, target = answer.value, want.value
    if value is None or target is None:
        return f"On case {case.name!r} the function returns {answer.kind}, expected numbers."
    if value.shape != target.shape:
        return wrong_shape(case, value, target)
    if case.unless_finite:
        is_finite = bool(value.isfinite().all()) and all(
            bool(gradient.isfinite().all()) for gradient in answer.gradients.values()
        )
        return "" if is_finite else f"NaN or infinite on case {case.name!r}. {case.unless_finite}"
    if not value.isfinite().all():
        return f"NaN or infinite on case {case.name!r}: {show_arguments(want)}."
    return "" if is_close(value, target) else "differs"


def wrong_shape(case: Case, value: Tensor, target: Tensor) -> str:
    """The two shapes, with the likely reason."""
    text = (
        f"Wrong shape on case {case.name!r}: expected {tuple(target.shape)}, "
        f"got {tuple(value.shape)}."
    )
    if value.ndim == 2 and value.T.shape == target.shape and is_close(value.T, target):
        return f"{text} Transposed, it would be right."
    if target.ndim == 0 and value.ndim == 1:
        return f"{text} One value per row; the loss is one number for the batch, their mean."
    return text


def is_close(value: Tensor | None, target: Tensor | None, *, equal_nan: bool = False) -> bool:
    """Equal shapes, and equal numbers within 1e-6 + 1e-5 |target|."""
    if value is None or target is None or value.shape != target.shape:
        return False
    return torch.allclose(value, target, rtol=1e-5, atol=1e-6, equal_nan=equal_nan)


def explain(
    exercise: Exercise,
    function: Function,
    cases: list[Case],
    answers: list[Outcome],
    expected: list[Outcome],
    findings: list[str],
) -> tuple[str, tuple[str, ...]]:
    """Name and lines for an answer whose values are wrong."""
    first = next(index for index, finding in enumerate(findings) if finding)
    compared = [i for i, case in enumerate(cases) if not case.unless_finite]
    case, answer, want = cases[first], answers[first], expected[first]

    def fits(mistake: Function, indices: list[int]) -> bool:
        given = (call(exercise, mistake, cases[i]).value for i in indices)
        return all(
            is_close(answers[i].value, value, equal_nan=True)
            for i, value in zip(indices, given, strict=True)
        )

    is_about_values = first in compared and not (answer.error or answer.changed)
    example = f"Case {case.name!r}: {show_arguments(want)}; {difference(answer, want)}."
    for mistake in exercise.mistakes:
        if is_about_values and fits(mistake, compared):
            return mistake_name(mistake), (f"{explanation(mistake)}", example)
    if findings[first] != "differs":
        return "", (findings[first],)
    if not is_close(call(exercise, function, case).value, answer.value):
        return "", (
            f"Two calls with the same input (case {case.name!r}) give different results: the "
            "answer must not depend on chance or on earlier calls.",
        )
    lines = [example, *common_factor(answers, expected, compared)]
    wrong = [i for i in compared if findings[i] == "differs"]
    for mistake in exercise.mistakes:
        # On one case alone it may be chance.
        if sum(fits(mistake, [i]) for i in wrong) >= 2:
            lines.append(
                f"On some of the cases it is what this mistake gives: {explanation(mistake)}"
            )
            break
    return "", tuple(lines)


def common_factor(
    answers: list[Outcome], expected: list[Outcome], compared: list[int]
) -> list[str]:
    """A line if every value is the same multiple of the right one."""
    pairs = [(answers[i].value, expected[i].value) for i in compared]
    if any(value is None or want is None or value.shape != want.shape for value, want in pairs):
        return []
    value = torch.cat([value.flatten() for value, _ in pairs if value is not None])
    want = torch.cat([want.flatten() for _, want in pairs if want is not None])
    factor = float((value @ want) / (want @ want))
    if abs(factor) < 1e-9 or not is_close(value, factor * want):
        return []
    return [f"Every value is {factor:.4g} times the right one: look for a constant factor."]


def difference(answer: Outcome, want: Outcome) -> str:
    """Expected and got, in full if small, else where they differ most."""
    value, target = answer.value, want.value
    assert target is not None
    if value is None:
        return f"expected {show(target)}, got {answer.kind}"
    if value.shape != target.shape or target.numel() <= 8:
        return f"expected {show(target)}, got {show(value)}"
    flat = int((value - target).abs().argmax())
    place = [int(i) for i in torch.unravel_index(torch.tensor(flat), target.shape)]
    return f"at {place} expected {show(target.flatten()[flat])}, got {show(value.flatten()[flat])}"


def explain_gradient(
    exercise: Exercise, cases: list[Case], answers: list[Outcome], expected: list[Outcome]
) -> tuple[str, tuple[str, ...]]:
    """Name and lines for an answer whose values are right but not its gradient."""
    compared = [i for i, case in enumerate(cases) if not case.unless_finite]
    has_gradient = any(expected[i].gradients for i in compared)
    if has_gradient and not any(answers[i].gradients for i in compared):
        return "no gradient", (
            f"No gradient: the value is right, but no gradient reaches {exercise.gradient[0]}, so "
            "nothing could be trained with it. Return a tensor that torch computed from it: no "
            "float(), .item(), .detach(), .numpy() or torch.no_grad() on the way.",
        )

    def differing(others: dict[int, Outcome]) -> list[str]:
        return [
            name
            for name in exercise.gradient
            for i in compared
            if not is_close(answers[i].gradients.get(name), others[i].gradients.get(name))
        ]

    wrong = differing({i: expected[i] for i in compared})
    if wrong:
        for mistake in exercise.mistakes:
            if not differing({i: call(exercise, mistake, cases[i]) for i in compared}):
                return mistake_name(mistake), (explanation(mistake),)
        return "", (
            f"The value is right, but not its gradient with respect to {wrong[0]}: "
            "some part of the computation is hidden from it, by .detach(), .item() or no_grad().",
        )
    for name in exercise.detached:
        if any(bool((answers[i].gradients.get(name, torch.zeros(1)) != 0).any()) for i in compared):
            return "missing detach", (MISSING_DETACH.format(name=name),)
    return "", ()
