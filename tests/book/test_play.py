"""Things to play with, in a real browser: controls are moved, and the numbers are Python's.

Needs a Chromium (see test_browser.py), no built site. tests/plots/test_play.py runs the same
arithmetic without a browser.
"""

import itertools
import math
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.starts_process
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "tools"))

from browser import Browser, find_browser  # noqa: E402

from ekd_lite import plots  # noqa: E402
from ekd_lite.distill import KDLoss, soft_rank  # noqa: E402
from ekd_lite.plots.play import soft  # noqa: E402
from ekd_lite.plots.play.ekd import TEMPERATURES  # noqa: E402
from ekd_lite.plots.play.margin import PEOPLE  # noqa: E402
from tests.plots.test_play import (  # noqa: E402
    SOFT,
    STUDENT,
    STUDY,
    TEACHER,
    TWO_FACES,
    WIDGETS,
    by_head,
    by_library,
)


@pytest.fixture(scope="module")
def browser():
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROME")
    with Browser(program) as one:
        one.width(700)
        yield one


@pytest.fixture
def show(browser, tmp_path):
    """Put widgets on a page; afterwards nothing was asked of the net and no script failed."""

    def put(*widgets, scripts=True):
        body = "<hr>".join(widget._repr_html_() for widget in widgets)
        path = tmp_path / "page.html"
        path.write_text(f"<!doctype html><meta charset=utf-8><body>{body}", encoding="utf-8")
        browser.forget()
        browser.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        browser.send("Page.navigate", url=path.as_uri())
        if scripts:
            browser.open(path.as_uri())
        return browser

    yield put
    assert [one for one in browser.requests if not one.startswith(("file:", "data:"))] == []
    assert browser.errors == []
    browser.send("Emulation.setScriptExecutionDisabled", value=False)
    browser.width(700)


def move(page, name, position):
    page.run(
        f"(() => {{ const c = document.querySelector('[name={name}]'); c.value = {position!r};"
        " c.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def fact(page, name):
    return float(page.run(f"document.querySelector('[data-fact={name}]').dataset.value"))


def words(page, selector):
    return page.run(f"document.querySelector({selector!r}).textContent")


@pytest.mark.parametrize("case", [(0.2, 0.7, 0.01), (0.445, 0.9, 0.01), (0.3, 0.9, 0.1)])
def test_ekd_follows_its_sliders(show, case):
    a, b, tau = case
    page = show(WIDGETS[0])
    move(page, "student", a)
    move(page, "teacher", b)
    move(page, "temperature", TEMPERATURES.index(tau))
    loss, force = by_library(a, b, tau)
    assert fact(page, "loss") == pytest.approx(loss, rel=1e-6, abs=1e-6)
    assert fact(page, "force") == pytest.approx(force, rel=1e-6, abs=1e-6)
    for name, score, at in (("student", a, STUDENT), ("teacher", b, TEACHER)):
        one, levels = (torch.tensor(x, dtype=torch.float64) for x in ([score], at))
        rank = soft_rank(one, levels, temperature=tau).item()
        assert fact(page, f"{name}Rank") == pytest.approx(rank, abs=1e-6)
        assert fact(page, f"{name}Count") == int((one > levels).sum())
    assert ("up" in words(page, ".verdict")) == (force > 0.01)


def test_ekd_is_dragged_in_its_picture(show):
    page = show(WIDGETS[0])
    box = page.run(
        "(() => { const b = document.querySelector('svg').getBoundingClientRect();"
        " return [b.left, b.top, b.width]; })()"
    )
    for x, y, name in ((0.8, 96, "student"), (0.5, 38, "teacher")):
        before = page.run("[...document.querySelectorAll('input')].map(i => i.value)")
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": box[0] + x * box[2], "y": box[1] + y}
            page.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)
        after = page.run("[...document.querySelectorAll('input')].map(i => i.value)")
        changed = [k for k, pair in enumerate(zip(before, after, strict=True)) if len({*pair}) > 1]
        assert changed == [["student", "teacher"].index(name)]
        left = (x * box[2] - 56) / (box[2] - 64)
        assert float(after[changed[0]]) == pytest.approx(1.2 * left - 0.2, abs=0.004)


def test_buttons_show_the_blind_terrace_and_the_freedom(show):
    page = show(WIDGETS[0])
    press = (
        "[...document.querySelectorAll('button')].find(b => b.textContent.includes({!r})).click()"
    )
    page.run(press.format("blind"))
    assert fact(page, "loss") > 20 and abs(fact(page, "force")) < 1e-3
    assert "Nothing pulls" in words(page, ".verdict")
    page.run(press.format("0.1"))
    assert fact(page, "force") > 1
    page.run(press.format("free"))
    assert fact(page, "studentCount") == fact(page, "teacherCount") == 3
    assert "free" in words(page, ".verdict")


