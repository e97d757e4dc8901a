"""The commands of `ekd-lite`: a dataclass of options each, with a `run` that does it."""
