"""Drawings of how the parts of distillation hang together; no data in them.

Lines and letters are of a middle tone, and the background is left out, so that a drawing can be
read on white and on near-black. What is emphasised differs in weight and filling too, not only in
colour.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle, Wedge

# At least 3.6 : 1 both on white and on the dark background of the book.
INK, TEACHER, STUDENT, LOSS = "#757B82", "#5479A6", "#128264", "#CC5A0A"
PALE = 0.4  # opacity of what the text is not about
Point = tuple[float, float]

WIDTH, HEIGHT = 7.4, 4.6
_TOP, _MIDDLE, _BOTTOM = 3.7, 2.3, 0.9  # the teacher's row, the losses', the student's
_IMAGES = 0.5, _MIDDLE
_INNER = 0.42  # how much nearer to the middle the pair cosines stand
# Parts of a row: where each stands, and half its size.
_PARTS: dict[str, tuple[float, Point]] = {
    "net": (1.72, (0.34, 0.31)),
    "embeddings": (2.92, (0.3, 0.2)),
    "cosines": (4.34, (0.25, 0.25)),
    "logits": (5.74, (0.4, 0.2)),
}
# What a gradient passes on its way from a part of the student's row back to the net.
_WAYS = {
    "net": ("net",),
    "embeddings": ("embeddings", "net"),
    "cosines": ("cosines", "embeddings", "net"),
    "logits": ("logits", "embeddings", "net"),
}


@dataclass(frozen=True)
class _Slot:
    """A place for a loss: where it stands, which methods use it, and what it compares."""

    centre: Point
    methods: str
    of: str


_SLOTS = {
    "features": _Slot((1.72, _MIDDLE), "FitNet\n(inner layers)", "net"),
    "embeddings": _Slot((2.8, _MIDDLE), "FitNet,\nShrinkTeaNet", "embeddings"),
    "relations": _Slot((3.84, _MIDDLE), "SP, CCKD,\nRKD, DarkRank", "cosines"),
    "decisions": _Slot((4.84, _MIDDLE), "EKD\n(thresholds)", "cosines"),
    "margins": _Slot((5.84, _MIDDLE), "MarginDistill.\n(prototypes)", "logits"),
    "logits": _Slot((6.86, _MIDDLE), "KD, DKD", "logits"),
    "identity": _Slot((6.86, _BOTTOM), "margin softmax", "logits"),
}
_SLOT_SIZE = 0.94, 0.62


def blank_axes(width: float, height: float, ax: Axes | None = None) -> Axes:
    """An empty sheet `width` by `height` units large, on a new figure of as many inches if None."""
    if ax is None:
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=(width, height), facecolor="none")
        ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.set_axis_off()
    return ax


def draw_box(
    ax: Axes,
    centre: Point,
    size: Point,
    title: str,
    text: str = "",
    *,
    colour: str = INK,
    lit: bool = False,
    alpha: float = 1.0,
    gid: str | None = None,
) -> None:
    """Draw a rounded box with a bold title and smaller text of up to two lines under it.

    Args:
        ax: where to draw.
        centre: of the box.
        size: its width and height.
        title: one line.
        text: one or two lines, or none.
        colour: of its frame and letters; if it is lit, of its filling, and the letters are white.
        lit: filled, not only framed.
        alpha: opacity.
        gid: name of the box in an SVG.
    """
    (x, y), (width, height) = centre, size
    shape = f"round,pad=0,rounding_size={min(size) / 6}"
    frame = FancyBboxPatch((x - width / 2, y - height / 2), width, height, shape)
    frame.set(edgecolor=colour, facecolor=colour if lit else "none", linewidth=1.2)
    frame.set(alpha=alpha, gid=gid, zorder=3)
    ax.add_patch(frame)
    lines = text.count("\n") + 1 if text else 0
    ink = "white" if lit else colour
    for words, height, style in (
        (title, y + 0.075 * lines, {"fontsize": 8.5, "fontweight": "bold"}),
        (text, y - 0.1, {"fontsize": 7, "linespacing": 1.15}),
    ):
        ax.text(x, height, words, ha="center", va="center", color=ink, alpha=alpha, **style)


def draw_arrow(
    ax: Axes,
    start: Point,
    end: Point,
    *,
    gradient: bool = False,
    lit: bool = False,
    alpha: float = 1.0,
    gid: str | None = None,
) -> None:
    """Draw an arrow: a plain one for what is computed, a dashed one for a gradient.

    Args:
        ax: where to draw.
        start: where it begins.
        end: where its head is.
        gradient: dashed, with a filled head, in the colour of losses.
        lit: thicker.
        alpha: opacity.
        gid: name of the arrow in an SVG.
    """
    arrow = FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, alpha=alpha, zorder=2, gid=gid)
    arrow.set(color=LOSS if gradient else INK, linewidth=1.9 if lit else 1.1)
    if gradient:
        arrow.set(linestyle=(0, (2.4, 1.2)))
        arrow.set_arrowstyle("-|>", head_length=5.5, head_width=2.8)
    else:
        arrow.set_arrowstyle("->", head_length=4, head_width=2.2)
    ax.add_patch(arrow)


def plot_distillation(lit: Collection[str] = (), ax: Axes | None = None) -> Axes:
    """Draw a student's training beside a frozen teacher, with a place for every kind of loss.

    Both nets see the same images and make features, embeddings, cosines of pairs and logits of
    them. Losses stand between the two rows, beside what they compare; the identity loss stands at
    the end of the student's. Gradients, dashed, lead back into the student only.

    Args:
        lit: losses to emphasise, the rest is pale: "identity" (on the student's logits),
            "features" (FitNet as published), "embeddings" (FitNet in face recognition,
            ShrinkTeaNet), "relations" (SP, CCKD, RKD, DarkRank; Triplet compares pairs too),
            "decisions" (EKD), "margins" (MarginDistillation) and "logits" (KD, DKD).
            If there are none, nothing is pale.
        ax: where to draw; a new figure of 7.4 by 4.6 inches without a background if None.

    Returns:
        The Axes. Its artists have names (`get_gid`) such as "slot:logits" and "gradient:logits".

    Raises:
        ValueError: an unknown loss.
    """
    if isinstance(lit, str) or set(lit) - set(_SLOTS):
        raise ValueError(f"lit must be a collection of {', '.join(_SLOTS)}; got {lit!r}")
    ax, seen = blank_axes(WIDTH, HEIGHT, ax), set(lit or _SLOTS)
    used = {"net", *(part for name in seen for part in _WAYS[_SLOTS[name].of])}
    _draw_images(ax)
    _draw_row(ax, "teacher", used if seen != {"identity"} else set())
    _draw_row(ax, "student", used)
    for name in _SLOTS:
        _draw_slot(ax, name, lit=bool(lit) and name in seen, alpha=1.0 if name in seen else PALE)
    # A step back that several losses share is drawn once, and strongly if one of them is lit.
    for way in (("embeddings", "net"), ("cosines", "embeddings"), ("logits", "embeddings")):
        strong, by = {*way} <= used, -0.1 if "cosines" in way else 0.1
        start, end = _aside(*_between("student", *way), by)
        style: dict[str, Any] = {"lit": bool(lit) and strong, "alpha": 1.0 if strong else PALE}
        draw_arrow(ax, start, end, gradient=True, gid=f"gradient:{way[0]}>{way[1]}", **style)
    for height, gradient, words in ((4.2, False, "computed"), (3.98, True, "gradient")):
        draw_arrow(ax, (6.3, height), (6.62, height), gradient=gradient)
        ax.text(6.7, height, words, color=INK, fontsize=8, va="center")
    return ax


def _place(net: str, part: str) -> tuple[Point, Point]:
    """Centre and half size of one part of a net's row."""
    x, half = _PARTS[part]
    inner = _INNER if part == "cosines" else 0.0
    return (x, _BOTTOM + inner if net == "student" else _TOP - inner), half


def _between(net: str, first: str, last: str) -> tuple[Point, Point]:
    """The line between the near sides of two parts of a row."""
    (x, y), (half, _) = _place(net, first)
    (to, up), (other, _) = _place(net, last)
    side, inner = math.copysign(1, to - x), 1 if net == "student" else -1
    if "cosines" in (first, last):  # stands nearer to the middle than the rest of its row
        y, up = (y + 0.1 * inner, up) if last == "cosines" else (y, up + 0.1 * inner)
    elif "logits" in (first, last):  # passes outside of the cosines
        y, up = y - 0.06 * inner, up - 0.06 * inner
    return (x + side * (half + 0.06), y), (to - side * (other + 0.06), up)


def _aside(start: Point, end: Point, by: float) -> tuple[Point, Point]:
    """The same line, moved to its left."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    x, y = -dy * by / math.hypot(dx, dy), dx * by / math.hypot(dx, dy)
    return (start[0] + x, start[1] + y), (end[0] + x, end[1] + y)


def _draw_images(ax: Axes) -> None:
    """A small pile of portraits."""
    x, y = _IMAGES
    for step in (0.14, 0.07, 0):
        corner = x - 0.29 + step, y - 0.32 + step
        ax.add_patch(Rectangle(corner, 0.44, 0.5, edgecolor=INK, facecolor="none", linewidth=1.1))
    ax.add_patch(Circle((x - 0.07, y + 0.02), 0.1, color=INK, linewidth=0))
    ax.add_patch(Wedge((x - 0.07, y - 0.3), 0.17, 0, 180, color=INK, linewidth=0))
    ax.text(x, y - 0.42, "images", ha="center", va="top", color=INK, fontsize=8)


def _draw_row(ax: Axes, net: str, used: set[str]) -> None:
    """A net, what it makes of the images, and the arrows between."""
    colour, outside = (TEACHER, 1) if net == "teacher" else (STUDENT, -1)
    names = {"net": "teacher (frozen)" if outside > 0 else "student", "cosines": "pair cosines"}
    for part, (x, (_, high)) in _PARTS.items():
        alpha = 1.0 if part in used else PALE
        _draw_part(ax, net, part, colour, alpha)
        y = _place(net, part)[0][1] + outside * (high + 0.05)
        style: dict[str, Any] = {"fontweight": "bold" if part == "net" else "normal"}
        style |= {"ha": "center", "va": "bottom" if outside > 0 else "top", "fontsize": 8.2}
        ax.text(x, y, names.get(part, part), color=colour, alpha=alpha, **style)
    for way in (("net", "embeddings"), ("embeddings", "cosines"), ("embeddings", "logits")):
        alpha = 1.0 if {*way} <= used else PALE
        draw_arrow(ax, *_between(net, *way), alpha=alpha, gid=f"forward:{net}:{way[1]}")
    (x, y), (half, _) = _place(net, "net")
    start = _IMAGES[0] + 0.05, _IMAGES[1] + (0.42 if outside > 0 else -0.6)
    alpha = 1.0 if used else PALE
    draw_arrow(ax, start, (x - half - 0.08, y), alpha=alpha, gid=f"forward:{net}:net")


def _draw_part(ax: Axes, net: str, part: str, colour: str, alpha: float) -> None:
    """Layers for a net; else rows of cells of different strength, as numbers are."""
    (x, y), (half, high) = _place(net, part)
    layers = 5 if net == "teacher" else 3
    if part == "net":  # the teacher has more layers, and larger ones
        rows, columns, shrink = 1, layers, 0.55 / layers
        high *= 1.0 if net == "teacher" else 0.75
    else:
        rows, columns = {"embeddings": (4, 6), "cosines": (5, 5), "logits": (4, 8)}[part]
        shrink = 0.0
    width, height = 2 * half / columns, 2 * high / rows
    for row in range(rows):
        for column in range(columns):
            strength = 0.25 + 0.15 * ((3 * row + 5 * column + row * column) % 6)
            if part == "net":
                strength = 1.0
            elif part == "logits":  # one class stands out in each row
                strength = 1.0 if column == (2 * row + 1) % columns else 0.3
            elif part == "cosines" and column < row:  # every pair once
                continue
            wide, tall = 0.85 * width, height * (0.9 if rows > 1 else 1 - column * shrink)
            left, middle = x - half + (column + 0.5) * width, y + high - (row + 0.5) * height
            cell = Rectangle((left - wide / 2, middle - tall / 2), wide, tall, linewidth=0)
            cell.set(facecolor=colour, alpha=alpha * strength, gid=f"{net}:{part}")
            ax.add_patch(cell)


def _draw_slot(ax: Axes, name: str, *, lit: bool, alpha: float) -> None:
    """A loss, what it is given of both nets, and its gradient into the student."""
    slot = _SLOTS[name]
    (x, y), (width, height) = slot.centre, _SLOT_SIZE
    title = "identity loss" if name == "identity" else name
    style: dict[str, Any] = {"lit": lit, "alpha": alpha}
    gid = f"slot:{name}"
    draw_box(ax, slot.centre, _SLOT_SIZE, title, slot.methods, colour=LOSS, gid=gid, **style)
    if name == "identity":
        (left, _), (half, _) = _place("student", slot.of)
        start, end = (left + half + 0.04, y), (x - width / 2 - 0.02, y)
        draw_arrow(ax, *_aside(start, end, 0.07), gid=f"forward:student:{name}", **style)
        gradient = _aside(end, start, 0.07)
        draw_arrow(ax, (x, y - 0.62), (x, y - height / 2 - 0.04), alpha=alpha)
        ax.text(x, y - 0.66, "labels", ha="center", va="top", fontsize=8, color=INK, alpha=alpha)
    else:
        for net, side in (("teacher", 1), ("student", -1)):
            (middle, row), (half, high) = _place(net, slot.of)
            near = min(max(x, middle - half), middle + half)
            start = near, row - side * (high + 0.05)
            end = (near + 2 * x) / 3, y + side * (height / 2 + 0.03)
            if net == "teacher":
                draw_arrow(ax, start, end, gid=f"forward:{net}:{name}", **style)
            else:
                draw_arrow(ax, *_aside(start, end, 0.07), gid=f"forward:{net}:{name}", **style)
                gradient = _aside(end, start, 0.07)
    draw_arrow(ax, *gradient, gradient=True, gid=f"gradient:{name}", **style)
