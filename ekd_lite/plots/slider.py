"""Pictures with a slider that need no running kernel."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ekd_lite.plots.scores import plot_scores
from ekd_lite.plots.style import flat


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
    same, different = np.sort(flat(genuine)), np.sort(flat(impostor))
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
        figure.set_layout_engine("none")  # the first has found the place of everything
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
