"""Things to play with: their HTML stands alone, and their arithmetic is the library's.

The arithmetic runs in Node where there is one; tests/book/test_play.py moves the controls in a
browser.
"""

import html
import json
import math
import re
import shutil
import subprocess

import pytest
import torch
from torch.nn.functional import cross_entropy

from ekd_lite import heads, plots
from ekd_lite.distill import EKDLoss, soft_rank
from ekd_lite.evaluate import roc
from ekd_lite.plots.play.base import Widget

STUDENT = (0.205, 0.444, 0.61, 0.72, 0.79, 0.85)
TEACHER = (0.19, 0.408, 0.58, 0.7, 0.78, 0.84)
WIDGETS = [plots.EkdByHand(STUDENT, TEACHER), plots.RocByHand(), plots.MarginByHand()]
EVERY = pytest.mark.parametrize("widget", WIDGETS, ids=lambda widget: widget.name)


def script_of(widget):
    return re.findall(r"<script>(.*?)</script>", widget._repr_html_(), re.DOTALL)[0]


def in_node(widget, expression):
    """The value of an expression beside the widget's own functions; no page, so nothing starts."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node here: the arithmetic of the scripts is not run")
    inside = script_of(widget).removeprefix("(function(){").removesuffix("})()")
    program = f"globalThis.document = {{ querySelectorAll: () => [] }};\n{inside}\n"
    program += f"process.stdout.write(JSON.stringify({expression}));"
    done = subprocess.run([node], input=program, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@EVERY
def test_a_widget_stands_alone_and_is_small(widget):
    page = widget._repr_html_()
    assert len(page.encode()) <= 60_000
    assert page == widget._repr_html_()  # a notebook that is run again does not change
    assert not re.search(r"(src|href)=|url\(|@import|fetch\(|XMLHttp|import\(", page)
    assert {*re.findall(r"https?://[^\"' ]+", page)} <= {"http://www.w3.org/2000/svg"}
    assert page.count("<script>") == page.count("</script>") == 1


@EVERY
def test_without_scripts_a_sentence_stands_there(widget):
    page = re.sub(r"<(script|style)>.*?</\1>", "", widget._repr_html_(), flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert words == widget._sentence()
    assert 60 < len(words) < 400


@EVERY
def test_numbers_and_names_survive_the_page(widget):
    page = widget._repr_html_()
    numbers = json.loads(html.unescape(re.findall(r'data-numbers="([^"]*)"', page)[0]))
    assert numbers == json.loads(json.dumps(widget._numbers()))
    assert f'data-play="{widget.name}"' in page
    assert f'start("{widget.name}"' in script_of(widget)
    assert f'aria-label="{widget.title}"' in page


def test_a_widget_must_not_end_its_own_script():
    class Hostile(Widget):
        name = "roc"
        title = 'a "title"'

        def _numbers(self):
            return {"text": '</script><b a="1">'}

        def _sentence(self):
            return "</p><script>"

    page = Hostile()._repr_html_()
    assert page.count("</script") == page.count("<script") == 1
    assert page.count("</p>") == 1


def by_library(a, b, tau):
    """Loss of one genuine pair and minus its slope in the cosine, from EKDLoss itself."""
    loss_of = EKDLoss(temperature=tau, positive_weight=1.0).eval().double()
    loss_of.student_thresholds.copy_(torch.tensor(STUDENT, dtype=torch.float64))
    loss_of.teacher_thresholds.copy_(torch.tensor(TEACHER, dtype=torch.float64))
    loss_of.num_updates += 1
    angle = torch.tensor(math.acos(a), dtype=torch.float64, requires_grad=True)
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    student = torch.stack([first, torch.stack([angle.cos(), angle.sin()])])
    second = torch.tensor([b, math.sqrt(1 - b * b)], dtype=torch.float64)
    loss = loss_of(student, torch.stack([first, second]), torch.tensor([7, 7]))
    loss.backward()
    return loss.item(), angle.grad.item() / math.sin(angle.item())  # -dL/da, a = cos(angle)


CASES = [
    (a, b, tau)
    for a in (-0.15, 0.2, 0.3, 0.444, 0.715, 0.99)
    for b in (0.1, 0.41, 0.9)
    for tau in (0.005, 0.01, 0.1)
]


@pytest.mark.starts_process
def test_ekd_by_hand_is_the_library():
    pairs = json.dumps(CASES)
    found = in_node(
        WIDGETS[0],
        f"{pairs}.map(([a, b, tau]) => comparePair(a, b, tau, {list(STUDENT)}, {list(TEACHER)}))",
    )
    for (a, b, tau), got in zip(CASES, found, strict=True):
        loss, force = by_library(a, b, tau)
        assert got["loss"] == pytest.approx(loss, rel=1e-6, abs=1e-6)
        assert got["force"] == pytest.approx(force, rel=1e-6, abs=1e-6)
        for side, score, at in (("s", a, STUDENT), ("t", b, TEACHER)):
            score, at = (torch.tensor(x, dtype=torch.float64) for x in ([score], at))
            rank = soft_rank(score, at, temperature=tau).item()
            assert got[side]["rank"] == pytest.approx(rank, abs=1e-6)
            assert got[side]["count"] == int((score > at).sum())


def by_head(name, scale, margin, people, theta):
    """Logit, loss, pull and probability of a head and cross-entropy."""
    kind = getattr(heads, name)
    options = {"scale": float(scale)} | ({} if name == "NormFace" else {"margin": margin})
    head = kind(2, 2, **options).double()
    angle = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    own = scale * head.target(angle.cos()[None])
    logits = torch.cat([own, torch.zeros(people - 1, dtype=torch.float64)])[None]
    loss = cross_entropy(logits, torch.tensor([0]))
    loss.backward()
    return own.item(), loss.item(), angle.grad.item(), logits.softmax(1)[0, 0].item()


HEADS = [
    (name, scale, margin, people, theta)
    for name in ("NormFace", "CosFace", "ArcFace")
    for scale in (1, 16, 64)
    for margin in (0.0, 0.35, 0.5)
    for people in (10, 85_742)
    for theta in (0.05, 0.7, 1.2, 2.0, 2.9)
]


@pytest.mark.starts_process
def test_margin_by_hand_is_the_heads():
    found = in_node(WIDGETS[2], f"{json.dumps(HEADS)}.map(x => marginLoss(...x))")
    for case, got in zip(HEADS, found, strict=True):
        logit, loss, pull, p = by_head(*case)
        assert got["logit"] == pytest.approx(logit, abs=1e-6), case
        assert got["loss"] == pytest.approx(loss, rel=1e-6, abs=1e-6), case
        assert got["pull"] == pytest.approx(pull, rel=1e-6, abs=1e-6), case
        assert got["p"] == pytest.approx(p, rel=1e-6, abs=1e-9), case


@pytest.mark.starts_process
def test_at_the_demanded_angle_the_right_person_has_one_half():
    cases = [case[:4] for case in HEADS[::5]]
    found = in_node(WIDGETS[2], f"{json.dumps(cases)}.map(x => demand(...x))")  # NaN becomes None
    for case, angle in zip(cases, found, strict=True):
        if angle is None:
            assert by_head(*case, 1e-4)[3] < 0.5, case
        else:
            assert by_head(*case, angle)[3] == pytest.approx(0.5, abs=1e-6), case
    assert 0 < found.count(None) < len(found)


@pytest.mark.starts_process
def test_roc_by_hand_is_the_library():
    genuine, impostor = [0.9, 0.5, 0.5, 0.3], [0.5, 0.2, -0.1, 0.2, 0.3]
    found = in_node(WIDGETS[1], f"rocPoints({genuine}, {impostor})")
    scores, flags = torch.tensor(genuine + impostor), torch.arange(9) < 4
    fpr, tpr, _ = roc(scores, flags)
    assert [point["fp"] / 5 for point in found] == pytest.approx(fpr.tolist())
    assert [point["tp"] / 4 for point in found] == pytest.approx(tpr.tolist())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plots.EkdByHand(STUDENT, TEACHER[1:]), "as many of each"),
        (lambda: plots.EkdByHand([], [], []), "at least one"),
        (lambda: plots.EkdByHand(STUDENT, TEACHER, student=1.2), "student must be in"),
        (lambda: plots.EkdByHand(STUDENT, TEACHER, temperature=0.4), "one of"),
        (lambda: plots.RocByHand(genuine=[]), "genuine must be 1 to 40"),
        (lambda: plots.RocByHand(impostor=[2.0]), "impostor must be"),
        (lambda: plots.RocByHand(threshold=-3), "threshold must be in"),
        (lambda: plots.MarginByHand(head="SphereFace"), "'SphereFace'"),
        (lambda: plots.MarginByHand(people=11), "one of"),
        (lambda: plots.MarginByHand(margin=28.6), "margin must be in"),
        (lambda: plots.MarginByHand(scale=0), "scale must be in"),
        (lambda: plots.MarginByHand(angle=-1), "angle must be in"),
    ],
)
def test_a_start_that_is_out_of_range_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
