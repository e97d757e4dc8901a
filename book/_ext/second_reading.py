"""Fold what a first reader may leave out: on the site, all of a section after `% second reading`.

The heading and what stands before the mark stay in view, so a reader knows what is inside.
Notebooks and their copies for Colab show everything, and so does the printed book.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

MARK = "second reading"
# book/tools/printing.py opens the box by these two.
START = '<details class="second-reading"><summary>For a second reading</summary>'
END = "</details><!-- of the second reading -->"


class Folded(nodes.General, nodes.Element):
    """What opens on a click."""


def fold(app: Sphinx, tree: nodes.document) -> None:
    """Put the rest of its section behind each mark."""
    for mark in list(tree.findall(nodes.comment)):
        if mark.astext().strip() != MARK:
            continue
        section = mark.parent
        start = section.index(mark)
        if not isinstance(section, nodes.section) or start + 1 == len(section):
            raise ValueError(f"{app.env.docname}: nothing to fold after '% {MARK}'")
        section[start:] = [Folded("", *section[start + 1 :])]


def visit(self: Any, node: Folded) -> None:
    """The box, closed; a browser opens it if somebody follows a link to what is inside."""
    self.body.append(f"{START}\n")


def depart(self: Any, node: Folded) -> None:
    """Its end."""
    self.body.append(f"{END}\n")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_node(Folded, html=(visit, depart))
    app.connect("doctree-read", fold, priority=900)
    return {"version": "1", "parallel_read_safe": True}
