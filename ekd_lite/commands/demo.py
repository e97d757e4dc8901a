"""`ekd-lite demo`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from ekd_lite.commands.net_options import NetOptions, open_net
from ekd_lite.experiments import DemoConfig, describe_demo, run_demo
from ekd_lite.models import BACKBONES


@dataclass(frozen=True)
class Demo(DemoConfig):
    """The default experiment. On two cores it takes five to ten minutes.

    With --teacher PATH --faces DIR: a net that is there already teaches students on photographs.
    The minutes are those of the default: images of 112 pixels take a CPU many hours, --dry-run says
    how many.
    """

    dry_run: bool = False
    """Print which runs it still takes and how long they will be, and stop."""
    net: NetOptions = field(default_factory=NetOptions)

    def __post_init__(self) -> None:
        """Nothing yet: `run` checks, so that the parser does not put its own words around it."""

    def run(self) -> None:
        """Do it all."""
        config = DemoConfig(
            **{field.name: getattr(self, field.name) for field in fields(DemoConfig)}
        )
        teacher = None
        if config.teacher not in BACKBONES:
            teacher = open_net(Path(config.teacher), self.net, image_size=config.image_size)
        elif self.net.said():
            option = next(iter(self.net.said())).replace("_", "-")
            raise ValueError(
                f"--{option} says how a teacher's file takes images: give --teacher PATH too"
            )
        if self.dry_run:
            print(describe_demo(config, teacher=teacher))
        else:
            run_demo(config, teacher=teacher)
