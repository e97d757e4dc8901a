"""A study as data: who teaches whom, which methods are compared, and what is to be run next.

A *regime* says from whom students learn and what is known of these people. A *row* is a method in
one regime, as `TrainConfig.method` writes it: ekd_fine:128+fitnet:32. How its weight is found is in
`ekd_lite.experiments.study_search`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from ekd_lite.data import FaceSet, SyntheticFaces, cache_faces
from ekd_lite.data.renderer.render import RENDERER_VERSION
from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.files import check_regular
from ekd_lite.ops import nearest_name
from ekd_lite.train import TrainConfig
from ekd_lite.train.recipes import recipe_names
from ekd_lite.train.teacher_fit import asks_for_people

PACKAGED = "packaged"  # the teacher that comes along
OWN = "own"  # the set of those whom the teacher was trained on


@dataclass(frozen=True)
class People:
    """A set of procedural people.

    Attributes:
        first: number of the first of them.
        people: how many they are.
        images: of each.
    """

    first: int
    people: int
    images: int

    def faces(self, image_size: int, *, progress: bool = False) -> FaceSet:
        """Their images, rendered once."""
        faces = SyntheticFaces(
            self.people, self.images, image_size=image_size, seed=0, first_identity=self.first
        )
        return cache_faces(faces, progress=progress)


@dataclass(frozen=True)
class Regime:
    """From whom students learn, what is known of these people, and which methods are compared.

    Attributes:
        people: name of the set; "own" are those whom the teacher was trained on. It has no
            prototypes of others: methods that look them up get the means of its rows by label.
        rows: the methods, in the order in which they are run.
        labels: False for no label at all: no identity loss, no labelled pair, no labelled batch.
        wrong_labels: share of the labels that are replaced by those of others.
    """

    people: str
    rows: tuple[str, ...]
    labels: bool = True
    wrong_labels: float = 0.0


@dataclass(frozen=True)
class Run:
    """One student.

    Attributes:
        regime: where it learns.
        row: the method, as the plan writes it.
        setting: the method with the weight that is tried, or was chosen.
        stage: "search" or "final".
        seed: of the run.
    """

    regime: str
    row: str
    setting: str
    stage: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder inside of the study's."""
        return f"{self.regime}/{self.setting.replace(':', '')}-{self.seed}"