@pytest.mark.parametrize("threshold", [-0.2, 0.38, 0.42, 0.43, 0.61, 0.95])
def test_roc_counts_what_is_accepted(show, threshold):
    widget = plots.RocByHand()
    page = show(widget)
    move(page, "threshold", threshold)
    tpr, fpr = (
        sum(score >= threshold for score in side) / len(side)
        for side in (widget.genuine, widget.impostor)
    )
    assert fact(page, "tpr") == pytest.approx(tpr, abs=1e-12)
    assert fact(page, "fpr") == pytest.approx(fpr, abs=1e-12)


def test_roc_is_walked_from_score_to_score(show):
    page = show(WIDGETS[1])
    move(page, "threshold", 0.0)
    seen = []
    for _ in range(4):
        page.run("[...document.querySelectorAll('button')].pop().click()")
        seen.append(float(page.run("document.querySelector('[name=threshold]').value")))
    assert seen == [0.04, 0.12, 0.21, 0.30]


@pytest.mark.parametrize(
    "case",
    [
        ("ArcFace", 64, 0.5, 85_742, 60),
        ("CosFace", 16, 0.35, 200, 20),
        ("NormFace", 8, 0.5, 1000, 120),
    ],
)
def test_margin_follows_its_controls(show, case):
    name, scale, margin, people, degrees = case
    page = show(WIDGETS[2])
    move(page, "head", name)
    move(page, "scale", scale)
    move(page, "margin", margin)
    move(page, "people", PEOPLE.index(people))
    move(page, "angle", degrees)
    logit, loss, pull, p = by_head(name, scale, margin, people, math.radians(degrees))
    assert fact(page, "logit") == pytest.approx(logit, abs=1e-6)
    assert fact(page, "loss") == pytest.approx(loss, rel=1e-6, abs=1e-6)
    assert fact(page, "pull") == pytest.approx(pull, rel=1e-6, abs=1e-6)
    assert fact(page, "p") == pytest.approx(p, rel=1e-6, abs=1e-9)


def chosen_fields(widget, student, level):
    """How many (genuine, impostor) pairs only the teacher and only the student accept."""
    only = {"teacher": [0, 0], "student": [0, 0]}
    hits = [0, 0]
    for k, (one, other) in enumerate(itertools.combinations(widget.people, 2)):
        t, s = (
            widget.cosines[net][k] > widget.thresholds[net][level] for net in ("teacher", student)
        )
        hits = [hits[0] + (t and one == other), hits[1] + (s and one == other)]
        if t != s:
            only["teacher" if t else "student"][one != other] += 1
    return only, hits


