"""`ekd-lite train`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ekd_lite.commands.net_options import NetOptions, open_net
from ekd_lite.commands.own_net import own_net
from ekd_lite.commands.rates import measurable
from ekd_lite.data import FaceSet, Splits, load_splits, open_faces
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, count_pairs, embed
from ekd_lite.parallel import rank, world_size
from ekd_lite.train import Model, Teacher, TrainConfig, fit, load_model
from ekd_lite.train.distributed import pick_device, process_group
from ekd_lite.train.estimate import duration, estimate
from ekd_lite.train.pixels import seen_by
from ekd_lite.train.recipes import load_recipe
from ekd_lite.train.teacher_file import read_teacher_file


class TrainOptions(TrainConfig):
    """How to train."""

    def __post_init__(self) -> None:
        """Nothing yet: `Train` checks, so that the parser does not put its own words around it."""


@dataclass(frozen=True)
class Train:
    """Train one net, alone or under a teacher; under torchrun, in several processes."""

    out: Path = Path("runs/train")
    """Folder of the run; calling again goes on where it stopped."""
    recipe: str | None = None
    """A recipe of ekd_lite/recipes: demo, colab, paper, each with its ...-teacher. It sets the
    defaults of everything below."""
    dry_run: bool = False
    """Print the configuration, the steps and an estimate of memory and time, and stop."""
    faces: Path | None = None
    """Folder of identity/image.jpg, .rec file, shards (.tar, a folder of them or a pattern such as
    "faces-{000..127}.tar") or packed set, 60 % of whose people train; left out: procedural
    faces."""
    nested: Literal["first", "last"] | None = None
    """Whose the images in deeper folders of --faces are: all below a first folder one person's, or
    each folder with images a person's."""
    label: str | None = None
    """Where the labels of the shards (.tar) of --faces are: cls, or a key of their .json."""
    everyone: bool = False
    """Train on all people of --faces, read on the fly; measure on another set afterwards."""
    people: int = 1000
    """Procedural training identities."""
    net: NetOptions = field(default_factory=NetOptions)
    student_module: str | None = None
    """A net of your own in place of --backbone: package.module:callable, imported from here."""
    init_from: Path | None = None
    """Weights to start from: a run or its model.safetensors, a published checkpoint; what does not
    fit is named and left out."""
    config: TrainOptions = field(default_factory=TrainOptions)
    """How to train."""

    @classmethod
    def from_recipe(cls, name: str) -> Train:
        """The command with the defaults of a recipe."""
        recipe = load_recipe(name)
        return cls(
            out=Path("runs") / name,
            recipe=name,
            everyone=recipe.everyone,
            people=recipe.people,
            config=TrainOptions(**vars(recipe.config)),
        )

    def run(self) -> None:
        """Train, and report the teacher first."""
        config = TrainConfig(**vars(self.config))
        if config.method != "none" and config.teacher is None:
            raise ValueError(
                f"--method {config.method} needs a teacher: name its file with --teacher"
            )
        named = None if self.recipe is None else load_recipe(self.recipe).config.teacher
        given = [self.net.names()] if self.net.said() else []
        given += ["--teacher"] if config.teacher not in (None, named) else []
        if config.method == "none" and given:
            raise ValueError(
                f"{', '.join(given)}: there is no teacher, since the method is none (--method)"
            )
        self._check_faces()
        if self.everyone and self.faces is None and not self.dry_run:
            raise ValueError(
                "this trains on all people of a real set: name it with --faces, e.g. "
                "--faces ms1mv2/train.rec (data/README.md says where it comes from)"
            )
        if self.dry_run:
            print(self.plan(config))
            return
        student = own_net(self.student_module)  # before faces are made: it may be missing
        if self.init_from is not None and not self.init_from.exists():
            raise FileNotFoundError(f"no weights to start from at {self.init_from}")
        begin: dict[str, Any] = {"student": student, "init_from": self.init_from}
        device = pick_device(config.device)
        with process_group(device, timeout=config.rank_timeout):
            teacher, options = None, self.net.said()
            if config.method != "none":  # so may the teacher
                path, size = Path(str(config.teacher)), config.image_size
                teacher = open_net(path, self.net, image_size=size)
            train, validation = self._faces()
            if teacher is not None and teacher.rows is None:
                _report(f"teacher {config.teacher}", teacher, validation)
            if teacher is not None and options:
                # With them it is more than the file that a configuration can name.
                path = fit(replace(config, teacher=None), train, self.out, teacher=teacher, **begin)
            else:
                path = fit(config, train, self.out, **begin)
            _report(f"{self.out}", load_model(path, student=student).backbone, validation)
            if rank() == 0:
                print(f"wrote {path}")

    def _check_faces(self) -> None:
        """Refuse what says nothing of the faces that there are."""
        how = {"--nested": self.nested, "--label": self.label}
        given = ", ".join(name for name, value in how.items() if value is not None)
        if self.faces is None and given:
            raise ValueError(f"{given}: the procedural faces have none; name a set with --faces")
        usual = 1000 if self.recipe is None else load_recipe(self.recipe).people
        if self.faces is not None and self.people != usual:
            raise ValueError("--people is for the procedural faces: --faces brings its own")

    def _faces(self) -> tuple[FaceSet, FaceSet | None]:
        """The sets to train and to validate on."""
        size = self.config.image_size
        if self.everyone:
            return open_faces(
                str(self.faces), image_size=size, nested=self.nested, label=self.label
            ), None
        splits: Splits = load_splits(
            self.faces,
            image_size=size,
            nested=self.nested,
            label=self.label,
            people=self.people,
        )
        return splits.train, splits.validation

    def plan(self, config: TrainConfig) -> str:
        """What a dry run prints."""
        recipe = None if self.recipe is None else load_recipe(self.recipe)
        processes = world_size() if recipe is None else recipe.processes
        if self.faces is not None:
            faces = self._faces()[0]
            people, images = faces.num_identities, len(faces)
        elif recipe is not None and recipe.everyone:
            people, images = recipe.people, recipe.images
        else:
            people, images = self.people, 24 * self.people
        device = pick_device(config.device)
        teacher = None
        note = ""
        if config.method != "none":
            try:
                path = Path(str(config.teacher))
                found = None if path.suffix.lower() == ".onnx" else read_teacher_file(path)
                teacher = found if isinstance(found, Model) else None
                if teacher is None:
                    note = f" (a stand-in was timed for the teacher {path})"
            except FileNotFoundError:
                note = f" (teacher {config.teacher} is not there yet: a stand-in was timed)"
        cost = estimate(
            config,
            num_identities=people,
            processes=processes,
            device=device,
            teacher=teacher,
            student=own_net(self.student_module),
        )
        a_batch = config.general + config.identities * config.images_per_identity
        seen = config.steps * config.accumulate * a_batch * processes
        hours = cost.step_seconds * config.steps / 3600
        threads = f", {torch.get_num_threads()} thread(s)" if device.type == "cpu" else ""
        lines = [] if recipe is None else [f"recipe {recipe.name}: {recipe.about}", ""]
        lines += [
            config.to_json(),
            "",
            f"faces        {images:,} images of {people:,} people",
            f"steps        {config.steps:,} of {processes} x {config.accumulate} x {a_batch} images"
            f" = {seen / images:.1f} times the set",
            f"parameters   {cost.parameters:,} in the backbone, {cost.prototype_parameters:,} "
            "prototypes a process",
            f"memory       {cost.state_bytes / 2**30:.2f} GiB weights, gradients, moments + "
            f"{cost.activation_bytes / 2**30:.2f} GiB for a batch, a process",
            f"time         {duration(hours)} at {cost.step_seconds:.3g} s a step, measured on "
            f"this {device}{threads} with a small batch{note}",
        ]
        return "\n".join(lines)


def recipe_of(arguments: Iterable[str]) -> str | None:
    """The recipe that a command line names, read before the rest because it sets the defaults."""
    found = None
    before = ""
    for argument in arguments:
        if before == "--recipe":
            found = argument
        elif argument.startswith("--recipe="):
            found = argument.removeprefix("--recipe=")
        before = argument
    return found


def _report(name: str, net: nn.Module, validation: FaceSet | None) -> None:
    """Print the TPR on validation identities; one process does."""
    if rank() or validation is None:
        return
    labels: Tensor = validation.labels
    levels = measurable((1e-1, 1e-2, 1e-3), labels)
    if not levels or not count_pairs(labels)[0]:
        print(f"{name}: the validation identities have too few pairs to measure", flush=True)
        return
    seen = seen_by(net, validation) if isinstance(net, Teacher) else validation
    tpr = all_pairs_tpr_at_fpr(embed(net, seen), labels, levels)
    pairs = zip(tpr.tolist(), levels, strict=True)
    text = ", ".join(f"{value:.1%} at FPR {fpr:.0e}" for value, fpr in pairs)
    print(f"{name}: TPR on validation identities {text}", flush=True)
