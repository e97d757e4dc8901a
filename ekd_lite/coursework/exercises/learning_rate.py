"""Check of chapter 6: the learning rate at a step."""

from __future__ import annotations

import math

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge


def _half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _schedule(
    decay: Function = _half_cosine,
    *,
    first: int = 1,
    progress: Function = lambda step, steps, warmup: (step - warmup) / max(1, steps - warmup),
) -> Function:
    """The schedule with another decay of the progress, first step, or progress."""

    def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
        if step < warmup_steps:
            return peak * (step + first) / warmup_steps
        share: float = decay(progress(step, steps, warmup_steps))
        return peak * share

    return learning_rate


_learning_rate = _schedule()

MISTAKES = {
    "warm up from zero": Mistake(
        "The warm-up starts at zero, so that the first step does nothing. Step 0 is the first of "
        "warmup_steps: peak (step + 1) / warmup_steps.",
        _schedule(first=0),
    ),
    "no warm up": Mistake(
        "There is no warm-up. For the first warmup_steps the rate rises in a straight line to the "
        "peak.",
        lambda step, steps, warmup, peak: _learning_rate(
            max(step - warmup, 0), steps - warmup, 0, peak
        ),
    ),
    "cosine over all steps": Mistake(
        "The cosine runs over all steps, warm-up included. At the end of the warm-up the rate "
        "would jump down. Its progress starts there: (step - warmup_steps) / "
        "(steps - warmup_steps).",
        _schedule(progress=lambda step, steps, warmup: step / steps),
    ),
    "progress not shortened": Mistake(
        "The cosine was stretched over `steps` steps and does not reach zero. After the warm-up "
        "only steps - warmup_steps are left: divide by those.",
        _schedule(progress=lambda step, steps, warmup: (step - warmup) / steps),
    ),
    "cosine not lifted": Mistake(
        "The cosine was not lifted, so that the rate becomes negative in the second half. From "
        "peak to zero it is peak (1 + cos(pi p)) / 2.",
        _schedule(lambda p: math.cos(math.pi * p)),
    ),
    "quarter of a cosine": Mistake(
        "The decay is a quarter of a cosine, cos(pi p / 2), steepest at its end. Half a cosine "
        "starts and ends gently: (1 + cos(pi p)) / 2.",
        _schedule(lambda p: math.cos(math.pi / 2 * p)),
    ),
    "straight line down": Mistake(
        "The decay is a straight line. It should be half a cosine: peak (1 + cos(pi p)) / 2.",
        _schedule(lambda p: 1 - p),
    ),
    "cosine upwards": Mistake(
        "The cosine runs from zero up to the peak. It is (1 + cos(pi p)) / 2, which starts at 1; "
        "with a minus it starts at 0.",
        _schedule(lambda p: 1 - _half_cosine(p)),
    ),
    "degrees in the cosine": Mistake(
        "The cosine was given degrees. math.cos takes radians: half a period is pi, not 180.",
        _schedule(lambda p: (1 + math.cos(180 * p)) / 2),
    ),
}


def _cases() -> list[Case]:
    steps = [(0, "the first step"), (4, "within the warm-up"), (9, "the last step of the warm-up")]
    steps += [(10, "the first after it"), (37, "on the way down"), (55, "half-way down")]
    cases = [Case(name, (step, 100, 10, 0.2)) for step, name in [*steps, (99, "the last step")]]
    return [
        *cases,
        Case("no warm-up, first step", (0, 50, 0, 1.0)),
        Case("no warm-up, half-way", (25, 50, 0, 1.0)),
    ]


LEARNING_RATE = Exercise("learning_rate", _learning_rate, _cases, MISTAKES)


def check_learning_rate(f: Function) -> Feedback:
    """Check a function for the learning rate at a step.

    Args:
        f: f(step, steps, warmup_steps, peak) -> float, for step 0 ... steps - 1: in a straight line
            up to the peak, peak (step + 1) / warmup_steps, then half a cosine down,
            peak (1 + cos(pi p)) / 2 with p = (step - warmup_steps) / (steps - warmup_steps).
    """
    return judge(LEARNING_RATE, f)
