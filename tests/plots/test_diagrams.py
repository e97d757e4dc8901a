"""The drawing of distillation: what is lit, where gradients go, and whether it can be read."""

import itertools
import re

import matplotlib as mpl
import pytest

mpl.use("Agg")

from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from ekd_lite import plots

LOSSES = ["identity", "features", "embeddings", "relations", "decisions", "margins", "logits"]
# What a student computes on the way to each loss, told apart from the drawing's own table.
NEEDS = {
    "identity": {"net", "embeddings", "logits"},
    "features": {"net"},
    "embeddings": {"net", "embeddings"},
    "relations": {"net", "embeddings", "cosines"},
    "decisions": {"net", "embeddings", "cosines"},
    "margins": {"net", "embeddings", "logits"},
    "logits": {"net", "embeddings", "logits"},
}
PAGES = "#ffffff", "#14181e"  # of the book, light and dark


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def named(ax, kind, start):
    return {
        p.get_gid(): p
        for p in ax.patches
        if isinstance(p, kind) and (p.get_gid() or "").startswith(start)
    }


def is_filled(box):
    return colors.to_rgba(box.get_facecolor())[3] > 0


@pytest.mark.parametrize("lit", [[name] for name in LOSSES] + [["logits", "relations"], LOSSES])
def test_the_losses_asked_for_are_strong_and_the_rest_is_pale(lit):
    ax = plots.plot_distillation(lit)
    boxes = named(ax, FancyBboxPatch, "slot:")
    assert {gid.removeprefix("slot:") for gid in boxes} == set(LOSSES)
    for gid, box in boxes.items():
        strong = gid.removeprefix("slot:") in lit
        assert is_filled(box) == strong
        assert (box.get_alpha() == 1) == strong
    thick = {
        gid
        for gid, arrow in named(ax, FancyArrowPatch, "gradient:").items()
        if arrow.get_linewidth() > 1.5
    }
    assert {gid.removeprefix("gradient:") for gid in thick if ">" not in gid} == set(lit)


def test_without_a_choice_nothing_is_pale_and_nothing_is_filled():
    boxes = named(plots.plot_distillation(), FancyBboxPatch, "slot:").values()
    assert {box.get_alpha() for box in boxes} == {1.0}
    assert not any(map(is_filled, boxes))


@pytest.mark.parametrize("loss", LOSSES)
def test_parts_and_the_way_back_are_strong_as_far_as_the_loss_needs_them(loss):
    ax = plots.plot_distillation([loss])
    most = {}
    for patch in ax.patches:
        if isinstance(patch, Rectangle) and patch.get_gid():
            most[patch.get_gid()] = max(most.get(patch.get_gid(), 0), patch.get_alpha())
    strong = {gid for gid, alpha in most.items() if alpha > 0.8}
    nets = ["student"] if loss == "identity" else ["student", "teacher"]
    assert strong == {f"{net}:{part}" for net in nets for part in NEEDS[loss]}
    steps = {
        gid.split(":")[1]
        for gid, arrow in named(ax, FancyArrowPatch, "gradient:").items()
        if ">" in gid and arrow.get_alpha() == 1
    }
    assert steps == {
        f"{a}>{b}"
        for a, b in [("embeddings", "net"), ("cosines", "embeddings"), ("logits", "embeddings")]
        if {a, b} <= NEEDS[loss]
    }


def test_gradients_reach_the_student_only_and_are_dashed():
    ax = plots.plot_distillation()
    slots = named(ax, FancyBboxPatch, "slot:").values()
    lowest = min(box.get_window_extent().y0 for box in slots if box.get_y() > 1.5)
    gradients = named(ax, FancyArrowPatch, "gradient:")
    assert len(gradients) == len(LOSSES) + 3
    for gid, arrow in gradients.items():
        end = arrow._posA_posB[1]
        assert end[1] < ax.transData.inverted().transform((0, lowest))[1], gid
        assert arrow.get_linestyle() != "solid"
    for gid, arrow in named(ax, FancyArrowPatch, "forward:").items():
        assert arrow.get_linestyle() == "solid", gid


def contrast(colour, page):
    def light(c):
        parts = [
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colors.to_rgb(c)
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    one, other = sorted([light(colour), light(page)])
    return (other + 0.05) / (one + 0.05)


def test_letters_can_be_read_on_white_and_on_dark():
    ax = plots.plot_distillation()
    assert ax.figure.get_facecolor()[3] == 0
    assert not ax.axison
    for text in ax.texts:
        assert min(contrast(text.get_color(), page) for page in PAGES) >= 3.4, text.get_text()
    for text in plots.plot_distillation(LOSSES).texts:
        if colors.to_hex(text.get_color()) == "#ffffff":
            assert contrast("white", "#CC5A0A") >= 3.9


def test_no_text_covers_another_or_leaves_the_sheet():
    ax = plots.plot_distillation(["relations"])
    ax.figure.canvas.draw()
    sheet = ax.figure.bbox
    places = [(t.get_text(), t.get_window_extent()) for t in ax.texts if t.get_text()]
    for words, place in places:
        assert sheet.x0 <= place.x0 and place.x1 <= sheet.x1, words
        assert sheet.y0 <= place.y0 and place.y1 <= sheet.y1, words
    for (one, here), (other, there) in itertools.combinations(places, 2):
        assert not here.overlaps(there), (one, other)
    for box in named(ax, FancyBboxPatch, "slot:").values():
        around = box.get_window_extent()
        inside = [
            (w, p) for w, p in places if around.contains((p.x0 + p.x1) / 2, (p.y0 + p.y1) / 2)
        ]
        assert len(inside) == 2
        for words, place in inside:
            assert around.x0 < place.x0 and place.x1 < around.x1, words


def test_it_draws_on_the_axes_it_is_given():
    figure, axes = plt.subplots(1, 2)
    assert plots.plot_distillation(["logits"], axes[1]) is axes[1]
    assert not axes[0].patches and axes[1].patches
    assert figure.get_facecolor()[3] == 1


@pytest.mark.parametrize("lit", [["relation"], "logits", ["logits", ""]])
def test_an_unknown_loss_is_named(lit):
    with pytest.raises(ValueError, match=re.escape(repr(lit))):
        plots.plot_distillation(lit)


def test_boxes_and_arrows_serve_other_drawings():
    ax = plots.blank_axes(3, 2)
    plots.draw_box(ax, (1, 1), (0.8, 0.5), "title", "text", colour=plots.BLUE, lit=True, gid="a")
    plots.draw_arrow(ax, (1.5, 1), (2.5, 1), gradient=True)
    assert list(ax.figure.get_size_inches()) == [3, 2]
    assert [t.get_text() for t in ax.texts] == ["title", "text"]
    assert {t.get_color() for t in ax.texts} == {"white"}
    assert ax.patches[0].get_window_extent().width == pytest.approx(80)
