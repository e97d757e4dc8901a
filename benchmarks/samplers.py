"""Batches of indices from sets of very many people."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from benchmarks.timing import Row, measure
from ekd_lite.data import IdentityBalancedSampler


class EveryoneShuffled(IdentityBalancedSampler):
    """All people in a new order for each batch, as before and as TFace's sampler has it."""

    def _people(self, step: int, generator: torch.Generator) -> Iterator[int]:
        everyone: list[int] = torch.randperm(len(self._sizes), generator=generator).tolist()
        yield from everyone


def bench_sampler(*, quick: bool) -> Iterator[Row]:
    """A batch of 32 random images and 8 people with 4 each; peer: all people shuffled for each."""
    for count in (85_742,) if quick else (10_000, 85_742, 360_232, 2_000_000):
        labels = torch.arange(4 * count) // 4
        ours, peer = IdentityBalancedSampler(labels), EveryoneShuffled(labels)
        steps = itertools.count()
        size = f"{count // 1000}k people" if count < 1e6 else f"{count // 10**6} M people"
        yield measure(
            "sampler", size,
            {
                "ours": lambda s=ours, n=steps: s.batch(next(n)),
                "peer": lambda s=peer, n=steps: s.batch(next(n)),
            },
            memory=False, goal="0.1 ms at any size",
        )  # fmt: skip
