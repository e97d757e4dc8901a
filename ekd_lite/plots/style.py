"""What the figures share: colours, line styles, new axes, flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


def new_axes(ax: Axes | None) -> Axes:
    """`ax`, or the only Axes of a new pyplot figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    new: Axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")[1]
    return new


def style_of(order: Sequence[str], name: str) -> dict[str, Any]:
    """A colour and a line style that no other of 49 names has together."""
    turn, place = divmod(order.index(name), len(COLOURS))
    return {"color": COLOURS[place], "linestyle": LINES[(place + turn) % len(LINES)]}


def flat(values: ArrayLike) -> NDArray[np.float64]:
    """Any array, list or CPU tensor as a flat float64 array."""
    return np.asarray(values, dtype=np.float64).ravel()
