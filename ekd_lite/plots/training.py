"""Curves over the steps of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from ekd_lite.plots.style import flat, new_axes, style_of


def plot_training(
    curves: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]],
    ax: Axes | None = None,
    *,
    ylabel: str = "loss",
    order: Sequence[str] = (),
) -> Axes:
    """Draw a quantity over the steps of training, one line for each method.

    Several runs of one name (its seeds) are a line through their means and a band from the least to
    the greatest. A run with a hundred values or more is smoothed: every value is replaced by the
    mean of its neighbourhood, a fiftieth of the run wide.

    Args:
        curves: name -> (steps, values) of every run of that name.
        ax: where to draw; a new figure if None.
        ylabel: what the values are.
        order: as for `plot_roc`.

    Returns:
        The Axes.

    Raises:
        ValueError: no curve, an empty one, or shapes that differ.
    """
    if not curves:
        raise ValueError("curves is empty: nothing to draw")
    ax, order = new_axes(ax), list(order or curves)
    for name, runs in curves.items():
        pairs = [(flat(steps), flat(values)) for steps, values in runs]
        for x, y in pairs:
            if x.shape != y.shape or not x.size:
                raise ValueError(f"{name!r}: steps have shape {x.shape} and values {y.shape}")
        if not pairs:
            raise ValueError(f"{name!r}: no run to draw")
        values = np.concatenate([_smooth(y) for _, y in pairs])
        steps, at, count = np.unique(
            np.concatenate([x for x, _ in pairs]), return_inverse=True, return_counts=True
        )
        low, high = np.full(len(steps), np.inf), np.full(len(steps), -np.inf)
        np.minimum.at(low, at, values)
        np.maximum.at(high, at, values)
        style = style_of(order, name)
        ax.plot(steps, np.bincount(at, values) / count, linewidth=2, label=name, **style)
        if len(pairs) > 1:
            ax.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
    ax.set_xlabel("step")
    ax.set_ylabel(ylabel)
    ax.grid(True, which="major", alpha=0.3)
    ax.legend()
    return ax


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A moving mean over a fiftieth of a long series; at its ends over what there is."""
    width = values.size // 50
    if width < 2:
        return values
    window = np.ones(width)
    sums, counts = (np.convolve(v, window, "same") for v in (values, np.ones_like(values)))
    smooth: NDArray[np.float64] = sums / counts
    return smooth
