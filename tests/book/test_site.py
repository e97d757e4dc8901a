"""The built pages: links lead somewhere, pictures have words, nothing comes from outside.

`book.py build` runs what is marked `page` after every build with EKD_SITE=the site, so that a
missing site is a failure there; `pytest tests` without a built site skips it.
"""

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
import yaml
from PIL import Image

from tests.book.built import SITE, pages_of

pytestmark = pytest.mark.page
ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
HOME = CONFIG["html"]["baseurl"]
GENERATED = {"genindex.html", "search.html", "py-modindex.html"}
ALONE = {"404.html", "print.html"}  # not made by Sphinx
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
    "apple-touch-icon",
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
        self.meta: dict[str, list[str]] = {}
        self.rels: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        for key in ("id", "name"):
            if given.get(key):
                self.anchors.add(given[key])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "meta" and "content" in given:
            name = given.get("property") or given.get("name") or ""
            self.meta.setdefault(name, []).append(given["content"])
        if tag == "link":
            self.rels.setdefault(given.get("rel", ""), []).append(given["href"])
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
    return pages_of("**/*.html")


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
    assert 'src="../_static/mathjax/startup.js' in text
    parts = re.search(r'"loader": \{"load": \[(.*?)\]', text)
    assert parts is not None
    for name in ["core", *re.findall(r'"([^"]+)"', parts[1]), "output/chtml/fonts/tex"]:
        assert (SITE / f"_static/mathjax/{name}.js").exists(), name
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
    text = (SITE / "api" / "distill.html").read_text(encoding="utf-8")
    assert 'href="https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor"' in text


@pytest.fixture(scope="module")
def whole(pages):
    """The pages that Sphinx makes, by their place in the site."""
    found = {path.relative_to(SITE).as_posix(): path for path in pages if path.name not in ALONE}
    return {name: path for name, path in found.items() if not name.startswith("slides/")}


def test_the_address_is_that_of_the_repository_on_github_pages():
    owner, name = CONFIG["repository"]["url"].split("/")[-2:]
    assert f"https://{owner}.github.io/{name}/" == HOME


def test_every_page_names_its_own_address_once(whole):
    for name, path in whole.items():
        assert page(path).rels.get("canonical") == [HOME + name], name
        assert page(path).meta["og:url"] == [HOME + name], name


def test_a_shared_link_has_title_words_and_picture(whole):
    seen = {}
    for name, path in whole.items():
        meta = page(path).meta
        assert all(len(values) == 1 for key, values in meta.items() if key.startswith("og:")), name
        assert meta["og:title"][0].strip() and meta["og:site_name"] == [CONFIG["title"]], name
        assert meta["description"] == meta["og:description"], name
        assert 20 <= len(meta["og:description"][0]) <= 210, name
        assert len(meta["og:image:alt"][0]) >= 20, name
        seen[name] = meta["og:description"][0], *meta["og:image"]
    chapters = [words for name, (words, _) in seen.items() if name.startswith("chapters/")]
    assert len(set(chapters)) == len(chapters) > 0
    (picture,) = {picture for _, picture in seen.values()}
    assert picture.startswith(HOME)
    file = SITE / picture.removeprefix(HOME)
    assert file.stat().st_size < 100_000
    with Image.open(file) as image:
        stated = [meta[f"og:image:{axis}"] for axis in ("width", "height")]
        assert [[str(side)] for side in image.size] == stated


def test_every_page_has_our_icon(whole):
    for name, path in whole.items():
        depth = "../" * name.count("/")
        assert page(path).rels["icon"] == [f"{depth}_static/favicon.svg"], name
        assert page(path).rels["apple-touch-icon"] == [f"{depth}_static/touch-icon.png"], name
    assert ElementTree.parse(SITE / "_static" / "favicon.svg").getroot().tag.endswith("}svg")  # noqa: S314
    with Image.open(SITE / "_static" / "touch-icon.png") as image:
        assert image.size == (180, 180)


