"""Run a study: search, final students, tables. It goes on run by run wherever it was stopped."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import os
import subprocess
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

import ekd_lite
from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import FaceSet
from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, count_pairs, embed
from ekd_lite.experiments.folders import record_options
from ekd_lite.experiments.runner import OnStep, Runner
from ekd_lite.experiments.study_plan import OWN, PACKAGED, Regime, Run, StudyPlan
from ekd_lite.experiments.study_report import EMBEDDINGS, draws_of, write_study
from ekd_lite.experiments.study_search import students_left, wanted
from ekd_lite.experiments.tables import FPRS, level, write_table
from ekd_lite.files import locked_folder, write_atomically
from ekd_lite.ops import false_accepts_at
from ekd_lite.train import Teacher, TrainConfig, fit, load_model
from ekd_lite.train.distributed import pick_device
from ekd_lite.train.teacher_fit import asks_for_people

RUNS = "runs.csv"  # a line for every finished student


def run_study(plan: StudyPlan, out: Path, *, resamples: int | None = None) -> Path:
    """Do what is not done yet, and return the path of study.csv.

    Rows may join a folder later: what is finished stays as it is, and is in the tables.

    Args:
        plan: the study.
        out: folder of the runs and the tables.
        resamples: draws behind every interval, if not as many as the plan says.

    Raises:
        FileNotFoundError: no file of the teacher.
        ValueError: results of other options in `out`, another process that is writing there, a
            teacher that cannot be, or people too few for the levels.
        RuntimeError: a run failed; its own message and trace are in its folder.
    """
    with locked_folder(out):
        return _run(plan, out, plan.resamples if resamples is None else resamples)


def _run(plan: StudyPlan, out: Path, resamples: int) -> Path:
    """`run_study`, alone in its folder."""
    teacher, threshold = _prepare(plan, out)
    processes = plan.processes or os.cpu_count() or 1
    while runs := wanted(plan, lines := read_runs_table(out)):
        left = sum(most for _, most in students_left(plan, lines).values())
        now = {run.name: run for run in runs[: 4 * processes]}  # then it is seen what comes next
        work = StudyWork(plan, out, teacher, now, resamples)
        configs = {name: plan.config_of(run, threshold=threshold) for name, run in now.items()}
        label = f"{len(now)} of at most {left} students"
        Runner(work, configs, label, processes=processes).run()
    return write_study(plan, out, read_runs_table(out), resamples)


def read_runs_table(out: Path) -> list[dict[str, str]]:
    """The lines of runs.csv."""
    if not (out / RUNS).exists():
        return []
    with (out / RUNS).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _prepare(plan: StudyPlan, out: Path) -> tuple[Path, float | None]:
    """Render the people; find or train the teacher, its rows and its threshold.

    Returns:
        The teacher's file, and the cosine from which it accepts a pair.
    """
    size = plan.student.image_size
    _check_levels(plan)
    if isinstance(plan.teacher, TrainConfig):
        file = out / "teacher"
        record_options(out, plan.shared() | {"teacher": json.loads(plan.teacher.to_json())})
        _render(plan)
        fit(plan.teacher, plan.sets[OWN].faces(size), file)
        teacher = _open_teacher(file, size)
    else:
        file = DEMO_TEACHER if plan.teacher == PACKAGED else Path(plan.teacher)
        teacher = _open_teacher(file, size)
        record_options(out, plan.shared() | {"teacher": teacher.origin(head=False)["teacher"]})
        _render(plan)
    teacher.to(pick_device(plan.student.device))
    for name in {regime.people for regime in plan.regimes.values() if regime.rows}:
        if not teacher_rows(out, name).exists():
            rows = embed(teacher, plan.sets[name].faces(size), progress="teacher")
            write_atomically(teacher_rows(out, name), save({"embeddings": rows}))
    if not plan.needs_threshold:
        return file, None
    path = out / "threshold.txt"
    if not path.exists():
        found = teacher.threshold_at(plan.sets["calibration"].faces(size), plan.calibrated_at)
        write_atomically(path, f"{found!r}\n".encode())
    return file, float(path.read_text(encoding="utf-8").split("\n")[0])


def _render(plan: StudyPlan) -> None:
    """Render all people once, before several processes ask for them."""
    for people in plan.sets.values():
        people.faces(plan.student.image_size, progress=True)


def _check_levels(plan: StudyPlan) -> None:
    """Refuse levels that validation or test people cannot show, before anything is trained."""
    for name in ("validation", "test"):
        people = plan.sets[name]
        labels = torch.arange(people.people).repeat_interleave(people.images)
        num_impostor = count_pairs(labels)[1]
        for fpr in plan.choose_at:
            if not false_accepts_at(fpr, num_impostor):
                raise ValueError(
                    f"the {num_impostor:,} impostor pairs of the {name} people cannot show FPR "
                    f"{level(fpr)}: give choose_at larger rates"
                )


def _open_teacher(file: Path, size: int) -> Teacher:
    """A teacher with a net that takes the students' images."""
    teacher = Teacher.from_file(file)
    if teacher.net is None or teacher.input_size not in (None, size):
        takes = "is a table of rows"
        if teacher.net is not None:
            takes = f"takes images of {teacher.input_size} pixels"
        raise ValueError(f"{file} {takes}: a study needs a net for the students' images, {size}")
    return teacher


