"""Batches with genuine pairs in them.

A batch of images drawn at random from thousands of identities holds almost no genuine pair, and a
loss on pairs would have nothing to pull together. EKD (METHODS of TFace's `dataset.py`) therefore
joins two parts: a *general* part of random images, and a *balanced* part of some identities with a
few images each.

Mended against the authors' sampler: it runs on Python >= 3.11, is seeded, covers the set (the
general part walks through a new permutation every epoch instead of drawing afresh each time),
gives different ranks different images by construction, and never puts one image twice into a batch
(theirs repeats the images of identities that have too few, which then count as genuine pairs of
similarity 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ekd_lite.data.indexing import int64_tensor
from ekd_lite.ops import are_numbers, generator_for

MANY = 1 << 14  # identities from which on a batch draws those alone that it needs


class BatchStream:
    """An endless stream of batches for one rank, in passes; the general part of each.

    Attributes:
        epoch: the pass that iteration will give next.
        step: the step of that pass with which it begins; set it to resume. 0 after a pass has
            begun.
    """

    def __init__(
        self,
        num_images: int,
        *,
        general: int,
        balanced: int,
        num_steps: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"expected 0 <= rank < world_size, got rank {rank} of {world_size}")
        self.general = general
        self.balanced = balanced
        self.num_steps = num_steps
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.step = 0
        self._num_images = num_images
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)  # permutation in use
        self.steps_per_epoch = num_images // max(1, general * world_size)

    def __len__(self) -> int:
        return self.num_steps - self.step

    def __iter__(self) -> Iterator[list[int]]:
        # A generator: a pass begins with its first batch. torch's loader asks for two iterators
        # and throws one away before it has given any.
        first = self.epoch * self.num_steps
        steps = range(first + self.step, first + self.num_steps)
        self.epoch, self.step = self.epoch + 1, 0
        for step in steps:
            yield self.batch(step)

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass that iteration gives next, as Lightning and other trainers do.

        Raises:
            ValueError: it is negative or no whole number.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"epoch must be a whole number of at least 0, got {epoch!r}")
        self.epoch = epoch

    def batch(self, step: int) -> list[int]:
        """The image indices of one step for this rank, general part first; any step from 0 on."""
        general = self._general(step)
        return general + self._balanced(step, taken=set(general))

    def _general(self, step: int) -> list[int]:
        if not self.general:
            return []
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.randperm(self._num_images, generator=self._generator(0, epoch))
        first = (position * self.world_size + self.rank) * self.general
        indices: list[int] = self._order[first : first + self.general].tolist()
        return indices

    def _balanced(self, step: int, taken: set[int]) -> list[int]:
        raise NotImplementedError

    def _generator(self, stream: int, index: int) -> torch.Generator:
        """A generator of its own for every epoch or step, so that any of them can be replayed."""
        mixed = (self.seed * 2 + stream) * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9
        return torch.Generator().manual_seed(mixed % 2**63)


class IdentityBalancedSampler(BatchStream):
    """Index batches [general | balanced] for one rank; a pure function of (seed, step, rank).

    A batch costs as much with millions of identities as with thousands: from 16,384 usable ones on
    it draws those alone that it needs. (Earlier all of them were shuffled, so that large sets have
    other batches now; smaller ones have those they always had.)

    Give it to a `torch.utils.data.DataLoader` as `batch_sampler`, or call `batch(step)`. Each pass
    of a `for` loop gives the next `num_steps` batches of one endless stream: pass p, counted from
    0, those of the steps p * num_steps on. `set_epoch(p)` chooses the pass.

    Args:
        labels: identity of every image of the set, (N,), a tensor, array or list.
        general: random images a batch and rank.
        identities: distinct identities in the balanced part of a batch and rank.
        images_per_identity: images of each. An identity that has fewer gives all it has, and one
            more identity fills the gap, so that batches keep their size; identities with a single
            image are not used for this part.
        num_steps: batches a pass.
        seed: of all draws.
        rank: this process, 0 .. world_size - 1.
        world_size: number of processes; all of them must be given the same seed.

    Attributes:
        epoch: the pass that iteration will give next.
        step: the step of that pass with which it begins; set it to resume. 0 after a pass has
            begun.

    Raises:
        ValueError: an impossible option, or a set too small for one batch.
    """

    def __init__(
        self,
        labels: Tensor | Sequence[int] | Any,
        *,
        general: int = 32,
        identities: int = 8,
        images_per_identity: int = 4,
        num_steps: int = 1000,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        asked = (general, identities, images_per_identity)
        is_whole = are_numbers(*asked, num_steps, seed, rank, world_size, whole=True)
        if is_whole and min(num_steps, seed) < 0:
            raise ValueError(f"expected num_steps >= 0 and seed >= 0, got {num_steps} and {seed}")
        if not is_whole or min(asked) < 0 or general + identities < 1 or images_per_identity < 2:
            raise ValueError(
                "expected general >= 0, identities >= 0 (not both 0) and images_per_identity >= 2, "
                f"got {general}, {identities} and {images_per_identity}"
            )
        labels = int64_tensor(labels, "labels").cpu()
        super().__init__(
            len(labels),
            general=general,
            balanced=identities * images_per_identity,
            num_steps=num_steps,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self.images_per_identity = images_per_identity
        order = labels.argsort(stable=True)
        sizes: Tensor = torch.unique(labels, return_counts=True)[1]
        several = sizes > 1
        # The images of usable identity p: _order_by_person[_first[p] : _first[p] + _sizes[p]].
        # In numpy, which looks up single numbers at a quarter of torch's cost.
        self._order_by_person = order.numpy()
        self._first = (sizes.cumsum(0) - sizes)[several].numpy()
        self._sizes = sizes[several].numpy()
        usable = int(np.minimum(self._sizes, images_per_identity).sum())
        # The general part may take images away from the balanced one, at worst all of its own.
        if self.steps_per_epoch < 1 or (
            self.balanced and usable < self.balanced * world_size + general
        ):
            raise ValueError(
                f"{self._num_images} images of {len(sizes)} identities ({len(self._sizes)} with "
                f"two images or more) are too few for batches of {general} random and "
                f"{identities} x {images_per_identity} balanced images on {world_size} rank(s); "
                "use smaller batches or more data"
            )

    def _balanced(self, step: int, taken: set[int]) -> list[int]:
        if not self.balanced:
            return []
        generator = self._generator(1, step)
        indices: list[int] = []
        # All ranks shuffle alike and rank r takes every world_size-th identity: no one twice.
        everyone = self._people(step, generator)
        for person in itertools.islice(everyone, self.rank, None, self.world_size):
            first, size = self._first[person], self._sizes[person]
            shuffle = torch.randperm(int(size), generator=generator).numpy()
            rows = self._order_by_person[first : first + size][shuffle]
            fresh = [row for row in rows.tolist() if row not in taken][: self.images_per_identity]
            indices += fresh if len(fresh) > 1 else []
            if len(indices) >= self.balanced:
                return indices[: self.balanced]
        # A rank with too few identities: random images keep the batch at its size.
        used = taken | set(indices)
        spare = torch.randperm(self._num_images, generator=generator).tolist()
        return (indices + [row for row in spare if row not in used])[: self.balanced]

    def _people(self, step: int, generator: torch.Generator) -> Iterator[int]:
        """The usable identities in the order of this step, as many as are asked for."""
        count = len(self._sizes)
        if count < MANY:
            everyone = torch.randperm(count, generator=generator)
            for start in range(0, count, 256):
                yield from everyone[start : start + 256].tolist()
        else:
            yield from shuffled(count, generator_for(self.seed, 8, step))


def shuffled(count: int, generator: np.random.Generator) -> Iterator[int]:
    """0 .. count - 1 in random order, at the cost of those that are taken alone.

    Fisher and Yates' shuffle, of which only the places that were exchanged are written down.
    """
    moved: dict[int, int] = {}
    for start in range(0, count, 64):
        stop = min(start + 64, count)
        highest = count - np.arange(start, stop)
        jumps: list[int] = generator.integers(highest).tolist()
        for place, jump in enumerate(jumps, start):
            other = place + jump
            yield moved.get(other, other)
            moved[other] = moved.pop(place, place)
