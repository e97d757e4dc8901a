"""Does EKD help, and where? The study behind chapter 12, in four regimes, restartable run by run.

    python studies/decisive.py --dry-run       what there is to do, and the hours it takes
    python studies/decisive.py                 go on; every finished run adds a line to `RUNS`

The design, written down before the first run:

- The teacher is the packaged one. Students (tiny_student) learn from its own people ("own"), from
  1,000 people whom it never saw ("new"), from these with 30 % of the labels wrong ("wrong"), or
  from these without any label: no identity loss, no labelled pair, no labelled batch ("none").
- Every row has the same search: its weight in `ROWS` times `GRID`, students of `SEARCH_SEEDS`, at
  the final number of steps, judged on 1,000 validation people by the mean TPR at 1e-3 and 1e-4.
  While the best weight stands at an end of its row, one more is tried there, twice at most.
- Then students of `FINAL_SEEDS` at the chosen weight, on 4,000 test people whom no other study has
  used. Nothing is chosen on them.
- Rows are finished one after the other, in the order of `ROWS`, so that what exists when the
  machine's time is over is whole. What was reached is in `RUNS`; chapter 12 says what was not.

Less than a thorough study would have: three weights a row at first instead of five, one seed in
the search instead of three, five at the end instead of ten, one teacher instead of three, one size
of student and one number of steps; the two regimes that matter to a user first.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import multiprocessing
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import FaceSet, SyntheticFaces, cache_faces
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.files import write_atomically
from ekd_lite.train import Teacher, TrainConfig, fit, load_model

OUT = Path("runs/decisive")
RUNS = Path("data/results/decisive_runs.csv")
LEVELS = (1e-2, 1e-3, 1e-4, 1e-5)
COLUMNS = ["regime", "row", "setting", "stage", "seed", "steps"]
COLUMNS += [f"validation@{level:.0e}".replace("e-0", "e-") for level in LEVELS]
COLUMNS += ["score", "seconds", "commit", "date"]
# first identity, people, images of each: nobody stands in two of them, or in another study.
SETS = {
    "own": (0, 1000, 24),
    "new": (10_000, 1000, 24),
    "validation": (20_000, 1000, 8),
    "calibration": (30_000, 1000, 8),
    "test": (50_000, 4000, 6),
}
STEPS, SEARCH_SEEDS, FINAL_SEEDS = 2500, (100,), (1, 2, 3, 4, 5)
GRID, EXTENSIONS = (0.5, 1.0, 2.0), 2
FITNET = "fitnet:32"
CALIBRATED_AT = 1e-4  # the teacher's threshold, on people of its own set: SETS["calibration"]
# What is searched is the weight of the first method; the others keep theirs. Names are those of
# `ekd_lite.distill.DISTILLERS`: `ekd_labels` is the control without a teacher's rank or decision,
# `ekd_l2` the paper's Eq. 7 on the same pairs.
UNLABELLED = ("ekd_decisions:128", "qud:4", "seed:8", "rkd:2", "sp:300", "shrinkteanet:80")
BESIDE: tuple[str, ...] = ("ekd_decisions:128", "ekd_labels:128", "dkd:2", "kd:16", "ekd_l2:2048")
BESIDE += ("triplet:8",)
SINGLE = ("ekd_gallery:128", "dkd:2", "adadistill:1", "none")
LATER: tuple[str, ...] = (*(f"{name}+{FITNET}" for name in ("ekd_fine:128", "ekd_gallery:128")),)
LATER += (f"qud:4+{FITNET}", f"rkd:2+{FITNET}", "kd:16", "ekd:64")
LEADING: tuple[str, ...] = (FITNET, *(f"{name}+{FITNET}" for name in BESIDE), *SINGLE, *LATER)
REST: tuple[str, ...] = ("ekd_fine:128", "ekd_decisions:128", "ekd_labels:128", "qud:4", "rkd:2")
REST += ("sp:300", "seed:8", "thkd:4", "triplet:8", "margin:1", "pwr:1", "gkd:0.25", "lskd:9")
REST += ("shrinkteanet:80", "cckd:2000", "darkrank:0.5", "arcdistill:1", "ddl:1")
ROWS: dict[str, tuple[str, ...]] = {
    "none": (FITNET, *(f"{name}+{FITNET}" for name in UNLABELLED)),
    "new": (*LEADING, *REST),
    "own": LEADING,
    "wrong": LEADING,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One student."""

    regime: str
    row: str
    setting: str
    stage: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where it is trained."""
        return OUT / self.regime / f"{self.setting.replace(':', '')}-{self.seed}"


def faces_of(name: str) -> FaceSet:
    """A set of `SETS`, rendered once."""
    first, people, images = SETS[name]
    faces = SyntheticFaces(people, images, image_size=32, seed=0, first_identity=first)
    return cache_faces(faces, progress=False)


def scaled(row: str, factor: float) -> str:
    """The row with the weight of its first method multiplied."""
    first, *others = row.split("+")
    name, _, weight = first.partition(":")
    return "+".join([f"{name}:{float(weight) * factor:g}", *others]) if weight else row


def finished() -> list[dict[str, str]]:
    """The lines of `RUNS`."""
    if not RUNS.exists():
        return []
    with RUNS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add(lines: list[dict[str, Any]]) -> None:
    """Write lines behind those of `RUNS`."""
    text = "".join(f"{','.join(str(x[c]) for c in COLUMNS)}\n" for x in [*finished(), *lines])
    write_atomically(RUNS, f"{','.join(COLUMNS)}\n{text}".encode())


def wanted(lines: list[dict[str, str]]) -> list[Run]:
    """The runs that can start now: of every row its search, or what that chose."""
    scores: dict[tuple[str, str, str], list[float]] = {}
    done = {(x["regime"], x["setting"], int(x["seed"])) for x in lines}
    for x in lines:
        if x["stage"] == "search":
            scores.setdefault((x["regime"], x["row"], x["setting"]), []).append(float(x["score"]))
    runs: list[Run] = []
    for regime, rows in ROWS.items():
        for row in rows:
            factors = list(GRID) if ":" in row.split("+")[0] else [1.0]
            for extension in range(EXTENSIONS + 1):
                settings = [scaled(row, factor) for factor in sorted(factors)]
                open_ones = [
                    Run(regime, row, setting, "search", seed)
                    for setting in settings
                    for seed in SEARCH_SEEDS
                    if (regime, setting, seed) not in done
                ]
                if open_ones:
                    break
                means = [sum(s) / len(s) for s in (scores[regime, row, x] for x in settings)]
                best = max(range(len(means)), key=means.__getitem__)
                at_end = len(factors) > 1 and best in (0, len(factors) - 1)
                if not at_end or extension == EXTENSIONS:
                    open_ones = [
                        Run(regime, row, settings[best], "final", seed)
                        for seed in FINAL_SEEDS
                        if (regime, settings[best], seed) not in done
                    ]
                    break
                factors.append(min(factors) / 2 if best == 0 else max(factors) * 2)
            runs += open_ones
    return runs


def labels_with_errors(labels: torch.Tensor, share: float) -> torch.Tensor:
    """A share of the labels replaced by those of others, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(labels), generator=generator) < share
    shift = torch.randint(1, int(labels.max()) + 1, labels.shape, generator=generator)
    return torch.where(wrong, (labels + shift) % (int(labels.max()) + 1), labels)