def test_the_sitemap_lists_every_page_that_somebody_wrote(whole):
    tree = ElementTree.parse(SITE / "sitemap.xml")  # noqa: S314
    space = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9"}
    listed = [one.text for one in tree.findall("s:url/s:loc", space)]
    made = GENERATED | {"prf-prf.html"}
    written = [name for name in whole if name not in made and not name.startswith("_modules/")]
    assert listed == sorted(HOME + name for name in written)


def test_the_page_for_dead_links_works_at_any_depth(pages):
    text = (SITE / "404.html").read_text(encoding="utf-8")
    shown = Page(text)
    assert shown.loads == [] and "url(" not in text  # a relative address would lead nowhere
    targets = [*shown.links, *re.findall(r'action="([^"]+)"', text)]
    assert f"{HOME}index.html" in targets and f"{HOME}search.html" in targets
    for target_ in targets:
        assert target_.startswith(HOME)
        assert (SITE / target_.removeprefix(HOME)).exists(), target_
    assert shown.meta["robots"] == ["noindex"] and "<svg" in text


def test_github_serves_folders_that_begin_with_an_underscore(pages):
    assert (SITE / ".nojekyll").exists()


def test_formulas_are_paid_for_only_where_there_are_some(whole):
    kinds = set()
    for name, path in whole.items():
        has_formulas = 'class="math ' in path.read_text(encoding="utf-8")
        loads_mathjax = any("mathjax" in link for link in page(path).loads)
        assert loads_mathjax == has_formulas, name
        kinds.add(has_formulas)
    assert kinds == {True, False}


def test_no_page_loads_what_it_has_no_use_for(whole):
    heavy = ("fontawesome", "searchindex", "sphinx-design", "thebe")
    for name, path in whole.items():
        for link in page(path).loads:
            searches = name == "search.html" and "searchindex" in link
            assert searches or not any(word in link for word in heavy), f"{name}: {link}"
    for font in (SITE / "_static/vendor/fontawesome").rglob("*.woff"):
        assert font.stat().st_size < 5_000, font
    sheet = (SITE / "_static/styles/pydata-sphinx-theme.css").read_text(encoding="utf-8")
    assert "woff2" not in sheet and ".ttf" not in sheet


def test_every_icon_on_a_page_is_in_the_style_sheet_and_the_fonts(whole):
    from fontTools.ttLib import TTFont

    sheet = (SITE / "_static/styles/pydata-sphinx-theme.css").read_text(encoding="utf-8")
    drawn = set()
    for path in (SITE / "_static/vendor/fontawesome").rglob("*.woff"):
        with TTFont(path) as font:
            drawn |= set(font.getBestCmap())
    named = {
        icon
        for path in whole.values()
        for classes in re.findall(r'<(?:i|span) class="([^"]*)"', path.read_text("utf-8"))
        for icon in re.findall(r"\bfa-[a-z-]+", classes)
    } - {"fa-solid", "fa-brands", "fa-regular", "fa-lg"}
    assert len(named) > 10
    for icon in named:
        code = re.search(rf'\.{icon}:{{1,2}}before[^{{}}]*\{{content:"\\([0-9a-f]+)"', sheet)
        assert code is not None, icon
        assert int(code[1], 16) in drawn, icon


def test_pictures_are_kept_in_the_smaller_form(whole):
    assert list((SITE / "_images").glob("*.webp"))
    for path in (SITE / "_images").glob("*.png"):
        assert path.stat().st_size < 1_000, path  # so small that WebP would not be smaller


# Bytes, by the beginning of the name.
MOST = {"chapters/": 1_700_000, "": 1_300_000}


def test_no_page_is_much_heavier_than_it_has_to_be(whole):
    """What the page itself names; test_browser.py weighs all that a browser loads."""
    for name, path in whole.items():
        files = {target(path, link)[0] for link in page(path).loads if not link.startswith("data:")}
        weight = path.stat().st_size + sum(file.stat().st_size for file in files)
        bound = next(most for start, most in MOST.items() if name.startswith(start))
        assert weight <= bound, f"{name}: {weight:,} bytes"
