"""Batches with genuine pairs in them, found without labels: by a teacher's embeddings.

A batch joins random images with some *anchors*, random images too, each with partners drawn at
random among the rows that the teacher accepts for it: rows whose cosine with the anchor's row is a
threshold or more. At random, not the nearest: near duplicates teach little (in our trials FitNet
93.9 % and 93.4 % at 1e-3, EKD by decisions 94.7 % and 94.1 %).

How many partners are right depends on the size of the set. Of N images, n of them of the anchor's
person, at a false-positive rate f and the teacher's TPR there, (n - 1) TPR accepted rows are right
and (N - n) f are wrong: with 24,000 images, 24 a person, some nine in ten at f = 1e-4, with 5.8
million images, 68 a person, one in ten. Choose f about 1 / N, or less.

What an anchor accepts takes one product of its row with all rows. The anchors of many steps go
together, so that the rows are read once for all of them, in chunks: nothing of size N x N is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ekd_lite.data.sampler import BatchStream
from ekd_lite.ops import are_numbers, check_table, generator_for, one_line, unit_rows

ANCHORS = 1024  # of one pass over all rows
CHUNK = 16_384  # rows of one product
MAX_HELD = 1 << 26  # accepted rows of one pass


class NeighbourSampler(BatchStream):
    """Index batches [general | anchors with partners] for one rank; a function of (seed, step).

    Use it as `IdentityBalancedSampler`. Within a rank no image stands twice in a batch; two ranks
    have different anchors and different images in their general parts.

    Args:
        rows: the teacher's embeddings of the set, (N, D), a tensor, array or memory map.
        threshold: the cosine from which the teacher holds two images for one person.
        general: random images a batch and rank.
        anchors: a batch and rank.
        images_per_anchor: the anchor and its partners. An anchor that has fewer gives all it has,
            and one more anchor fills the gap; if those run out, random images do.
        num_steps: batches a pass.
        seed: of all draws.
        rank: this process, 0 .. world_size - 1.
        world_size: number of processes; all of them must be given the same seed.
        device: where products are made.

    Attributes:
        epoch: as in `IdentityBalancedSampler`.
        step: likewise.
        accepted: rows that the teacher accepts for an anchor, the mean over the last anchors that
            were looked up.

    Raises:
        ValueError: an impossible option, a device that is not there, NaN in a row, or a set too
            small for one batch; with the first batch, a threshold at which no anchor has any
            partner.

    Example:
        >>> rows = torch.eye(8).repeat_interleave(4, dim=0)
        >>> sampler = NeighbourSampler(rows, 0.5, general=4, anchors=2)
        >>> len(sampler.batch(0))
        12
    """

    def __init__(
        self,
        rows: Tensor | Sequence[Sequence[float]] | Any,
        threshold: float,
        *,
        general: int = 48,
        anchors: int = 12,
        images_per_anchor: int = 4,
        num_steps: int = 1000,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        try:
            rows = torch.as_tensor(rows)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"expected rows (N, D), numbers of a tensor or an array: {one_line(error)}"
            ) from error
        check_table("N", rows)
        asked = (general, anchors, images_per_anchor)
        is_whole = are_numbers(*asked, num_steps, seed, rank, world_size, whole=True)
        if not is_whole or min(num_steps, seed) < 0:
            raise ValueError(
                "expected whole numbers, general, anchors and images_per_anchor, num_steps >= 0, "
                f"seed >= 0, rank and world_size, got {asked}, {num_steps}, {seed}, {rank} and "
                f"{world_size}"
            )
        if min(general, anchors) < 0 or general + anchors < 1 or images_per_anchor < 2:
            raise ValueError(
                "expected general >= 0, anchors >= 0 (not both 0) and images_per_anchor >= 2, "
                f"got {general}, {anchors} and {images_per_anchor}"
            )
        if not are_numbers(threshold) or not -1 <= threshold <= 1:
            raise ValueError(f"the threshold must be a cosine, got {threshold!r}")
        self.device = _usable(device)
        super().__init__(
            len(rows),
            general=general,
            balanced=anchors * images_per_anchor,
            num_steps=num_steps,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        least = max(general + self.balanced, anchors * world_size)
        if self.steps_per_epoch < 1 or len(rows) < least:
            raise ValueError(
                f"{len(rows)} images are too few for batches of {general} random images and "
                f"{anchors} anchors of {images_per_anchor} on {world_size} rank(s); use smaller "
                "batches or more data"
            )
        self.rows, self.threshold = rows, threshold
        self.anchors, self.images_per_anchor = anchors, images_per_anchor
        self.accepted = float("nan")
        # Some to spare: to look up a single one later costs as much as reading all rows.
        self._each = anchors + max(2, anchors // 4)
        self._steps_at_once = max(1, ANCHORS // self._each)
        self._block, self._found = -1, [[rows]]  # the block of steps whose partners are known

    def _balanced(self, step: int, taken: set[int]) -> list[int]:
        indices: list[int] = []
        generator = generator_for(self.seed, 6, step, self.rank)
        for anchor, rows in self._candidates(step) if self.balanced else ():
            used = taken.union(indices)
            fresh = [row for row in generator.permutation(rows).tolist() if row not in used]
            if anchor not in used and fresh:
                indices += [anchor, *fresh[: self.images_per_anchor - 1]]
            if len(indices) >= self.balanced:
                return indices[: self.balanced]
        # Too few anchors with partners: random images keep the batch at its size.
        used = taken.union(indices)
        spare = generator.choice(self._num_images, self.general + self.balanced, replace=False)
        return (indices + [row for row in spare.tolist() if row not in used])[: self.balanced]

    def _candidates(self, step: int) -> Iterator[tuple[int, Tensor]]:
        """Anchors with the rows that each accepts, twice as many as a batch should need."""
        block, place = divmod(step, self._steps_at_once)
        if block != self._block:
            first = block * self._steps_at_once
            drawn = [self._drawn(first + i)[: self._each] for i in range(self._steps_at_once)]
            found = self._partners(torch.cat(drawn))
            if not any(map(len, found)):
                raise ValueError(
                    f"the teacher accepts no other image for any of {len(found)}, at a threshold "
                    f"of {self.threshold:g}: is it a cosine of this teacher?"
                )
            self.accepted = sum(map(len, found)) / len(found)
            count = len(drawn[0])
            self._found = [found[i : i + count] for i in range(0, len(found), count)]
            self._block = block
        anchors = self._drawn(step)
        yield from zip(anchors.tolist(), self._found[place], strict=False)
        spare = anchors[self._each :]
        yield from zip(spare.tolist(), self._partners(spare), strict=True)

    def _drawn(self, step: int) -> Tensor:
        """This rank's anchors of a step, and as many to spare, so far as there are images."""
        count = min(2 * self.anchors * self.world_size, self._num_images)
        drawn = generator_for(self.seed, 5, step).choice(self._num_images, count, replace=False)
        return torch.from_numpy(drawn)[self.rank :: self.world_size]

    def _partners(self, anchors: Tensor) -> list[Tensor]:
        """The rows that the teacher accepts for each anchor, in order, the anchor left out."""
        unit = unit_rows(self.rows[anchors].to(self.device))
        anchor, row, held = [], [], 0
        for start in range(0, self._num_images, CHUNK):
            chunk = unit_rows(self.rows[start : start + CHUNK].to(self.device))
            hits = np.flatnonzero((unit @ chunk.T >= self.threshold).cpu().numpy())
            places = np.divmod(hits, len(chunk))
            anchor.append(torch.from_numpy(places[0]))
            row.append(torch.from_numpy(places[1] + start))
            held += len(hits)
            if held > MAX_HELD:
                raise ValueError(
                    f"the teacher accepts {held / len(anchors):,.0f} images and more for an "
                    f"anchor, at a threshold of {self.threshold:g}: choose a larger one"
                )
        i, j = torch.cat(anchor), torch.cat(row)
        is_other = anchors[i] != j
        i, j = i[is_other], j[is_other]
        by_anchor = j[i.argsort(stable=True)]
        return list(torch.split(by_anchor, i.bincount(minlength=len(anchors)).tolist()))


def _usable(device: torch.device | str) -> torch.device:
    """A device on which numbers can be put and from which they come back."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except (TypeError, RuntimeError, AssertionError) as error:  # the last of a torch without CUDA
        raise ValueError(f"cannot compute on the device {device!r}: {one_line(error)}") from error
    return found
