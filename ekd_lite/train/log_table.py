"""The records of a run as a table on a terminal."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

HEADER_EVERY = 20  # rows
CELL = 10  # characters of a number


class TerminalTable:
    """Aligned rows above a tqdm bar, with a header now and then.

    Args:
        bar: one that is shown; rows go where it is.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._names: list[str] = []
        self._rows = 0
        self._opened = time.perf_counter()

    def write(self, record: Mapping[str, float], live: Mapping[str, float]) -> None:
        """Print a row."""
        done = int(record["step"]) - self._bar.initial
        a_step = (time.perf_counter() - self._opened) / max(done, 1)
        left = tqdm.format_interval(a_step * (self._bar.total - int(record["step"])))
        cells = {name: _cell(value) for name, value in {**record, **live}.items()}
        names = _fitting(list(record), [*live, "left"], _width(self._bar.fp))
        lines = [" ".join(f"{(cells | {'left': left})[n]:>{_column(n)}}" for n in names)]
        if names != self._names or self._rows % HEADER_EVERY == 0:
            lines.insert(0, " ".join(f"{n:>{_column(n)}}" for n in names))
            self._names, self._rows = names, 0
        self._rows += 1
        self._bar.write("\n".join(lines), file=self._bar.fp)

    def close(self) -> None:
        """Nothing to close: the bar is its owner's."""


def _cell(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:#.4g}"


def _column(name: str) -> int:
    return max(CELL, len(name))


def _fitting(recorded: list[str], kept: list[str], width: int) -> list[str]:
    """Leave out the last recorded columns that are too much for the terminal; files have all."""
    while len(recorded) > 1 and sum(_column(n) + 1 for n in [*recorded, *kept]) > width:
        recorded = recorded[:-1]
    return [*recorded, *kept]


def _width(terminal: Any) -> int:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(terminal.fileno()).columns or 80
    return 80
