"""Let docstrings be plain text: what reads well in an editor becomes the markup Sphinx wants.

- `name` in single backticks becomes code (Sphinx would set it in italics);
- |x| is a length, not a substitution, a trailing _ no link, and "s." after a name no list;
- an indented block after a blank line, such as a formula or a table, keeps its line breaks.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

KEPT = re.compile(
    r"(``[^`]+``|:\w+(?::\w+)?:`[^`]+`|`[^`]+`|(?<![\w*])\*[A-Za-z][\w -]*\*(?![\w*]))"
)
LETTER = re.compile(r"^( +\w+: )(?=[A-Za-z]\.(\s|$))")
NOT_A_LIST = r"\1" + "\0"  # marks the place; a backslash would be escaped itself


def indent_of(line: str) -> int:
    """Number of leading spaces."""
    return len(line) - len(line.lstrip())


def escape(text: str) -> str:
    """Plain words, with the characters that mean something to Sphinx taken literally."""
    return re.sub(r"(?<=\w)_(?!\w)|[|*]", lambda found: "\\" + found.group(), text)


def inline(line: str) -> str:
    """One line of prose: backticks become code, the rest is escaped."""
    parts = KEPT.split(LETTER.sub(NOT_A_LIST, line))
    for index, part in enumerate(parts):
        if index % 2 == 0:
            parts[index] = escape(part)
        elif re.match(r"`[^`]", part):
            ends_in_a_word = parts[index + 1][:1].isalnum()  # `Model`s
            parts[index] = f"`{part}`" + ("\\ " if ends_in_a_word else "")
    return "".join(parts).replace("\0", "\\")


def convert(lines: list[str]) -> list[str]:
    """A whole docstring."""
    out: list[str] = []
    previous, block = "", None  # last line of prose; indentation of the block we are in
    for index, line in enumerate(lines):
        if block is not None and line.strip() and indent_of(line) < block:
            block = None
        starts = index > 0 and not lines[index - 1].strip() and bool(previous)
        if block is None and starts and indent_of(line) >= indent_of(previous) + 4:
            block = indent_of(line)
            if not previous.rstrip().endswith("::") and not previous.lstrip().startswith(".. "):
                out += [" " * indent_of(previous) + "::", ""]
        if block is not None:
            out.append(line)
            continue
        out.append(inline(line))
        previous = line if line.strip() else previous
    return out


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Autodoc's hook: change `lines` in place."""
    lines[:] = convert(lines)
    if lines and what in {"attribute", "data", "property"}:
        lines[0] = f": {lines[0]}"  # no type; else napoleon takes words before a colon for one


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point; before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"version": "1", "parallel_read_safe": True}
