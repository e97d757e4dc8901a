"""Histograms of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from ekd_lite.plots.style import BLUE, LINES, ORANGE, flat, new_axes

NUM_BINS = 100


def plot_scores(
    genuine: ArrayLike,
    impostor: ArrayLike,
    thresholds: Mapping[str, float] | Sequence[float] = (),
    ax: Axes | None = None,
    *,
    log: bool = True,
) -> Axes:
    """Draw the two score histograms, each as shares of its own pairs, with threshold lines.

    Args:
        genuine: scores of genuine pairs.
        impostor: scores of impostor pairs.
        thresholds: vertical lines, either plain scores or name -> score.
        ax: where to draw; a new figure if None.
        log: logarithmic vertical axis, on which one pair in a million is still seen.

    Returns:
        The Axes.

    Raises:
        ValueError: a side without scores, or a score that is not finite.
    """
    ax = new_axes(ax)
    sides = {"genuine": flat(genuine), "impostor": flat(impostor)}
    for name, scores in sides.items():
        if not scores.size or not np.isfinite(scores).all():
            raise ValueError(f"{name} scores must be finite and at least one, got {scores.size}")
    low = min(scores.min() for scores in sides.values())
    high = max(scores.max() for scores in sides.values())
    edges = np.linspace(low, max(high, low + 1e-6), NUM_BINS + 1)
    for (name, scores), colour, hatch in zip(
        sides.items(), (BLUE, ORANGE), ("", "///"), strict=True
    ):
        shares = np.histogram(scores, edges)[0] / scores.size
        style: dict[str, Any] = {"color": colour, "hatch": hatch, "alpha": 0.35}
        ax.stairs(shares, edges, fill=True, **style)
        ax.stairs(shares, edges, color=colour, linewidth=1.5, label=f"{name} pairs")
    named = thresholds.items() if isinstance(thresholds, Mapping) else (("", t) for t in thresholds)
    for index, (name, threshold) in enumerate(named):
        ax.axvline(
            threshold, color="black", linestyle=LINES[(index + 1) % len(LINES)], label=name or None
        )
    if log:
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.3 / max(scores.size for scores in sides.values()), top=3)
    ax.set_xlabel("score (cosine)")
    ax.set_ylabel("share of pairs in a bin")
    ax.legend(loc="upper center", ncols=2)
    return ax
