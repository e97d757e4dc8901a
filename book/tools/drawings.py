"""Draw the figures of pages that run no code, into book/figures.

python book/tools/drawings.py

The map of the book, the pictures that open chapters 11 and 12, and the diagram of the cheat sheet.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
FIGURES = ROOT / "book" / "figures"
PARTS = (  # title, question, chapters
    (
        "Ground",
        "What is asked, and measured,\non which faces?",
        ("1 faces", "2 measuring", "3 data"),
    ),
    (
        "Teachers",
        "How is a good embedding\ntrained, and what does it cost?",
        ("4 margins", "5 backbones", "6 training"),
    ),
    (
        "Students",
        "What can be passed on?",
        ("7 outputs", "8 relations", "9 margins"),
    ),
    ("EKD", "Can the evaluation itself\nbe distilled?", ("10 the loss", "11 in training")),
    (
        "Judgement",
        "Which method is better,\nbeyond chance?",
        ("12 comparison", "13 photographs", "14 after EKD"),
    ),
    (
        "The world",
        "Many machines, small\ndevices, people",
        ("15 scaling", "16 shipping", "17 people"),
    ),
)


def plot_map() -> None:
    """The six parts in reading order, with the question of each and its chapters."""
    from ekd_lite.plots.diagrams import INK, LOSS, STUDENT, TEACHER, blank_axes, draw_arrow
    from ekd_lite.plots.diagrams import draw_box as box

    ax = blank_axes(7.4, 4.5)
    colours = INK, TEACHER, STUDENT, LOSS, INK, INK
    centres = [(1.25, 3.4), (3.7, 3.4), (6.15, 3.4), (6.15, 1.3), (3.7, 1.3), (1.25, 1.3)]
    for (title, question, chapters), centre, colour in zip(PARTS, centres, colours, strict=True):
        x, y = centre
        box(ax, (x, y), (2.1, 0.92), title, question, colour=colour, lit=title == "EKD")
        for k, chapter in enumerate(chapters):
            ax.text(x - 0.95, y - 0.66 - 0.19 * k, chapter, fontsize=8, color=colour, va="center")
    for start, end in itertools.pairwise(centres):
        (x, y), (to, up) = start, end
        if y == up:
            side = 1.05 if to > x else -1.05
            draw_arrow(ax, (x + side + side / 15, y), (to - side - side / 15, y))
        else:
            draw_arrow(ax, (x + 0.6, y - 0.56), (to + 0.6, up + 0.56))


def plot_small_batch() -> None:
    """A batch has too few impostor pairs to show a strict level; a gallery has enough."""
    from ekd_lite.plots.diagrams import INK, LOSS, STUDENT, blank_axes
    from ekd_lite.plots.diagrams import draw_arrow as arrow

    ax = blank_axes(7.4, 3.0)
    rows = (
        (2.05, "impostor pairs of one batch", range(0, 44, 4), "no pair here: no threshold", INK),
        (0.75, "of many batches, kept", range(0, 62, 1), "a threshold at 1e-4", STUDENT),
    )
    for y, words, places, told, colour in rows:
        arrow(ax, (0.4, y), (7.1, y))
        spots = [0.6 + 4.6 * (1 - 0.955**k) for k in places]
        ax.plot(spots, [y + 0.13] * len(spots), "|", color=colour, markersize=9)
        ax.text(0.4, y + 0.42, words, color=colour, fontsize=9, fontweight="bold")
        ax.text(5.75, y + 0.62, told, color=colour, fontsize=8.5, ha="center")
    for y in (2.05, 0.75):
        style: Any = "-" if y < 1 else (0, (2, 2))
        ax.plot([4.82, 4.82], [y - 0.14, y + 0.5], color=LOSS, linewidth=1.6, linestyle=style)
    ax.text(7.1, 0.28, "cosine", color=INK, fontsize=8.5, ha="right")


def plot_study() -> None:
    """The study as a plan: people apart, one teacher, many students, and the test at the end."""
    from ekd_lite.plots.diagrams import LOSS, STUDENT, TEACHER, blank_axes
    from ekd_lite.plots.diagrams import draw_arrow as arrow
    from ekd_lite.plots.diagrams import draw_box as box

    ax = blank_axes(7.4, 3.3)
    box(ax, (1.1, 2.6), (1.8, 0.7), "training people", "seen by every net")
    box(ax, (1.1, 1.65), (1.8, 0.7), "validation people", "weights are chosen here")
    box(ax, (1.1, 0.7), (1.8, 0.7), "test people", "used once")
    box(ax, (3.75, 2.6), (1.7, 0.7), "one teacher", "", colour=TEACHER)
    for k in range(3):
        centre = 3.75 + 0.08 * k, 1.45 - 0.08 * k
        box(ax, centre, (1.7, 0.8), *("", "") if k < 2 else ("students", "methods × seeds"),
            colour=STUDENT, alpha=0.4 if k < 2 else 1.0)  # fmt: skip
    box(ax, (6.35, 1.3), (1.7, 0.8), "difference", "with its interval", colour=LOSS, lit=True)
    arrow(ax, (2.06, 2.6), (2.86, 2.6))
    arrow(ax, (2.06, 2.45), (2.9, 1.75))
    arrow(ax, (2.06, 1.6), (2.86, 1.4))
    arrow(ax, (3.75, 2.2), (3.75, 1.9))
    arrow(ax, (4.82, 1.3), (5.44, 1.3))
    ax.plot([2.06, 6.35], [0.7, 0.7], color="#757B82", linewidth=1.1)
    arrow(ax, (6.35, 0.7), (6.35, 0.86))


def main() -> None:
    """Write the SVG files: the same bytes every time with the same matplotlib."""
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "ekd_lite"
    import matplotlib.pyplot as plt

    from ekd_lite.plots import plot_distillation

    drawings: dict[str, Callable[[], object]] = {
        "distillation": plot_distillation,
        "map": plot_map,
        "small_batch": plot_small_batch,
        "study": plot_study,
    }
    for name, draw in drawings.items():
        draw()
        plt.savefig(FIGURES / f"{name}.svg", transparent=True, metadata={"Date": None})
        plt.close()


if __name__ == "__main__":
    main()
