"""The tables of `studies/real_faces.py`: numbers about real faces, no picture and no embedding.

    python studies/real_faces_tables.py --data ../shared/data --work /work/runs/real
    python studies/real_faces_tables.py --data ... --work ... --only real_faces_cost

They lie in `data/results/`:

    real_faces_runs.csv      every net: TPR over all pairs of the test people, by pair and by person
    real_faces.csv           the mean of a method's seeds, with intervals over seeds and people
    real_faces_gains.csv     each method minus FitNet without labels, and minus the student alone
    real_faces_views.csv     how nearly SFace agrees with itself on changed images
    real_faces_cost.csv      multiply-adds, parameters and milliseconds on one core, float and int8
    real_faces_phone*.csv    MobileFaceNet's runs, means and differences (`real_faces_phone.py`)
    real_faces_long.csv      recipes on validation people, and the nets of the longest runs
    real_faces_later.csv     EKD by decisions beside FitNet, and FitNet, after twice the steps
    real_faces_groups.csv    MobileFaceNet's TPR by person and FPR of groups, with intervals
    lfw_people.csv           how many people of each part have how many images
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from lfw import Row, read_faces, read_index, split_people
from lfw_reference import on_pairs
from real_faces import is_done
from real_faces_cost import cost
from real_faces_groups import groups
from real_faces_long import later_runs, long_runs
from real_faces_phone import (
    COUNTS,
    LEVELS,
    TEACHER,
    TPR,
    cells,
    ends_of,
    percent,
    phone_gains,
    phone_means,
    phones,
)
from real_faces_plan import BARE, BLOCKS, ROWS, Run
from real_faces_views import views
from torch import Tensor

from ekd_lite.evaluate import (
    BootstrapResult,
    all_pairs_tpr_at_fpr,
    bootstrap_tpr_at_fpr,
    over_runs,
    paired_difference,
)

OUT = Path(__file__).resolve().parent.parent / "data" / "results"


class Nets:
    """The embeddings that the nets left, and what is known of the people in them."""

    def __init__(self, data: Path, work: Path) -> None:
        self.data, self.work = data, work
        self.test = read_faces(data, work, "test", size=64)
        runs = dict.fromkeys(run for block in BLOCKS.values() for run in block)
        self.runs = [run for run in runs if is_done(run, work)]
        self.kept: dict[str, BootstrapResult] = {}  # what several tables ask for

    def rows(self, run: Run | None, part: str = "test") -> Tensor:
        """Embeddings of a part's people, by a student or, None, by the teacher."""
        if run is None:
            return read_faces(self.data, self.work, part, size=64).teacher
        arrays = np.load(self.work / run.name / "rows.npz", allow_pickle=False)
        return torch.from_numpy(arrays[part]).float()

    def seconds(self, run: Run) -> float:
        """How long a student was trained."""
        return float(np.load(self.work / run.name / "rows.npz")["train_seconds"])

    def result(self, run: Run | None, by: str) -> BootstrapResult:
        """TPR of the test people; one seed, so that all share the draws of people."""
        key = f"{by} of {run.name if run else TEACHER}"
        if key not in self.kept:
            rows, labels = self.rows(run), self.test.images.labels
            self.kept[key] = bootstrap_tpr_at_fpr(rows, labels, LEVELS, seed=0, by=by)  # type: ignore[arg-type]
        return self.kept[key]

    def pairs_accuracy(self, run: Run | None) -> float:
        """Accuracy on View 1's list of test pairs, ten-fold."""
        number = {file: i for i, file in enumerate(self.test.files)}
        return on_pairs(self.data / "lfw_pairs_devtest.csv", number, self.rows(run), None)[
            0
        ].accuracy

    def finished(self, block: str) -> list[Run]:
        """The runs of a block that are done."""
        return [run for run in BLOCKS.get(block, ()) if run in self.runs]

    def methods(self) -> dict[str, list[Run]]:
        """The finished seeds of every method of the comparison."""
        found = defaultdict(list)
        for run in (*self.finished("methods"), *self.finished("batches")):
            found[run.row].append(run)
        return dict(found)


def about(run: Run) -> Row:
    """What a student was."""
    row = ROWS[run.row]
    return {
        "row": run.row,
        "method": row.method,
        "labels": "yes" if row.labels else "no",
        "backbone": run.backbone,
        "size": str(run.size),
        "share": f"{run.share:g}",
        "drawn": "yes" if run.drawn else "no",
        "steps": str(run.steps),
        "seed": str(run.seed),
    }


