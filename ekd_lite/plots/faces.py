"""Sheets of faces."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from ekd_lite.plots.style import new_axes


def plot_faces(images: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw a sheet of faces, one row an identity.

    Args:
        images: in [-1, 1], (R, C, 3, H, W).
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        ValueError: another shape.
    """
    pixels = np.asarray(images, dtype=np.float32)
    if pixels.ndim != 5 or pixels.shape[2] != 3:
        raise ValueError(f"images must have shape (R, C, 3, H, W), got {pixels.shape}")
    rows, columns, _, height, width = pixels.shape
    sheet = pixels.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    ax = new_axes(ax)
    ax.imshow(np.clip((sheet + 1) / 2, 0, 1), interpolation="nearest")
    ax.set_xlabel("images of one identity")
    ax.set_ylabel("identities")
    ax.set_xticks([])
    ax.set_yticks([])
    return ax
