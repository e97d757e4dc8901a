"""The test bank: whole and numbered, and every calculated answer is what the library or numpy says.

A question to be calculated stands behind a comment with its key, such as "% impostors", and its
answer has the numbers in bold. `CALCULATED` computes them as they are to be printed.
"""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ekd_lite.assets import results
from ekd_lite.coursework.exercises.conv_macs import CONV_MACS
from ekd_lite.coursework.exercises.learning_rate import LEARNING_RATE
from ekd_lite.coursework.exercises.similarity_transform import SIMILARITY_TRANSFORM
from ekd_lite.coursework.exercises.soft_rank import SOFT_RANK
from ekd_lite.coursework.exercises.tpr_at_fpr import TPR_AT_FPR
from ekd_lite.coursework.exercises.triplet import TRIPLET
from ekd_lite.distill import EKDLoss, GroupedKDLoss, KDLoss

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book" / "testbank.md"
KINDS = {"choice", "short", "calculation", "table"}
QUESTION = re.compile(
    r"(?:^% (?P<key>\S+)\n)?^\*\*(?P<number>\d+)\.\*\* "
    r"\*Chapter (?P<chapter>\d+), (?P<kind>\w+)\.\*"
    r"(?P<text>.*?)^:::\{admonition\} Answer\n:class: dropdown\n\n(?P<answer>.*?)^:::$",
    re.MULTILINE | re.DOTALL,
)


def real(*values):
    return torch.tensor(values, dtype=torch.float64)


def pairs(images):
    return images * (images - 1) // 2


def search():
    wrong, right = 1_000_000 * 1e-4, 0.9
    return f"{wrong:.0f}", f"{100 * right / (right + wrong):.1f} %"


def staircase():
    scores = real(0.92, 0.71, 0.64, 0.30, 0.83, 0.52, 0.41, 0.20, 0.10)
    genuine = torch.arange(9) < 4
    return [f"{TPR_AT_FPR.reference(scores, genuine, 0.2):.2f}"]


def weights():
    counts = [pairs(n) for n in (12, 4, 2)]
    return f"{sum(counts)}", f"{100 * counts[0] / sum(counts):.0f} %"


def float32():
    edge = next(2**k for k in range(40) if np.float32(2**k) + np.float32(1) == np.float32(2**k))
    return [f"{edge:,}"]


def similarity():
    source, target = real([0, 0], [10, 0], [5, 5]), real([5, 5], [5, 25], [-5, 15])
    matrix = torch.as_tensor(SIMILARITY_TRANSFORM.reference(source, target))
    a, b = matrix[0, 0].item(), matrix[1, 0].item()
    turn = math.degrees(math.atan2(b, a))
    return f"{math.hypot(a, b):.0f}", f"{turn:.0f}°", f"({matrix[0, 2]:.0f}, {matrix[1, 2]:.0f})"


def softmax(scale):
    return 1 / (1 + 9999 * math.exp(-scale))


def demanded():
    angle = math.acos(math.log(9_999) / 64)
    return [f"{math.degrees(angle - 0.5):.0f}°"]


