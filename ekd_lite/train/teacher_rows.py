"""The rows that a run's teacher gives of the training images: handed over, or made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.train.checks import check_rows
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.teacher import Teacher
from ekd_lite.train.teacher_cache import cache_teacher
from ekd_lite.train.teacher_view import suspect_input


def given_rows(
    teacher: Teacher, rows: Sequence[Tensor] | None, config: TrainConfig, faces: FaceSet
) -> list[Tensor] | None:
    """The embeddings that came with the call, checked; None if the net has yet to make them."""
    if rows is not None and teacher.rows is not None:
        raise ValueError("the teacher is a table of rows, and teacher_embeddings are another")
    rows = teacher.rows if rows is None else rows
    if rows is None:
        return None
    assert teacher.width is not None
    return check_rows(rows, count=len(faces), width=teacher.width, flip=config.flip)


def make_rows(
    teacher: Teacher, config: TrainConfig, faces: FaceSet, seen: FaceSet, progress: bool
) -> list[Tensor]:
    """The teacher's embeddings of all images, as it sees them (`seen_by`)."""
    suspect_input(teacher, seen)
    path = None if config.teacher_cache is None else Path(config.teacher_cache)
    return cache_teacher(teacher, faces, flip=config.flip, path=path, progress=progress)
