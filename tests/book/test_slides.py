"""Slides: a deck holds what its chapter shows, keeps the alt text, and asks for nothing outside.

The second half, marked `page`, looks at a built site.
"""

import re
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "tools"))

import slides  # noqa: E402
from browser import Browser, find_browser  # noqa: E402

from tests.book.built import SITE, article, pages_of  # noqa: E402

CHAPTER = """<html><head><script src="../_static/mathjax/startup.js?v=1"></script></head><body>
<article class="bd-article"><section id="top">
<h1>7. Soup<a class="headerlink" href="#top">#</a></h1>
<p>Soup is hot. It is made of <em>stock. And salt</em>, as <a href="06_stock.html#bone">Stock</a>
says.</p>
<div class="tip admonition"><p>Before</p><ul><li><p>boil;</p></li><li><p>taste.</p></li></ul></div>
<section id="boiling"><h2>7.1. Boiling</h2>
<p>Water boils, see <a href="#eq-a">(7.1)</a>. Not later.</p>
<p>So the formula is</p>
<div class="math" id="eq-a"><span class="eqno">(7.1)</span>\\[ a &gt; b \\]</div>
<div class="math">\\[ unnumbered \\]</div>
<div class="cell"><div class="cell_input"><p>code</p></div><div class="cell_output">
<figure id="fig-pot"><img alt="A pot on a stove" src="../_images/pot.webp" /><figcaption>
<p><span class="caption-number">Fig. 7.1 </span>A pot.</p></figcaption></figure></div></div>
<section id="deeper"><h3>Deeper</h3><p>Deep water boils late.</p>
<table><tr><th>small</th></tr><tr><td>1</td></tr></table>
<table><tr>WIDE</tr></table></section></section>
<section id="exercises"><h2>7.2. Exercises</h2>
<div class="exercise" id="ex-a"><p class="admonition-title">Exercise 7.1 (Salt)</p>
<section id="exercise-content"><p><em>Pen.</em> How much?</p></section></div>
<div class="solution"><figure><img alt="The answer" src="x" /></figure></div></section>
<section id="what-we-learned"><h2>7.3. What we learned</h2><ul>LEARNED</ul></section>
<section id="questionnaire"><h2>7.4. Questionnaire</h2><ol>ASKED</ol></section>
<section id="further-reading"><h2>7.5. Further reading</h2><p>Books.</p></section>
</section></article></body></html>"""
CHAPTER = CHAPTER.replace("WIDE", "<td>x</td>" * (slides.MOST_COLUMNS + 1))
CHAPTER = CHAPTER.replace(
    "LEARNED", "".join(f"<li><p>{'word ' * 60}{k}</p></li>" for k in range(5))
)
CHAPTER = CHAPTER.replace("ASKED", "".join(f"<li><p>Why {k}?</p></li>" for k in range(40)))


@pytest.fixture(scope="module")
def deck(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    (site / "chapters").mkdir()
    (site / "chapters" / "07_soup.html").write_text(CHAPTER, encoding="utf-8")
    (path,) = slides.write(site)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown(deck):
    """The text of every slide."""
    found = BeautifulSoup(deck, "html.parser").find_all("section")
    return [" ".join(one.get_text(" ").split()) for one in found]


def test_a_deck_begins_with_title_and_goals_and_has_the_sections_in_order(shown):
    assert shown[0].startswith("7. Soup Soup is hot. It is made of stock. And salt , as Stock says")
    assert shown[1] == "You will be able to boil; taste."
    heads = [one.split(" ")[0] for one in shown[2:]]
    order = ["7.1.", "7.1.", "Deeper", "Deeper", "7.2.", "7.3.", "7.4."]
    assert list(dict.fromkeys(heads)) == list(dict.fromkeys(order))
    assert not [one for one in shown if "Books." in one or "code" in one]


def test_an_equation_comes_with_the_sentence_before_it_and_only_if_it_has_a_number(shown, deck):
    (slide,) = [one for one in shown if "(7.1) \\[" in one]
    assert slide == (
        "7.1. Boiling Water boils, see (7.1) . Not later. So the formula is (7.1) \\[ a > b \\]"
    )
    assert "unnumbered" not in deck


def test_a_figure_keeps_its_words_and_stands_alone_and_the_answer_stays_out(shown, deck):
    page = BeautifulSoup(deck, "html.parser")
    (image,) = page.find_all("img")
    assert image["alt"] == "A pot on a stove" and image["src"] == "../_images/pot.webp"
    assert "7.1. Boiling Fig. 7.1 A pot." in shown
    assert "The answer" not in deck


def test_small_tables_are_shown_and_wide_ones_are_not(deck):
    assert [t.get_text() for t in BeautifulSoup(deck, "html.parser").find_all("table")] == [
        "small1"
    ]


def test_links_lead_back_to_the_chapters(deck):
    found = [one["href"] for one in BeautifulSoup(deck, "html.parser").select("main a")]
    chapters = "../chapters/"
    assert f"{chapters}06_stock.html#bone" in found and f"{chapters}07_soup.html#eq-a" in found
    assert f"{chapters}07_soup.html#ex-a" in found
    assert 'src="../_static/mathjax/startup.js?v=1"' in deck


def test_long_lists_go_on_on_the_next_slide_and_keep_their_numbers(shown, deck):
    learned = [one for one in shown if one.startswith("7.3.")]
    assert len(learned) > 1 and "".join(learned).count("word") == 300
    asked = [one for one in shown if one.startswith("7.4.")]
    starts = re.findall(r'<ol start="(\d+)">', deck)
    counts = [one.count("Why") for one in asked]
    assert len(asked) > 1 and sum(counts) == 40
    assert [int(start) for start in starts] == [1 + sum(counts[:k]) for k in range(len(counts))]


def test_a_page_of_another_shape_is_refused(tmp_path):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "01_a.html").write_text("<main></main>", encoding="utf-8")
    with pytest.raises(ValueError, match="01_a: no article with a heading"):
        slides.deck(tmp_path, "01_a")


