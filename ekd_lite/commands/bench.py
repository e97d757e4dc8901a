"""`ekd-lite bench`."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Bench:
    """Time the parts against a peer's formula and the lower bound; works in a clone only."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Which: pairwise, pointwise, heads, fit, pairs, scores, nearest, search, lfw, pooling,
    renderer, readers, embed, sampler, gallery, neighbours, inference, training, methods, launches,
    demo, whole, ranks, tables, memory; all if left out."""
    quick: bool = False
    """Small sizes only."""
    cpu: bool = False
    """Processor time of the process instead of the clock's: for a busy machine."""
    json: Path | None = None
    """File for the rows and what they belong to."""
    compare: Path | None = None
    """An earlier such file; a ratio worse by a fifth is marked, and the exit code is 1."""
    only: tuple[str, ...] = ()
    """Of pairwise and fit, these rows: by item ("sp"), size ("N=64") or both ("sp N=64")."""
    threads: int | None = None
    """Threads of torch."""

    def run(self) -> None:
        """Hand over to the benchmarks of the repository."""
        root = Path(__file__).resolve().parents[2]
        if not (root / "benchmarks" / "timing.py").is_file():
            raise ValueError(
                "the benchmarks are not part of the installed package: clone the repository, and "
                "call `make bench` or `ekd-lite bench` there"
            )
        if importlib.util.find_spec("benchmarks") is None:
            sys.path.insert(0, str(root))
        benchmarks = importlib.import_module("benchmarks.__main__")
        arguments = [*self.names, *(["--quick"] if self.quick else [])]
        arguments += ["--cpu"] if self.cpu else []
        arguments += [f"--only={row}" for row in self.only]
        for name in ("json", "compare", "threads"):
            value = getattr(self, name)
            arguments += [] if value is None else [f"--{name}", str(value)]
        code: int = benchmarks.main(arguments)
        if code:
            raise SystemExit(code)
