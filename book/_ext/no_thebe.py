"""Take the scripts of sphinx_thebe out: Jupyter Book loads it into every book, wanted or not.

It would run cells in the page through a public server, which this book never does; its address
stands on every page twice, and the second time is an error in the browser's console.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

ADDS_SCRIPTS = {"init_thebe_core", "update_thebe_context"}


def disconnect(app: Sphinx, config: Any) -> None:
    """Drop the hooks that put scripts on pages (its style sheet is linked before, and harmless)."""
    for listeners in app.events.listeners.values():
        listeners[:] = [
            one for one in listeners if getattr(one.handler, "__name__", "") not in ADDS_SCRIPTS
        ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("config-inited", disconnect)
    return {"version": "1", "parallel_read_safe": True}
