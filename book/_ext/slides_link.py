"""A button at the head of every chapter that opens its slides (book/tools/slides.py)."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def add_button(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Put the button beside the theme's own."""
    if not page.startswith("chapters/"):
        return
    context["header_buttons"].insert(
        0,
        {
            "type": "link",
            "url": f"../slides/{page.removeprefix('chapters/')}.html",
            "tooltip": "Slides of this chapter",
            "icon": "fas fa-person-chalkboard",
            "label": "slides-button",
        },
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point; after the theme, whose hook makes the buttons at 501."""
    app.connect("html-page-context", add_button, priority=502)
    return {"version": "1", "parallel_read_safe": True}
