"""`ekd-lite demo`."""

from __future__ import annotations

from ekd_lite.experiments import DemoConfig, run_demo


class Demo(DemoConfig):
    """The default experiment. On two cores it takes five to ten minutes."""

    def __post_init__(self) -> None:
        """Nothing yet: `run` checks, so that the parser does not put its own words around it."""

    def run(self) -> None:
        """Do it all."""
        run_demo(DemoConfig(**vars(self)))
