"""False-positive rates as people type them: 1e-3, 0.1%, 1/1000, several with commas or spaces.

And whether the pairs of a set can show them, which is known before any image is embedded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Annotated

import tyro
from torch import Tensor

from ekd_lite.evaluate import count_pairs
from ekd_lite.ops import false_accepts_at


def parse_rates(texts: Sequence[str]) -> tuple[float, ...]:
    """The rates of an option's values.

    Raises:
        ValueError: none, one that is no number, or one that is not above 0 and up to 1.

    Example:
        >>> parse_rates(["1e-1,5%", "1/100"])
        (0.1, 0.05, 0.01)
    """
    words = [word for text in texts for word in re.split(r"[,;\s\[\]()]+", text) if word]
    if not words:
        raise ValueError("takes rates above 0 and up to 1, such as 1e-3; got none")
    return tuple(_rate(word) for word in words)


def _rate(word: str) -> float:
    number, per = (word[:-1], 100) if word.endswith("%") else (word, 1)
    try:
        # Exactly, then rounded once: 0.1 % is the number that 1e-3 is.
        rate = float(Fraction(number) / per)
    except (ValueError, ZeroDivisionError, OverflowError):
        rate = -1.0
    if not 0 < rate <= 1:
        raise ValueError(f"takes rates above 0 and up to 1, such as 1e-3; got {word}")
    return rate


def measurable(fprs: Iterable[float], labels: Tensor) -> tuple[float, ...]:
    """The levels that the impostor pairs of `labels` can show."""
    num_impostor = count_pairs(labels)[1]
    return tuple(fpr for fpr in fprs if false_accepts_at(fpr, num_impostor) > 0)


def check_measurable(fprs: Iterable[float], labels: Tensor) -> None:
    """Raise a ValueError unless the pairs of `labels` can show one level at least."""
    num_genuine, num_impostor = count_pairs(labels)
    if not num_genuine:
        raise ValueError("no two images show one person: there is no genuine pair to measure")
    if not num_impostor:
        raise ValueError("all images show one person: there is no impostor pair to measure")
    if not measurable(fprs, labels):
        raise ValueError(
            f"none of the FPRs can be measured: the finest is {1 / num_impostor:.2g}, one pair of "
            f"{num_impostor:,}; give a larger one with --fprs"
        )


Rates = Annotated[
    tuple[float, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="RATE ...",
        instance_from_str=lambda texts: parse_rates(texts),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda rates: [f"{rate:g}" for rate in rates],
    ),
]
"""The type of an option that takes them."""
