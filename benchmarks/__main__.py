"""Time the parts against the plain formula and the lower bound, interleaved in one process.

    python -m benchmarks [NAME ...] [--quick] [--cpu] [--json FILE] [--compare FILE]

Every figure is the median of nine runs after warm-up (the whole demo is run once). Read the ratios:
milliseconds belong to a machine. With --compare, a ratio that is worse than in the file by a fifth
is marked, and the exit code is 1. With --cpu it is the process's own time: for a busy machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    backbones,
    counting,
    evaluation,
    heads,
    images,
    losses,
    memory,
    runs,
    samplers,
    teacher_rows,
    timing,
)
from benchmarks.timing import Row, table
from ekd_lite.files import write_atomically

BENCHES: dict[str, Callable[..., Iterator[Row]]] = {
    "pairwise": losses.bench_pairwise,
    "pointwise": losses.bench_pointwise,
    "heads": heads.bench_heads,
    "fit": heads.bench_fit,
    "pairs": evaluation.bench_pairs,
    "scores": evaluation.bench_scores,
    "nearest": evaluation.bench_nearest,
    "search": evaluation.bench_search,
    "lfw": evaluation.bench_lfw,
    "pooling": evaluation.bench_pooling,
    "renderer": images.bench_renderer,
    "readers": images.bench_readers,
    "embed": images.bench_embed,
    "sampler": samplers.bench_sampler,
    "gallery": teacher_rows.bench_gallery,
    "neighbours": teacher_rows.bench_neighbours,
    "inference": backbones.bench_inference,
    "training": backbones.bench_training,
    "methods": backbones.bench_methods,
    "launches": counting.bench_launches,
    "demo": backbones.bench_demo,
    "whole": runs.bench_whole,
    "ranks": runs.bench_ranks,
    "tables": runs.bench_tables,
    "memory": memory.bench_memory,
}
WORSE = 1.2  # a ratio is flagged from here on
BASELINE = Path(__file__).parent / "baseline.json"


def about() -> dict[str, Any]:
    """What the figures belong to."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    model = next(
        (
            line.partition(":")[2].strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": model,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def compare(rows: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> list[str]:
    """One line for every ratio that has become worse by a fifth or more.

    "peer/ours" should be large and "ours/bound" small.
    """
    found = []
    for key, ratios in rows.items():
        for name, now in ratios.items():
            then = before.get(key, {}).get(name)
            if then is None:
                continue
            change = then / now if name == "peer/ours" else now / then
            if change >= WORSE:
                found.append(f"{key}: {name} {then:.2f} before, {now:.2f} now")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write and compare."""
    parser = argparse.ArgumentParser(prog="ekd-lite bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--cpu", action="store_true", help="processor time of the process")
    parser.add_argument("--json", type=Path, help="write the rows and what they belong to")
    parser.add_argument("--compare", type=Path, help=f"an earlier --json file, e.g. {BASELINE}")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        help='rows of pairwise and fit, as "sp", "N=64" or "sp N=64"',
    )
    parser.add_argument("--threads", type=int, help="threads of torch")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(BENCHES)}")
    before = json.loads(options.compare.read_text(encoding="utf-8")) if options.compare else {}
    timing.clock = time.process_time if options.cpu else time.perf_counter
    timing.only = options.only
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    facts = about() | ({"clock": "processor time"} if options.cpu else {})
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    everything: list[Row] = []
    kept = read_rows(options.json)
    for name in options.names or list(BENCHES):
        bench = BENCHES[name]
        print(f"\n{name}: {(bench.__doc__ or '').strip()}", flush=True)
        header = True
        for row in bench(quick=options.quick):
            everything.append(row)
            kept[row.key] = as_record(row, facts)
            if options.json:  # after every row: a long run that is stopped keeps what it has
                write_atomically(options.json, as_json(facts, kept))
            lines = list(table([row]))
            print("\n".join(lines if header else lines[1:]), flush=True)
            header = False
    ratios = {row.key: row.ratios() for row in everything}
    if before:
        worse = compare(ratios, {key(row): row["ratios"] for row in before["rows"]})
        print("\n" + ("\n".join(["worse than before:", *worse]) if worse else "no ratio is worse"))
        others = [key(row) for row in before["rows"] if key(row) in ratios and differs(row, facts)]
        if others:
            print(f"taken by another clock or number of threads then: {', '.join(others)}")
        return 1 if worse else 0
    return 0


def differs(record: dict[str, Any], facts: dict[str, Any]) -> bool:
    """Whether a row was measured otherwise, so that its ratios may be others without a cause."""
    return any(record.get(name) != facts.get(name) for name in ("threads", "clock"))


def key(record: dict[str, Any]) -> str:
    """Name of a row that was read from a file."""
    return f"{record['item']} {record['size']}"


def read_rows(path: Path | None) -> dict[str, dict[str, Any]]:
    """Rows of an earlier run, which a new one replaces by name."""
    if path is None or not path.exists():
        return {}
    return {key(row): row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}


def as_record(row: Row, facts: dict[str, Any]) -> dict[str, Any]:
    """A row as plain values, with its commit and day: a file may join several runs."""
    numbers = {
        name: {k: round(v, 3) for k, v in values.items()}
        for name, values in (("ms", row.ms), ("mb", row.mb), ("ratios", row.ratios()))
    }
    made: dict[str, Any] = {
        name: facts[name]
        for name in ("commit", "date", "threads", "load", "clock")
        if name in facts
    }
    return {
        "item": row.item, "size": row.size, **numbers, "goal": row.goal, "note": row.note, **made
    }  # fmt: skip


def as_json(facts: dict[str, Any], rows: dict[str, dict[str, Any]]) -> bytes:
    """The file's content: one row a line."""
    lines = ",\n".join(json.dumps(row) for row in rows.values())
    return f'{{"about": {json.dumps(facts)},\n"rows": [\n{lines}\n]}}\n'.encode()


if __name__ == "__main__":
    sys.exit(main())