def every_net(nets: Nets) -> Iterator[Row]:
    """A line for the teacher and for every student, of the test and the validation people."""
    yield from _lines(nets, [run for run in nets.runs if not run.recipe])


def phone_runs(nets: Nets) -> Iterator[Row]:
    """The same for the students that are MobileFaceNets."""
    yield from _lines(nets, [run for runs in phones(nets).values() for run in runs])


def _lines(nets: Nets, runs: list[Run]) -> Iterator[Row]:
    for run in (None, *runs):
        who = {"row": TEACHER} if run is None else about(run)
        tail = {"pairs_accuracy": percent(nets.pairs_accuracy(run))}
        tail["train_seconds"] = "" if run is None else f"{nets.seconds(run):.0f}"
        for part in ("test", "validation"):
            labels = read_faces(nets.data, nets.work, part, size=64).images.labels
            for by in COUNTS:
                tpr = all_pairs_tpr_at_fpr(nets.rows(run, part), labels, LEVELS, by=by)  # type: ignore[arg-type]
                shares = dict(zip(TPR, map(percent, tpr), strict=True))
                yield (
                    dict.fromkeys(about(runs[0]), "") | who | {"on": part, "by": by} | shares | tail
                )


def means(nets: Nets) -> Iterator[Row]:
    """A line for every method: the mean of its seeds."""
    for by in COUNTS:
        result = nets.result(None, by)
        yield {"row": TEACHER, "by": by, "seeds": "0"} | cells(ends_of(result))
        for row, runs in nets.methods().items():
            if len(runs) > 1:
                result = over_runs([nets.result(run, by) for run in runs])
                yield {"row": row, "by": by, "seeds": str(len(runs))} | cells(ends_of(result))


def gains(nets: Nets) -> Iterator[Row]:
    """Differences of methods, seed by seed and over the same draws of people."""
    methods = {row: runs for row, runs in nets.methods().items() if len(runs) > 1}
    for by in COUNTS:
        results = {row: [nets.result(run, by) for run in runs] for row, runs in methods.items()}
        for other in (BARE, "fitnet", "alone"):
            for row, found in results.items():
                count = min(len(found), len(results.get(other, [])))
                if row != other and count > 1:
                    first, second = found[:count], results[other][:count]
                    difference = paired_difference(first, second, runs=range(count))
                    head = {"row": row, "minus": other, "by": by, "seeds": str(count)}
                    yield head | cells(difference)


def people(nets: Nets) -> Iterator[Row]:
    """How many people of each part have how many images."""
    index = read_index(nets.data)
    images = Counter(row["identity"] for row in index)
    for part, names in split_people(index).items():
        counts = Counter(images[name] for name in names)
        for n in sorted(counts):
            yield {"part": part, "images": str(n), "people": str(counts[n])}


TABLES = {
    "real_faces_runs": every_net,
    "real_faces": means,
    "real_faces_gains": gains,
    "real_faces_views": views,
    "real_faces_cost": cost,
    "real_faces_phone_runs": phone_runs,
    "real_faces_phone": phone_means,
    "real_faces_phone_gains": phone_gains,
    "real_faces_groups": groups,
    "real_faces_long": long_runs,
    "real_faces_later": later_runs,
    "lfw_people": people,
}
# A table stays as it is where the work folder holds no run of the blocks that it is about.
ABOUT = {
    **dict.fromkeys(("real_faces_runs", "real_faces", "real_faces_gains"), ("methods",)),
    **dict.fromkeys(("real_faces_phone_runs", "real_faces_phone"), ("phone64", "phone112")),
    **dict.fromkeys(("real_faces_phone_gains", "real_faces_groups"), ("phone64", "phone112")),
    "real_faces_long": ("recipe", "long"),
    "real_faces_later": ("later",),
}


def main() -> None:
    """Read the arguments and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the LFW files")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    nets = Nets(options.data.resolve(), options.work.resolve())
    for name in options.only:
        blocks = ABOUT.get(name)
        if blocks and not any(map(nets.finished, blocks)):
            asked = " or ".join(blocks)
            print(f"{name}.csv stays as it is: {options.work} holds no run of block {asked}")
            continue
        rows = list(TABLES[name](nets))
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (options.out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"{name}.csv: {len(rows)} lines", flush=True)


if __name__ == "__main__":
    main()
