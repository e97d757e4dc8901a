"""Keep the comma after a formula on the formula's line.

MathJax makes a formula a block of its own, and a browser may break the line after it, so that a
line begins with a comma.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

CLOSING = re.compile(r"[.,;:!?)\]’”]+")


def keep_together(app: Sphinx, tree: nodes.document) -> None:
    """Wrap each inline formula and the punctuation after it in a span that does not break."""
    for formula in list(tree.findall(nodes.math)):
        parent, place = formula.parent, formula.parent.index(formula)
        after = parent[place + 1] if place + 1 < len(parent) else None
        found = CLOSING.match(after.astext()) if isinstance(after, nodes.Text) else None
        if found is None:
            continue
        parent[place + 1] = nodes.Text(after.astext()[found.end() :])
        parent[place] = nodes.inline("", "", formula, nodes.Text(found.group()), classes=["nobr"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("doctree-read", keep_together)
    return {"version": "1", "parallel_read_safe": True}
