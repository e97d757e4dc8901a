"""Check of chapter 3: the general part of a sampler, of which many right answers exist."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from ekd_lite.coursework.exercise import Function
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.outcome import as_numbers

NAME = "general_batch"
EPOCHS = 12  # an image that may be left out is left out of all of them once in 10^8
# World size, batch size, number of images: with a rest, without one, and on one rank.
SETTINGS = ((2, 8, 100), (3, 5, 45), (1, 4, 10))
Batches = dict[tuple[int, int], list[int]]


class _WrongError(Exception):
    """What is wrong, in words."""


def _batch(f: Function, step: int, rank: int, setting: tuple[int, int, int], seed: int) -> Any:
    """One batch as a list of whole numbers."""
    world_size, size, num_images = setting
    call = f"f({step}, {rank}, {world_size}, {size}, {num_images}, {seed})"
    try:
        result = f(step, rank, world_size, size, num_images, seed)
    except NotImplementedError:
        return None
    except Exception as error:
        raise _WrongError(f"{call} raises {type(error).__name__}: {error}.") from error
    if result is None:
        return None
    rows = as_numbers(result)
    if rows is None or rows.shape != (size,):
        raise _WrongError(f"Expected {size} indices from {call}, got {result}.")
    if bool((rows != rows.round()).any()) or not 0 <= rows.min() <= rows.max() < num_images:
        raise _WrongError(f"Expected whole numbers of 0..{num_images - 1} from {call}: {result}.")
    return [int(row) for row in rows]


def _epochs(f: Function, setting: tuple[int, int, int], seed: int, count: int) -> list[Batches]:
    """What the function gives in the first epochs, by (step of the epoch, rank)."""
    world_size, size, num_images = setting
    steps = num_images // (world_size * size)
    return [
        {
            (step, rank): _batch(f, epoch * steps + step, rank, setting, seed)
            for step in range(steps)
            for rank in range(world_size)
        }
        for epoch in range(count)
    ]


def _no_image_twice(f: Function) -> None:
    for setting in SETTINGS:
        where = f"world_size = {setting[0]}, size = {setting[1]}, num_images = {setting[2]}"
        for epoch in _epochs(f, setting, 0, 2):
            first = [rows for (step, _), rows in epoch.items() if step == 0]
            if len(first) > 1 and first[0] == first[1]:
                raise _WrongError(f"All ranks get the same images ({where}): rank must matter.")
            rows = [row for batch in epoch.values() for row in batch]
            if len(set(rows)) < len(rows):
                raise _WrongError(
                    f"An image comes twice in an epoch of {len(epoch) // setting[0]} steps ({where}"
                    "). Cut one order of all images into batches, rank after rank; what is left "
                    "over at its end is dropped."
                )


def _new_orders(f: Function) -> None:
    for setting in SETTINGS:
        epochs = _epochs(f, setting, 0, 3)
        if any(a == b for a, b in pairwise(epochs)):
            raise _WrongError("An epoch repeats the one before: each has a new order.")


def _no_memory(f: Function) -> None:
    setting = SETTINGS[0]
    epochs = _epochs(f, setting, 0, 2)
    steps = len(epochs[0]) // setting[0]
    for step, rank in ((2 * steps - 1, 1), (0, 0), (3, 1)):
        again = _batch(f, step, rank, setting, 0)
        if again != epochs[step // steps][step % steps, rank]:
            raise _WrongError(
                f"Asked again for step {step} of rank {rank}, it answers differently: make the "
                "generator in the function, from seed and epoch."
            )


def _seed_matters(f: Function) -> None:
    if _epochs(f, SETTINGS[0], 0, 1) == _epochs(f, SETTINGS[0], 1, 1):
        raise _WrongError("Seeds 0 and 1 give the same batches: seed must matter.")


def _all_images(f: Function) -> None:
    *_, num_images = SETTINGS[2]
    epochs = _epochs(f, SETTINGS[2], 0, EPOCHS)
    seen = {row for epoch in epochs for batch in epoch.values() for row in batch}
    if len(seen) < num_images:
        raise _WrongError(
            f"In {EPOCHS} epochs of 8 of 10 images some image never comes. Shuffle all images; "
            "then drop what is left over."
        )


PARTS = (_no_image_twice, _new_orders, _no_memory, _seed_matters, _all_images)


def check_general_batch(f: Any) -> Feedback:
    """Check a function for the general part of a sampler.

    Args:
        f: f(step, rank, world_size, size, num_images, seed) -> `size` indices of 0..num_images - 1.
            Within an epoch, num_images // (world_size size) steps, no image comes twice on any
            rank; each epoch has a new order, made from the seed; every image comes in time; the
            same question gets the same answer.
    """
    if not callable(f):
        line = f"Expected a function, got {type(f).__name__}."
        return Feedback(NAME, ok=False, lines=(line,), num_parts=len(PARTS))
    lines = []
    try:
        if _batch(f, 0, 0, SETTINGS[0], 0) is None:
            return Feedback(NAME, ok=False, num_parts=len(PARTS), is_written=False)
        for part in PARTS:
            try:
                part(f)
            except _WrongError as error:
                lines.append(str(error))
    except _WrongError as error:
        lines = [str(error)] * len(PARTS)
    num_right = len(PARTS) - len(lines)
    return Feedback(NAME, not lines, tuple(dict.fromkeys(lines)), num_right, len(PARTS))
