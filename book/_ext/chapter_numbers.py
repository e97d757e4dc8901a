"""Number a chapter by its file name: chapters/02_measuring is chapter 2, whatever else exists.

Sphinx counts the chapters it finds, so a book written out of order would renumber itself with every
new chapter, and with it every figure, equation and exercise that a reader has cited.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector

NUMBERED = re.compile(r"(?:^|/)(\d+)_[^/]*$")


def install() -> None:
    """Renumber between Sphinx's two steps: sections are numbered, figures and the like not yet."""
    assign = TocTreeCollector.assign_figure_numbers

    def assign_by_file_name(self: TocTreeCollector, env: BuildEnvironment) -> list[str]:
        for name in env.toc_secnumbers:
            match = NUMBERED.search(name)
            if match:
                renumber(env, name, int(match.group(1)))
        return assign(self, env)

    TocTreeCollector.assign_figure_numbers = assign_by_file_name  # type: ignore[method-assign]


def renumber(env: BuildEnvironment, name: str, chapter: int) -> None:
    """Put `chapter` in front of every section number of one document."""
    numbers = env.toc_secnumbers[name]
    for anchor, number in numbers.items():
        if number:
            numbers[anchor] = (chapter, *number[1:])
    for node in [env.titles[name], *env.tocs[name].findall(nodes.reference)]:
        if node.get("secnumber"):
            node["secnumber"] = [chapter, *node["secnumber"][1:]]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    install()
    return {"version": "1", "parallel_read_safe": True}
