"""Recipes and long runs of `studies/real_faces.py`: a table of `real_faces_tables.py`.

The recipes were there to be chosen from, so they are measured on the validation people alone; the
long runs on the test people too. All are single seeds: intervals are over draws of people.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lfw import Row, read_faces
from real_faces_phone import COUNTS, LEVELS, PAIRS, cells, ends_of, pairs_result
from real_faces_plan import RECIPES, Run

from ekd_lite.evaluate import bootstrap_tpr_at_fpr

if TYPE_CHECKING:
    from real_faces_tables import Nets


def long_runs(nets: Nets) -> Iterator[Row]:
    """A line for every net that learned by one of the recipes, counted by pair and by person."""
    for block, parts in (("recipe", ("validation",)), ("long", ("validation", "test"))):
        for run in nets.finished(block):
            for part in parts:
                yield from _lines(nets, block, run, part)


def _lines(nets: Nets, block: str, run: Run, part: str) -> Iterator[Row]:
    labels = read_faces(nets.data, nets.work, part, size=64).images.labels
    config = run.config
    who = {
        "block": block,
        "row": run.row,
        "backbone": run.backbone,
        "size": str(run.size),
        "recipe": run.recipe,
        "batch": str(RECIPES[run.recipe][0]),
        "optimizer": config.optimizer,
        "learning_rate": f"{config.learning_rate:g}",
        "precision": config.precision,
        "steps": str(run.steps),
        "images": str(run.images),
        "seed": str(run.seed),
        "train_seconds": f"{nets.seconds(run):.0f}",
    }
    for by in COUNTS:
        found = bootstrap_tpr_at_fpr(nets.rows(run, part), labels, LEVELS, seed=0, by=by)  # type: ignore[arg-type]
        line = who | {"on": part, "by": by} | cells(ends_of(found))
        if part == "test":
            line |= cells(ends_of(pairs_result(nets, run)), PAIRS)
        yield line
