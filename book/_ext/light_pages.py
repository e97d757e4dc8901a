"""Make the pages lighter after Sphinx has written them: same look, fewer bytes.

The theme puts its whole kit on every page. Here a script or style sheet stays only where the page
has something for it to work on, the fonts of icons keep only the icons that the book shows, and
PNGs become lossless WebP, which takes half the bytes for the same pixels.
`python book/tools/weigh.py` gives the weight of every page; tests/book holds it down.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fontTools import subset
from PIL import Image
from sphinx.application import Sphinx

# A loaded file, and what a page must hold for it to be of use; None: nothing ever does.
SERVES = {
    "scripts/fontawesome.js": None,  # draws again, as SVG, the icons that the style sheet has drawn
    "mathjax/": r'class="math\b',
    "searchtools.js": r'id="search-results"',  # we search on a page of its own, not while typing
    "language_data.js": r'id="search-results"',
    "searchindex.js": r'id="search-results"',
    "sphinx-design.min.css": r'class="[^"]*\bsd-',
    "design-tabs.js": r'class="[^"]*\bsd-tab',
    "sphinx-thebe.css": r'class="[^"]*\bthebe',
    "mystnb.": r'class="cell\b|class="[^"]*\boutput\b',
}
LOADED = re.compile(
    r'[ \t]*(?:<script\b[^>]*\bsrc="(?P<script>[^"]+)"[^>]*></script>'
    r'|<link\b(?=[^>]*\brel="stylesheet")[^>]*\bhref="(?P<sheet>[^"]+)"[^>]*/>)\n?'
)
THEME = Path("_static/styles/pydata-sphinx-theme.css")
ICON = re.compile(r'((?:,?\.fa-[\w-]+:{1,2}before)+)\{content:"\\[0-9a-f]+"\}')
FACE = re.compile(r"@font-face\{[^}]*url\(([^)]+)\.woff2\)[^}]*\}")
GLYPH = re.compile(r'"\\([0-9a-f]{4})"')
PICTURE = re.compile(r'(?<=_images/)([^"/]+)\.png(?=")')


def slim(text: str) -> str:
    """A page without the scripts and style sheets that have nothing to do on it."""

    def keep(match: re.Match[str]) -> str:
        address = match["script"] or match["sheet"]
        for name, use in SERVES.items():
            if f"/{name}" in f"/{address}" and (use is None or not re.search(use, text)):
                return ""
        return match.group()

    return LOADED.sub(keep, text)


def used_icons(site: Path) -> set[str]:
    """Names of the icons, such as "fa-bars", in pages and in scripts that make parts of pages."""
    files = [*site.rglob("*.html"), *(site / "_static").rglob("*.js")]
    texts = (path.read_text(encoding="utf-8") for path in files if path.name != "fontawesome.js")
    return {name for text in texts for name in re.findall(r"\bfa-[a-z0-9-]+", text)}


def keep_icons(sheet: str, icons: set[str]) -> str:
    """The theme's style sheet without the icons that no page shows."""

    def keep(match: re.Match[str]) -> str:
        return match.group() if icons & set(re.findall(r"fa-[\w-]+", match[1])) else ""

    return ICON.sub(keep, sheet)


def small_font(font: Path, glyphs: set[int]) -> Path | None:
    """Write FONT.woff with these characters only; None if the font has none of them."""
    # Of the names inside, copyright and licence stay; "Font Awesome" is reserved for the whole.
    options = subset.Options(flavor="woff", drop_tables=["FFTM"], name_IDs=[0, 13, 14])
    with subset.load_font(str(font), options) as whole:
        if not glyphs & set(whole.getBestCmap()):
            return None
        cut = subset.Subsetter(options)
        cut.populate(unicodes=glyphs)
        cut.subset(whole)
        subset.save_font(whole, str(font.with_suffix(".woff")), options)
    return font.with_suffix(".woff")


def lighten_icons(site: Path) -> None:
    """Cut the theme's style sheet and its fonts down to the icons in use."""
    path = site / THEME
    sheet = keep_icons(path.read_text(encoding="utf-8"), used_icons(site))
    sheets = [sheet, *(p.read_text("utf-8") for p in site.rglob("*.css") if p != path)]
    glyphs = {int(code, 16) for text in sheets for code in GLYPH.findall(text)}

    def face(match: re.Match[str]) -> str:
        font = small_font(path.parent / f"{match[1]}.ttf", glyphs)
        if font is None:
            return ""
        return re.sub(r"src:[^}]*", f'src:url({match[1]}.woff) format("woff")', match.group())

    path.write_text(FACE.sub(face, sheet), encoding="utf-8")


def lighten_pictures(images: Path) -> set[str]:
    """Replace PNGs by lossless WebP where that is smaller; the names of those replaced."""
    replaced = set()
    for png in images.glob("*.png"):
        webp = png.with_suffix(".webp")
        with Image.open(png) as picture:
            picture.save(webp, lossless=True, exact=True, method=2)
        heavier = png if webp.stat().st_size < png.stat().st_size else webp
        heavier.unlink()
        if heavier is png:
            replaced.add(png.stem)
    return replaced


def lighten(app: Sphinx, failure: Exception | None) -> None:
    """Sphinx's hook at the end of a build."""
    if failure is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    replaced = lighten_pictures(site / "_images")

    def rename(match: re.Match[str]) -> str:
        return f"{match[1]}.webp" if match[1] in replaced else match.group()

    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        if (less := PICTURE.sub(rename, slim(text))) != text:
            path.write_text(less, encoding="utf-8")
    lighten_icons(site)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("build-finished", lighten)
    return {"version": "1", "parallel_read_safe": True}
