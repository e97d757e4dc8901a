"""What a command says beside its work: every warning of the package as one line."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print a warning of the package as `ekd-lite: note: TEXT`; others stay as they are.

    Only their form is changed: a filter that makes errors of them, or whoever records them, sees
    them as before.
    """
    plain = warnings.formatwarning

    def as_note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if PACKAGE not in Path(filename).resolve().parents:
            return plain(message, category, filename, lineno, line)
        return f"ekd-lite: note: {' '.join(str(message).split())}\n"

    warnings.formatwarning = as_note
    try:
        yield
    finally:
        warnings.formatwarning = plain
