"""`ekd-lite compare RUN...`: one table and one figure of several runs."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ekd_lite.comparison import compare_runs
from ekd_lite.data import FaceSet, load_splits, open_faces
from ekd_lite.run_folders import Run, read_runs
from ekd_lite.runner import FPRS
from ekd_lite.train.distributed import pick_device


@dataclass(frozen=True)
class Compare:
    """Put runs side by side: cost, loss, TPR at FPR on unseen people, difference to the first."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, folders of such folders (runs/demo), and model files. Runs that differ in
    nothing but the seed are averaged."""
    out: Path = Path("runs/compare")
    """Folder for compare.csv, compare.md and compare.png."""
    faces: Path | None = None
    """Set of faces to test on; procedural faces if left out."""
    part: Annotated[Literal["test", "validation", "all"], tyro.conf.arg(name="set")] = "test"
    """Which of its people: those that `train --faces` keeps for the test or for validation, or all,
    for a set that no run was trained on."""
    fprs: tuple[float, ...] = FPRS
    """False-positive rates."""
    resamples: int = 1000
    """Bootstrap resamples behind every interval."""
    curve: str | None = None
    """Which number of the logs to draw; by default the identity loss if all have it, else loss."""

    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: cuda where there is one."""

    def __post_init__(self) -> None:
        """Refuse what could only fail after minutes."""
        if not self.fprs or not all(0 < fpr <= 1 for fpr in self.fprs):
            raise ValueError(f"fprs must be one or more rates in (0, 1], got {self.fprs}")
        if self.resamples < 1:
            raise ValueError(f"resamples must be at least 1, got {self.resamples}")
        if self.faces is None and self.part == "all":
            raise ValueError("--set all needs --faces: the procedural faces include training ones")

    def run(self) -> None:
        """Read, measure, write."""
        device = pick_device(self.device)
        runs = read_runs(self.runs)

        @functools.cache
        def faces_at(image_size: int) -> FaceSet:
            return open_part(self.faces, self.part, image_size, runs)

        compare_runs(
            runs,
            faces_at,
            self.out,
            fprs=self.fprs,
            resamples=self.resamples,
            curve=self.curve,
            device=device,
        )


def open_part(folder: Path | None, part: str, image_size: int, runs: Sequence[Run]) -> FaceSet:
    """The test faces at one size, with a warning if a run seems to have been trained on them.

    A model file does not say which faces it was trained on, but how many people they were: the
    whole folder, or the share of it that `train --faces` takes.
    """
    if folder is None:
        splits = load_splits(image_size=image_size)
        return splits.validation if part == "validation" else splits.test
    if part == "all":
        faces: FaceSet = open_faces(folder, image_size=image_size)
        total = faces.num_identities
        suspicious = {total, int(0.6 * total)}
    else:
        splits = load_splits(folder, image_size=image_size)
        faces = splits.validation if part == "validation" else splits.test
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
