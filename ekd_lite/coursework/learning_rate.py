"""Check of chapter 6: the learning rate at a step."""

from __future__ import annotations

import math

from ekd_lite.coursework.exercise import Case, Exercise, Function
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict


def _learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def _warm_up_from_zero(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The warm-up starts at zero, so that the first step does nothing.

    Step 0 is the first of warmup_steps: peak (step + 1) / warmup_steps.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    return _learning_rate(step, steps, warmup_steps, peak)


def _no_warm_up(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """There is no warm-up.

    For the first warmup_steps the rate rises in a straight line to the peak.
    """
    return _learning_rate(max(step - warmup_steps, 0), steps - warmup_steps, 0, peak)


def _cosine_over_all_steps(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The cosine runs over all steps, warm-up included.

    At the end of the warm-up the rate would jump down. Its progress starts there:
    (step - warmup_steps) / (steps - warmup_steps).
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * step / steps))


def _progress_not_shortened(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The cosine was stretched over `steps` steps and does not reach zero.

    After the warm-up only steps - warmup_steps are left: divide by those.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / steps))


def _cosine_not_lifted(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The cosine was not lifted, so that the rate becomes negative in the second half.

    From peak to zero it is peak (1 + cos(pi p)) / 2.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * math.cos(math.pi * progress)


def _quarter_of_a_cosine(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The decay is a quarter of a cosine, cos(pi p / 2), steepest at its end.

    Half a cosine starts and ends gently: (1 + cos(pi p)) / 2.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * math.cos(math.pi / 2 * progress)


def _straight_line_down(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The decay is a straight line.

    It should be half a cosine: peak (1 + cos(pi p)) / 2.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * (1 - (step - warmup_steps) / max(1, steps - warmup_steps))


def _cosine_upwards(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The cosine runs from zero up to the peak.

    It is (1 + cos(pi p)) / 2, which starts at 1; with a minus it starts at 0.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak - _learning_rate(step, steps, warmup_steps, peak)


def _degrees_in_the_cosine(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The cosine was given degrees.

    math.cos takes radians: half a period is pi, not 180.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(180 * progress))


def _rate_cases() -> list[Case]:
    steps = [(0, "the first step"), (4, "within the warm-up"), (9, "the last step of the warm-up")]
    steps += [(10, "the first after it"), (37, "on the way down"), (55, "half-way down")]
    cases = [Case(name, (step, 100, 10, 0.2)) for step, name in [*steps, (99, "the last step")]]
    return [
        *cases,
        Case("no warm-up, first step", (0, 50, 0, 1.0)),
        Case("no warm-up, half-way", (25, 50, 0, 1.0)),
    ]


LEARNING_RATE = Exercise(
    "learning_rate",
    _learning_rate,
    _rate_cases,
    (
        _warm_up_from_zero,
        _no_warm_up,
        _cosine_over_all_steps,
        _progress_not_shortened,
        _cosine_not_lifted,
        _quarter_of_a_cosine,
        _straight_line_down,
        _cosine_upwards,
        _degrees_in_the_cosine,
    ),
)


def check_learning_rate(f: Function) -> Verdict:
    """Check a function for the learning rate at a step.

    Args:
        f: f(step, steps, warmup_steps, peak) -> float, for step 0 ... steps - 1: in a straight line
            up to the peak, peak (step + 1) / warmup_steps, then half a cosine down,
            peak (1 + cos(pi p)) / 2 with p = (step - warmup_steps) / (steps - warmup_steps).
    """
    return judge(LEARNING_RATE, f)
