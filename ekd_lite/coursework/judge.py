"""Run a reader's function on the cases of an exercise and say what is wrong.

Values are equal within 1e-6 + 1e-5 |expected| + 1e-6 max |expected|; for gradients the relative
parts are a hundred times as large. So an answer in float32 is as right as one in float64. A wrong
answer is compared with those of the known mistakes on the same cases; if none fits, the smallest
case that fails is shown. Nothing that a reader's function does or raises stops the check.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.outcome import Outcome, call, show, show_arguments

DIFFERS = "differs"
MISSING_DETACH = (
    "Missing detach: the value is right, but the gradient also flows into {name}. The teacher is "
    "the target and must stand still; otherwise the loss can fall by making the teacher worse. "
    "Write {name}.detach() where it enters."
)
NO_GRADIENT = (
    "No gradient: the value is right, but no gradient reaches {name}, so nothing could be trained "
    "with it. Return a tensor that torch computed from it: no float(), .item(), .detach(), "
    ".numpy() or torch.no_grad() on the way."
)
WRONG_GRADIENT = (
    "The value is right, but not its gradient with respect to {name} (case "
    "{case!r}: {difference}). Most often a part of the computation is hidden from it, by "
    ".detach(), .item() or no_grad()."
)
NO_FINITE_GRADIENT = (
    "The value is right, but its gradient with respect to {name} is NaN or infinite (case "
    "{case!r}). Some step has no finite slope there: a root or a norm at 0, arccos at 1, a "
    "division by 0, an exp that overflows. Keep its argument away from that place, or take that "
    "entry out before the step; torch.where after it does not help."
)
NEARLY = (
    "The values are right to two or three digits. Was something computed in half precision "
    "(float16, bfloat16), rounded, or kept from zero by too large a number?"
)


@dataclass(frozen=True)
class Trial:
    """What a function gave on all cases, what it should give, and what is wrong on each ("")."""

    exercise: Exercise
    function: Function
    cases: list[Case]
    answers: list[Outcome]
    expected: list[Outcome]
    findings: list[str]

    @property
    def ordinary(self) -> list[int]:
        """The cases on which mistakes are recognised."""
        return [i for i, case in enumerate(self.cases) if not case.hint]


def judge(exercise: Exercise, function: Function) -> Feedback:
    """What to say about a reader's function."""
    cases = exercise.cases()
    num_parts = len(cases) + bool(exercise.gradient)  # what can be right
    problem = wrong_signature(exercise, function, cases[0])
    if problem:
        return Feedback(exercise.name, ok=False, lines=(problem,), num_parts=num_parts)
    answers = [call(exercise, function, case) for case in cases]
    if all(answer.is_missing for answer in answers):
        return Feedback(exercise.name, ok=False, num_parts=num_parts, is_written=False)
    expected = [call(exercise, exercise.reference, case) for case in cases]
    findings = [find(*each) for each in zip(cases, answers, expected, strict=True)]
    num_right = findings.count("")
    compared = [finding for case, finding in zip(cases, findings, strict=True) if case.is_compared]
    if any(compared):
        num_right = compared.count("")  # finite but wrong is no merit
    trial = Trial(exercise, function, cases, answers, expected, findings)
    mistake, lines = "", tuple[str, ...]()
    if not any(findings[i] for i in trial.ordinary):
        mistake, lines = explain_gradient(trial)
    if any(findings):
        named, more = explain(trial)
        mistake, lines = mistake or named, lines + more
    num_right += bool(exercise.gradient and not lines)
    return Feedback(exercise.name, not lines, lines, num_right, num_parts, mistake)


