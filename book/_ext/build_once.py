"""Do once what a build does again for every page and every reference; the pages stay the same.

Of the CPU time of writing the pages these two took a quarter: the table of contents in the sidebar
of the hundred pages of source code, which is in no way different from page to page, and the search
through all installed packages for the style of the bibliography, at every citation.
"""

from __future__ import annotations

import functools
from typing import Any

import pybtex.plugin
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    pybtex.plugin._load_entry_point = functools.cache(pybtex.plugin._load_entry_point)
    made: dict[tuple[Any, ...], str] = {}

    def share_contents(
        app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any
    ) -> None:
        """Pages of source code that lie equally deep have the same contents, links and all."""
        if not page.startswith("_modules/"):
            return
        make = context["toctree"]

        def contents(**options: Any) -> str:
            key = (page.count("/"), *sorted(options.items()))
            if key not in made:
                made[key] = make(**options)
            return made[key]

        context["toctree"] = contents

    app.connect("html-page-context", share_contents, priority=100)  # before the theme reads it
    return {"version": "1", "parallel_read_safe": True}
