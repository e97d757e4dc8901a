"""Which students a demo trains, and what they are called.

A *setting* is a method with its weights as `TrainConfig.method` writes it: kd:8,
ekd:32+fitnet:16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from ekd_lite.train import TrainConfig

ALONE = "student alone"  # what reports call the student of method none


def run_name(setting: str, seed: int) -> str:
    """The folder of a student: alone-0, ekd32-1."""
    return f"{'alone' if setting == 'none' else setting.replace(':', '')}-{seed}"


def plan_runs(
    out: Path,
    teacher: TrainConfig,
    student: TrainConfig,
    settings: Iterable[str],
    seeds: Sequence[int],
) -> dict[str, TrainConfig]:
    """The runs by name, the teacher first; a seed is complete before the next begins.

    Args:
        out: folder of all runs; the teacher's is out/teacher.
        teacher: how the teacher is trained.
        student: how every student is trained, but for method, teacher and seed.
        settings: of the students.
        seeds: of the students.
    """
    settings, plan = list(settings), {"teacher": teacher}
    for seed in seeds:
        for setting in settings:
            plan[run_name(setting, seed)] = dataclasses.replace(
                student,
                method=setting,
                teacher=None if setting == "none" else str(out / "teacher"),
                teacher_cache=str(out / "teacher" / "train.safetensors"),
                seed=seed,
            )
    return plan
