"""Time variants of one computation side by side, and keep what was found as rows."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

Variants = dict[str, Callable[[], object]]
REPEATS = 9
clock = time.perf_counter  # or time.process_time, which leaves out what others do
only: list[str] = []  # rows of pairwise losses and of fit to time; empty for all


@dataclass
class Row:
    """One line of a table.

    Attributes:
        item: what was timed.
        size: how much of it, as text: "N=512".
        ms: median milliseconds of every variant: "ours", and where there is one "peer" (the
            formula as published code has it, written plainly) and "bound" (the part that no
            implementation can avoid).
        mb: peak memory above the inputs, in MB, of the variants.
        goal: the ratio aimed at, as text.
        note: what a reader should know.
    """

    item: str
    size: str
    ms: dict[str, float]
    mb: dict[str, float] = dataclasses.field(default_factory=dict)
    goal: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """Name in a file of results."""
        return f"{self.item} {self.size}"

    def ratios(self) -> dict[str, float]:
        """How many times faster than the peer, and how many times slower than the bound."""
        found = {}
        if "peer" in self.ms:
            found["peer/ours"] = self.ms["peer"] / self.ms["ours"]
        if "bound" in self.ms:
            found["ours/bound"] = self.ms["ours"] / self.ms["bound"]
        return found


def is_wanted(item: str, size: str) -> bool:
    """Whether a row was asked for, by its item, its size or both."""
    return not only or bool({item, size, f"{item} {size}"} & set(only))


def interleave(variants: Variants, *, repeats: int = REPEATS) -> dict[str, float]:
    """Median milliseconds; the variants take turns, so that a change of load hits them alike.

    Every variant runs at least once before it is timed. One much shorter than a millisecond is
    repeated within its turn.
    """
    loops, slowest = {}, 0.0
    for name, run in variants.items():
        first = _seconds(run)
        if first < 1:
            first = _seconds(run)  # the first call also builds what later ones find ready
        loops[name] = max(1, min(200, round(2e-3 / max(first, 1e-6))))
        slowest = max(slowest, first)
    warmup = 0 if slowest > 0.2 else 2
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    gc.collect()
    for turn in range(repeats + warmup):
        for name, run in variants.items():
            spent = _seconds(run, loops[name])
            if turn >= warmup:
                seconds[name].append(spent / loops[name])
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def _seconds(run: Callable[[], object], times: int = 1) -> float:
    start = clock()
    for _ in range(times):
        run()
    return clock() - start


def products(macs: float) -> Callable[[], list[torch.Tensor]]:
    """Matrix products of so many multiply-adds. No bound: convolutions may be faster."""
    side = 512 if macs > 1e9 else 128
    a, b = torch.randn(2, side, side)
    times = max(1, round(macs / side**3))
    return lambda: [a @ b for _ in range(times)]


def peak_mb(variants: Variants) -> dict[str, float]:
    """Peak resident memory above what was there before, MB; empty where Linux does not tell."""
    found = {}
    for name, run in variants.items():
        gc.collect()
        if sys.platform == "linux":
            # What was freed but is still held would be used again and not be seen.
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)
        try:
            Path("/proc/self/clear_refs").write_text(
                "5", encoding="utf-8"
            )  # forget the peak so far
        except OSError:
            return {}
        before = _peak_of_process()
        run()
        found[name] = max(0.0, _peak_of_process() - before)
    return found


def _peak_of_process() -> float:
    import resource  # here, since Windows lacks it

    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(
    item: str,
    size: str,
    variants: Variants,
    *,
    repeats: int = REPEATS,
    memory: bool = True,
    goal: str = "",
    note: str = "",
) -> Row:
    """Time a set of variants, then look at their memory, each in one more run."""
    ms = interleave(variants, repeats=repeats)
    return Row(item, size, ms, peak_mb(variants) if memory else {}, goal, note)


def table(rows: list[Row]) -> Iterator[str]:
    """The rows as aligned text."""
    yield (
        f"{'item':26} {'size':>14} {'ours ms':>10} {'peer ms':>10} {'bound ms':>10}"
        f" {'peer/ours':>10} {'ours/bound':>10} {'ours MB':>8} {'peer MB':>8}  goal"
    )
    for row in rows:
        ratios = row.ratios()
        cells = [row.ms.get(name) for name in ("ours", "peer", "bound")]
        cells += [ratios.get("peer/ours"), ratios.get("ours/bound")]
        text = "".join(f" {'' if cell is None else f'{cell:,.2f}':>10}" for cell in cells)
        memory = "".join(
            f" {'' if row.mb.get(name) is None else f'{row.mb[name]:,.0f}':>8}"
            for name in ("ours", "peer")
        )
        yield f"{row.item:26} {row.size:>14}{text}{memory}  {row.goal}".rstrip()
        if row.note:
            yield f"{'':26} {row.note}"
