"""The figure of a study: method, level and regime to choose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ekd_lite.plots.play.base import Widget

LEVELS = ("tpr@1e-3", "tpr@1e-4")


@dataclass(frozen=True)
class StudyFigure(Widget):
    """Choose a regime and a level; see every method's mean and interval, one compared with another.

    Args:
        rows: of a table, such as `pd.read_csv(path).to_dict("records")`: each with the keys
            "regime", "row" (the method), "setting", and for each level its mean, and its interval
            under the same name with "_low" and "_high". A level that is missing in a row, or no
            number, leaves the row out there.
        levels: keys of the means, in the order in which they are offered.
        method: what is emphasised at the start; the first row's method if None.
        reference: with what it is compared at the start; the first row's method if None.
        unit: what the means are in.

    Raises:
        ValueError: no row, a row without a key, a method twice in one regime, an interval that
            does not hold its mean, or a start that is no method of the table.
    """

    name: ClassVar[str] = "study"
    title: ClassVar[str] = "The methods of a study, with method, level and regime to choose"

    rows: Iterable[Mapping[str, Any]] = field(repr=False)
    levels: Sequence[str] = LEVELS
    method: str | None = None
    reference: str | None = None
    unit: str = "%"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", [dict(row) for row in self.rows])
        if not self._list() or not self.levels:
            raise ValueError("expected at least one row and one level")
        seen = set()
        for row in self._list():
            missing = {"regime", "row", "setting"} - row.keys()
            if missing:
                raise ValueError(f"a row lacks {', '.join(sorted(missing))}: {row}")
            if (key := (row["regime"], row["row"])) in seen:
                raise ValueError(f"{key[1]!r} stands twice in regime {key[0]!r}")
            seen.add(key)
            for level in self.levels:
                triple = _triple(row, level)
                if triple and not triple[1] <= triple[0] <= triple[2]:
                    raise ValueError(f"{key}: {level} is {triple[0]}, out of {triple[1:]}")
        for start in (self.method, self.reference):
            if start is not None and start not in {row["row"] for row in self._list()}:
                raise ValueError(f"{start!r} is no method of the table")

    def _list(self) -> list[Mapping[str, Any]]:
        assert isinstance(self.rows, list)
        return self.rows

    def _numbers(self) -> Mapping[str, Any]:
        first = self._list()[0]["row"]
        return {
            "rows": [
                [
                    str(row["regime"]),
                    str(row["row"]),
                    str(row["setting"]),
                    [_triple(row, level) for level in self.levels],
                ]
                for row in self._list()
            ],
            "levels": [level.replace("tpr@", "TPR at FPR ") for level in self.levels],
            "start": [str(self.method or first), str(self.reference or first)],
            "unit": self.unit,
        }

    def _sentence(self) -> str:
        regimes = list(dict.fromkeys(str(row["regime"]) for row in self._list()))
        return (
            f"A study of {len({row['row'] for row in self._list()})} methods in "
            f"{len(regimes)} regimes ({', '.join(regimes)}). With scripts on, regime, level and "
            "method can be chosen here; the table of the study has the same numbers."
        )


def _triple(row: Mapping[str, Any], level: str) -> list[float] | None:
    """Mean, low and high of a row at a level, or None if one of them is no number."""
    try:
        values = [float(row[level + end]) for end in ("", "_low", "_high")]
    except (KeyError, TypeError, ValueError):
        return None
    return None if any(map(math.isnan, values)) else [round(value, 4) for value in values]
