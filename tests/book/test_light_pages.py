"""What makes the pages light, without a built site: nothing in use goes, no look changes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.programs import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def light():
    pytest.importorskip("sphinx")
    return load(ROOT / "book" / "_ext" / "light_pages.py")


SCRIPT = '<script defer src="../_static/{}?v=1"></script>\n'
SHEET = '<link rel="stylesheet" type="text/css" href="_static/{}?v=1" />\n'


@pytest.mark.parametrize(
    ("part", "body", "stays"),
    [
        (SCRIPT.format("mathjax/startup.js"), '<span class="math notranslate">', True),
        (SCRIPT.format("mathjax/startup.js"), "<p>mathematics</p>", False),
        (SCRIPT.format("mathjax/startup.js"), '<section class="mathjax_ignore">', False),
        (SCRIPT.format("scripts/fontawesome.js"), '<i class="fas fa-rocket"></i>', False),
        (SCRIPT.format("scripts/bootstrap.js"), "", True),
        (SCRIPT.format("searchtools.js"), '<div id="search-results"></div>', True),
        (SCRIPT.format("searchtools.js"), '<dialog id="pst-search-dialog">', False),
        (SHEET.format("sphinx-design.min.css"), '<div class="docutils sd-card">', True),
        (SHEET.format("sphinx-design.min.css"), '<div class="used-cars">', False),
        (SHEET.format("mystnb.0a1b.css"), '<div class="cell docutils container">', True),
        (SHEET.format("mystnb.0a1b.css"), '<td class="cells">', False),
        (SHEET.format("book.css"), "", True),
        ("<script>let mathjax = 'mathjax/';</script>\n", "", True),
        ('<link rel="canonical" href="https://a.github.io/mathjax/" />\n', "", True),
    ],
)
def test_a_page_keeps_what_it_has_a_use_for(light, part, body, stays):
    page = f"<head>\n{part}<title>T</title></head><body>{body}</body>"
    assert light.slim(page) == (page if stays else page.replace(part, ""))


def test_icons_go_by_all_their_names_and_other_rules_stay(light):
    rules = [
        '.fa-gear:before,.fa-cog:before{content:"\\f013"}',
        '.fa-sun::before{content:"\\f185"}',
        '.fa-moon:before{content:"\\f186"}',
        ".fa-lg{font-size:1.25em}",
        '.admonition::after{content:"\\f0eb"}',
    ]
    kept = light.keep_icons("".join(rules), {"fa-cog", "fa-sun"})
    assert kept == "".join(rules[:2] + rules[3:])


def test_a_font_keeps_the_characters_asked_for(light, tmp_path):
    from fontTools.ttLib import TTFont
    from matplotlib import get_data_path

    font = tmp_path / "font.ttf"
    font.write_bytes((Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf").read_bytes())
    small = light.small_font(font, {ord("k"), ord("d"), 0xF8FFF})
    with TTFont(small) as kept:
        assert set(kept.getBestCmap()) == {ord("k"), ord("d")}
    assert small.stat().st_size < font.stat().st_size / 100
    assert light.small_font(font, {0xF8FFF}) is None


def test_a_picture_loses_bytes_and_no_pixel(light, tmp_path):
    ramp = np.zeros((64, 64, 4), np.uint8)
    ramp[..., 0], ramp[..., 3] = np.arange(64), np.arange(64)[:, None] * 4  # also where it is clear
    Image.fromarray(ramp).save(tmp_path / "ramp.png", compress_level=0)
    Image.new("1", (1, 1)).save(tmp_path / "dot.png", optimize=True)
    before = (tmp_path / "dot.png").stat().st_size
    replaced = light.lighten_pictures(tmp_path)
    with Image.open(tmp_path / "ramp.webp") as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGBA")), ramp)
    assert "ramp" in replaced and not (tmp_path / "ramp.png").exists()
    for stem in ("dot", "ramp"):  # one form of each is left
        assert len(list(tmp_path.glob(f"{stem}.*"))) == 1
    assert next(tmp_path.glob("dot.*")).stat().st_size <= before


def test_the_sitemap_can_be_parsed_whatever_the_address():
    pytest.importorskip("sphinx")
    pytest.importorskip("sphinxext.opengraph")
    from xml.etree import ElementTree

    addresses = ["https://a.org/b.html", "https://a.org/c&d.html"]
    text = load(ROOT / "book" / "_ext" / "site_files.py").sitemap(addresses)
    found = ElementTree.fromstring(text)  # noqa: S314
    assert [one.text for one in found.iter() if one.tag.endswith("loc")] == addresses


def test_the_emblem_is_the_one_that_its_program_draws():
    emblem = load(ROOT / "book" / "tools" / "emblem.py")
    static = ROOT / "book" / "_static"
    assert (static / "favicon.svg").read_text(encoding="utf-8") == emblem.svg()
    with Image.open(static / "touch-icon.png") as stored:
        difference = np.asarray(stored, int) - np.asarray(emblem.emblem(180), int)
    assert abs(difference).max() <= 2