@dataclass(frozen=True)
class StudyPlan:
    """A study; ekd_lite/recipes/study.json holds the one of the book.

    Attributes:
        about: what it is for.
        teacher: "packaged", the path of a file, or how it is trained, on the people "own".
        student: how students are trained, but for method, seed and what a regime takes away.
        sets: people by name; nobody stands in two of them. "validation" and "test" are needed, and
            "calibration" where the teacher's threshold is: strangers, on whom it is measured.
        regimes: by name, in the order in which they are run.
        grid: factors of the weight of a row's first method.
        extensions: how many weights more are tried, where the best stands at an end.
        search_seeds: of the students by which weights are chosen.
        final_seeds: of those that are tested.
        choose_at: false-positive rates; weights are chosen by the mean TPR at them.
        calibrated_at: the false-positive rate of the teacher's threshold.
        resamples: draws behind every interval.
        processes: runs at the same time; by default one for each core.
    """

    about: str
    teacher: str | TrainConfig
    student: TrainConfig
    sets: Mapping[str, People]
    regimes: Mapping[str, Regime]
    grid: tuple[float, ...]
    extensions: int
    search_seeds: tuple[int, ...]
    final_seeds: tuple[int, ...]
    choose_at: tuple[float, ...] = (1e-3, 1e-4)
    calibrated_at: float = 1e-4
    resamples: int = 1000
    processes: int | None = None

    def __post_init__(self) -> None:
        """Collect every problem and raise them as one ValueError."""
        problems = [*self._set_problems(), *self._row_problems()]
        if not self.grid or len(set(self.grid)) < len(self.grid) or min(self.grid) <= 0:
            problems.append(f"grid must be positive numbers, each once: {self.grid}")
        if set(self.search_seeds) & set(self.final_seeds) or not self.search_seeds:
            problems.append("search_seeds and final_seeds must be given and share none")
        if len(set(self.final_seeds)) < 2:
            problems.append("final_seeds must be two or more: one says nothing of how runs differ")
        rates = (*self.choose_at, self.calibrated_at)
        if not self.choose_at or not all(0 < rate <= 1 for rate in rates):
            problems.append("choose_at and calibrated_at must be rates in (0, 1]")
        processes = 1 if self.processes is None else self.processes
        if self.extensions < 0 or self.resamples < 1 or processes < 1:
            problems.append("extensions must be at least 0, resamples and processes at least 1")
        nets = [self.student] + ([] if isinstance(self.teacher, str) else [self.teacher])
        if any(net.method != "none" for net in nets):
            problems.append("student and teacher must have no method of their own")
        if len({net.image_size for net in nets}) > 1:
            problems.append("student and teacher must see images of the same size")
        if problems:
            raise ValueError("bad study:\n  " + "\n  ".join(problems))

    def _set_problems(self) -> list[str]:
        """What is wrong with the sets of people."""
        needed = {"validation": "", "test": ""}
        needed |= {regime.people: f" by regime {name}" for name, regime in self.regimes.items()}
        if self.needs_threshold:
            needed["calibration"] = " for the teacher's threshold"
        if not isinstance(self.teacher, str):
            needed[OWN] = " for the teacher"
        problems = [f"no set {n!r}, needed{why}" for n, why in needed.items() if n not in self.sets]
        for name, s in self.sets.items():
            if s.first < 0 or s.people < 2 or s.images < 2:
                problems.append(f"set {name!r} needs two people or more, and two images of each")
        ranges = sorted((s.first, s.first + s.people, name) for name, s in self.sets.items())
        for (_, end, name), (begin, _, other) in pairwise(ranges):
            if end > begin:
                problems.append(f"the same people stand in {name!r} and {other!r}")
        return problems

    def _row_problems(self) -> list[str]:
        """What is wrong with the regimes and their rows."""
        problems = [] if self.regimes else ["a study needs a regime"]
        for name, regime in self.regimes.items():
            if not 0 <= regime.wrong_labels < 1 or (regime.wrong_labels and not regime.labels):
                problems.append(f"regime {name}: wrong_labels is a share of the labels in [0, 1)")
            seen: dict[str, str] = {}
            for row in regime.rows:
                try:
                    self.config_of(Run(name, row, row, "", 0), threshold=0.5)
                    used = parse_method(row)
                except ValueError as error:
                    text = str(error).removeprefix("bad training configuration:\n  ")
                    problems.append(f"regime {name}, row {row!r}: {text}")
                    continue
                if twin := seen.get(method_of(row)):
                    problems.append(f"regime {name}: {row!r} and {twin!r} are one method")
                seen[method_of(row)] = row
                asks = [n for n in used if not regime.labels and needs_labels(n)]
                problems += [f"regime {name} has no labels, and {n!r} needs them" for n in asks]
        return problems

    @property
    def needs_threshold(self) -> bool:
        """Whether anything goes by the teacher's decisions."""
        return any(
            not regime.labels or decides(row)
            for regime in self.regimes.values()
            for row in regime.rows
        )

    def config_of(self, run: Run, *, threshold: float | None) -> TrainConfig:
        """How a student is trained; the threshold is the teacher's, for those that go by it."""
        changes: dict[str, Any] = {}
        if not self.regimes[run.regime].labels:
            changes = {"identity_weight": 0.0, "sampler": "neighbours"}
        if changes or decides(run.setting):
            changes["teacher_threshold"] = threshold
        return dataclasses.replace(self.student, method=run.setting, seed=run.seed, **changes)

    def only(self, patterns: Sequence[str] = (), regimes: Sequence[str] = ()) -> StudyPlan:
        """The same study with fewer rows: those whose method or row matches, in these regimes.

        Raises:
            ValueError: a regime that is none, or a pattern that matches nothing.
        """
        for name in regimes:
            if name not in self.regimes:
                raise ValueError(f"no regime {name!r}{nearest_name(name, self.regimes)}")
        chosen = [regime for n, regime in self.regimes.items() if not regimes or n in regimes]
        rows = [row for regime in chosen for row in regime.rows]
        known = dict.fromkeys([*map(method_of, rows), *rows])
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in known):
                hint = nearest_name(pattern, known)
                raise ValueError(f"no method of the study matches {pattern!r}{hint}")

        def kept(name: str, row: str) -> bool:
            texts = row, method_of(row)
            found = not patterns or any(fnmatchcase(t, p) for t in texts for p in patterns)
            return found and (not regimes or name in regimes)

        narrow = {
            name: dataclasses.replace(regime, rows=tuple(r for r in regime.rows if kept(name, r)))
            for name, regime in self.regimes.items()
        }
        return dataclasses.replace(self, regimes=narrow)

    def shared(self) -> dict[str, Any]:
        """What all results in one folder have in common beside the teacher, as JSON can hold it."""
        given, usual = (json.loads(net.to_json()) for net in (self.student, TrainConfig()))
        return {
            "renderer": RENDERER_VERSION,
            "student": {name: value for name, value in given.items() if value != usual[name]},
            "sets": {name: list(dataclasses.astuple(people)) for name, people in self.sets.items()},
            "regimes": {n: [r.people, r.labels, r.wrong_labels] for n, r in self.regimes.items()},
            "choose_at": list(self.choose_at),
            "calibrated_at": self.calibrated_at,
        }


def method_of(row: str) -> str:
    """A row without its weights: ekd_fine+fitnet."""
    return "+".join(part.partition(":")[0] for part in row.split("+"))


def needs_labels(name: str) -> bool:
    """Whether a method looks at labels, if only to find a prototype."""
    return DISTILLERS[name].needs_labels or asks_for_people(DISTILLERS[name])


def decides(row: str) -> bool:
    """Whether a method goes by the teacher's decisions."""
    return any(DISTILLERS[n].needs_threshold for n in method_of(row).split("+") if n in DISTILLERS)


def load_study(name: str) -> StudyPlan:
    """Read a study: its name in ekd_lite/recipes, or the path of a .json file.

    Raises:
        ValueError: unknown name (the nearest is suggested), or a file that is no study.
    """
    if name.lower().endswith(".json"):
        check_regular(Path(name))
        text: str | bytes = Path(name).read_bytes()
    elif name in (names := recipe_names(studies=True)):
        text = (resources.files("ekd_lite") / "recipes" / f"{name}.json").read_text("utf-8")
    else:
        raise ValueError(f"unknown study {name!r}{nearest_name(name, names)}")
    try:
        values: dict[str, Any] = json.loads(text)
        values["student"] = TrainConfig(**values["student"])
        if not isinstance(values["teacher"], str):
            values["teacher"] = TrainConfig(**values["teacher"])
        values["sets"] = {n: People(**people) for n, people in values["sets"].items()}
        values["regimes"] = {
            n: Regime(**regime | {"rows": tuple(regime["rows"])})
            for n, regime in values["regimes"].items()
        }
        for key in ("grid", "search_seeds", "final_seeds", "choose_at"):
            if key in values:
                values[key] = tuple(values[key])
        return StudyPlan(**values)
    except KeyError as error:
        raise ValueError(f"{name} is no study: it has no {error}") from error
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no study: {error}") from error
