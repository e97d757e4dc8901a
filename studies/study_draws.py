"""Keep what a study's tables are made of, without its nets: data/study_draws.npz.

    python studies/study_draws.py keep runs/study       after a study, or a part of one
    python studies/study_draws.py restore runs/study    on another machine, before it goes on

A study goes on from runs.csv and the draws of its final students; embeddings and models are needed
for neither. `restore` puts both in place, and `ekd-lite compare --recipe study --out runs/study`
trains what is missing and writes the tables of all.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from ekd_lite.experiments.study import RUNS
from ekd_lite.experiments.study_report import DRAWS
from ekd_lite.files import write_atomically

KEPT, TABLE = Path("data/study_draws.npz"), Path("data/results/decisive_runs.csv")


def keep(out: Path) -> None:
    """Write the draws of all final students, in single precision, and the table of runs."""
    found = {}
    for path in sorted(out.glob(f"*/*/{DRAWS}")):
        draws = load_file(path)
        name = path.parent.relative_to(out).as_posix()
        rows = torch.cat([draws["estimate"][None], draws["samples"]])
        found[name] = rows.float().numpy()
    np.savez_compressed(KEPT, **found)  # type: ignore[arg-type]
    TABLE.write_bytes((out / RUNS).read_bytes())
    print(f"{len(found)} students in {KEPT}, {KEPT.stat().st_size / 1e6:.1f} MB")


def restore(out: Path) -> None:
    """Put the draws and the table of runs where a study looks for them."""
    if (out / RUNS).exists():
        raise SystemExit(f"{out / RUNS} is there already: restore into a new folder")
    with np.load(KEPT, allow_pickle=False) as kept:
        for name in kept.files:
            rows = torch.from_numpy(kept[name]).double()
            (out / name).mkdir(parents=True, exist_ok=True)
            draws = {"estimate": rows[0].clone(), "samples": rows[1:].clone()}
            write_atomically(out / name / DRAWS, save(draws))
    write_atomically(out / RUNS, TABLE.read_bytes())
    print(f"{len(list(out.glob(f'*/*/{DRAWS}')))} students restored in {out}")


if __name__ == "__main__":
    {"keep": keep, "restore": restore}[sys.argv[1]](Path(sys.argv[2]))