def macs(kernel, cin, cout, groups=1):
    return CONV_MACS.reference(cin, cout, kernel, 1, kernel // 2, groups, 14, 14)


def separable():
    parts = macs(3, 64, 64, 64), macs(1, 64, 128)
    full = macs(3, 64, 128)
    return f"{parts[0]:,}", f"{parts[1]:,}", f"{sum(parts) / full:.2f}"


def field():
    size, jump = 1, 1
    for stride in (2, 1, 2):
        size, jump = size + 2 * jump, jump * stride
    return f"{size}", f"{jump}"


def first_loss():
    parts = math.log(1000), 32**2 / (2 * 128), 32 * math.sin(0.3)
    return [*(f"{part:.1f}" for part in parts), f"{sum(parts):.1f}"]


def rates():
    return [f"{LEARNING_RATE.reference(step, 1000, 100, 0.1):.2f}" for step in (49, 550)]


def kd():
    return [f"{KDLoss(temperature=2.0)(real([0, 0]), real([2, 0])).item():.2f}"]


def chord():
    return f"{math.sqrt(2 - 2 * 0.8):.2f}", f"{(1 - 0.8) ** 2:.2f}"


def sp():
    student, teacher = (np.array([[1, c], [c, 1]]) for c in (0.2, 0.6))
    return [f"{((student - teacher) ** 2).mean():.2f}"]


def pwr():
    return f"{pairs(96):,}", f"{pairs(pairs(96)):,}", f"{96**4 / 8:,.0f}"


def triplet():
    # Unit vectors on a circle: anchor, positive and negative with these distances 1 - cos.
    def net(*distances):
        angles = torch.tensor([0.0, *(math.acos(1 - d) for d in distances)], dtype=torch.float64)
        return torch.stack([angles.cos(), angles.sin()], 1)

    teacher = torch.cat([net(0.2, 0.5), net(0.2, 0.8)])  # gaps 0.3 and 0.6
    student = torch.cat([net(0.5, 0.6), net(0.0, 1.0)])
    which = torch.tensor([[0, 1, 2], [3, 4, 5]])
    loss = TRIPLET.reference(student, teacher, which, 0.2, 0.5) * 2  # a mean of two; the other is 0
    return f"{0.2 + 0.3 * 0.5:.2f}", f"{loss.item():.2f}"


def ranks():
    mine = sum(t < 0.45 for t in (0.3, 0.5, 0.7))
    theirs = sum(t < 0.65 for t in (0.2, 0.4, 0.6))
    loss = EKDLoss(fprs=[0.1] * 3, temperature=1e-6, positive_weight=1.0).double().eval()
    loss.student_thresholds.copy_(real(0.3, 0.5, 0.7))
    loss.teacher_thresholds.copy_(real(0.2, 0.4, 0.6))
    loss.num_updates.fill_(1)
    nets = [real([1, 0], [c, math.sqrt(1 - c * c)]) for c in (0.45, 0.65)]
    square = loss(*nets, torch.tensor([0, 0])).item()
    assert square == pytest.approx((mine - theirs) ** 2)
    return f"{mine}", f"{theirs}", f"{square:.0f}"


def fields():
    return [f"{(30 - 10) / 200:.2f}"]


def batch():
    count = pairs(96) - 96 // 8 * 6
    finest = next(m for m in range(9, 0, -1) if count // 10**m)
    return f"{count:,}", f"1e-{finest}", f"{count // 10**finest}"


def slopes():
    at = real(0.0, 0.1).requires_grad_()
    SOFT_RANK.reference(at, real(0.0), 0.01).sum().backward()
    assert at.grad is not None
    return f"{at.grad[0]:.0f}", f"{at.grad[1]:.4f}"


def histogram():
    total = 4470 / (1 - 0.98)
    return f"{total:,.0f}", f"{total * 1e-5:.1f}", f"{total * 1e-6:.2f}"


def tries():
    x = np.linspace(-9, 9, 20_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    below = np.cumsum(density) * (x[1] - x[0])
    gain = (6 * x * density * below**5).sum() * (x[1] - x[0])
    return f"{gain:.2f}", f"{0.4 * gain:.1f}"


def table(name):
    with results(name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def study(regime, row):
    (found,) = [r for r in table("decisive.csv") if (r["regime"], r["row"]) == (regime, row)]
    return [f"{float(found[f'tpr@{level}']):.1f}" for level in ("1e-3", "1e-4")]


def gain(regime, minus):
    (row,) = [
        row
        for row in table("decisive_gains.csv")
        if row["row"] == DECISIONS and (row["regime"], row["minus"]) == (regime, minus)
    ]
    ends = [float(row[f"gain@1e-4{end}"]) for end in ("", "_low", "_high")]
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*ends).replace("-", "−")


def no_labels():
    best = study("none", DECISIONS), study("none", "fitnet:32")
    return [*best[0], *best[1], gain("none", "the best rival")]


def controls():
    return gain("new", "ekd_labels beside FitNet"), gain("new", "ekd_l2 beside FitNet")


def odds():
    after, before = (float(study("new", row)[1]) for row in (DECISIONS, "fitnet:32"))
    return [f"{after / (100 - after) / (before / (100 - before)):.2f}"]


def split():
    p, q = real([0.7, 0.2, 0.1]).log(), real([0.5, 0.3, 0.2]).log()
    y = torch.tensor([0])
    whole = KDLoss(temperature=1.0)(q, p).item()
    parts = [
        GroupedKDLoss(group=1, binary=a, secondary=b, temperature=1.0)(q, p, y).item()
        for a, b in ((1.0, 0.0), (0.0, 1.0))
    ]
    assert parts[0] + 0.3 * parts[1] == pytest.approx(whole)
    return [f"{value:.3f}" for value in (*parts, whole)]


def lead():
    printed = {value for row in table("paper_table_after.csv") for value in row.values()}
    assert {"90.48", "93.27"} <= printed
    return [f"{93.27 - 90.48:.2f}"]


def bfloat16():
    half = 1 - torch.nextafter(torch.ones((), dtype=torch.bfloat16), torch.zeros(()).bfloat16())
    return f"{half.item() / 2:.4f}", f"{64 * half.item() / 2:.3f}"


def rounding():
    step = 2 / 255
    return f"{step:.4f}", f"{step**2 / 12:.1e}".replace("e-06", "e-6")


def mixture():
    within = 0.8**2, 0.2**2
    average = within[0] * 1e-3 + within[1] * 1e-2
    return f"{average:.2e}".replace("e-03", "e-3"), "1.00e-2"


DECISIONS = "ekd_decisions:128+fitnet:32"
CALCULATED = {
    "all-pairs": lambda: (f"{120 * pairs(10):,}", f"{pairs(1200) - 120 * pairs(10):,}"),
    "search": search,
    "staircase": staircase,
    "lfw": lambda: [f"{round(6000 * 0.996) - round(6000 * 0.995)}"],
    "levels": lambda: [f"{round(n / 1e-4):,}" for n in (1, 3, 100)],
    "weights": weights,
    "by-chance": lambda: [f"{96**2 / 2000:.1f}"],
    "float32": float32,
    "similarity": similarity,
    "softmax": lambda: (f"{softmax(1):.5f}", f"{softmax(64):.2f}"),
    "demanded": demanded,
    "convolution": lambda: (f"{9 * 64 * 128:,}", f"{macs(3, 64, 128):,}"),
    "separable": separable,
    "field": field,
    "first-loss": first_loss,
    "rates": rates,
    "kd": kd,
    "chord": chord,
    "sp": sp,
    "pwr": pwr,
    "triplet": triplet,
    "ranks": ranks,
    "fields": fields,
    "batch": batch,
    "slopes": slopes,
    "running": lambda: [f"{100 * (1 - 0.99**n):.0f} %" for n in (10, 100, 300)],
    "histogram": histogram,
    "world": lambda: [f"{0.02 * 4:.2f}"],
    "tries": tries,
    "no-labels": no_labels,
    "controls": controls,
    "odds": odds,
    "memory": lambda: [f"{(1 + 0.8) / (1 - 0.8):.0f}"],
    "split": split,
    "lead": lead,
    "sampled": lambda: [f"{math.log(10) / 64:.3f}"],
    "bfloat16": bfloat16,
    "rounding": rounding,
    "fpir": lambda: ("1e-6", f"{3 / 1e-6:,.0f}"),
    "mixture": mixture,
}


@pytest.fixture(scope="module")
def questions():
    return [found.groupdict() for found in QUESTION.finditer(PAGE.read_text(encoding="utf-8"))]


def test_there_are_enough_questions_of_every_kind_about_every_chapter(questions):
    text = PAGE.read_text(encoding="utf-8")
    assert len(questions) == text.count("{admonition} Answer") >= 60
    assert [int(one["number"]) for one in questions] == list(range(1, len(questions) + 1))
    kinds = [one["kind"] for one in questions]
    assert set(kinds) == KINDS
    assert min(kinds.count(kind) for kind in KINDS - {"table"}) >= 15 and kinds.count("table") >= 4
    assert {int(one["chapter"]) for one in questions} == set(range(1, 18))


def test_a_choice_has_four_options_and_its_answer_names_one_of_them(questions):
    picked = []
    for one in questions:
        if one["kind"] != "choice":
            continue
        assert re.findall(r"\((\w)\) ", one["text"]) == list("abcd"), one["number"]
        found = re.match(r"\(([abcd])\)\. \S", one["answer"])
        assert found is not None, one["number"]
        picked.append(found[1])
    assert all(picked.count(letter) >= len(picked) // 8 for letter in "abcd"), picked


def test_every_calculation_has_a_key_and_nothing_else_does(questions):
    keys = [one["key"] for one in questions if one["kind"] == "calculation"]
    assert None not in keys
    assert {one["key"] for one in questions} - {None} == CALCULATED.keys()
    for one in questions:
        if one["key"] is None:
            assert one["kind"] != "calculation" and "**" not in one["answer"], one["number"]


@pytest.mark.parametrize("key", CALCULATED)
def test_a_calculated_answer_is_right(key, questions):
    (one,) = [one for one in questions if one["key"] == key]
    assert re.findall(r"\*\*(.+?)\*\*", one["answer"]) == list(CALCULATED[key]())
