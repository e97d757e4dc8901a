"""Things to play with: their HTML stands alone, and their arithmetic is the library's.

The arithmetic runs in Node where there is one; tests/book/test_play.py moves the controls in a
browser.
"""

import dataclasses
import html
import io
import itertools
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import entropy
from torch.nn.functional import cross_entropy

from ekd_lite import heads, plots
from ekd_lite.distill import EKDLoss, KDLoss, soft_rank
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, roc
from ekd_lite.plots.play.base import Widget
from tests.fakes import ColourFaces

STUDENT = (0.205, 0.444, 0.61, 0.72, 0.79, 0.85)
TEACHER = (0.19, 0.408, 0.58, 0.7, 0.78, 0.84)
FACES = ColourFaces(num_identities=20, images_per_identity=5, image_size=32)


def made_up_nets():
    """Embeddings of a teacher, a worse student and one between, (100, 48) each."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 48, generator=generator)[FACES.labels]
    noises = torch.randn(2, 100, 48, generator=generator)
    student = centres + 1.1 * noises[0] + 0.6 * noises[1]
    return {
        "teacher": centres + 0.8 * noises[0],
        "alone": student,
        "distilled": centres + 1.0 * noises[0] + 0.2 * noises[1],
    }


NETS = made_up_nets()
FPRS = 1e-1, 1e-2, 1e-3
TWO_FACES = plots.two_faces(FACES, NETS, fprs=FPRS)
LOGITS = 9 * torch.randn(2, 2, 20, generator=torch.Generator().manual_seed(2))
SOFT = plots.soft_labels(FACES, [7, 60], LOGITS[0], LOGITS[1], temperature=4)
MEANS = {
    ("new", "none"): 80.5,
    ("new", "ekd"): 91.25,
    ("new", "kd"): 90.0,
    ("fixed", "none"): 70.0,
    ("fixed", "kd"): 69.5,
}
ROWS = [
    {"regime": regime, "row": row, "setting": f"{row} 1", "tpr@1e-4": ""}
    | {"tpr@1e-3": mean, "tpr@1e-3_low": mean - 1, "tpr@1e-3_high": str(mean + 2)}
    for (regime, row), mean in MEANS.items()
]
STUDY = plots.StudyFigure(ROWS, method="ekd")
WIDGETS = [
    plots.EkdByHand(STUDENT, TEACHER),
    plots.RocByHand(),
    plots.MarginByHand(),
    TWO_FACES,
    SOFT,
    STUDY,
]
EVERY = pytest.mark.parametrize("widget", WIDGETS, ids=lambda widget: widget.name)


FEW = ColourFaces(num_identities=30, images_per_identity=2)


def few_nets():
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(60, 8, generator=generator) for name in ("teacher", "student")}


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
    assert not re.search(r"(src|href)=[\"']?[^d]|url\(|@import|fetch\(|XMLHttp|import\(", page)
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


def test_two_faces_has_the_rates_of_all_pairs():
    faces = TWO_FACES
    for net, rows in NETS.items():
        expected = all_pairs_tpr_at_fpr(rows.double(), FACES.labels, FPRS)
        assert faces.tprs[net] == pytest.approx(expected.tolist(), abs=1e-12)
    assert faces.total == 20 * 10


def test_two_faces_shows_cosines_of_its_own_pictures_and_pairs_that_are_critical():
    faces = TWO_FACES
    stored = [np.asarray(Image.open(io.BytesIO(picture))) for picture in faces.pictures]
    whole = ((FACES.images + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    places = [int(np.abs(whole - one).mean((1, 2, 3)).argmin()) for one in stored]
    assert len(set(places)) == 12
    people = FACES.labels[places].tolist()
    assert [people.index(who) // 3 for who in people] == list(faces.people)
    pairs = list(itertools.combinations(places, 2))
    for net, rows in NETS.items():
        unit = torch.nn.functional.normalize(rows.double(), dim=1)
        cosines = [float(unit[i] @ unit[j]) for i, j in pairs]
        assert faces.cosines[net] == pytest.approx(cosines, abs=1e-12)
    accepts = [
        [cosine > faces.thresholds[net][1] for cosine in faces.cosines[net]]
        for net in ("teacher", "alone")
    ]
    assert sum(t != s for t, s in zip(*accepts, strict=True)) >= 3


@pytest.mark.starts_process
def test_four_fields_are_counted_pair_by_pair():
    faces = TWO_FACES
    found = in_node(
        faces,
        f"fourFields(pairsOf({list(faces.people)}), {list(faces.cosines['teacher'])},"
        f" {list(faces.cosines['alone'])}, 0.5, 0.3)",
    )
    expected = {"both": [0, 0], "teacher": [0, 0], "student": [0, 0], "neither": [0, 0]}
    names = {(1, 1): "both", (1, 0): "teacher", (0, 1): "student", (0, 0): "neither"}
    pairs = itertools.combinations(faces.people, 2)
    for (one, other), t, s in zip(pairs, *list(faces.cosines.values())[:2], strict=True):
        expected[names[t > 0.5, s > 0.3]][one != other] += 1
    assert found == expected
    assert sum(map(sum, found.values())) == 66


@pytest.mark.starts_process
def test_beliefs_and_the_loss_of_kd_are_the_library():
    numbers = SOFT._numbers()
    temperatures = (0.5, 1, 4, 32)
    found = in_node(
        SOFT,
        f"{json.dumps([numbers['student'], numbers['teacher']])}.map(rows => rows.map(readLogits))",
    )
    exact = LOGITS.double().mul(1000).round() / 1000
    assert torch.tensor(found[::-1], dtype=torch.float64).equal(exact)
    found = in_node(
        SOFT,
        f"{list(temperatures)}.map(T => [0, 1].map(k => distilBelief({exact[1].tolist()}[k],"
        f" {exact[0].tolist()}[k], T)))",
    )
    for temperature, pictures in zip(temperatures, found, strict=True):
        for k, got in enumerate(pictures):
            teacher, student = exact[0, k : k + 1], exact[1, k : k + 1].clone().requires_grad_()
            loss = KDLoss(temperature=temperature)(student, teacher)
            loss.backward()
            q, p = ((z.detach()[0] / temperature).softmax(0) for z in (teacher, student))
            assert got["loss"] == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
            assert got["pull"] == pytest.approx(student.grad.norm().item(), rel=1e-5, abs=1e-6)
            assert got["q"] == pytest.approx(q.tolist(), abs=1e-9)
            assert got["p"] == pytest.approx(p.tolist(), abs=1e-9)
            assert math.log(got["betweenQ"]) == pytest.approx(entropy(q.numpy()), abs=1e-9)
            assert math.log(got["betweenP"]) == pytest.approx(entropy(p.numpy()), abs=1e-9)


def test_soft_labels_show_the_person_and_the_likeliest_others():
    for k, place in enumerate((7, 60)):
        own = int(FACES.labels[place])
        order = [who for who in LOGITS[0, k].argsort(descending=True).tolist() if who != own]
        assert SOFT.likely[k] == [own, *order[:6]]
    assert set(SOFT.portraits) == {who for few in SOFT.likely for who in few}


@pytest.mark.starts_process
def test_a_study_is_ranked_regime_by_regime():
    rows = json.dumps(STUDY._numbers()["rows"])
    found = in_node(
        STUDY,
        f"['new', 'fixed'].map(regime => [0, 1].map(level => ranked({rows}, regime, level)))",
    )
    assert [one["method"] for one in found[0][0]] == ["ekd", "kd", "none"]
    assert [one["method"] for one in found[1][0]] == ["none", "kd"]
    best = {"method": "ekd", "setting": "ekd 1", "mean": 91.25, "low": 90.25, "high": 93.25}
    assert found[0][0][0] == best
    assert found[0][1] == found[1][1] == []  # nothing was measured at the second level


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plots.EkdByHand(STUDENT, TEACHER[1:]), "as many of each"),
        (lambda: plots.EkdByHand([], [], []), "at least one"),
        (lambda: plots.StudyFigure([]), "at least one row"),
        (lambda: plots.StudyFigure([{"regime": "new", "row": "kd"}]), "lacks setting"),
        (lambda: plots.StudyFigure([ROWS[0], ROWS[0]]), "'none' stands twice"),
        (lambda: plots.StudyFigure([ROWS[0] | {"tpr@1e-3_low": 99}]), "out of"),
        (lambda: plots.StudyFigure(ROWS, reference="sp"), "'sp' is no method"),
        (lambda: plots.soft_labels(FACES, [], LOGITS[0], LOGITS[1]), "1 to 3 places"),
        (lambda: plots.soft_labels(FACES, [1], LOGITS[0], LOGITS[1]), r"logits \(1, 20\)"),
        (
            lambda: plots.soft_labels(FACES, [1, 2], *LOGITS, rivals=20),
            r"rivals must be in 1\.\.19",
        ),
        (lambda: plots.soft_labels(FACES, [1, 2], *LOGITS, temperature=7), "one of"),
        (lambda: plots.soft_labels(FACES, [1, 2], *(9 * LOGITS)), "at most 32"),
        (lambda: plots.two_faces(FACES, {"teacher": NETS["teacher"]}), "two nets or more"),
        (lambda: plots.two_faces(FACES, NETS | {"other": torch.ones(3, 8)}), r"\(3, 8\)"),
        (lambda: plots.two_faces(FACES, NETS, fprs=[1e-5]), "4750 impostor pairs"),
        (lambda: plots.two_faces(FACES, NETS, fprs=[]), "cannot show"),
        (lambda: plots.two_faces(FEW, few_nets(), fprs=[0.1]), "4 people with 3 pictures"),
        (lambda: dataclasses.replace(TWO_FACES, people=[0]), "as many of each"),
        (lambda: dataclasses.replace(TWO_FACES, tprs={}), "in all three tables"),
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