def teacher_rows(out: Path, name: str) -> Path:
    """The file of the teacher's embeddings of a set."""
    return out / f"teacher_{name}.safetensors"


@dataclass(frozen=True)
class StudyWork:
    """What a process does with one student.

    Attributes:
        plan: the study.
        out: its folder.
        teacher: the teacher's file.
        runs: the students by name.
        resamples: draws behind the intervals.
    """

    plan: StudyPlan
    out: Path
    teacher: Path
    runs: dict[str, Run]
    resamples: int

    def is_finished(self, name: str, run: TrainConfig) -> bool:
        """Never: those that are finished stand in runs.csv, and nobody asks for them."""
        return False

    def do(self, name: str, run: TrainConfig, on_step: OnStep) -> dict[str, Any]:
        """Train a student, embed validation and, in the end, test people: its line of runs.csv."""
        warnings.simplefilter("ignore")  # every run would say it again
        begin = time.process_time()
        student, size = self.runs[name], run.image_size
        regime, folder = self.plan.regimes[student.regime], self.out / name
        faces: FaceSet = self.plan.sets[regime.people].faces(size)
        if regime.wrong_labels:
            faces = Relabelled(faces, labels_with_errors(faces.labels, regime.wrong_labels))
        teacher, given = None, None
        if run.method != "none":
            teacher = self._teacher(regime, run.method)
            given = [load_file(teacher_rows(self.out, regime.people))["embeddings"]]
        path = fit(
            run,
            faces,
            folder,
            teacher=teacher,
            teacher_embeddings=given,
            progress=False,
            on_step=on_step,
        )
        net = load_model(path, device=pick_device(run.device)).backbone
        names = ("validation", "test") if student.stage == "final" else ("validation",)
        sets = {name: self.plan.sets[name].faces(size) for name in names}
        tables = {name: embed(net, people) for name, people in sets.items()}
        write_atomically(folder / EMBEDDINGS, save(tables))
        line = {
            **dataclasses.asdict(student),
            "steps": run.steps,
            **self._validation(tables["validation"], sets["validation"].labels),
            "seconds": f"{time.process_time() - begin:.1f}",
            "commit": code_version(),
            "date": datetime.date.today().isoformat(),
        }
        if "test" in sets:
            draws_of(folder, sets["test"].labels, self.plan.choose_at, self.resamples)
        return line

    def _teacher(self, regime: Regime, method: str) -> Teacher:
        """The teacher; where it would have to know its pupils' people and does not, without head.

        `fit` then takes the means of its rows by label for the prototypes that it lacks.
        """
        teacher = Teacher.from_file(self.teacher)
        asked = any(asks_for_people(DISTILLERS[name]) for name in parse_method(method))
        if asked and (regime.people != OWN or regime.wrong_labels):
            teacher.head = teacher.people = None
        return teacher

    def _validation(self, rows: Tensor, labels: Tensor) -> dict[str, str]:
        """The columns of the validation people: TPR in percent, and what is chosen by."""
        levels = (*FPRS, *self.plan.choose_at)
        tprs = [100 * tpr for tpr in all_pairs_tpr_at_fpr(rows, labels, levels).tolist()]
        shown, judged = tprs[: len(FPRS)], tprs[len(FPRS) :]
        columns = {f"validation@{level(f)}": f"{t:.3f}" for f, t in zip(FPRS, shown, strict=True)}
        return columns | {"score": f"{sum(judged) / len(judged):.3f}"}

    def say(self, name: str, found: dict[str, Any], write: Callable[..., None]) -> None:
        """Add a line to runs.csv, and print it."""
        write_table(self.out / RUNS, [*read_runs_table(self.out), found])
        write(f"{name}: validation {found['score']}")


def labels_with_errors(labels: Tensor, share: float) -> Tensor:
    """A share of the labels replaced by those of others, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(labels), generator=generator) < share
    shift = torch.randint(1, int(labels.max()) + 1, labels.shape, generator=generator)
    return torch.where(wrong, (labels + shift) % (int(labels.max()) + 1), labels)


class Relabelled:
    """Images with other labels."""

    def __init__(self, faces: FaceSet, labels: Tensor) -> None:
        self._faces, self.labels = faces, labels
        self.image_size, self.num_identities = faces.image_size, faces.num_identities

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._faces.batch([index])[0], int(self.labels[index])

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Images in [-1, 1]."""
        return self._faces.batch(indices)


def code_version() -> str:
    """The commit of the code that runs, or of an installed package its version."""
    root = Path(ekd_lite.__file__).parents[1]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if found.returncode == 0:
            return found.stdout.strip()
    return f"v{ekd_lite.__version__}"
