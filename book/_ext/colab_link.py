"""Send a chapter's Colab button to the copy that reads well there (book/tools/portable.py)."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def redirect(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Replace book/chapters by book/colab in the buttons of this page."""
    buttons = context.get("header_buttons", [])
    for group in buttons:
        for button in group.get("buttons", []):
            if "colab" in button.get("url", ""):
                button["url"] = button["url"].replace("/book/chapters/", "/book/colab/")
                button["tooltip"] = "Run this chapter in Google Colab"


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point; after the theme, whose hook makes the buttons at 501."""
    app.connect("html-page-context", redirect, priority=502)
    return {"version": "1", "parallel_read_safe": True}
