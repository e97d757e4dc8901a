"""ROC curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from ekd_lite.plots.style import flat, new_axes, style_of

NUM_ROC_POINTS = 1500


def plot_roc(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    ax: Axes | None = None,
    *,
    order: Sequence[str] = (),
) -> Axes:
    """Draw TPR over FPR, the latter on a logarithmic axis, one step curve for each model.

    What is drawn at a level is the largest TPR whose FPR does not exceed it, so the picture agrees
    with `ekd_lite.evaluate.tpr_at_fpr`. A curve starts at its own smallest non-zero FPR: to the
    left of it that model's pairs can show nothing.

    Args:
        curves: name -> (fpr, tpr), each rising, as `ekd_lite.evaluate.roc` returns them.
        ax: where to draw; a new figure if None.
        order: names in the order in which colours and line styles are given out; the curves' own if
            left out. Two figures with one order show a name alike.

    Returns:
        The Axes.

    Raises:
        ValueError: no curve, shapes that differ, or a curve without any FPR above 0.
    """
    if not curves:
        raise ValueError("curves is empty: nothing to draw")
    ax, order = new_axes(ax), list(order or curves)
    for name, (fpr, tpr) in curves.items():
        x, y = flat(fpr), flat(tpr)
        if x.shape != y.shape:
            raise ValueError(f"{name!r}: fpr has shape {x.shape} and tpr {y.shape}")
        if not (x > 0).any():
            raise ValueError(f"{name!r}: no FPR above 0, nothing to draw on a logarithmic axis")
        # Millions of points are more than a picture can show: read the steps at a grid of levels.
        grid = np.geomspace(x[x > 0].min(), 1, NUM_ROC_POINTS)
        shown = y[np.searchsorted(x, grid * (1 + 1e-9), side="right") - 1]
        ax.plot(
            grid, shown, drawstyle="steps-post", linewidth=2, label=name, **style_of(order, name)
        )
    ax.set_xscale("log")
    ax.set_xlabel("false-positive rate (FPR)")
    ax.set_ylabel("true-positive rate (TPR)")
    ax.grid(True, which="major", alpha=0.3)
    ax.legend(loc="lower right")
    return ax