@pytest.fixture(scope="module")
def decks():
    return {path.stem: path for path in pages_of("slides/*.html")}


@pytest.mark.page
def test_every_chapter_has_slides_and_a_button_that_opens_them(decks):
    names = {path.stem for path in (ROOT / "book" / "chapters").glob("*.ipynb")}
    assert decks.keys() == names
    listed = (SITE / "instructors.html").read_text(encoding="utf-8")
    for name in names:
        page = (SITE / "chapters" / f"{name}.html").read_text(encoding="utf-8")
        assert f'href="../slides/{name}.html"' in page, name
        assert f'href="slides/{name}.html"' in listed, name


@pytest.mark.page
def test_decks_have_a_length_for_two_hours_and_all_figures_of_their_chapter(decks):
    for name, path in decks.items():
        deck = BeautifulSoup(path.read_text("utf-8"), "html.parser")
        chapter = article(SITE / "chapters" / f"{name}.html")
        assert 20 <= len(deck.find_all("section")) <= 60, name
        hidden = ".exercise figure, .solution figure, details figure, .dropdown figure"
        answers = {one["id"] for one in chapter.select(hidden)}
        wanted = [one["id"] for one in chapter.find_all("figure") if one["id"] not in answers]
        # What stands in the exercises' section belongs to one of them.
        drawn = [one["id"] for one in deck.find_all("figure")]
        after = {one["id"] for one in chapter.select("#exercises figure")}
        assert drawn == [one for one in wanted if one not in after], name
        alts = {one["src"]: one["alt"] for one in chapter.find_all("img")}
        for image in deck.find_all("img"):
            assert image["alt"] == alts[image["src"]], name
        assert "http://" not in str(deck.head) and "https://" not in str(deck.head)


@pytest.mark.page
@pytest.mark.starts_process
def test_keys_move_formulas_are_set_and_nothing_sticks_out(decks):
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROME")
    with Browser(program) as browser:
        browser.width(1280, 720)
        for name in ("02_measuring", "12_comparison"):
            browser.forget()
            browser.open(decks[name].as_uri())
            count = browser.run("all.length")
            assert browser.run("document.querySelector('.shown h1') !== null")
            for key, place in [("ArrowRight", 2), (" ", 3), ("ArrowLeft", 2), ("End", count)]:
                for kind in ("keyDown", "keyUp"):
                    browser.send("Input.dispatchKeyEvent", type=kind, key=key)
                assert browser.run("location.hash") == f"#{place}", key
            assert browser.run("document.querySelectorAll('mjx-merror').length") == 0
            set_ = browser.run("document.querySelectorAll('main mjx-container').length")
            assert set_ == decks[name].read_text("utf-8").count('class="math ') > 0
            wide = browser.run(
                "all.filter((one, k) => { show(k); return one.scrollWidth > innerWidth + 1"
                " || one.scrollHeight > innerHeight + 1; }).map(one => one.innerText)"
            )
            assert wide == [], name
            assert browser.errors == []
            here = (SITE.as_uri(), "data:")
            assert [one for one in browser.requests if not one.startswith(here)] == []
