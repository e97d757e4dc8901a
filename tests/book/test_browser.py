"""The built pages in a real browser: nothing comes from outside, and everything that moves works.

Needs a Chromium (`apt-get install chromium`, or $CHROME) and a built site; without one of them the
tests are skipped and say so. tests/book/test_site.py checks the same pages without a browser.
"""

import re
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.page, pytest.mark.starts_process]
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "tools"))

from browser import Browser, find_browser  # noqa: E402
from weigh import WIDTH, height, weigh  # noqa: E402

from tests.book.built import SITE  # noqa: E402

# Bytes of all files that a page loads, by its folder.
MOST = {"chapters": 2_600_000}
MOST_ELSEWHERE = 1_600_000
HIGHEST = 25_000  # pixels of a chapter, some thirty windows of a laptop
MOVING = "chapters/02_measuring.html"  # has formulas, hidden code and a slider
RAW = re.compile(r"\$\$|\\\(|\\begin\{|:::|\{(?:ref|eq|numref|cite:?\w?|func|term|doc)\}|\]\(http")


@pytest.fixture(scope="module")
def browser():
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROME")
    if not (SITE / "index.html").exists():
        pytest.skip(f"no built site in {SITE}; build it with: make book")
    with Browser(program) as one:
        one.width(WIDTH)
        yield one


@pytest.fixture
def page(browser):
    browser.forget()
    browser.open((SITE / MOVING).as_uri())
    yield browser
    assert outside(browser) == []
    assert browser.errors == []


def outside(browser):
    """What was asked of anything but the site's own files."""
    here = SITE.resolve().as_uri()
    return [one for one in browser.requests if not one.startswith((here, "data:", "blob:"))]


def unset(browser, path):
    """What is wrong with the formulas of the page that is open, and the markup that shows."""
    wanted = len(re.findall(r'class="math ', path.read_text(encoding="utf-8")))
    found = browser.run("document.querySelectorAll('mjx-container').length")
    faults = browser.run("document.querySelectorAll('mjx-merror').length")
    text = browser.run(
        "(() => { const copy = document.querySelector('article').cloneNode(true);"
        " copy.querySelectorAll('pre, code, script, mjx-container').forEach(e => e.remove());"
        " return copy.textContent; })()"
    )
    return [*RAW.findall(text), *["formulas"] * (found != wanted), *["faulty"] * faults]


def test_no_page_asks_for_anything_outside_or_reports_an_error_or_is_heavy_or_long(browser):
    """And the formulas of chapters are set, and no markup shows."""
    pages = [path for path in SITE.rglob("*.html") if not {"_static", "_modules"} & {*path.parts}]
    for path in [*pages, next((SITE / "_modules").rglob("*.html"))]:
        weight = weigh(browser, path).total()
        most = MOST.get(path.parent.name, MOST_ELSEWHERE)
        assert path.name == "print.html" or weight <= most, f"{path}: {weight:,} bytes"
        if path.parent.name == "chapters":
            assert height(browser) <= HIGHEST, path
            assert unset(browser, path) == [], path
        alone = path.name == "404.html"  # has no parts, since it must work at any depth
        assert (len(browser.requests) == 1) == alone, path  # the page and its parts were seen
        assert outside(browser) == [], path
        assert browser.errors == [], path


def test_colours_switch_to_dark_and_stay_dark_on_the_next_page(page):
    background = "getComputedStyle(document.body).backgroundColor"
    page.run("document.querySelector('.theme-switch-button').click()")
    for _ in range(2):  # auto, light, dark
        if page.run("document.documentElement.dataset.mode") != "dark":
            page.run("document.querySelector('.theme-switch-button').click()")
    shade = [int(part) for part in re.findall(r"\d+", page.run(background))[:3]]
    assert max(shade) < 60
    page.open((SITE / "glossary.html").as_uri())
    assert page.run("document.documentElement.dataset.theme") == "dark"
    page.run("localStorage.clear()")


def test_search_finds_a_word_and_leads_to_it(page):
    page.run("document.querySelector('.search-button__button').click()")
    page.wait("document.querySelector('#pst-search-dialog').open")
    page.press("bootstrap\n")
    page.wait("location.pathname.endsWith('search.html')")
    hit = "#search-results a[href*='02_measuring']"
    page.wait(f'document.querySelector("{hit}") !== null')
    page.run(f'document.querySelector("{hit}").click()')
    page.wait("location.pathname.endsWith('02_measuring.html')")


def test_a_solution_is_hidden_until_it_is_asked_for(page):
    page.run("document.querySelector('.exercise .to-solution a').click()")
    page.wait("location.pathname.endsWith('solutions/02_measuring.html')")
    inside = "document.querySelector('.solution.dropdown > section')"
    page.wait("document.querySelector('.solution .toggle-button') !== null")
    assert page.run(f"{inside}.offsetHeight") == 0
    page.run("document.querySelector('.solution .toggle-button').click()")
    page.wait(f"{inside}.offsetHeight > 0")


def test_a_link_into_what_is_folded_for_a_second_reading_opens_it(page):
    page.open((SITE / "chapters" / "10_ekd.html").as_uri())
    inside = "document.querySelector('details.second-reading h3')"
    assert page.run(f"{inside}.checkVisibility()") is False
    page.run(f"location.hash = {inside}.parentElement.id")
    page.wait(f"{inside}.checkVisibility()")


def test_hidden_code_opens(page):
    inside = "document.querySelector('details.hide pre')"
    assert page.run(f"{inside}.checkVisibility()") is False
    page.run("document.querySelector('details.hide summary').click()")
    assert page.run(f"{inside}.checkVisibility()") is True


def test_the_slider_changes_picture_and_sentence(page):
    shown = "[...document.querySelectorAll('.ekd-slider [data-step]')].filter(e => !e.hidden)"
    seen = set()
    for step in (0, 8, 16):
        page.run(
            "(() => { const s = document.querySelector('.ekd-slider input');"
            f" s.value = {step}; s.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
        )
        assert page.run(f"{shown}.length") == 1
        picture = page.run(f"{shown}[0].querySelector('img').src")
        seen.add((picture, page.run(f"{shown}[0].textContent")))
    assert len(seen) == 3
    assert len({picture for picture, _ in seen}) == 3


def test_code_is_copied_on_a_click(page):
    cells = "document.querySelectorAll('.cell_input .highlight').length"
    assert page.run("document.querySelectorAll('.cell_input .copybtn').length") == page.run(cells)
    page.run("document.querySelector('.cell_input .copybtn').click()")
    page.wait("document.querySelector('.cell_input .copybtn.success') !== null")
