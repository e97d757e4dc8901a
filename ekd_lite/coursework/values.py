"""Checks of what was measured or chosen: numbers or names, not a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import difference
from ekd_lite.coursework.outcome import as_numbers

Predicate = Callable[[Any], bool]


def listed(values: Any) -> list[Any] | None:
    """Numbers and names in order, a single one as a list of one; None for anything else."""
    if isinstance(values, str):
        return [values]
    if isinstance(values, (list, tuple)):
        rows = [listed(value) for value in values]
        if any(row is None or len(row) != 1 for row in rows):
            return None
        return [row[0] for row in rows if row is not None]
    numbers = as_numbers(values)
    return None if numbers is None else list(numbers.flatten().tolist())


def agree(one: Any, other: Any, within: float) -> bool:
    """Whether two entries are the same name, or numbers so near each other."""
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return bool(abs(one - other) <= within)  # false for NaN


def check_values(
    name: str,
    given: Any,
    right: Any,
    mistakes: Mapping[str, Any] | None = None,
    *,
    within: float = 1e-6,
) -> Feedback:
    """Check numbers or names that were found, in any container; never raises for what was given.

    Args:
        name: as the feedback begins.
        given: what was found: a number, a name, or several in order; None if nothing was yet.
        right: what is to be found, in the same order.
        mistakes: by the sentence that explains it, what a known mistake finds, or a function that
            tells from the list of what was given whether the mistake was made. Asked in their
            order, before `right`.
        within: how far a number may lie from the right one.
    """
    want = listed(right)
    assert want is not None, f"right: {right!r}"
    is_empty = given is None or (isinstance(given, (list, tuple)) and any(x is None for x in given))
    if is_empty:
        return Feedback(name, ok=False, num_parts=len(want), is_written=False)

    def wrong(line: str, num_right: int = 0) -> Feedback:
        return Feedback(name, ok=False, lines=(line,), num_right=num_right, num_parts=len(want))

    got = listed(given)
    kinds = {"names" if isinstance(value, str) else "numbers" for value in want}
    what = f"{len(want)} {' and '.join(sorted(kinds))}"
    if got is None:
        return wrong(f"Expected {what}, got {type(given).__name__}.")
    if len(got) != len(want):
        return wrong(f"Expected {what}, got {len(got)}.")
    for a, b in zip(got, want, strict=True):
        if isinstance(a, str) != isinstance(b, str):
            return wrong(f"Expected {what}, got {a!r} where {b!r} or the like belongs.")

    def same(others: list[Any] | None) -> list[bool]:
        return [agree(a, b, within) for a, b in zip(got, others or (), strict=False)]

    is_right = same(want)
    for line, other in (mistakes or {}).items():
        if other(got) if callable(other) else len(found := same(listed(other))) and all(found):
            return wrong(line)
    if all(is_right):
        return Feedback(name, ok=True, num_right=len(want), num_parts=len(want))
    first = is_right.index(False)
    mine, right_one = got[first], want[first]
    if isinstance(right_one, str):
        text = f"expected {right_one!r}, got {mine!r}"
    else:
        text = difference(torch.tensor(mine), torch.tensor(right_one))
    place = f"Number {first + 1} of {len(want)}: " if len(want) > 1 else ""
    line = f"{place}{text}."
    return wrong(line[0].upper() + line[1:], sum(is_right))
