"""Training recipes as data: ekd_lite/recipes/NAME.json."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from ekd_lite.ops import nearest_name
from ekd_lite.train.config import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """A configuration with what it was made for.

    Attributes:
        name: name of its file.
        about: where it comes from and what it is for.
        config: the configuration; batch sizes are those of one process.
        people: training identities.
        images: training images.
        processes: of the run.
        everyone: train on all people of the set, because validation is done on other sets.
    """

    name: str
    about: str
    config: TrainConfig
    people: int = 1000
    images: int = field(default=0)
    processes: int = 1
    everyone: bool = False


def recipe_names(*, studies: bool = False) -> list[str]:
    """Names of all recipes of one run or, for `ekd-lite compare`, of all studies."""
    folder = resources.files("ekd_lite") / "recipes"
    names = (f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json"))
    return sorted(name for name in names if name.startswith("study") == studies)


def load_recipe(name: str) -> Recipe:
    """Read a recipe.

    Raises:
        ValueError: unknown name (the nearest is suggested), or a file that is no recipe.
    """
    if name not in recipe_names():
        raise ValueError(f"unknown recipe {name!r}{nearest_name(name, recipe_names())}")
    file = resources.files("ekd_lite") / "recipes" / f"{name}.json"
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    values["config"] = TrainConfig(**values["config"])
    values.setdefault("images", 24 * values.get("people", 1000))
    return Recipe(name=name, **values)
