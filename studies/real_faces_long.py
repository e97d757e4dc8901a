"""Recipes and long runs of `studies/real_faces.py`: two tables of `real_faces_tables.py`.

The recipes were there to be chosen from, so they are measured on the validation people alone; the
long runs on the test people too. These are single seeds: intervals are over draws of people. The
rows of block "later" have several seeds: the intervals of their means and of their difference are
over seeds and people.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lfw import Row, read_faces
from real_faces_phone import (
    COUNTS,
    LEVELS,
    PAIRS,
    cells,
    difference_of,
    ends_of,
    mean_of,
    pairs_result,
)
from real_faces_plan import LATER, RECIPES, Run

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


def later_runs(nets: Nets) -> Iterator[Row]:
    """EKD by decisions beside FitNet and FitNet, and the first minus the second, in long runs."""
    found = {row: [run for run in nets.finished("later") if run.row == row] for row in LATER}
    seeds = sorted(set.intersection(*({run.seed for run in runs} for runs in found.values())))
    for by in COUNTS:
        sides, lists = [], []
        for row, runs in found.items():
            kept = [run for run in runs if run.seed in seeds]
            sides.append([nets.result(run, by) for run in kept])
            lists.append([pairs_result(nets, run) for run in kept])
            head = {"row": row, "minus": "", "steps": str(kept[0].steps), "by": by}
            head |= {"seeds": str(len(kept))} | cells(ends_of(mean_of(sides[-1])))
            yield head | cells(ends_of(mean_of(lists[-1])), PAIRS)
        head |= {"row": LATER[1], "minus": LATER[0]} | cells(difference_of(sides[1], sides[0]))
        yield head | cells(difference_of(lists[1], lists[0]), PAIRS)
