"""Which runs there are, and which of them are compared.

Weights of a study are chosen on validation identities, by students of seeds that the final table
does not use. A *setting* is a method with its weights as `TrainConfig.method` writes it: kd:8,
ekd:32+fitnet:16.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.ops import nearest_name
from ekd_lite.train import TrainConfig
from ekd_lite.train.recipes import recipe_names

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
    *,
    folder: str = ".",
) -> dict[str, TrainConfig]:
    """The runs by name, the teacher first; a seed is complete before the next begins.

    Args:
        out: folder of all runs; the teacher's is out/teacher.
        teacher: how the teacher is trained.
        student: how every student is trained, but for method, teacher and seed.
        settings: of the students.
        seeds: of the students.
        folder: inside of `out`, where the students are.
    """
    settings, plan = list(settings), {"teacher": teacher}
    for seed in seeds:
        for setting in settings:
            plan[(Path(folder) / run_name(setting, seed)).as_posix()] = dataclasses.replace(
                student,
                method=setting,
                teacher=None if setting == "none" else str(out / "teacher"),
                teacher_cache=str(out / "teacher" / "train.safetensors"),
                seed=seed,
            )
    return plan


@dataclass(frozen=True)
class StudyConfig:
    """A study; ekd_lite/recipes/study.json holds the one of the book.

    Attributes:
        about: what it is for.
        teacher: how its teacher is trained.
        student: how its students are trained, but for method, teacher and seed.
        weights: method -> weights that are tried, as many for each.
        combinations: methods joined by "+", each with a row in `weights`.
        shares: factors of the first method's chosen weight that are tried in every combination; the
            others keep theirs.
        selection_steps: of the students by which weights are chosen.
        selection_seeds: of these students.
        seeds: of the students that are tested.
        choose_at: false-positive rates; the mean TPR at them is what weights are chosen by.
        people: procedural training identities.
        processes: runs at the same time; by default one for each core.
        faces: folder of real faces instead of the procedural ones.
    """

    about: str
    teacher: TrainConfig
    student: TrainConfig
    weights: Mapping[str, tuple[float, ...]]
    combinations: tuple[str, ...]
    shares: tuple[float, ...]
    selection_steps: int
    selection_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    choose_at: tuple[float, ...] = (1e-3, 1e-4)
    people: int = 1000
    processes: int | None = None
    faces: Path | None = None

    def __post_init__(self) -> None:
        """Collect every problem and raise them as one ValueError."""
        problems = [
            f"unknown method {name!r} in weights{nearest_name(name, DISTILLERS)}"
            for name in self.weights
            if name not in DISTILLERS
        ]
        if len({len(row) for row in self.weights.values()}) > 1:
            problems.append("every method must have as many weights: they are its budget")
        values = {"shares": self.shares, **self.weights}
        for name, row in values.items():
            if not row or len(set(row)) < len(row) or not all(0 < w < 1e6 for w in row):
                problems.append(
                    f"{name} must be positive numbers below a million, each once: {row}"
                )
        for name in self.combinations:
            unknown = [part for part in name.split("+") if part not in self.weights]
            if unknown or "+" not in name:
                problems.append(f"{name!r} must join methods of weights, got {unknown or name}")
        if set(self.seeds) & set(self.selection_seeds) or not (self.seeds and self.selection_seeds):
            problems.append("seeds and selection_seeds must be given and share none")
        if self.student.method != "none" or self.teacher.method != "none":
            problems.append("student and teacher must have no method of their own")
        if self.student.image_size != self.teacher.image_size:
            problems.append("student and teacher must see images of the same size")
        if self.selection_steps < 1 or not all(0 < fpr <= 1 for fpr in self.choose_at):
            problems.append("selection_steps must be positive, choose_at rates in (0, 1]")
        if self.processes is not None and self.processes < 1:
            problems.append("processes must be at least 1")
        if problems:
            raise ValueError("bad study:\n  " + "\n  ".join(problems))

    def only(self, patterns: Sequence[str]) -> StudyConfig:
        """The study of the methods whose names match, and of the parts of combinations.

        Raises:
            ValueError: a pattern that matches nothing.
        """
        if not patterns:
            return self
        known = [*self.weights, *self.combinations]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in known):
                hint = nearest_name(pattern, known)
                raise ValueError(f"no method of the study matches {pattern!r}{hint}")
        taken = [n for n in known if any(fnmatchcase(n, pattern) for pattern in patterns)]
        parts = {part for name in taken for part in name.split("+")}
        return dataclasses.replace(
            self,
            weights={name: row for name, row in self.weights.items() if name in parts},
            combinations=tuple(name for name in self.combinations if name in taken),
        )


def load_study(name: str) -> StudyConfig:
    """Read a study: its name in ekd_lite/recipes, or the path of a .json file.

    Raises:
        ValueError: unknown name (the nearest is suggested), or a file that is no study.
    """
    if name.endswith(".json"):
        text = Path(name).read_text(encoding="utf-8")
    elif name in (names := recipe_names(studies=True)):
        text = (resources.files("ekd_lite") / "recipes" / f"{name}.json").read_text("utf-8")
    else:
        raise ValueError(f"unknown study {name!r}{nearest_name(name, names)}")
    try:
        values: dict[str, Any] = json.loads(text)
        for role in ("teacher", "student"):
            values[role] = TrainConfig(**values[role])
        values["weights"] = {method: tuple(row) for method, row in values["weights"].items()}
        for key in ("combinations", "shares", "selection_seeds", "seeds", "choose_at"):
            if key in values:
                values[key] = tuple(values[key])
        if values.get("faces") is not None:
            values["faces"] = Path(values["faces"])
        return StudyConfig(**values)
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is no study: {error}") from error


@dataclass(frozen=True)
class Stage:
    """Students of a study that are trained together.

    Attributes:
        name: what the progress bar and a dry run call it.
        folder: of its runs, inside of the study's.
        tried: method -> its settings.
        seeds: of the students, one of each setting and seed.
        steps: of each.
    """

    name: str
    folder: str
    tried: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    steps: int

    def runs(self, config: StudyConfig, out: Path) -> dict[str, TrainConfig]:
        """The teacher and these students, by name."""
        flip = config.faces is not None
        return plan_runs(
            out,
            dataclasses.replace(config.teacher, flip=flip),
            dataclasses.replace(config.student, flip=flip, steps=self.steps),
            [setting for row in self.tried.values() for setting in row],
            self.seeds,
            folder=self.folder,
        )

    def run_of(self, setting: str, seed: int) -> str:
        """The name of one of the runs."""
        return f"{self.folder}/{run_name(setting, seed)}"


def weights_stage(config: StudyConfig) -> Stage:
    """Every method with each of its weights."""
    tried = {name: [f"{name}:{w:g}" for w in row] for name, row in config.weights.items()}
    return Stage("weights", "weights", tried, config.selection_seeds, config.selection_steps)


def combinations_stage(config: StudyConfig, chosen: Mapping[str, str]) -> Stage:
    """Every combination: its methods at the chosen weights, the first one's times every share."""
    weight = {name: parse_method(chosen[name])[name] for name in config.weights}
    tried = {
        name: [
            "+".join(
                f"{part}:{(1 if i else share) * weight[part]:g}"
                for i, part in enumerate(name.split("+"))
            )
            for share in config.shares
        ]
        for name in config.combinations
    }
    return Stage("combinations", "weights", tried, config.selection_seeds, config.selection_steps)


def final_stage(config: StudyConfig, chosen: Mapping[str, str]) -> Stage:
    """The students that are tested: the student alone, and every method as it was chosen."""
    tried = {ALONE: ["none"]} | {name: [setting] for name, setting in chosen.items()}
    return Stage("final students", "final", tried, config.seeds, config.student.steps)


def choose(
    tried: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float]]
) -> dict[str, str]:
    """The setting of every method whose mean score over the seeds is largest, the first of equals.

    Args:
        tried: method -> settings.
        scores: setting -> score of every seed.
    """
    return {
        name: max(settings, key=lambda s: sum(scores[s]) / len(scores[s]))
        for name, settings in tried.items()
    }


def at_edge(config: StudyConfig, chosen: Mapping[str, str]) -> list[str]:
    """The settings of single methods whose weight is the least or the largest that was tried."""
    tried = weights_stage(config).tried
    return [chosen[name] for name, row in tried.items() if chosen[name] in (row[0], row[-1])]
