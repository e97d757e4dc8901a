"""All that a GPU can show in nine minutes: does it compute what the CPU does, and how fast.

    python -m benchmarks.gpu [--minutes 9] [--out data/results/gpu.csv]
        [--insightface PATH] [--tface PATH]
    python -m benchmarks.gpu --dry

First the comparisons of `gpu_checks`, then images a second of a student's training at 112 pixels,
alone, with FitNet and with EKD: `train_step` beside a bare loop, which has the same net, head and
loss and nothing else (no check for NaN, no copy of running statistics, no reading of losses). The
teacher's embeddings are at hand for both. Beside insightface's and TFace's own loops, too, where
checkouts of them are named (`gpu_peers`). A dry run does the same on a CPU, with tiny sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import io
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu_checks import Check, all_checks
from benchmarks.gpu_loops import peer_task, training_loops
from benchmarks.gpu_peers import PEERS, group_of_one
from ekd_lite.files import write_atomically

ROOT = Path(__file__).parents[1]
NETS = ("mobilefacenet", "iresnet50")
METHODS = ("none", "fitnet", "ekd")
PRECISIONS = ("float32", "bf16")
RESERVE = 20.0  # seconds before the end after which nothing is begun


@dataclass
class Row:
    """A line of the table.

    Attributes:
        kind: "check", or "rate" or "peer": images a second.
        name: what was checked or trained, and beside whose loop.
        value: how far off, or images a second.
        bound: the largest value that is fine, or the images a second of the bare loop or the peer.
        unit: of value and bound.
        result: "ok", or what is wrong.
        seconds: that it took.
    """

    kind: str
    name: str
    value: float
    bound: float
    unit: str
    result: str
    seconds: float


def rates() -> Iterator[tuple[str, str, str]]:
    """Net, method and precision of every timed training."""
    for precision in PRECISIONS:
        for net in NETS:
            for method in METHODS:
                yield net, method, precision


def run_check(check: Check, device: torch.device, dry: bool) -> Row:
    """The check's row; a crash is a result."""
    start = time.perf_counter()
    value, result = float("nan"), "ok"
    try:
        value = check.run(device, dry)
        if not value <= check.bound:
            result = "too far off"
    except Exception as error:  # whatever a GPU brings up: the others go on
        result = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    seconds = time.perf_counter() - start
    return Row("check", check.name, value, check.bound, check.unit, result, seconds)


def run_rate(net: str, method: str, precision: str, device: torch.device, dry: bool) -> Row:
    """Images a second, ours and a bare loop's, in turns."""
    loops = functools.partial(training_loops, net, method, precision, device, dry=dry)
    return _in_turns("rate", f"{net}, {method}, {precision}", loops, device, dry)


def run_peer(
    name: str, folder: Path, work: tuple[str, str, str], device: torch.device, dry: bool
) -> Row:
    """Images a second, ours and a peer's, in turns."""
    net, method, precision = work
    with contextlib.ExitStack() as stack:

        def loops(count: int) -> dict[str, Callable[[], object]]:
            ours = training_loops(net, method, precision, device, count, dry)
            task = peer_task(net, method, precision, device, count, dry)
            stack.enter_context(group_of_one(device))  # not before: ours would be wrapped, too
            return {"ours": ours["ours"], name: PEERS[name].step(folder, task)}

        return _in_turns("peer", f"{net}, {method}, {precision}, {name}", loops, device, dry)


def _in_turns(
    kind: str,
    name: str,
    make: Callable[[int], dict[str, Callable[[], object]]],
    device: torch.device,
    dry: bool,
) -> Row:
    """Images a second of two loops; a crash is a result."""
    start = time.perf_counter()
    try:
        count, turns, steps = (8, 1, 1) if dry else (128, 5, 10)
        loops = make(count)
        seconds: dict[str, list[float]] = {which: [] for which in loops}
        for turn in range(turns + 1):
            for which, step in loops.items():
                spent = _timed(step, 1 if dry else steps, device)
                if turn or dry:  # the first turn warms up
                    seconds[which].append(spent)
        ours, other = (count / statistics.median(taken) for taken in seconds.values())
    except Exception as error:  # out of memory, say
        result = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        nan = float("nan")
        return Row(kind, name, nan, nan, "images/s", result, time.perf_counter() - start)
    return Row(kind, name, ours, other, "images/s", "ok", time.perf_counter() - start)


def _timed(step: Callable[[], object], times: int, device: torch.device) -> float:
    """Seconds of a step."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / times


def about(device: torch.device) -> dict[str, str]:
    """What all rows belong to."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, a dry run"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {"device": name, "torch": torch.__version__, "commit": commit,
            "date": time.strftime("%Y-%m-%d", time.gmtime())}  # fmt: skip


def as_csv(rows: list[Row], facts: dict[str, str]) -> bytes:
    """The table."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*Row.__dataclass_fields__, *facts])
    for row in rows:
        numbers = [f"{x:.4g}" for x in (row.value, row.bound)]
        writer.writerow(
            [row.kind, row.name, *numbers, row.unit, row.result, f"{row.seconds:.1f}",
             *facts.values()]
        )  # fmt: skip
    return file.getvalue().encode()


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write; 1 if a row is not "ok", 2 where there is no GPU."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="make gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="the most it may take")
    parser.add_argument("--out", type=Path, help="the table; data/results/gpu.csv")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU; writes no table")
    for peer in PEERS.values():
        parser.add_argument(peer.option, type=Path, help=f"a checkout of {peer.source}")
    options = parser.parse_args(arguments)
    if not options.dry and not torch.cuda.is_available():
        print("torch sees no CUDA GPU here; --dry does the same on the CPU, with tiny sizes")
        return 2
    device = torch.device("cpu" if options.dry else "cuda")
    out = options.out or (None if options.dry else ROOT / "data" / "results" / "gpu.csv")
    facts = about(device)
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    rows: list[Row] = []
    work: list[tuple[str, str, Callable[[], Row]]] = [
        ("check", check.name, lambda c=check: run_check(c, device, options.dry))
        for check in all_checks()
    ]
    work += [
        (
            "rate",
            ", ".join((net, method, precision)),
            lambda n=net, m=method, p=precision: run_rate(n, m, p, device, options.dry),
        )
        for net, method, precision in rates()
    ]
    for name, peer in PEERS.items():
        folder = getattr(options, name.lower())
        if folder is None:
            print(f"not compared with {name}: {peer.option} PATH names a checkout of {peer.source}")
            continue
        work += [
            (
                "peer",
                ", ".join((*given, name)),
                lambda n=name, f=folder, g=given: run_peer(n, f, g, device, options.dry),
            )
            for given in rates()
            if given[1] in peer.methods
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, name, run in work:
            if time.monotonic() - started > 60 * options.minutes - RESERVE:
                nan = float("nan")
                row = Row(kind, name, nan, nan, "", "not run: no time left", 0.0)
            else:
                row = run()
            rows.append(row)
            print(
                f"{row.kind:5} {row.name:32} {row.value:10.4g} {row.bound:10.4g} {row.unit:16} "
                f"{row.seconds:6.1f} s  {row.result}", flush=True,
            )  # fmt: skip
            if out is not None:  # after every row: what is stopped keeps what it has
                write_atomically(out, as_csv(rows, facts))
    bad = [row.name for row in rows if row.result != "ok"]
    print(
        f"{len(rows)} rows, {time.monotonic() - started:.0f} s; not ok: {', '.join(bad) or 'none'}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
