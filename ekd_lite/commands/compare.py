"""`ekd-lite compare`: one table and one figure of several runs, or of a study that it runs."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ekd_lite.commands.own_net import own_net
from ekd_lite.commands.rates import Rates, check_measurable
from ekd_lite.data import FaceSet, load_splits, open_faces
from ekd_lite.experiments import (
    FPRS,
    Run,
    compare_runs,
    describe_study,
    load_study,
    read_runs,
    run_study,
)
from ekd_lite.train.distributed import pick_device


@dataclass(frozen=True)
class Compare:
    """Put runs side by side: cost, loss, TPR at FPR on unseen people, difference to the first.

    With --recipe a study is run: many methods, with weights chosen by the same budget, from people
    whom the teacher knows or not, with and without labels.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of runs, folders of such folders (runs/demo), and model files. Runs that differ in
    nothing but the seed are averaged."""
    recipe: str | None = None
    """Run a study instead: study, study-gpu, study-gpu-short, or the path of a .json file like
    those in ekd_lite/recipes. The same command goes on where it was stopped."""
    only: tuple[str, ...] = ()
    """Of the study, methods that match one of these patterns: none 'ekd_*+fitnet'."""
    regimes: tuple[str, ...] = ()
    """Of the study, these regimes: none new."""
    processes: int | None = None
    """Runs of the study at the same time; by default one for each core."""
    dry_run: bool = False
    """Print how many students the study still takes and how many core hours, and stop."""
    out: Path | None = None
    """Folder of the results, by default runs/compare, or runs/NAME for a study."""
    faces: Path | None = None
    """Set of faces to test on; procedural faces if left out."""
    split: Annotated[Literal["test", "validation", "all"], tyro.conf.arg(name="set")] = "test"
    """Which of its people: those that `train --faces` keeps for the test or for validation, or all,
    for a set that no run was trained on."""
    fprs: Rates = FPRS
    """False-positive rates: 1e-3, 0.1% or 1/1000, with spaces or commas between them."""
    resamples: int | None = None
    """Bootstrap resamples behind every interval, by default 1000, or what the study says."""
    curve: str | None = None
    """Which number of the logs to draw; by default the identity loss if all have it, else loss."""

    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: cuda where there is one."""
    student_module: str | None = None
    """What makes the net of runs that trained one of your own, package.module:callable."""

    def _check(self) -> None:
        """Refuse what could only fail after minutes."""
        if self.resamples is not None and self.resamples < 1:
            raise ValueError(f"resamples must be at least 1, got {self.resamples}")
        if self.faces is None and self.split == "all":
            raise ValueError("--set all needs --faces: the procedural faces include training ones")
        some = self.only or self.regimes or self.processes is not None or self.dry_run
        if self.recipe is None and some:
            raise ValueError(
                "--only, --regimes, --processes and --dry-run belong to a study: give --recipe"
            )
        same = self.split == "test" and self.fprs == FPRS and self.curve is None
        same = same and self.faces is None and self.device == "auto" and not self.runs
        same = same and self.student_module is None
        if self.recipe is not None and not same:
            raise ValueError(
                "a study has its own runs, nets, faces, rates and device: give --recipe without"
                " them"
            )

    def run(self) -> None:
        """Read, measure, write."""
        self._check()
        if self.recipe is not None:
            self._run_study(self.recipe)
            return
        device = pick_device(self.device)
        student = own_net(self.student_module)
        runs = read_runs(self.runs, student=student)

        @functools.cache
        def faces_at(image_size: int) -> FaceSet:
            faces = open_split(self.faces, self.split, image_size, runs)
            check_measurable(self.fprs, faces.labels)  # before any of them is embedded
            return faces

        compare_runs(
            runs,
            faces_at,
            self.out or Path("runs/compare"),
            fprs=self.fprs,
            resamples=self.resamples or 1000,
            curve=self.curve,
            device=device,
            student=student,
        )

    def _run_study(self, name: str) -> None:
        study = load_study(name).only(self.only, self.regimes)
        if self.processes is not None:
            study = dataclasses.replace(study, processes=self.processes)
        out = self.out or Path("runs") / Path(name).stem
        if self.dry_run:
            print(describe_study(study, out))
        else:
            run_study(study, out, resamples=self.resamples)


def open_split(folder: Path | None, split: str, image_size: int, runs: Sequence[Run]) -> FaceSet:
    """The test faces at one size, with a warning if a run seems to have been trained on them.

    A model file does not say which faces it was trained on, but how many people they were: the
    whole folder, or the share of it that `train --faces` takes.
    """
    if folder is None:
        splits = load_splits(image_size=image_size)
        return splits.validation if split == "validation" else splits.test
    if split == "all":
        faces: FaceSet = open_faces(folder, image_size=image_size)
        total = faces.num_identities
        suspicious = {total, int(0.6 * total)}
    else:
        splits = load_splits(folder, image_size=image_size)
        faces = splits.validation if split == "validation" else splits.test
        total = sum(s.num_identities for s in (splits.train, splits.validation, splits.test))
        suspicious = {total}
    for run in runs:
        if run.about("image_size") == image_size and run.about("num_identities") in suspicious:
            warnings.warn(
                f"{run.name} was trained on {run.about('num_identities')} identities, and {folder} "
                f"has {total}: if it was trained on these people, its numbers mean nothing",
                stacklevel=2,
            )
    return faces
