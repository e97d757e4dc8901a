"""Training: one printable step, one loop, state that survives a crash."""

from ekd_lite.train.config import TrainConfig
from ekd_lite.train.log import RunLog
from ekd_lite.train.loop import fit
from ekd_lite.train.model_file import (
    Model,
    load_backbone,
    load_model,
    save_backbone,
    save_model,
)
from ekd_lite.train.optim import build_optimizer, learning_rate_at, margin_at
from ekd_lite.train.procedures import bend_teacher, distil_fresh_faces, fuse_teachers
from ekd_lite.train.start import start_from
from ekd_lite.train.state import TrainState, build_state
from ekd_lite.train.step import Batch, train_step
from ekd_lite.train.teacher import Teacher
from ekd_lite.train.teacher_cache import cache_teacher
from ekd_lite.train.threshold import threshold_at, threshold_bounds

__all__ = [
    "Batch",
    "Model",
    "RunLog",
    "Teacher",
    "TrainConfig",
    "TrainState",
    "bend_teacher",
    "build_optimizer",
    "build_state",
    "cache_teacher",
    "distil_fresh_faces",
    "fit",
    "fuse_teachers",
    "learning_rate_at",
    "load_backbone",
    "load_model",
    "margin_at",
    "save_backbone",
    "save_model",
    "start_from",
    "threshold_at",
    "threshold_bounds",
    "train_step",
]
