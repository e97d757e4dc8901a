"""What every table shares: levels, percents, means over seeds, differences, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ekd_lite.evaluate import BootstrapResult, count_pairs, over_runs, paired_difference
from ekd_lite.files import write_atomically

FPRS = (1e-2, 1e-3, 1e-4, 1e-5)


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
    """The mean over seeds, with draws of people and seeds; of people alone if there is one seed."""
    return over_runs(results) if len(results) > 1 else results[0]


def known(count: int) -> str:
    """A count, if somebody counted."""
    return f"{count:,}" if count else "unknown"


def mean_and_spread(values: Sequence[float], *, decimals: int = 1) -> str:
    """The mean, and the standard deviation behind ± if there are several values."""
    numbers = torch.tensor(values, dtype=torch.float64)
    if numbers.isnan().any():
        return "not measurable"
    spread = f" ± {float(numbers.std()):.{decimals}f}" if len(numbers) > 1 else ""
    return f"{float(numbers.mean()):.{decimals}f}{spread}"


def tpr_cells(results: Sequence[BootstrapResult]) -> list[str]:
    """A cell for each level, in percent: mean over seeds, spread over seeds, interval."""
    mean = over_seeds(results)
    by_level = (100 * torch.stack([r.estimate for r in results], 1)).tolist()
    ends = (100 * torch.stack([mean.low, mean.high], 1)).tolist()
    return [
        mean_and_spread(tprs) + ("" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]")
        for tprs, (low, high) in zip(by_level, ends, strict=True)
    ]


def difference_cell(difference: float, low: float, high: float) -> str:
    """A difference with its interval; bold if the interval excludes zero."""
    if math.isnan(difference):
        return "not measurable"
    if math.isnan(low):
        return f"{difference:+.1f} (no interval)"
    text = f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def difference_cells(difference: Tensor, low: Tensor, high: Tensor) -> list[str]:
    """What `paired_difference` returned: a cell for each level, in percent."""
    rows = (100 * torch.stack([difference, low, high], 1)).tolist()
    return [difference_cell(*row) for row in rows]


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose columns are aligned in plain text too."""
    widths = [max(3, *(len(row[k]) for row in [heads, *rows])) for k in range(len(heads))]
    rules = ["-" * width for width in widths]
    return [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in [heads, rules, *rows]
    ]


def tpr_lines(
    heads: Sequence[str],
    rows: Iterable[tuple[Sequence[str], Sequence[BootstrapResult]]],
    labels: Tensor,
) -> list[str]:
    """The table of TPR, and what its numbers are.

    Args:
        heads: of the columns before those of the levels.
        rows: the cells of these columns, and the results of all seeds.
        labels: of the test images.
    """
    rows = list(rows)
    num_genuine, num_impostor = count_pairs(labels)
    return [
        *markdown_table(
            [*heads, *_level_heads(rows[0][1][0])],
            [[*cells, *tpr_cells(results)] for cells, results in rows],
        ),
        "",
        f"TPR in percent over all pairs of {len(labels):,} test images of "
        f"{int(torch.bincount(labels).count_nonzero()):,} identities: {num_genuine:,} genuine and "
        f"{num_impostor:,} impostor pairs. ± is the standard deviation over seeds, in brackets the "
        "95 % interval over identities and, where there are several, seeds.",
    ]


def difference_lines(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    results: Mapping[str, Sequence[BootstrapResult]],
) -> list[str]:
    """The table of differences, and what they mean.

    Args:
        heads: of the columns before those of the levels.
        rows: the cells of these columns, which begin with the names of both sides.
        results: of all seeds, by these names.
    """
    several = all(len(results[name]) > 1 for row in rows for name in row[:2])
    covers = "and seeds" if several else "(it does not cover the choice of seeds)"
    return [
        *markdown_table(
            [*heads, *_level_heads(results[rows[0][0]][0])],
            [[*row, *_difference_of(results[row[0]], results[row[1]])] for row in rows],
        ),
        "",
        "Differences of the means over seeds, with the 95 % interval of paired draws of identities "
        f"{covers}. **Bold**: the interval excludes zero. Plain: this test cannot tell the two "
        "apart. One teacher taught all: the intervals do not cover another.",
    ]


def _difference_of(
    first: Sequence[BootstrapResult], second: Sequence[BootstrapResult]
) -> list[str]:
    """A cell for each level; means over 2 and over 3 seeds do not share their draws."""
    if len(first) != len(second) and min(len(first), len(second)) > 1:
        return [f"not paired: {len(first)} and {len(second)} seeds"] * len(first[0].fprs)
    return difference_cells(*paired_difference(over_seeds(first), over_seeds(second)))


def _level_heads(result: BootstrapResult) -> list[str]:
    return [f"TPR at {level(fpr)}" for fpr in result.fprs]


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV file; every row has the columns of the first."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, buffer.getvalue().encode())
