"""Methods side by side, with their seeds and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from ekd_lite.plots.style import BLUE, new_axes


@dataclass(frozen=True)
class MethodScores:
    """A row of the figure.

    Attributes:
        seeds: the score of every run.
        low: lower end of the interval of their mean; NaN draws none.
        high: its upper end.
    """

    seeds: tuple[float, ...]
    low: float
    high: float

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return sum(self.seeds) / len(self.seeds)


def plot_methods(
    groups: Sequence[Mapping[str, MethodScores]],
    ax: Axes | None = None,
    *,
    reference: str | None = None,
    xlabel: str = "TPR, percent",
) -> Axes:
    """Draw a row for each method: the mean as a dot on its interval, the seeds as small circles.

    Args:
        groups: name -> scores, from top to bottom; a line stands between two groups.
        ax: where to draw; a new figure if None.
        reference: the name whose mean is drawn through all rows, as a dashed line.
        xlabel: what the scores are.

    Returns:
        The Axes.

    Raises:
        ValueError: nothing to draw, a method without a seed, or an unknown reference.
    """
    rows = [(name, scores) for group in groups for name, scores in group.items()]
    if not rows or not all(scores.seeds for _, scores in rows):
        raise ValueError("expected one or more methods with one or more seeds each")
    means = {name: scores.mean for name, scores in rows}
    if reference is not None and reference not in means:
        raise ValueError(f"the reference {reference!r} is none of the methods: {list(means)}")
    ax = new_axes(ax)
    for place, (_, scores) in enumerate(rows):
        ax.plot([scores.low, scores.high], [place, place], color=BLUE, linewidth=2)
        ax.plot(
            scores.seeds,
            [place] * len(scores.seeds),
            linestyle="none",
            marker="o",
            markersize=5,
            markerfacecolor="white",
            markeredgecolor="black",
            markeredgewidth=0.8,
        )
        ax.plot(scores.mean, place, marker="D", markersize=5, color=BLUE)
    if reference is not None:
        ax.axvline(means[reference], color="black", linestyle="--", linewidth=1, zorder=0)
    edge = -0.5
    for group in groups[:-1]:
        edge += len(group)
        ax.axhline(edge, color="grey", linewidth=0.8)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    ax.grid(True, axis="x", alpha=0.3)
    return ax
