"""Call a function on a case, on copies, and keep everything that happened."""

from __future__ import annotations

import traceback
import warnings
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function

HINTS = {
    "in-place": " The arguments belong to the caller: work on a copy, x.clone().",
    "Can't call numpy()": " Stay in torch: numpy cannot pass a gradient on.",
    "Expected all tensors": "",
}


@dataclass
class Outcome:
    """What one call gave.

    Attributes:
        arguments: by name, as handed over.
        value: the result as float64; None if there is none or it holds no numbers.
        kind: the result's type in words.
        gradients: of the summed squares of the result, by name of the argument; empty without one.
        error: what was raised, in words, or "".
        changed: name of an argument that was changed in place, or "".
        is_missing: nothing was returned, or NotImplementedError raised.
    """

    arguments: dict[str, Any]
    value: Tensor | None = None
    kind: str = "nothing"
    gradients: dict[str, Tensor] = field(default_factory=dict)
    error: str = ""
    changed: str = ""
    is_missing: bool = False


def call(
    exercise: Exercise, function: Function, case: Case, *, with_gradients: bool = True
) -> Outcome:
    """Call a function on copies of a case's arguments; nothing it raises gets out."""
    given = dict(zip(exercise.parameters, map(copy, case.arguments), strict=True))
    watched = [
        name for name in (*exercise.gradient, *exercise.detached) if isinstance(given[name], Tensor)
    ]
    for name in watched:
        given[name].requires_grad_()
    outcome = Outcome(arguments=dict(zip(exercise.parameters, case.arguments, strict=True)))
    try:
        with warnings.catch_warnings(), torch.enable_grad(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = function(*given.values())
            outcome.is_missing = result is None
            outcome.kind = "None" if result is None else f"a {type(result).__name__}"
            outcome.value = as_numbers(result)
            if outcome.value is not None and outcome.value.numel() == 1:
                outcome.value = outcome.value.reshape(())  # one number, however it is wrapped
            asked = watched and with_gradients
            if asked and isinstance(result, Tensor) and result.requires_grad:
                # Squares, so that a matrix of logits is looked at in every entry.
                grads = torch.autograd.grad(
                    result.square().sum(), [given[name] for name in watched], allow_unused=True
                )
                found = zip(watched, grads, strict=True)
                outcome.gradients = {
                    name: g.detach().double() for name, g in found if g is not None
                }
    except NotImplementedError:
        outcome.is_missing = True
        outcome.error = "the function raises NotImplementedError: it is not written yet."
    except Exception as error:
        outcome.error = describe(error, outcome)
    for name, before in outcome.arguments.items():
        if isinstance(before, Tensor) and not same_numbers(given[name].detach(), before):
            outcome.changed = name
    return outcome


def copy(argument: Any) -> Any:
    """A tensor of its own for every call."""
    return argument.clone() if isinstance(argument, Tensor) else argument


def same_numbers(after: Tensor, before: Tensor) -> bool:
    """Not `torch.equal` alone, for an in-place resize would change the shape."""
    return after.shape == before.shape and torch.equal(after, before)


def as_numbers(result: Any) -> Tensor | None:
    """Numbers of any kind, arrays, tensors and lists of them as float64; None for anything else."""
    if isinstance(result, Tensor):
        return None if result.is_complex() else result.detach().double()
    if isinstance(result, (list, tuple)):
        rows = [as_numbers(row) for row in result]
        if not rows or any(row is None or row.shape != rows[0].shape for row in rows):  # type: ignore[union-attr]
            return None
        return torch.stack(rows)  # type: ignore[arg-type]
    # Fractions are numbers too, and a pandas Series, with its column's dtype, is an array.
    if isinstance(result, (Real, Decimal, np.generic)) or hasattr(result, "__array__"):
        try:
            numbers = np.asarray(result)
            if numbers.dtype.kind in "biufO":  # no complex numbers, no text
                return torch.from_numpy(np.array(numbers, dtype=np.float64))
        except (TypeError, ValueError):
            return None
    return None


def describe(error: Exception, outcome: Outcome) -> str:
    """An exception with the line that raised it and the shapes that went in."""
    message = " ".join(str(error).split())[:300]
    text = f"the function raises {type(error).__name__}: {message or 'no message'}."
    # The first frame is `call`; the second is the function itself, whose line the reader knows.
    frames = traceback.extract_tb(error.__traceback__)[1:]
    if frames and frames[0].line:
        text += f" Its line: {frames[0].line}"
    shapes = ", ".join(f"{name} {summary(value)}" for name, value in outcome.arguments.items())
    hint = next((hint for words, hint in HINTS.items() if words in message), "")
    return f"{text} Called with {shapes}.{hint}"


def summary(value: Any) -> str:
    """A tensor by its shape, anything else as it is."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else str(value)


def show(value: Any, digits: int = 4) -> str:
    """Few numbers in full, to some digits; many by their shape."""
    if not isinstance(value, Tensor):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    if value.numel() > 16:
        return f"a tensor of shape {tuple(value.shape)}"
    return nested(value.tolist(), digits)


def nested(values: Any, digits: int) -> str:
    """A list of lists with short numbers."""
    if isinstance(values, list):
        return f"[{', '.join(nested(value, digits) for value in values)}]"
    return f"{values:.{digits}g}" if isinstance(values, float) else str(values)


def show_arguments(outcome: Outcome) -> str:
    """All arguments by name."""
    return ", ".join(f"{name} = {show(value)}" for name, value in outcome.arguments.items())