def wrong_signature(exercise: Exercise, function: Any, case: Case) -> str:
    """What is wrong before the function is even called, or ""."""
    if not callable(function):
        return (
            f"Expected a function, got {type(function).__name__}: hand over its name without "
            "parentheses, for the check calls it."
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C have no signature
        return ""
    names = tuple(signature.parameters)
    calls = f"The check calls {exercise.interface}, but your function takes ({', '.join(names)})"
    try:
        signature.bind(*case.arguments)
    except TypeError as error:
        return f"{calls}: {error}."
    if names != exercise.parameters and set(names) == set(exercise.parameters):
        return f"{calls}: the same arguments in another order."
    return ""


def find(case: Case, answer: Outcome, want: Outcome) -> str:
    """What is wrong with one answer, or "": the same input must give the same, finite output."""
    if answer.error:
        return f"On case {case.name!r} {answer.error} {case.hint}".rstrip()
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
    results = [value, *(answer.gradients.values() if case.hint else ())]
    if not all(bool(result.isfinite().all()) for result in results):
        return f"NaN or infinite on case {case.name!r}" + (
            f". {case.hint}" if case.hint else f": {show_arguments(want)}."
        )
    return DIFFERS if case.is_compared and not is_close(value, target) else ""


def wrong_shape(case: Case, value: Tensor, target: Tensor) -> str:
    """The two shapes, with the likely reason."""
    text = (
        f"Wrong shape on case {case.name!r}: expected {tuple(target.shape)}, "
        f"got {tuple(value.shape)}."
    )
    if value.ndim == 2 and value.T.shape == target.shape and is_close(value.T, target):
        return f"{text} Transposed, it would be right."
    if value.numel() == target.numel():
        is_right = is_close(value.reshape(target.shape), target)
        reason = "The numbers are right, only their shape is not: a" if is_right else "A"
        if value.squeeze().shape == target.shape:
            return f"{text} {reason}pply .squeeze()."
        if is_right:
            return f"{text} {reason}pply .reshape(...)."
    rows = [len(x) for x in case.arguments if isinstance(x, Tensor) and x.ndim]
    if target.ndim == 0 and value.ndim == 1 and len(value) in rows:
        return f"{text} One value per row; the result is one number for all, most often their mean."
    return text


def is_close(
    value: Tensor | None, target: Tensor | None, *, equal_nan: bool = False, slack: float = 1.0
) -> bool:
    """Equal shapes, and equal numbers within 1e-6 + 1e-5 |target| + 1e-6 max |target|, and more.

    Args:
        value: what is compared.
        target: with what.
        equal_nan: whether NaN is equal to NaN.
        slack: a factor on the tolerance relative to the largest number.
    """
    if value is None or target is None or value.shape != target.shape:
        return False
    largest = float(target.nan_to_num(0, 0, 0).abs().max()) if target.numel() else 0.0
    atol = 1e-6 + 1e-6 * slack * largest
    return torch.allclose(value, target, rtol=1e-5 * slack, atol=atol, equal_nan=equal_nan)


def fits(trial: Trial, mistake: Mistake, indices: list[int]) -> bool:
    """Whether a mistake gives the reader's values on these cases."""
    exercise, cases = trial.exercise, trial.cases
    given = (call(exercise, mistake.function, cases[i], with_gradients=False) for i in indices)
    return all(
        is_close(trial.answers[i].value, one.value, equal_nan=True)
        for i, one in zip(indices, given, strict=True)
    )


def explain(trial: Trial) -> tuple[str, tuple[str, ...]]:
    """Name and lines for an answer whose values are wrong."""
    failing = [i for i, finding in enumerate(trial.findings) if finding]
    first, ordinary = failing[0], trial.ordinary
    case, answer, want = trial.cases[first], trial.answers[first], trial.expected[first]
    example = f"Case {case.name!r}: {show_arguments(want)}; {difference(answer.value, want.value)}."
    if first in ordinary and not (answer.error or answer.changed):
        for name, mistake in trial.exercise.mistakes.items():
            if fits(trial, mistake, ordinary):
                return name, (mistake.explanation, example)
    if trial.findings[first] != DIFFERS:
        return "", (telling_shape(trial, first),)
    if not is_close(call(trial.exercise, trial.function, case).value, answer.value):
        return "", (
            f"Two calls with the same input (case {case.name!r}) give different results: the "
            "answer must not depend on chance or on earlier calls.",
        )
    if case.hint:
        return "", (f"{example} {case.hint}",)
    lines = [example, *common_factor(trial)]
    if all(is_nearly(trial.answers[i].value, trial.expected[i].value) for i in ordinary):
        return "", (example, NEARLY)
    wrong = [i for i in ordinary if trial.findings[i] == DIFFERS]
    for mistake in trial.exercise.mistakes.values():
        # On one case alone it may be chance.
        if sum(fits(trial, mistake, [i]) for i in wrong) >= 2:
            lines.append(
                f"On some of the cases it is what this mistake gives: {mistake.explanation}"
            )
            break
    return "", tuple(lines)


def telling_shape(trial: Trial, first: int) -> str:
    """The first finding; of wrong shapes one with more than one row, where they are plain."""
    shape = "Wrong shape"
    plain = (
        finding
        for finding, answer in zip(trial.findings, trial.answers, strict=True)
        if finding.startswith(shape) and answer.value is not None and answer.value.numel() > 1
    )
    finding = trial.findings[first]
    return next(plain, finding) if finding.startswith(shape) else finding


def is_nearly(value: Tensor | None, target: Tensor | None) -> bool:
    """Right to two or three digits."""
    return is_close(value, target, slack=1000)


def common_factor(trial: Trial) -> list[str]:
    """A line if every value is the same multiple of the right one."""
    pairs = [(trial.answers[i].value, trial.expected[i].value) for i in trial.ordinary]
    if any(value is None or want is None or value.shape != want.shape for value, want in pairs):
        return []
    value = torch.cat([value.flatten() for value, _ in pairs if value is not None])
    want = torch.cat([want.flatten() for _, want in pairs if want is not None])
    factor = float((value @ want) / (want @ want))
    if abs(factor) < 1e-9 or not is_close(value, factor * want):
        return []
    return [f"Every value is {factor:.4g} times the right one: look for a constant factor."]


def difference(value: Tensor | None, target: Tensor | None) -> str:
    """Expected and got, in full if small, else where they differ most; so many digits as differ."""
    if value is None or target is None:
        return "expected numbers, got none" if value is None else "expected none, got numbers"
    place = ""
    if value.shape == target.shape and target.numel() > 8:
        flat = int((value - target).abs().nan_to_num(torch.inf).argmax())
        index = torch.unravel_index(torch.tensor(flat), target.shape)
        place = f"at {[int(i) for i in index]} "
        value, target = value.flatten()[flat], target.flatten()[flat]
    for digits in range(4, 18):
        want, got = show(target, digits), show(value, digits)
        if want != got:
            break
    return f"{place}expected {want}, got {got}"


def explain_gradient(trial: Trial) -> tuple[str, tuple[str, ...]]:
    """Name and lines for an answer whose values are right but not its gradient."""
    exercise, ordinary = trial.exercise, trial.ordinary
    answers = [trial.answers[i].gradients for i in ordinary]
    expected = [trial.expected[i].gradients for i in ordinary]
    if any(expected) and not any(answers):
        return "no gradient", (NO_GRADIENT.format(name=exercise.gradient[0]),)

    def first_wrong(others: list[dict[str, Tensor]]) -> tuple[str, int] | None:
        wrong = (
            (name, number)
            for name in exercise.gradient
            for number, (mine, other) in enumerate(zip(answers, others, strict=True))
            if not is_close(mine.get(name), other.get(name), slack=100)
        )
        return next(wrong, None)

    wrong = first_wrong(expected)
    if wrong:
        for name, mistake in exercise.mistakes.items():
            given = (call(exercise, mistake.function, trial.cases[i]) for i in ordinary)
            if not first_wrong([outcome.gradients for outcome in given]):
                return name, (mistake.explanation,)
        name, number = wrong
        mine, want = answers[number].get(name), expected[number].get(name)
        is_finite = mine is None or bool(mine.isfinite().all())
        text = WRONG_GRADIENT if is_finite else NO_FINITE_GRADIENT
        case = trial.cases[ordinary[number]].name
        return "", (text.format(name=name, case=case, difference=difference(mine, want)),)
    for name in exercise.detached:
        if any(bool((gradients.get(name, torch.zeros(1)) != 0).any()) for gradients in answers):
            return "missing detach", (MISSING_DETACH.format(name=name),)
    return "", ()
