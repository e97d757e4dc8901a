"""What a site needs besides its pages: a sitemap, a page for dead links, words for shared links.

All of it is made from `html.baseurl` in _config.yml. The addresses are only written down: a page
opened from a disk asks for none of them.
"""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any
from xml.sax.saxutils import escape

from docutils import nodes
from docutils.utils import new_document
from sphinx.application import Sphinx
from sphinxext.opengraph import get_tags

ABOUT = (
    "A textbook that runs, from ArcFace to evaluation-oriented knowledge distillation: "
    "how a compact network learns to recognise faces nearly as well as a large one."
)


def share_address(app: Sphinx, config: Any) -> None:
    """Opengraph wants the site's address under a name of its own."""
    config.ogp_site_url = config.html_baseurl


def add_tags(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Add the icon for phones, and opengraph's tags to the pages that Sphinx makes by itself."""
    context.setdefault("metatags", "")
    icon = context["pathto"]("_static/touch-icon.png", 1)
    context["metatags"] += f'<link rel="apple-touch-icon" href="{icon}" />\n'
    if tree is not None or app.builder.format != "html":
        return
    words = new_document(page)
    words += nodes.paragraph("", ABOUT)
    context.setdefault("meta", {})
    context.setdefault("title", "Search")  # the only page without one
    context["metatags"] += get_tags(
        context,
        words,
        srcdir=app.srcdir,
        outdir=app.outdir,
        config=app.config,
        builder=app.builder,
        env=app.env,
    )


def sitemap(addresses: list[str]) -> str:
    """The XML that search engines read, https://www.sitemaps.org/protocol.html."""
    lines = [f"<url><loc>{escape(address)}</loc></url>" for address in addresses]
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">',
            *lines,
            "</urlset>\n",
        ]
    )


def write(app: Sphinx, failure: Exception | None) -> None:
    """Write sitemap.xml, which lists what people wrote, and 404.html at the end of a build."""
    if failure is not None or app.builder.format != "html":
        return
    site, home = Path(app.outdir), app.config.html_baseurl
    pages = [app.builder.get_target_uri(name) for name in sorted(app.env.found_docs)]
    (site / "sitemap.xml").write_text(sitemap([home + page for page in pages]), encoding="utf-8")
    # The server shows this page under whatever address was asked for, so its links are absolute,
    # and it loads nothing.
    page = Template(Path(__file__).with_name("404.html").read_text(encoding="utf-8"))
    emblem = (site / "_static" / "favicon.svg").read_text(encoding="utf-8")
    text = page.substitute(home=home, title=app.config.html_title, emblem=emblem)
    (site / "404.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("config-inited", share_address)
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True}
