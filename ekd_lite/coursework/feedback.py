"""What a check answers."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

WIDTH = 88


@dataclass(frozen=True, repr=False)
class Feedback:
    """Whether an answer is right, and if not, what is wrong with it. Shown as text; true if right.

    Attributes:
        name: of the exercise.
        ok: every part is right.
        lines: what is wrong, one paragraph each; empty if nothing is.
        num_right: parts that are right: cases, and the gradient where one is asked for.
        num_parts: of how many.
        mistake: name of the known mistake that was recognised, "" if none was.
        is_written: false for a function that returns None or raises NotImplementedError.
    """

    name: str
    ok: bool
    lines: tuple[str, ...] = ()
    num_right: int = 0
    num_parts: int = 1
    mistake: str = ""
    is_written: bool = True

    @property
    def score(self) -> float:
        """Share of the parts that are right, 0 to 1, for partial credit."""
        return self.num_right / self.num_parts

    @property
    def headline(self) -> str:
        """The feedback in one line."""
        if self.ok:
            return f"{self.name}: correct"
        if not self.is_written:
            return f"{self.name}: not written yet"
        return f"{self.name}: not correct yet, {self.num_right} of {self.num_parts} parts right"

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        indent = "  "
        body = [
            textwrap.fill(line, WIDTH, initial_indent=indent, subsequent_indent=indent)
            for line in self.lines
        ]
        return "\n".join([self.headline, *body])

    def _repr_markdown_(self) -> str:
        escaped = [re.sub(r"([\\`*_{}\[\]<>$#|~])", r"\\\1", line) for line in self.lines]
        return "\n\n".join([f"**{self.headline}**", *escaped])
