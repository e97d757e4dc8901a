"""The tables of `studies/real_faces.py`: numbers about real faces, no picture and no embedding.

    python studies/real_faces_tables.py --data ../shared/data --work /work/runs/real
    python studies/real_faces_tables.py --data ... --work ... --only real_faces_cost

They lie in `data/results/`:

    real_faces_runs.csv      every net: TPR over all pairs of the test people, by pair and by person
    real_faces.csv           the mean of a method's seeds, with intervals over seeds and people
    real_faces_gains.csv     each method minus FitNet without labels, and minus the student alone
    real_faces_failures.csv  TPR and FPR of groups of pairs at one threshold
    real_faces_views.csv     how nearly SFace agrees with itself on changed images
    real_faces_cost.csv      multiply-adds, parameters and milliseconds on one core, float and int8
    lfw_people.csv           how many people of each part have how many images
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from lfw import Row, read_faces, read_index, split_people
from lfw_reference import on_pairs
from real_faces import BARE, BLOCKS, ROWS, STEPS, Run, is_done, sface
from real_faces_failures import failures
from real_faces_views import views
from torch import Tensor

from ekd_lite.evaluate import (
    BootstrapResult,
    all_pairs_tpr_at_fpr,
    bootstrap_tpr_at_fpr,
    embed,
    over_runs,
    paired_difference,
)
from ekd_lite.export import OnnxModel, calibration_images, export_onnx, quantize_int8
from ekd_lite.export.compare import time_interleaved
from ekd_lite.models import profile_backbone
from ekd_lite.train import load_model

OUT = Path(__file__).resolve().parent.parent / "data" / "results"
LEVELS = (1e-2, 1e-3, 1e-4)
TPR = ("tpr@1e-2", "tpr@1e-3", "tpr@1e-4")
TEACHER = "SFace"
COUNTS = ("pair", "person")


class Nets:
    """The embeddings that the nets left, and what is known of the people in them."""

    def __init__(self, data: Path, work: Path) -> None:
        self.data, self.work = data, work
        self.test = read_faces(data, work, "test", size=64)
        runs = dict.fromkeys(run for block in BLOCKS.values() for run in block)
        self.runs = [run for run in runs if is_done(run, work)]

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
        rows, labels = self.rows(run), self.test.images.labels
        return bootstrap_tpr_at_fpr(rows, labels, LEVELS, seed=0, by=by)  # type: ignore[arg-type]

    def pairs_accuracy(self, run: Run | None) -> float:
        """Accuracy on View 1's list of test pairs, ten-fold."""
        number = {file: i for i, file in enumerate(self.test.files)}
        return on_pairs(self.data / "lfw_pairs_devtest.csv", number, self.rows(run), None)[
            0
        ].accuracy

    def methods(self) -> dict[str, list[Run]]:
        """The finished seeds of every method of the comparison."""
        found = defaultdict(list)
        for run in (*BLOCKS["methods"], *BLOCKS.get("batches", ())):
            if run in self.runs:
                found[run.row].append(run)
        return dict(found)


def percent(value: Tensor | float) -> str:
    """A share in percent with two decimals."""
    return f"{100 * float(value):.2f}"


def cells(result: Iterable[Tensor]) -> Row:
    """Estimate and interval at every level."""
    row: Row = {}
    for name, *ends in zip(TPR, *result, strict=True):
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(percent, ends), strict=True))
    return row


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
    for run in (None, *nets.runs):
        who = {"row": TEACHER} if run is None else about(run)
        tail = {"pairs_accuracy": percent(nets.pairs_accuracy(run))}
        tail["train_seconds"] = "" if run is None else f"{nets.seconds(run):.0f}"
        for part in ("test", "validation"):
            labels = read_faces(nets.data, nets.work, part, size=64).images.labels
            for by in COUNTS:
                tpr = all_pairs_tpr_at_fpr(nets.rows(run, part), labels, LEVELS, by=by)  # type: ignore[arg-type]
                shares = dict(zip(TPR, map(percent, tpr), strict=True))
                yield (
                    dict.fromkeys(about(nets.runs[0]), "")
                    | who
                    | {"on": part, "by": by}
                    | shares
                    | tail
                )


def means(nets: Nets) -> Iterator[Row]:
    """A line for every method: the mean of its seeds."""
    for by in COUNTS:
        result = nets.result(None, by)
        yield {"row": TEACHER, "by": by, "seeds": "0"} | cells(_ends(result))
        for row, runs in nets.methods().items():
            if len(runs) > 1:
                result = over_runs([nets.result(run, by) for run in runs])
                yield {"row": row, "by": by, "seeds": str(len(runs))} | cells(_ends(result))


def _ends(result: BootstrapResult) -> tuple[Tensor, Tensor, Tensor]:
    return result.estimate, result.low, result.high


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


def cost(nets: Nets) -> Iterator[Row]:
    """What the nets cost, and what int8 does to them: the seed 0 of FitNet without labels."""
    labels = nets.test.images.labels
    plain = [r for r in nets.runs if (r.row, r.seed, r.share, r.drawn) == (BARE, 0, 1, False)]
    plain = sorted((run for run in plain if run.steps <= STEPS), key=lambda run: run.steps)
    best = {(run.backbone, run.size): run for run in plain}  # the longest of each
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        teacher = sface(nets.work)
        image = read_faces(nets.data, nets.work, "test", size=112).images.batch([0])
        times = time_interleaved({TEACHER: teacher}, image, rounds=10, calls=3)
        yield {
            "net": TEACHER,
            "size": "112",
            "parameters": "9670000",
            "macs": "",
            "format": "ONNX, int8 weights",
            "ms": f"{times[TEACHER]:.1f}",
        }
        for (backbone, size), run in sorted(best.items()):
            model = load_model(nets.work / run.name / "model.safetensors")
            profile = profile_backbone(model.backbone, image_size=size, repeats=5)
            float_path, small = path / "float.onnx", path / "int8.onnx"
            export_onnx(model.backbone, float_path, info=model.info)
            train = read_faces(nets.data, nets.work, "train", size=size).images
            quantize_int8(float_path, small, calibration=calibration_images(train))
            seen = read_faces(nets.data, nets.work, "test", size=size).images
            sessions = {
                name: OnnxModel(file, threads=1)
                for name, file in (("ONNX, float32", float_path), ("ONNX, int8", small))
            }
            times = time_interleaved(sessions, seen.batch([0]), rounds=20)
            for name, session in sessions.items():
                rows = embed(session, seen)
                found: Row = {}
                for by in COUNTS:
                    tpr = all_pairs_tpr_at_fpr(rows, labels, LEVELS, by=by)  # type: ignore[arg-type]
                    found |= {f"{n}_by_{by}": percent(t) for n, t in zip(TPR, tpr, strict=True)}
                head = {"net": backbone, "size": str(size), "steps": str(run.steps)}
                head |= {"parameters": str(profile.parameters)}
                yield (
                    head
                    | {"macs": str(profile.macs), "format": name, "ms": f"{times[name]:.2f}"}
                    | found
                )


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
    "real_faces_failures": failures,
    "real_faces_views": views,
    "real_faces_cost": cost,
    "lfw_people": people,
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
        rows = list(TABLES[name](nets))
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (options.out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"{name}.csv: {len(rows)} lines", flush=True)


if __name__ == "__main__":
    main()
