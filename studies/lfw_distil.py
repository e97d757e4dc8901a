"""Distil a public face recogniser into a small student on real faces: LFW's development split.

    python studies/lfw_distil.py --data ../shared/data --work /tmp/lfw_distil

The data folder holds `lfw112/IDENTITY/FILE.jpg` (aligned), `lfw_index.csv`, `lfw_pairs_devtest.csv`
and the teacher's embeddings, `lfw_sface_embeddings.npy`. The table, `data/results/lfw_distil.csv`,
holds numbers only. Its rows come in stages:

    choose    margin and weights, one seed, TPR over all pairs of the *validation* people
    final     chosen settings, three seeds, all pairs of the *test* people, with intervals
    size      distillation without labels from fewer people, and into a larger net
    mean      of the seeds, with intervals over draws of people
    minus     that of a method minus that of "none", intervals over the same draws; or, stage
              minus_fitnet, minus that of FitNet with labels

A row is written as soon as its run is done; a second call goes on where the first was stopped.
`studies/lfw_failures.py` looks into the mistakes afterwards.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from lfw_reference import on_pairs
from torch import Tensor

from ekd_lite.data import ImageFolder, PackedFaces, cache_faces
from ekd_lite.data.splits import Selection
from ekd_lite.evaluate import (
    BootstrapResult,
    all_pairs_tpr_at_fpr,
    bootstrap_tpr_at_fpr,
    embed,
    paired_difference,
)
from ekd_lite.experiments import over_seeds
from ekd_lite.train import Model, Teacher, TrainConfig, fit, load_model

FILES = ("lfw112", "lfw_index.csv", "lfw_sface_embeddings.npy", "lfw_pairs_devtest.csv")
OUT = Path(__file__).resolve().parent.parent / "data" / "results" / "lfw_distil.csv"
LEVELS = (1e-2, 1e-3, 1e-4, 1e-5)
CHOOSE_AT = 1e-3  # the level at which validation decides
SIZE, STEPS, DIM, SCALE = 32, 1000, 128, 28.0
SEEDS = (0, 1, 2)
MARGINS = (0.0, 0.2, 0.4)
WEIGHTS = {"kd": (2, 8, 32), "fitnet": (4, 16, 64), "ekd": (4, 16, 64)}
EXTRA_WEIGHTS = (8, 32, 128)
SHARES = (0.25, 0.5)  # of the training people, for stage "size"
TPR = [f"tpr@{level:.0e}".replace("e-0", "e-") for level in LEVELS]
COLUMNS = ["stage", "method", "labels", "backbone", "people", "images", "margin", "seed", "on"]
COLUMNS += [*TPR, *(f"{n}_{end}" for n in TPR for end in ("low", "high"))]
COLUMNS += ["pairs_accuracy", "train_seconds"]
Row = dict[str, str]


@dataclass(frozen=True)
class Faces:
    """Real faces of some people, and what the teacher makes of them.

    Attributes:
        images: the faces, labels counted from 0.
        teacher: the teacher's embeddings, (N, D').
        files: names of the images, as in the index.
    """

    images: Selection
    teacher: Tensor
    files: list[str]


@dataclass(frozen=True)
class Run:
    """One training run of the table."""

    stage: str
    method: str
    seed: int
    margin: float
    labels: bool = True
    backbone: str = "tiny_student"
    share: float = 1.0

    @property
    def name(self) -> str:
        """Its folder; a run that two stages ask for is trained once."""
        method = self.method.replace(":", "-") + ("" if self.labels else "-no-labels")
        return f"{method}_m{self.margin:g}_{self.backbone}_{self.share:g}_seed{self.seed}"


def read_index(data: Path) -> list[Row]:
    """The rows of the index; each has a row of the teacher's array."""
    with (data / "lfw_index.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def split_people(index: list[Row]) -> dict[str, list[str]]:
    """Training, validation and test people: LFW's View 1, and a tenth of its training people.

    Ordered by their number of images, every tenth is for validation, so that both parts have as
    many images a person.
    """
    images: dict[str, int] = {}
    split = {row["identity"]: row["dev_split"] for row in index}
    for row in index:
        images[row["identity"]] = images.get(row["identity"], 0) + 1
    known = sorted((p for p in split if split[p] == "train"), key=lambda p: (-images[p], p))
    validation = set(known[9::10])
    return {
        "train": sorted(set(known) - validation),
        "validation": sorted(validation),
        "test": sorted(p for p in split if split[p] == "test"),
    }


@cache
def read_all(data: Path, work: Path) -> tuple[ImageFolder, PackedFaces, Tensor]:
    """Files, pixels and teacher's embeddings of all images, one order for all three."""
    index = read_index(data)
    rows = np.load(data / "lfw_sface_embeddings.npy", allow_pickle=False)
    if rows.shape != (len(index), DIM):
        raise ValueError(f"{len(index)} images in the index, embeddings of shape {rows.shape}")
    folder = ImageFolder(data / "lfw112", image_size=SIZE)
    place = {row["file"]: i for i, row in enumerate(index)}
    files = [file.relative_to(folder.root).as_posix() for file in folder.files]
    if sorted(files) != sorted(place):
        raise ValueError(f"{len(index)} images in the index, other {len(files)} in {folder.root}")
    teacher = torch.from_numpy(rows).float()[[place[file] for file in files]]
    teacher = teacher / teacher.square().mean().sqrt()  # one constant: directions stay
    return folder, cache_faces(folder, work / "faces", workers=1), teacher


@cache
def read_faces(data: Path, work: Path, part: str, share: float = 1.0, seed: int = 0) -> Faces:
    """The faces of the training, validation or test people, or of a random share of them."""
    folder, packed, teacher = read_all(data, work)
    people = split_people(read_index(data))[part]
    order = torch.randperm(len(people), generator=torch.Generator().manual_seed(seed))
    kept = order[: round(share * len(people))].sort().values.tolist()
    number = {person: label for label, person in enumerate(folder.identities)}
    identities = torch.tensor([number[people[i]] for i in kept])
    own = torch.isin(packed.labels, identities).nonzero().flatten()
    files = [folder.files[i].relative_to(folder.root).as_posix() for i in own.tolist()]
    return Faces(Selection(packed, identities), teacher[own], files)


def train(run: Run, data: Path, work: Path) -> Model:
    """Train a net, or read the one that an earlier call trained."""
    faces = read_faces(data, work, "train", run.share, run.seed)
    folder = work / run.name
    config = TrainConfig(
        backbone=run.backbone,
        image_size=SIZE,
        embedding_dim=DIM,
        scale=SCALE,
        margin=run.margin,
        method=run.method,
        identity_weight=float(run.labels),
        steps=STEPS,
        flip=True,
        seed=run.seed,
        device="cpu",
    )
    teacher = None
    if run.method != "none":
        # Half of the images are mirrored; their target is the embedding of the image as it is.
        teacher = Teacher.from_rows(faces.teacher, mirrored=faces.teacher)
    return load_model(fit(config, faces.images, folder, teacher=teacher))


def carry_out(task: tuple[Run, Path, Path]) -> Row:
    """Train and measure one run: its row of the table."""
    run, data, work = task
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = train(run, data, work)
    on = "validation" if run.stage == "choose" else "test"
    seen = read_faces(data, work, "train", run.share, run.seed).images
    rows = embed(model.backbone, read_faces(data, work, on).images)
    row = measure(rows, on, data, work, work / run.name)
    return row | {
        "stage": run.stage,
        "method": run.method,
        "labels": "yes" if run.labels else "no",
        "backbone": run.backbone,
        "people": str(seen.num_identities),
        "images": str(len(seen)),
        "margin": f"{run.margin:g}",
        "seed": str(run.seed),
        "train_seconds": str(model.info["train_seconds"]),
    }


def measure(rows: Tensor, on: str, data: Path, work: Path, folder: Path) -> Row:
    """TPR over all pairs in percent, and the accuracy on the test people's 1,000 pairs.

    Embeddings and draws of the test people stay in the folder, for the stages that compare nets.
    """
    faces = read_faces(data, work, on)
    if on == "validation":  # no intervals: choices are made on the estimate
        tpr = all_pairs_tpr_at_fpr(rows, faces.images.labels, LEVELS[:3])
        return {"on": on, **dict(zip(TPR, map(percent, tpr), strict=False))}
    # One seed, so that all results share the draws of people.
    result = bootstrap_tpr_at_fpr(rows, faces.images.labels, LEVELS, seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"embeddings": rows, "estimate": result.estimate, "samples": result.samples}
    np.savez(folder / "test.npz", **{name: array.numpy() for name, array in arrays.items()})  # type: ignore[arg-type]
    number = {file: i for i, file in enumerate(faces.files)}
    pairs = on_pairs(data / "lfw_pairs_devtest.csv", number, rows, None)[0]
    ends = intervals(result.estimate, result.low, result.high)
    return {"on": on, "pairs_accuracy": percent(pairs.accuracy), **ends}


def intervals(estimate: Tensor, low: Tensor, high: Tensor) -> Row:
    """The columns of TPR and of its intervals."""
    row: Row = {}
    for m, name in enumerate(TPR):
        row |= {name: percent(estimate[m]), f"{name}_low": percent(low[m])}
        row[f"{name}_high"] = percent(high[m])
    return row


def percent(value: Tensor | float) -> str:
    """A share in percent with two decimals; empty for NaN."""
    return "" if value != value else f"{100 * float(value):.2f}"


class Table:
    """The table on disk; rows are added one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path.exists():
            with path.open(encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    def add(self, row: Row) -> None:
        """Write a row; the file is whole after every one."""
        row = dict.fromkeys(COLUMNS, "") | row
        self.rows.append(row)
        new = self.path.with_suffix(".tmp")
        with new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        new.replace(self.path)
        shown = " ".join(f"{n} {row[n]}" for n in (*TPR, "train_seconds") if row.get(n))
        print(f"{row['stage']:8} {row['method']:22} labels {row.get('labels', '-'):3} "
              f"seed {row.get('seed', '-')}: {shown}", flush=True)  # fmt: skip

    def has(self, run: Run, people: int) -> bool:
        """Whether a run's row is there."""
        about = (run.stage, run.method, "yes" if run.labels else "no", run.backbone)
        key = (*about, str(people), f"{run.margin:g}", str(run.seed))
        names = ("stage", "method", "labels", "backbone", "people", "margin", "seed")
        return any(tuple(row[n] for n in names) == key for row in self.rows)

    def remove(self, *stages: str) -> None:
        """Forget the rows of some stages, which are made anew."""
        self.rows = [row for row in self.rows if row["stage"] not in stages]

    def best(self, method: str, margin: float | None = None) -> Row:
        """The chosen row of a method, whatever its weights."""
        family = [
            row
            for row in self.rows
            if row["stage"] == "choose"
            and names_of(row["method"]) == names_of(method)
            and (margin is None or row["margin"] == f"{margin:g}")
        ]
        return max(family, key=lambda row: float(row[TPR[LEVELS.index(CHOOSE_AT)]]))


def names_of(method: str) -> list[str]:
    """The losses of a method without their weights."""
    return [part.split(":")[0] for part in method.split("+")]


def stages(table: Table, extra: list[str]) -> Iterable[list[Run]]:
    """The runs of every stage; a later stage rests on the choices of an earlier one."""
    yield [Run("choose", "none", 0, margin) for margin in MARGINS]
    margin = float(table.best("none")["margin"])
    first = Run("choose", "none", 0, margin)
    families = {name: [f"{name}:{w}" for w in weights] for name, weights in WEIGHTS.items()}
    for pattern in extra:
        families[pattern] = [pattern.replace("W", str(w)) for w in EXTRA_WEIGHTS]
    yield [replace(first, method=method) for family in families.values() for method in family]
    chosen = {k: table.best(methods[0], margin)["method"] for k, methods in families.items()}
    methods = ["none", *chosen.values(), f"{chosen['ekd']}+{chosen['fitnet']}"]
    first = replace(first, stage="final")
    last = replace(first, method=chosen["fitnet"], labels=False)
    for seed in SEEDS:
        yield [replace(first, method=m, seed=seed) for m in methods] + [replace(last, seed=seed)]
    yield [replace(last, stage="size", share=share, seed=s) for share in SHARES for s in SEEDS]
    yield [replace(last, stage="size", backbone="tiny_teacher", seed=s) for s in SEEDS]


def compare(table: Table, work: Path) -> None:
    """Means over seeds and differences from the student alone, intervals over people."""

    def mean_result(rows: list[Row]) -> BootstrapResult:
        return over_seeds([read_result(work / run_of(row).name) for row in rows])

    table.remove("mean", "minus", "minus_fitnet")
    final = [row for row in table.rows if row["stage"] == "final" and row["seed"]]
    by_method: dict[tuple[str, str], list[Row]] = {}
    for row in final:
        by_method.setdefault((row["method"], row["labels"]), []).append(row)
    results = {key: mean_result(rows) for key, rows in by_method.items()}
    alone = ("none", "yes")
    fitnet = next(key for key in results if names_of(key[0]) == ["fitnet"] and key[1] == "yes")
    for key, result in results.items():
        shared = {name: by_method[key][0][name] for name in COLUMNS[1:7]} | {"on": "test"}
        ends = intervals(result.estimate, result.low, result.high)
        table.add({"stage": "mean", **shared, **ends})
        for stage, other in (("minus", alone), ("minus_fitnet", fitnet)):
            if key != other:
                difference = paired_difference(result, results[other])
                table.add({"stage": stage, **shared, **intervals(*difference)})


def read_result(folder: Path) -> BootstrapResult:
    """What `measure` kept."""
    arrays = np.load(folder / "test.npz", allow_pickle=False)
    estimate, samples = (torch.from_numpy(arrays[name]) for name in ("estimate", "samples"))
    return BootstrapResult(LEVELS, estimate, estimate, estimate, samples)


def run_of(row: Row) -> Run:
    """The run that a row of stage "final" came from."""
    return Run(
        "final",
        row["method"],
        int(row["seed"]),
        float(row["margin"]),
        labels=row["labels"] == "yes",
        backbone=row["backbone"],
    )


def main() -> None:
    """Read the arguments and do what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the LFW files")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and pixels")
    parser.add_argument("--out", type=Path, default=OUT, help="the table")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument(
        "--extra", nargs="*", default=[], help="more methods, such as ekd:W+fitnet:64"
    )
    options = parser.parse_args()
    missing = [name for name in FILES if not (options.data / name).exists()]
    if missing:
        sys.exit(f"{options.data} lacks {', '.join(missing)}; no face is in this repository")
    torch.set_num_threads(1)
    if options.work.resolve().is_relative_to(OUT.parents[2]):
        sys.exit("--work must lie outside of the repository: it will hold pictures of real people")
    folders = (options.data.resolve(), options.work.resolve())
    table = Table(options.out)
    if not any(row["method"] == "SFace" for row in table.rows):
        teacher = read_faces(*folders, "test").teacher
        row = measure(teacher, "test", *folders, folders[1] / "SFace")
        table.add({"stage": "final", "method": "SFace", "people": "", **row})
    people = read_faces(*folders, "train").images.num_identities
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for runs in stages(table, options.extra):
            todo = [run for run in runs if not table.has(run, round(run.share * people))]
            for row in pool.imap(carry_out, [(run, *folders) for run in todo]):
                table.add(row)
    compare(table, folders[1])


if __name__ == "__main__":
    main()
