"""What the tables and figures of a comparison share: percents, means over seeds, verdicts."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ekd_lite.evaluate import BootstrapResult
from ekd_lite.files import write_atomically


def level(fpr: float) -> str:
    """A level as people write it: 1e-3, not 1e-03."""
    mantissa, exponent = f"{fpr:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def percents(
    name: str, fprs: Sequence[float], interval: tuple[Tensor, Tensor, Tensor]
) -> dict[str, float]:
    """Columns name@level, name@level_low and name@level_high, in percent."""
    return {
        f"{name}@{level(fpr)}{suffix}": round(100 * value, 2)
        for suffix, values in zip(("", "_low", "_high"), interval, strict=True)
        for fpr, value in zip(fprs, values.tolist(), strict=True)
    }


def over_seeds(results: Sequence[BootstrapResult]) -> BootstrapResult:
    """The mean over seeds, resample by resample: the interval of the averaged number."""
    samples = torch.stack([r.samples for r in results]).mean(0)
    estimate = torch.stack([r.estimate for r in results]).mean(0)
    tails = torch.tensor([0.025, 0.975], dtype=samples.dtype)
    low, high = samples.quantile(tails, dim=0)
    return BootstrapResult(results[0].fprs, estimate, low, high, samples)


def mean_and_spread(values: Sequence[float], *, decimals: int = 1) -> str:
    """The mean, and the standard deviation behind ± if there are several values."""
    numbers = torch.tensor(values, dtype=torch.float64)
    if numbers.isnan().any():
        return "not measurable"
    spread = f" ± {float(numbers.std()):.{decimals}f}" if len(numbers) > 1 else ""
    return f"{float(numbers.mean()):.{decimals}f}{spread}"


def verdict(difference: float, low: float, high: float) -> str:
    """A difference with its interval; bold if the interval excludes zero."""
    if math.isnan(difference):
        return "not measurable"
    if math.isnan(low):
        return f"{difference:+.1f} (no interval)"
    text = f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def verdicts(difference: Tensor, low: Tensor, high: Tensor) -> list[str]:
    """What `paired_difference` returned as one cell a level, in percent."""
    return [verdict(*row) for row in (100 * torch.stack([difference, low, high], 1)).tolist()]


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose columns are aligned in plain text too."""
    widths = [max(3, *(len(row[k]) for row in [heads, *rows])) for k in range(len(heads))]
    rules = ["-" * width for width in widths]
    return [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in [heads, rules, *rows]
    ]


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV file; every row has the columns of the first."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, buffer.getvalue().encode())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": 150}):
        figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
