"""The built pages: links lead somewhere, pictures have words, nothing comes from outside.

`book.py build` runs this after every build with EKD_SITE=the site, so that a missing site
is a failure there; elsewhere (`pytest tests` before a build) it is a skip that pytest reports.
"""

import os
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(os.environ.get("EKD_SITE") or ROOT / "_build" / "html").resolve()
GENERATED = {"genindex.html", "search.html", "py-modindex.html"}
LOADING = {  # attributes that make a browser ask for something, by element
    "script": {"src"},
    "img": {"src", "srcset"},
    "iframe": {"src"},
    "source": {"src", "srcset"},
    "video": {"src", "poster"},
    "audio": {"src"},
    "embed": {"src"},
    "object": {"data"},
}
LOADING_RELS = {
    "stylesheet",
    "icon",
    "shortcut icon",
    "preload",
    "prefetch",
    "preconnect",
    "modulepreload",
}


class Page(HTMLParser):
    """What one page links to, loads and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.images: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        for key in ("id", "name"):
            if given.get(key):
                self.anchors.add(given[key])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") in LOADING_RELS:
            self.loads.append(given["href"])
        self.loads += [given[key] for key in LOADING.get(tag, ()) if given.get(key)]
        if tag == "img":
            self.images.append((given.get("src", ""), given.get("alt")))


@cache
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages():
    found = sorted(path for path in SITE.rglob("*.html") if "_static" not in path.parts)
    if not found:
        message = f"no built site in {SITE}; build it with: make book"
        if os.environ.get("EKD_SITE"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def is_outside(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def target(origin: Path, link: str) -> tuple[Path, str]:
    """The file and the anchor that an internal link names."""
    parts = urlsplit(link)
    path = (origin.parent / unquote(parts.path)).resolve() if parts.path else origin
    return (path / "index.html" if path.is_dir() else path), unquote(parts.fragment)


def broken_links(origin: Path) -> list[str]:
    broken = []
    for link in page(origin).links:
        if is_outside(link) or urlsplit(link).scheme or link == "#":
            continue
        path, anchor = target(origin, link)
        if not path.exists():
            broken.append(f"{origin.name}: {link}: no such file")
        elif anchor and path.suffix == ".html" and anchor not in page(path).anchors:
            broken.append(f"{origin.name}: {link}: no such anchor")
    return broken


def test_there_are_pages(pages):
    names = {path.relative_to(SITE).as_posix() for path in pages}
    chapters = {f"chapters/{path.stem}.html" for path in ROOT.glob("book/chapters/*.ipynb")}
    assert chapters
    assert names >= chapters | {
        "index.html",
        "api/index.html",
        "glossary.html",
        "references.html",
        "search.html",
    }


def test_internal_links_and_anchors_exist(pages):
    assert [line for path in pages for line in broken_links(path)] == []


def test_every_loaded_file_exists(pages):
    missing = [
        f"{origin.name}: {link}"
        for origin in pages
        for link in page(origin).loads
        if not is_outside(link)
        and not link.startswith("data:")
        and not target(origin, link)[0].exists()
    ]
    assert missing == []


def test_every_image_has_words(pages):
    """Alt text that says something: not empty, and not the path that Sphinx puts there."""
    silent = [
        f"{origin.name}: {source[:60]}: {alt!r}"
        for origin in pages
        if origin.name not in GENERATED
        for source, alt in page(origin).images
        if "_static/images/logo" not in source  # the theme's, beside the word itself
        if not alt or len(alt) < 20 or alt.endswith((".png", ".svg", ".jpg"))
    ]
    assert silent == []


def test_every_figure_is_numbered_and_captioned(pages):
    for origin in pages:
        text = origin.read_text(encoding="utf-8")
        figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
        assert len(figures) == text.count('<span class="caption-number">Fig.'), origin.name
        for figure in figures:
            assert re.search(r'class="caption-text">\s*\S', figure), figure[:200]


def test_nothing_is_asked_of_the_outside(pages):
    asked = [
        f"{origin.name}: {link}"
        for origin in pages
        for link in page(origin).loads
        if is_outside(link)
    ]
    for sheet in SITE.rglob("*.css"):
        asked += [
            f"{sheet.name}: {address}"
            for address in re.findall(
                r"(?:@import\s+|url\()\s*['\"]?((?:https?:)?//[^'\")\s]+)", sheet.read_text("utf-8")
            )
        ]
    assert asked == []


def test_formulas_are_set_by_the_mathjax_beside_the_page(pages):
    text = (SITE / "chapters" / "02_measuring.html").read_text(encoding="utf-8")
    assert 'src="../_static/mathjax/tex-mml-chtml.js' in text
    assert (SITE / "_static/mathjax/output/chtml/fonts/woff-v2/MathJax_Main-Regular.woff").exists()


def test_no_markup_is_left_raw(pages):
    """A role or a fence that MyST did not understand shows as text."""
    for origin in pages:
        if origin.name in GENERATED or "_modules" in origin.parts:
            continue
        text = origin.read_text(encoding="utf-8")
        text = re.sub(r"<(pre|script|style|code)\b.*?</\1>", "", text, flags=re.DOTALL)
        text = re.sub(r"<[^>]+>", "", text)
        raw = re.findall(
            r".{0,40}(?::::|\{(?:ref|doc|eq|numref|cite:?\w?|func|term)\}).{0,40}", text
        )
        assert raw == [], origin.name


def test_chapters_keep_the_number_in_their_file_name(pages):
    for origin in (SITE / "chapters").glob("*.html"):
        heading = re.search(
            r"<h1>.*?section-number\">(\d+)\.", origin.read_text("utf-8"), re.DOTALL
        )
        assert heading is not None, origin.name
        assert int(heading.group(1)) == int(origin.name.split("_")[0])


def test_colab_buttons_open_what_is_there_and_chapters_have_one_and_a_download(pages):
    for origin in pages:
        colab = [link for link in page(origin).links if "colab.research" in link]
        for link in colab:
            assert (ROOT / link.split("/blob/main/")[1]).exists(), link
        if origin.parent.name != "chapters":
            continue
        copy = f"/blob/main/book/colab/{origin.stem}.ipynb"
        assert [link[-len(copy) :] for link in colab] == [copy], origin.name
        download = [link for link in page(origin).links if link.endswith(f"{origin.stem}.ipynb")]
        assert any(target(origin, link)[0].exists() for link in download), origin.name


def test_names_of_other_projects_link_to_their_documentation(pages):
    text = (SITE / "api" / "index.html").read_text(encoding="utf-8")
    assert 'href="https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor"' in text
