"""Keep the comma after a formula on the formula's line, and a percent sign on its number's.

MathJax makes a formula a block of its own, and a browser may break the line after it, so that a
line begins with a comma.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

CLOSING = re.compile(r"[.,;:!?)\]’”]+")
PERCENT = re.compile(r"(?<=\d) (?=%)")
VERBATIM = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)


def keep_together(app: Sphinx, tree: nodes.document) -> None:
    """Wrap each inline formula and the punctuation after it in a span that does not break."""
    for formula in list(tree.findall(nodes.math)):
        parent, place = formula.parent, formula.parent.index(formula)
        after = parent[place + 1] if place + 1 < len(parent) else None
        found = CLOSING.match(after.astext()) if isinstance(after, nodes.Text) else None
        if found is None:
            continue
        parent[place + 1] = nodes.Text(found.string[found.end() :])
        parent[place] = nodes.inline("", "", formula, nodes.Text(found.group()), classes=["nobr"])


def keep_percent(app: Sphinx, tree: nodes.document) -> None:
    """Put a space that does not break between a number and its percent sign, except in code."""
    for text in list(tree.findall(nodes.Text)):
        if PERCENT.search(text) and not isinstance(text.parent, VERBATIM):
            text.parent.replace(text, nodes.Text(PERCENT.sub("\N{NO-BREAK SPACE}", text)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("doctree-read", keep_together)
    app.connect("doctree-read", keep_percent)
    return {"version": "1", "parallel_read_safe": True}
