"""Checks that a chapter defines itself: they judge an answer, not how its numbers are wrapped."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor


def fair(check: Callable[..., str]) -> Callable[..., str]:
    """Decorate a check of answers, functions or values, that returns what it found as text.

    The check sees plain numbers where an answer gives tensors or arrays of one element. What an
    answer raises is told instead of ending the cell, and so is a result that cannot be compared.

        >>> @fair
        ... def check_half(answer):
        ...     return "correct" if answer(3) == 1.5 else "not a half"
        >>> check_half(lambda number: torch.tensor([number / 2]))
        'correct'
        >>> check_half(lambda number: number / 0)
        'your function raises ZeroDivisionError: division by zero (its line: ...)'
    """

    @functools.wraps(check)
    def kind(*answers: Any) -> str:
        raised: list[Exception] = []

        def watched(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                try:
                    return plain(function(*given, **named))
                except Exception as error:
                    raised.append(error)
                    raise

            return call

        try:
            return check(*(watched(one) if callable(one) else plain(one) for one in answers))
        except NotImplementedError:
            return "not written yet"
        except Exception as error:
            if error in raised:
                return f"your function raises {words(error)}"
            return f"the answer cannot be compared with what is expected: {error}"

    return kind


def plain(result: Any) -> Any:
    """One number without its tensor or array, unless a gradient is wanted; in lists too."""
    if type(result) in (list, tuple):
        return type(result)(map(plain, result))
    if isinstance(result, Tensor):
        return result if result.requires_grad or result.numel() != 1 else result.item()
    if isinstance(result, (np.ndarray, np.generic)):
        return result.item() if result.size == 1 else result
    return result


def words(error: Exception) -> str:
    """An exception and the line of the answer that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    here = next(i for i, frame in enumerate(frames) if frame.name == "call")
    line = frames[here + 1].line if here + 1 < len(frames) else ""
    return f"{type(error).__name__}: {error}" + (f" (its line: {line})" if line else "")
