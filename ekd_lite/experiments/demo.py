"""The main job: a teacher, students alone and distilled, compared on unseen people."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ekd_lite.data import Splits, load_splits
from ekd_lite.data.renderer.render import RENDERER_VERSION
from ekd_lite.data.splits import split_labels
from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.evaluate import UndefinedMetricWarning, all_pairs_tpr_at_fpr, count_pairs
from ekd_lite.experiments.demo_cost import SMALL, describe_plan
from ekd_lite.experiments.folders import record_options
from ekd_lite.experiments.given_teacher import (
    ROWS,
    as_run,
    check_batches,
    check_teacher,
    check_widths,
    make_rows,
    say_what_can_be_measured,
    under,
)
from ekd_lite.experiments.plan import ALONE, plan_runs
from ekd_lite.experiments.report import measure_plan, write_report
from ekd_lite.experiments.runner import (
    Runner,
    Workspace,
    load_embeddings,
    print_splits,
    print_tpr,
)
from ekd_lite.experiments.tables import FPRS
from ekd_lite.files import locked_folder
from ekd_lite.models import BACKBONES
from ekd_lite.ops import nearest_name
from ekd_lite.train import Teacher, TrainConfig

if TYPE_CHECKING:  # the command starts without matplotlib
    from matplotlib.figure import Figure

# The student alone, the strongest rival, the paper's EKD, and the form of EKD that the study of the
# book's chapter 12 found strongest.
METHODS = ("none", "fitnet", "ekd_paper", "ekd_decisions+fitnet")
METHODS_UNDER_GIVEN = ("none", "fitnet", "ekd_decisions+fitnet")


@dataclass(frozen=True)
class DemoConfig:
    """The default experiment: five to ten minutes on two cores. Larger images take hours."""

    out: Path = Path("runs/demo")
    """Folder of the results. Calling again with the same options goes on where it stopped."""
    faces: Path | None = None
    """Folder of real faces (identity/image.jpg) instead of the procedural ones."""
    methods: tuple[str, ...] | None = None
    """Distillation methods; none is the student alone. Left out: none fitnet ekd_paper
    ekd_decisions+fitnet, or under a teacher that is there already the same without ekd_paper."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One student per method and seed. The teacher has the first."""
    image_size: int = 32
    """Side of the images, pixels."""
    teacher_steps: int = 2000
    """Training steps of the teacher."""
    student_steps: int = 1500
    """Training steps of every student."""
    teacher: str = "tiny_teacher"
    """Backbone of the teacher that is trained first; or a file of one that is there already: a run
    of ours, a published checkpoint, an ONNX file. It sees the images at its own size."""
    student: str = "tiny_student"
    """Backbone of the students."""
    resamples: int = 1000
    """Bootstrap resamples behind every interval."""
    processes: int | None = None
    """Runs at the same time; by default one for each core."""

    def __post_init__(self) -> None:
        """Check what TrainConfig does not see."""
        if self.methods is None:
            methods = METHODS if self.teacher in BACKBONES else METHODS_UNDER_GIVEN
            object.__setattr__(self, "methods", methods)
        if not self.methods or not self.seeds:
            raise ValueError("give at least one method and one seed")
        if len(set(self.methods)) < len(self.methods) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a method or seed stands twice: {self.methods}, {self.seeds}")
        if self.teacher not in BACKBONES and not Path(self.teacher).exists():
            hint = nearest_name(self.teacher, BACKBONES)
            raise FileNotFoundError(
                f"teacher {self.teacher!r} is no file that is there, and no backbone{hint}"
            )
        if self.resamples < 1 or (self.processes is not None and self.processes < 1):
            raise ValueError("resamples and processes must be at least 1")
        if self.faces is not None and not self.faces.is_dir():
            raise FileNotFoundError(f"no such folder of faces: {self.faces}")
        plan_demo(self, flip=False)  # every training configuration checks itself


def plan_demo(config: DemoConfig, *, flip: bool) -> dict[str, TrainConfig]:
    """The training configuration of every run, by name; the teacher first, if it is trained."""
    common: dict[str, Any] = {"image_size": config.image_size, "flip": flip, "device": "cpu"}
    is_trained = config.teacher in BACKBONES
    plan = plan_runs(
        config.out,
        TrainConfig(
            backbone=config.teacher if is_trained else "tiny_teacher",
            steps=config.teacher_steps,
            seed=config.seeds[0],
            **common,
        ),
        TrainConfig(backbone=config.student, steps=config.student_steps, **common),
        config.methods or (),
        config.seeds,
    )
    return plan if is_trained else under(plan, config.out / "teacher" / ROWS)


def describe_demo(config: DemoConfig, *, teacher: Teacher | None = None) -> str:
    """Say what a demo would take on this machine. Nothing is trained or written.

    Args:
        config: of the demo.
        teacher: as for `run_demo`.

    Raises:
        ValueError: bad options, an unusable folder of faces or teacher.
    """
    teacher = _opened(config, teacher)
    size = None if teacher is None else check_teacher(teacher, config.image_size)
    labels = split_labels(config.faces, image_size=config.image_size)
    plan = plan_demo(config, flip=config.faces is not None)
    _check(config, plan, labels[0], labels[2], teacher)
    return _cost(config, plan, labels, teacher, size)


def _cost(
    config: DemoConfig,
    plan: dict[str, TrainConfig],
    labels: Sequence[Tensor],
    teacher: Teacher | None,
    size: int | None,
) -> str:
    """What is left of a demo, in hours."""
    side, at_once = size or config.image_size, config.processes
    return describe_plan(plan, config.out, labels, teacher=teacher, size=side, processes=at_once)


