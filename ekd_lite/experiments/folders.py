"""Folders that `fit` left behind, read back for a comparison."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ekd_lite.files import write_atomically
from ekd_lite.models import Profile, profile_backbone
from ekd_lite.train import Model, TrainConfig, load_model
from ekd_lite.train.config import OWN, read_config
from ekd_lite.train.log import read_json_lines
from ekd_lite.train.model_file import model_info
from ekd_lite.train.student import build_student

MODEL, LOG, CONFIG = "model.safetensors", "log.jsonl", "config.json"


@dataclass(frozen=True)
class Run:
    """A run, finished or not, or a model file by itself.

    Attributes:
        name: of its folder; unique among the runs that were read together.
        path: the folder or file.
        config: None for a model file by itself.
        info: what the model file says of itself; None before the run has finished.
        log: records of log.jsonl, as far as the run has come.
        profile: what its backbone costs.
    """

    name: str
    path: Path
    config: TrainConfig | None
    info: dict[str, Any] | None
    log: list[dict[str, Any]]
    profile: Profile

    def about(self, name: str) -> Any:
        """A field of the model file's description or of the configuration; None if in neither."""
        return (self.info or {}).get(name, getattr(self.config, name, None))

    @property
    def steps(self) -> int | None:
        """Steps done, as far as model file or log tell."""
        if self.info is not None:
            return self.info.get("steps")
        return self.log[-1]["step"] if self.log else 0

    @property
    def final_loss(self) -> float | None:
        """The sum of all parts in the last record; None if it is not known or was not finite."""
        return self.log[-1].get("loss") if self.log else None

    @property
    def note(self) -> str:
        """What is missing of the run, in words; empty if nothing is."""
        if self.info is not None:
            return ""
        return f"not finished: step {self.steps} of {self.about('steps')}"


def read_runs(
    paths: Iterable[Path], *, repeats: int = 1, student: Callable[[], nn.Module] | None = None
) -> list[Run]:
    """Read run folders, folders of such folders, and model files.

    Args:
        paths: of them.
        repeats: how often the latency of each backbone is measured; once is too few to report it.
        student: what makes the net of runs that trained one of the user's own.

    Raises:
        FileNotFoundError: there is no run at one of the paths.
        ValueError: a damaged file, by name; no path; a run that is named twice.
    """
    folders = [folder for path in paths for folder in _find(path)]
    if not folders:
        raise ValueError("name one or more runs: folders that `ekd-lite train` wrote")
    whole = [folder.resolve() for folder in folders]
    twice = [f for f, path in zip(folders, whole, strict=True) if whole.count(path) > 1]
    if twice:
        raise ValueError(f"named twice: {twice[0]}")
    profiles: dict[tuple[Any, ...], Profile] = {}
    return [
        _read(folder, name, profiles, repeats, student)
        for folder, name in zip(folders, _names(folders), strict=True)
    ]


def _find(path: Path) -> list[Path]:
    """The path itself if it is a run, else the runs inside it, by name."""
    if path.is_file() or _is_run(path):
        return [path]
    inside = sorted(p for p in path.iterdir() if _is_run(p)) if path.is_dir() else []
    if inside or (path / CONFIG).is_file():
        return inside or [path]
    raise FileNotFoundError(
        f"no run at {path}: expected a folder with {CONFIG}, {LOG} and {MODEL}, a folder of such "
        "folders, or a model file"
    )


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in (MODEL, LOG, "checkpoint.pt"))


def _names(folders: list[Path]) -> list[str]:
    """As many of the last parts of every path as it takes to tell them apart."""
    ends = (f.parent if f.name == MODEL else f for f in folders)
    parts = [
        f.resolve().with_name(f.resolve().name.removesuffix(".safetensors")).parts for f in ends
    ]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(f) for f in folders]


def _read(
    path: Path,
    name: str,
    profiles: dict[tuple[Any, ...], Profile],
    repeats: int,
    student: Callable[[], nn.Module] | None,
) -> Run:
    config, info, log, backbone = None, None, [], None
    if path.is_dir():
        if (path / CONFIG).exists() or not (path / MODEL).exists():
            config = read_config(path / CONFIG)
        if (path / LOG).exists():
            log = read_json_lines(path / LOG)
    if path.is_file() or (path / MODEL).exists():
        model = load_run(path, student)
        info, backbone = model.info, model.backbone
    assert info is not None or config is not None
    net = info if info is not None else vars(config)
    key = (net["backbone"], net["embedding_dim"], net["image_size"])
    if key not in profiles:
        if backbone is None:
            assert config is not None
            is_own = config.backbone.startswith(OWN)
            backbone = build_student(config, student if is_own else None).net
        profiles[key] = profile_backbone(backbone, image_size=key[2], repeats=repeats)
    return Run(name, path, config, info, log, profiles[key])


def load_run(
    path: Path,
    student: Callable[[], nn.Module] | None = None,
    *,
    device: torch.device | str = "cpu",
) -> Model:
    """The model of a run; `student` makes its net if that is one of the user's own."""
    is_own = model_info(path).get("backbone", "").startswith(OWN)
    return load_model(path, device=device, student=student if is_own else None)


def group_runs(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Put runs together that differ in nothing but the seed, and name the groups.

    Runs that agree in the seed too (of another teacher's file or other faces, perhaps) stay apart.
    """
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            seeds = [other.about("seed") for other in group]
            if _differ_by_seed(run, group[0]) and run.about("seed") not in seeds:
                group.append(run)
                break
        else:
            groups.append([run])
    named: dict[str, list[Run]] = {}
    for group in groups:
        name = group[0].name
        if len(group) > 1:
            stems = {re.sub(r"[-_ .]*\d+$", "", run.name) for run in group}
            name = stems.pop() if len(stems) == 1 else str(group[0].about("method"))
        named[f"{name} ({group[0].name})" if name in named else name] = group
    return named


def _differ_by_seed(run: Run, other: Run) -> bool:
    if run.config is None or other.config is None:
        if run.config is not other.config:
            return False
        ignored = ("seed", "train_seconds")
        a, b = ({k: v for k, v in (r.info or {}).items() if k not in ignored} for r in (run, other))
        return a == b
    # What neither the weights nor the meaning of a run depend on.
    free = ("seed", "device", "log_every", "checkpoint_every", "cache_teacher")
    same = {name: getattr(other.config, name) for name in free}
    return not dataclasses.replace(run.config, **same).differences(other.config)


def record_options(out: Path, options: Mapping[str, Any]) -> None:
    """Write config.json, and refuse to mix results of different options in one folder.

    Args:
        out: the folder.
        options: what all results in it share, as JSON can hold it.

    Raises:
        ValueError: the folder was made with other ones, or its config.json is damaged.
    """
    path = out / CONFIG
    if path.exists():
        try:
            theirs = dict(json.loads(path.read_bytes()))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): choose another --out, or delete that folder"
            ) from error
        other = [
            f"{k}: {theirs.get(k)!r}, now {v!r}" for k, v in options.items() if theirs.get(k) != v
        ]
        if other:
            raise ValueError(
                f"{out} holds results of other options ({'; '.join(other)}): "
                "choose another --out, or delete it"
            )
    write_atomically(path, json.dumps(options, indent=2).encode())
