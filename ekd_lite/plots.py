"""Figures of scores and error rates: arrays in, Axes out.

Every function draws on `ax`, or on a new figure if there is none, and returns the Axes. Curves
differ in colour (Okabe and Ito's set, safe for colour-blind readers) *and* in line style or hatch,
so that a grey print still tells them apart. Arrays may be numpy arrays, CPU tensors or lists.

The module is imported by nothing else in the library: `import ekd_lite` stays free of matplotlib.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
NUM_BINS = 100
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
    ax, order = _axes(ax), list(order or curves)
    for name, (fpr, tpr) in curves.items():
        x, y = _flat(fpr), _flat(tpr)
        if x.shape != y.shape:
            raise ValueError(f"{name!r}: fpr has shape {x.shape} and tpr {y.shape}")
        if not (x > 0).any():
            raise ValueError(f"{name!r}: no FPR above 0, nothing to draw on a logarithmic axis")
        # Millions of points are more than a picture can show: read the steps at a grid of levels.
        grid = np.geomspace(x[x > 0].min(), 1, NUM_ROC_POINTS)
        shown = y[np.searchsorted(x, grid * (1 + 1e-9), side="right") - 1]
        ax.plot(grid, shown, drawstyle="steps-post", linewidth=2, label=name, **_style(order, name))
    ax.set_xscale("log")
    ax.set_xlabel("false-positive rate (FPR)")
    ax.set_ylabel("true-positive rate (TPR)")
    ax.grid(True, which="major", alpha=0.3)
    ax.legend(loc="lower right")
    return ax


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
    ax, order = _axes(ax), list(order or curves)
    for name, runs in curves.items():
        pairs = [(_flat(steps), _flat(values)) for steps, values in runs]
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
        style = _style(order, name)
        ax.plot(steps, np.bincount(at, values) / count, linewidth=2, label=name, **style)
        if len(pairs) > 1:
            ax.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
    ax.set_xlabel("step")
    ax.set_ylabel(ylabel)
    ax.grid(True, which="major", alpha=0.3)
    ax.legend()
    return ax


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
    ax = _axes(ax)
    sides = {"genuine": _flat(genuine), "impostor": _flat(impostor)}
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
    ax = _axes(ax)
    ax.imshow(np.clip((sheet + 1) / 2, 0, 1), interpolation="nearest")
    ax.set_xlabel("images of one identity")
    ax.set_ylabel("identities")
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


@dataclass(frozen=True)
class Slider:
    """Pictures drawn in advance and a slider that shows one at a time; needs no running kernel.

    In a notebook it displays itself. The HTML is self-contained: pictures inline, no script file,
    no request. Where scripts are off, and in print, the starting picture stands alone.

    Attributes:
        label: what the slider changes.
        values: the slider's value at each step, as text.
        pictures: PNG bytes for each step.
        texts: for each step a sentence that says what the picture shows.
        start: index of the step shown first.
    """

    label: str
    values: tuple[str, ...]
    pictures: tuple[bytes, ...] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    start: int

    def _repr_html_(self) -> str:
        steps = []
        for step, (picture, text) in enumerate(zip(self.pictures, self.texts, strict=True)):
            hidden = "" if step == self.start else " hidden"
            source = base64.b64encode(picture).decode()
            steps.append(
                f'<div data-step="{step}"{hidden}>'
                f'<img src="data:image/png;base64,{source}" alt="{html.escape(text)}" '
                'style="width:100%;max-width:640px;height:auto">'
                f"<div>{html.escape(text)}</div></div>"
            )
        choose = (
            "var s=this.closest('.ekd-slider').querySelectorAll('[data-step]');"
            "for(var i=0;i<s.length;i++)s[i].hidden=i!=this.value;"
            "this.setAttribute('aria-valuetext',this.dataset.values.split('|')[this.value])"
        )
        return (
            '<div class="ekd-slider" style="text-align:center">'
            f'<label style="display:block">{html.escape(self.label)}<br>'
            f'<input type="range" min="0" max="{len(self.pictures) - 1}" value="{self.start}" '
            'style="width:100%;max-width:560px" autocomplete="off" '
            f'aria-valuetext="{html.escape(self.values[self.start])}" '
            f'data-values="{html.escape("|".join(self.values))}" oninput="{choose}"></label>'
            f'<div aria-live="polite">{"".join(steps)}</div></div>'
        )

    def _repr_png_(self) -> bytes:
        return self.pictures[self.start]


def threshold_slider(
    genuine: ArrayLike,
    impostor: ArrayLike,
    thresholds: Sequence[float],
    *,
    start: int | None = None,
) -> Slider:
    """Make a slider that moves a threshold over the two score histograms.

    Each step shows the accepted scores shaded and says both rates, with their counts.

    Args:
        genuine: scores of genuine pairs.
        impostor: scores of impostor pairs.
        thresholds: one for each step, rising.
        start: index of the threshold shown first; the middle one if None.

    Returns:
        A `Slider`, about 10 kB a step.

    Raises:
        ValueError: no threshold, thresholds that do not rise, or a start that is no index of them.
    """
    steps = [float(threshold) for threshold in thresholds]
    if not steps or steps != sorted(steps):
        raise ValueError(f"thresholds must be one or more rising scores, got {steps}")
    start = len(steps) // 2 if start is None else start
    if not 0 <= start < len(steps):
        raise ValueError(f"start must be in 0..{len(steps) - 1}, got {start}")
    same, different = np.sort(_flat(genuine)), np.sort(_flat(impostor))
    figure = Figure(figsize=(6.4, 3.4), dpi=90, layout="constrained")
    ax = plot_scores(same, different, ax=figure.subplots())
    right = max(ax.get_xlim()[1], steps[-1])
    pictures, texts = [], []
    for threshold in steps:
        line = ax.axvline(threshold, color="black", linewidth=2)
        shade = ax.axvspan(threshold, right, color="black", alpha=0.12, linewidth=0)
        ax.set_xlim(right=right)
        ax.set_title(f"accept if score \N{GREATER-THAN OR EQUAL TO} {threshold:.2f}")
        pictures.append(_png(figure))
        line.remove()
        shade.remove()
        texts.append(_rates(threshold, same, different))
    values = tuple(f"{threshold:.2f}" for threshold in steps)
    return Slider("Threshold", values, tuple(pictures), tuple(texts), start)


def _rates(threshold: float, genuine: NDArray[Any], impostor: NDArray[Any]) -> str:
    """Both rates at a threshold in words, from scores in rising order."""
    accepted = [len(side) - int(np.searchsorted(side, threshold)) for side in (genuine, impostor)]
    return (
        f"Threshold {threshold:.2f} accepts {accepted[0]:,} of {len(genuine):,} genuine pairs "
        f"(TPR {accepted[0] / len(genuine):.3f}) and {accepted[1]:,} of {len(impostor):,} "
        f"impostor pairs (FPR {accepted[1] / len(impostor):.1e})."
    )


def _png(figure: Figure) -> bytes:
    """The figure as a small PNG: 64 colours are a third of the bytes and look the same."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    small = Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _axes(ax: Axes | None) -> Axes:
    """`ax`, or the only Axes of a new pyplot figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    new: Axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")[1]
    return new


def _style(order: Sequence[str], name: str) -> dict[str, Any]:
    """A colour and a line style that no other of 49 names has together."""
    turn, place = divmod(order.index(name), len(COLOURS))
    return {"color": COLOURS[place], "linestyle": LINES[(place + turn) % len(LINES)]}


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A moving mean over a fiftieth of a long series; at its ends over what there is."""
    width = values.size // 50
    if width < 2:
        return values
    window = np.ones(width)
    sums, counts = (np.convolve(v, window, "same") for v in (values, np.ones_like(values)))
    smooth: NDArray[np.float64] = sums / counts
    return smooth


def _flat(values: ArrayLike) -> NDArray[np.float64]:
    """Any array, list or CPU tensor as a flat float64 array."""
    return np.asarray(values, dtype=np.float64).ravel()