def run_demo(config: DemoConfig, *, teacher: Teacher | None = None) -> Path:
    """Do it all, and return the path of the table.

    Args:
        config: of the demo.
        teacher: what `config.teacher` names if that is a file, opened with options of its own.

    Raises:
        ValueError: bad options, an unusable folder of faces or teacher, results of other options in
            `out`, or another process that is writing there.
        RuntimeError: a run failed; its own message and trace are in `out`.
    """
    teacher = _opened(config, teacher)
    with locked_folder(config.out):
        return _run(config, teacher)


def _opened(config: DemoConfig, teacher: Teacher | None) -> Teacher | None:
    """The teacher that is there already, if the demo has one."""
    if config.teacher not in BACKBONES and teacher is None:
        return Teacher.from_file(config.teacher)
    return teacher


def _check(
    config: DemoConfig,
    plan: dict[str, TrainConfig],
    train: Tensor,
    test: Tensor,
    teacher: Teacher | None,
) -> None:
    """Refuse a teacher too wide and a folder too small, and say what its people cannot show."""
    if teacher is not None:
        check_widths(plan, teacher)
    if config.faces is not None:
        say_what_can_be_measured(test)
        check_batches(plan, train)


def _run(config: DemoConfig, teacher: Teacher | None) -> Path:
    """`run_demo`, alone in its folder."""
    size = None if teacher is None else check_teacher(teacher, config.image_size)
    record_options(config.out, _shared_options(config, teacher))
    print(f"faces: {config.faces or 'procedural'}, {config.image_size}x{config.image_size}")
    splits = load_splits(config.faces, image_size=config.image_size)
    print_splits(splits)
    plan, row = plan_demo(config, flip=splits.flip), None
    _check(config, plan, splits.train.labels, splits.test.labels, teacher)
    if config.image_size > SMALL:
        people = [part.labels for part in (splits.train, splits.validation, splits.test)]
        print(_cost(config, plan, people, teacher, size), flush=True)
    if teacher is not None and size is not None:
        folder = config.out / "teacher"
        seen = make_rows(teacher, config.faces, size, folder, splits.flip)
        plan = _calibrated(plan, splits.validation.labels, lambda: (teacher, seen))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # it has been said
            tpr = all_pairs_tpr_at_fpr(load_embeddings(folder), splits.test.labels, FPRS)
        print_tpr("teacher", tpr.tolist())
        row = as_run(teacher, size, folder)
    workspace = Workspace(config.out, config.faces, config.image_size)
    if teacher is None:

        def train_teacher() -> tuple[Teacher, Splits]:
            begin = {n: run for n, run in plan.items() if n == "teacher" or run.method == "none"}
            Runner(workspace, begin, "teacher", processes=config.processes).run()
            return Teacher.from_file(config.out / "teacher"), splits

        plan = _calibrated(plan, splits.validation.labels, train_teacher)
    Runner(workspace, plan, "training", processes=config.processes).run()
    labels = splits.test.labels
    settings = {ALONE if method == "none" else method: method for method in config.methods or ()}
    methods = measure_plan(
        config.out, plan, settings, labels, resamples=config.resamples, teacher=row
    )

    def draw() -> dict[str, Figure]:
        from ekd_lite.experiments.figures import demo_figures

        rows = {name: load_embeddings(method.runs[0].path) for name, method in methods.items()}
        return demo_figures(rows, splits.test, config.seeds[0])

    return write_report(config.out, "table", methods, labels, draw)


def _calibrated(
    plan: dict[str, TrainConfig],
    people: Tensor,
    teacher_and_faces: Callable[[], tuple[Teacher, Splits]],
) -> dict[str, TrainConfig]:
    """A plan in which decisions have the threshold of the teacher on the validation people.

    On its own training people a teacher's threshold is too low: it tells them apart too well. Where
    the validation people are too few, training measures it there all the same.
    """
    deciding = [
        name
        for name, run in plan.items()
        if any(DISTILLERS[method].needs_threshold for method in parse_method(run.method))
    ]
    num_impostor = count_pairs(people)[1]
    if not deciding:
        return plan
    if num_impostor < 100:
        print("too few strangers to validate on: decisions take their threshold from training")
        return plan
    teacher, splits = teacher_and_faces()
    fpr = max(1e-4, 11 / num_impostor)  # ten pairs pass, whatever is rounded
    threshold = round(teacher.threshold_at(splits.validation, fpr), 6)
    print(f"the teacher accepts a pair from cosine {threshold:.3f} on: FPR {fpr:.0e} of strangers")
    return {
        name: dataclasses.replace(run, teacher_threshold=threshold) if name in deciding else run
        for name, run in plan.items()
    }


def _shared_options(config: DemoConfig, teacher: Teacher | None) -> dict[str, Any]:
    """What all results in one folder must have in common."""
    options = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in ("out", "processes", "resamples", "methods", "seeds")
    }
    options["faces"] = None if config.faces is None else str(config.faces.resolve())
    if teacher is not None:  # wherever its file lies
        options["teacher"] = teacher.origin(head=False)["teacher"]
    # A newer version may weigh methods or draw faces in another way: not to be mixed with the old.
    options["weights"] = {name: distiller.weight for name, distiller in DISTILLERS.items()}
    options["renderer"] = RENDERER_VERSION
    return options