class Relabelled:
    """Images with other labels."""

    def __init__(self, faces: FaceSet, labels: torch.Tensor) -> None:
        self._faces, self.labels = faces, labels
        self.image_size, self.num_identities = faces.image_size, faces.num_identities

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._faces.batch([index])[0], int(self.labels[index])

    def batch(self, indices: Any) -> torch.Tensor:
        """Images in [-1, 1]."""
        return self._faces.batch(indices)


def train_and_measure(run: Run) -> dict[str, Any]:
    """Train the student of a run, embed validation and, in the end, test people."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    begin = time.process_time()
    faces = faces_of("own" if run.regime == "own" else "new")
    if run.regime == "wrong":
        faces = Relabelled(faces, labels_with_errors(faces.labels, 0.3))
    config = TrainConfig(
        steps=STEPS,
        method=run.setting,
        seed=run.seed,
        device="cpu",
        **extras(run),
    )
    teacher = None if run.setting == "none" else Teacher.from_file(DEMO_TEACHER)
    rows = None if teacher is None else teacher_rows("own" if run.regime == "own" else "new")
    given = None if rows is None else [rows]
    path = fit(config, faces, run.folder, teacher=teacher, teacher_embeddings=given, progress=False)
    net = load_model(path).backbone
    sets = ("validation", "test") if run.stage == "final" else ("validation",)
    tables = {name: embed(net, faces_of(name)) for name in sets}
    write_atomically(run.folder / "rows.safetensors", save(tables))
    labels = faces_of("validation").labels
    tprs = [100 * x for x in all_pairs_tpr_at_fpr(tables["validation"], labels, LEVELS).tolist()]
    names = [name for name in COLUMNS if name.startswith("validation@")]
    return {
        **dataclasses.asdict(run),
        "steps": STEPS,
        **{name: f"{tpr:.3f}" for name, tpr in zip(names, tprs, strict=True)},
        "score": f"{(tprs[1] + tprs[2]) / 2:.3f}",
        "seconds": f"{time.process_time() - begin:.1f}",
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }


def extras(run: Run) -> dict[str, Any]:
    """What a regime and a method ask of the configuration."""
    found: dict[str, Any] = {}
    if run.regime == "none":
        found = {"identity_weight": 0.0, "sampler": "neighbours"}
    if run.regime == "none" or "ekd_decisions" in run.setting:
        teacher, calibration = Teacher.from_file(DEMO_TEACHER), SETS["calibration"]
        path = OUT / "threshold.txt"
        if not path.exists():
            found_at = teacher.threshold_at(faces_of("calibration"), CALIBRATED_AT)
            write_atomically(path, f"{found_at!r}\n{calibration}\n".encode())
        found["teacher_threshold"] = float(path.read_text().split("\n")[0])
    return found


def teacher_rows(name: str) -> torch.Tensor:
    """The teacher's embeddings of a set, made once."""
    path = OUT / f"teacher_{name}.safetensors"
    if not path.exists():
        rows = embed(load_model(DEMO_TEACHER).backbone, faces_of(name))
        write_atomically(path, save({"embeddings": rows}))
    return load_file(path)["embeddings"]


def commit() -> str:
    """Of the code that runs."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Go on with the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--regimes", nargs="*", default=list(ROWS), choices=list(ROWS))
    options = parser.parse_args()
    for name in [name for name in ROWS if name not in options.regimes]:
        del ROWS[name]
    if options.dry_run:
        rows = sum(len(rows) for rows in ROWS.values())
        most = rows * ((len(GRID) + EXTENSIONS) * len(SEARCH_SEEDS) + len(FINAL_SEEDS))
        print(f"{len(finished())} runs are finished, at most {most} are needed: "
              f"some {(most - len(finished())) * 50 / 3600:.1f} core hours")  # fmt: skip
        return
    OUT.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        faces_of(name)  # once, before several processes ask for it
    for name in ("own", "new"):
        teacher_rows(name)
    RUNS.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes) as pool:
        while runs := wanted(finished()):
            for line in pool.imap_unordered(train_and_measure, runs[: 4 * options.processes]):
                add([line])
                print(line["regime"], line["setting"], line["seed"], line["score"], flush=True)


if __name__ == "__main__":
    main()