@pytest.mark.parametrize("student", ["alone", "distilled"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_two_faces_counts_what_each_net_accepts(show, student, level):
    widget = TWO_FACES
    page = show(widget)
    move(page, "level", level)
    move(page, "net", str(list(widget.cosines).index(student)))
    only, hits = chosen_fields(widget, student, level)
    for name, hit, net in (("teacher", hits[0], "teacher"), ("student", hits[1], student)):
        assert fact(page, f"{name}Tpr") == pytest.approx(hit / 12)
        right, wrong = only[name]
        end = name.capitalize()
        assert words(page, f"[data-fact=only{end}]") == f"{right} right, {wrong} wrong"
        assert fact(page, f"whole{end}") == pytest.approx(widget.tprs[net][level], abs=1e-6)
    lit = "[...document.querySelectorAll('[data-pair] rect:first-child')]"
    lit += ".filter(r => r.style.fill.includes('--loss')).length"
    assert page.run(lit) == sum(map(sum, only.values()))


def test_two_faces_are_chosen_by_a_click_or_from_the_lists(show):
    widget = TWO_FACES
    page = show(widget)
    place = list(itertools.combinations(range(12), 2)).index((4, 9))
    page.run(
        f"document.querySelector('[data-pair=\"{place}\"]')"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    for name, k in (("first", 4), ("second", 9)):
        assert page.run(f"document.querySelector('[name={name}]').value") == str(k)
    assert "Two people" in words(page, ".verdict")
    move(page, "second", "5")
    assert "One person" in words(page, ".verdict")
    move(page, "second", "4")
    assert "choose two" in words(page, ".verdict")


@pytest.mark.parametrize(("k", "temperature"), [(0, 1), (1, 4), (1, 32)])
def test_soft_labels_follow_the_temperature(show, k, temperature):
    page = show(SOFT)
    move(page, "picture", str(k))
    move(page, "temperature", soft.TEMPERATURES.index(temperature))
    teacher, student = (
        rows[k].mul(1000).round()[None] / 1000 for rows in (SOFT.teacher, SOFT.student)
    )
    loss = KDLoss(temperature=float(temperature))(student, teacher).item()
    assert fact(page, "loss") == pytest.approx(loss, rel=1e-5, abs=1e-6)
    for name, logits in (("q", teacher), ("p", student)):
        belief = (logits[0] / temperature).softmax(0)[SOFT.people[k]].item()
        assert fact(page, name) == pytest.approx(belief, rel=1e-6)


def test_a_study_follows_its_lists(show):
    page = show(STUDY)
    assert fact(page, "mean") == 91.25 and fact(page, "rank") == 1
    assert fact(page, "difference") == pytest.approx(91.25 - 80.5)
    move(page, "method", "kd")
    move(page, "regime", "fixed")
    assert fact(page, "mean") == 69.5 and fact(page, "rank") == 2
    assert fact(page, "difference") == pytest.approx(-0.5)
    assert "within the intervals of 1 of the 1 others" in words(page, ".verdict")
    move(page, "method", "ekd")
    assert "ekd was not measured here" in words(page, ".verdict")
    move(page, "level", "1")
    assert "nothing was measured" in words(page, "svg")


def test_several_on_a_page_do_not_disturb_each_other(show):
    page = show(*WIDGETS, plots.EkdByHand(STUDENT, TEACHER, student=0.9))
    assert page.run("document.querySelectorAll('.ekd-play[data-on]').length") == 7
    assert page.run("document.querySelectorAll('.ekd-play svg').length") == 7
    move(page, "student", 0.1)
    values = page.run("[...document.querySelectorAll('[name=student]')].map(i => i.value)")
    assert values == ["0.1", "0.9"]


def test_a_widget_starts_in_a_shadow_tree_too(show):
    page = show(WIDGETS[0])
    page.run(
        "(() => { const host = document.body.appendChild(document.createElement('div'));"
        " const tree = host.attachShadow({mode: 'open'});"
        " const old = document.querySelector('.ekd-play'), fresh = old.cloneNode(false);"
        " delete fresh.dataset.on; const still = document.createElement('p');"
        " still.className = 'still'; fresh.append(still); tree.append(fresh);"
        " const script = document.createElement('script');"
        " script.textContent = document.querySelector('script').textContent;"
        " tree.append(script); })()"
    )
    inside = "document.body.lastElementChild.shadowRoot.querySelector('.ekd-play')"
    assert page.run(f"{inside}.querySelectorAll('input').length") == 3
    assert page.run("document.querySelectorAll('.ekd-play input').length") == 3


def test_every_control_is_labelled_and_reached_by_the_keyboard(show):
    page = show(*WIDGETS)
    controls = page.run(
        "[...document.querySelectorAll('input, select, button')].map(c => [c.tabIndex,"
        " c.labels?.[0]?.textContent || c.textContent, c.getAttribute('aria-valuetext')])"
    )
    assert len(controls) > 10, controls
    for index, label, _ in controls:
        assert index == 0 and label, controls
    page.run("document.querySelector('[name=student]').focus()")
    for kind in ("rawKeyDown", "keyUp"):
        key = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39}
        page.send("Input.dispatchKeyEvent", type=kind, **key)
    assert page.run("document.querySelector('[name=student]').value") == "0.305"
    assert words(page, ".value") == "0.305"


@pytest.mark.parametrize("width", [390, 700])
def test_nothing_sticks_out_of_a_narrow_page(show, width):
    page = show(*WIDGETS)
    page.width(width)
    page.wait(f"document.querySelector('svg').viewBox.baseVal.width <= {width}")
    time.sleep(0.1)
    assert page.run("document.documentElement.scrollWidth") <= width
    out = page.run(
        "[...document.querySelectorAll('svg text')].filter(t => { const b ="
        " t.getBoundingClientRect(); return b.left < 0 || b.right > innerWidth; })"
        ".map(t => t.textContent)"
    )
    assert out == []


def test_without_scripts_the_sentence_is_seen(show):
    page = show(*WIDGETS, scripts=False)
    time.sleep(0.5)
    document = page.send("DOM.getDocument", depth=-1)["root"]
    html = page.send("DOM.getOuterHTML", nodeId=document["nodeId"])["outerHTML"]
    assert html.count('<p class="still">') == len(WIDGETS)
    assert "<svg" not in html and "<input" not in html


def test_in_print_the_picture_stands_without_controls(show):
    page = show(*WIDGETS)
    page.send("Emulation.setEmulatedMedia", media="print")
    shown = "[...document.querySelectorAll('{}')].filter(e => e.checkVisibility()).length"
    assert page.run(shown.format("input, select, button")) == 0
    assert page.run(shown.format("svg")) == len(WIDGETS)
    page.send("Emulation.setEmulatedMedia", media="")
