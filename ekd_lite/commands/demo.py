"""`ekd-lite demo`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from ekd_lite.commands.net_options import NetOptions, open_net
from ekd_lite.experiments import DemoConfig, run_demo
from ekd_lite.models import BACKBONES


@dataclass(frozen=True)
class Demo(DemoConfig):
    """The default experiment. On two cores it takes five to ten minutes.

    With --teacher PATH --faces DIR: a net that is there already teaches students on photographs.
    """

    net: NetOptions = field(default_factory=NetOptions)

    def __post_init__(self) -> None:
        """Nothing yet: `run` checks, so that the parser does not put its own words around it."""

    def run(self) -> None:
        """Do it all."""
        values = {option.name: getattr(self, option.name) for option in fields(DemoConfig)}
        config, teacher = DemoConfig(**values), None
        if config.teacher not in BACKBONES:
            teacher = open_net(Path(config.teacher), self.net, image_size=config.image_size)
        elif self.net.said():
            said = ", ".join(self.net.said())
            raise ValueError(f"{said} say how a teacher's file takes images: give --teacher PATH")
        run_demo(config, teacher=teacher)
