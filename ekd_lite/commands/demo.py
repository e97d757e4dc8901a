"""`ekd-lite demo`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from ekd_lite.experiments import DemoConfig, run_demo
from ekd_lite.models import BACKBONES
from ekd_lite.train import Teacher


@dataclass(frozen=True)
class Demo(DemoConfig):
    """The default experiment. On two cores it takes five to ten minutes.

    With --teacher PATH --faces DIR: a net that is there already teaches students on photographs.
    """

    teacher_colour: Literal["rgb", "bgr"] | None = None
    """Order of the channels that a teacher's file takes; left out: rgb, or what its file says."""
    teacher_range: tuple[float, float] | None = None
    """Black and white as it takes them, such as 0 255; left out: -1 1."""
    teacher_output: str | None = None
    """Name or number of its output, if it has several; left out: the first."""

    def __post_init__(self) -> None:
        """Nothing yet: `run` checks, so that the parser does not put its own words around it."""

    def run(self) -> None:
        """Do it all."""
        config = DemoConfig(
            **{field.name: getattr(self, field.name) for field in fields(DemoConfig)}
        )
        name = self.teacher_output
        output = int(name) if name is not None and name.lstrip("-").isdigit() else name
        said = {"colour": self.teacher_colour, "pixel_range": self.teacher_range, "output": output}
        options: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
        teacher = None
        if config.teacher not in BACKBONES:
            teacher = Teacher.from_file(config.teacher, **options)
        elif options:
            raise ValueError("--teacher-... says how a file takes images: give --teacher PATH too")
        run_demo(config, teacher=teacher)
