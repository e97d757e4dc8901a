"""The main job: a teacher, students alone and distilled, compared on unseen people."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ekd_lite.data import Splits, load_splits
from ekd_lite.data.renderer.render import RENDERER_VERSION
from ekd_lite.distill import DISTILLERS
from ekd_lite.evaluate import UndefinedMetricWarning
from ekd_lite.experiments.folders import keep_options
from ekd_lite.experiments.report import write_report
from ekd_lite.experiments.runner import FPRS, Job, Runner, load_embeddings
from ekd_lite.train import TrainConfig

METHODS = ("none", "kd", "fitnet", "ekd", "ekd+fitnet")


@dataclass(frozen=True)
class DemoConfig:
    """The default experiment. On two cores it takes five to ten minutes."""

    out: Path = Path("runs/demo")
    """Folder of the results. Calling again with the same options goes on where it stopped."""
    faces: Path | None = None
    """Folder of real faces (identity/image.jpg) instead of the procedural ones."""
    methods: tuple[str, ...] = METHODS
    """Distillation methods; none is the student alone."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One student per method and seed. The teacher has the first."""
    image_size: int = 32
    """Side of the images, pixels."""
    teacher_steps: int = 2000
    """Training steps of the teacher."""
    student_steps: int = 1500
    """Training steps of every student."""
    teacher: str = "tiny_teacher"
    """Backbone of the teacher."""
    student: str = "tiny_student"
    """Backbone of the students."""
    resamples: int = 1000
    """Bootstrap resamples behind every interval."""
    processes: int | None = None
    """Runs at the same time; by default one for each core."""

    def __post_init__(self) -> None:
        """Check what TrainConfig does not see."""
        if not self.methods or not self.seeds:
            raise ValueError("give at least one method and one seed")
        if len(set(self.methods)) < len(self.methods) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a method or seed stands twice: {self.methods}, {self.seeds}")
        if self.resamples < 1 or (self.processes is not None and self.processes < 1):
            raise ValueError("resamples and processes must be at least 1")
        if self.faces is not None and not self.faces.is_dir():
            raise FileNotFoundError(f"no such folder of faces: {self.faces}")
        runs(self, flip=False)  # every training configuration checks itself

    def run(self) -> None:
        """Do it all."""
        run_demo(self)


def runs(config: DemoConfig, *, flip: bool) -> dict[str, TrainConfig]:
    """The training configuration of every run, by name; the teacher first."""
    common: dict[str, Any] = {"image_size": config.image_size, "flip": flip, "device": "cpu"}
    teacher = TrainConfig(
        backbone=config.teacher, steps=config.teacher_steps, seed=config.seeds[0], **common
    )
    result = {"teacher": teacher}
    for method in config.methods:
        for seed in config.seeds:
            result[f"{file_name(method)}-{seed}"] = TrainConfig(
                backbone=config.student,
                steps=config.student_steps,
                method=method,
                teacher=None if method == "none" else str(config.out / "teacher"),
                teacher_cache=str(config.out / "teacher" / "train.safetensors"),
                seed=seed,
                **common,
            )
    return result


def file_name(method: str) -> str:
    """A method as part of a folder's name."""
    return "alone" if method == "none" else method.replace(":", "")


def run_demo(config: DemoConfig) -> Path:
    """Do it all, and return the path of the table.

    Raises:
        ValueError: bad options, an unusable folder of faces, or results of other options in `out`.
        RuntimeError: a run failed; its own message and trace are in `out`.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    keep_config(config)
    print(f"faces: {config.faces or 'procedural'}, {config.image_size}x{config.image_size}")
    splits = load_splits(config.faces, image_size=config.image_size)
    describe_splits(splits)
    plan = runs(config, flip=splits.flip)
    with tqdm(
        total=sum(run.steps for run in plan.values()),
        desc="training",
        unit="step",
        disable=None,
        smoothing=0.05,
    ) as bar:
        job = Job(config.out, config.faces, config.image_size)
        Runner(job, plan, bar, processes=config.processes).run()
    embeddings = {name: load_embeddings(config.out / name) for name in plan}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # the table says it
        return write_report(config.out, plan, embeddings, splits, FPRS, config.resamples)


def keep_config(config: DemoConfig) -> None:
    """Write config.json, and refuse to mix results of different options in one folder."""
    mine = {
        field.name: _plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in ("out", "processes", "resamples", "methods", "seeds")
    }
    # A newer version may weigh methods or draw faces in another way: not to be mixed with the old.
    mine["weights"] = {name: distiller.weight for name, distiller in DISTILLERS.items()}
    mine["renderer"] = RENDERER_VERSION
    keep_options(config.out, mine)


def _plain(value: Any) -> Any:
    return str(value.resolve()) if isinstance(value, Path) else value


def describe_splits(splits: Splits) -> None:
    """Print how many images and people there are."""
    for name in ("train", "validation", "test"):
        faces = getattr(splits, name)
        print(f"  {name}: {len(faces):,} images of {faces.num_identities:,} identities")
