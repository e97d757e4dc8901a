"""What an exercise is made of: a reference, cases, and the mistakes people make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One call of the reader's function.

    Attributes:
        name: what is special about it, a few words.
        arguments: in the order of the reference.
        hint: empty for an ordinary case. A case with a hint tries what is easily forgotten, such as
            an empty list of pairs: value and gradient must be finite there, and the hint says why
            they may not be and what to do. Mistakes are recognised on the ordinary cases alone.
        is_compared: whether the value is compared, too. False only with a hint.
    """

    name: str
    arguments: tuple[Any, ...]
    hint: str = ""
    is_compared: bool = True


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give.

    Attributes:
        explanation: what is wrong and how to put it right.
        function: gives the same wrong numbers, on the interface of the exercise.
    """

    explanation: str
    function: Function


@dataclass(frozen=True)
class Exercise:
    """A function to be written.

    Attributes:
        name: as the feedback begins.
        reference: the right answer; its parameters are the interface.
        cases: made afresh for every check; the smallest first, those with a hint last.
        mistakes: by their names, a few words each. The first that fits is the one that is named.
        gradient: arguments whose gradient must be that of the reference.
        detached: arguments that must get no gradient (the teacher).
    """

    name: str
    reference: Function
    cases: Callable[[], list[Case]]
    mistakes: dict[str, Mistake]
    gradient: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the arguments."""
        return tuple(inspect.signature(self.reference).parameters)

    @property
    def interface(self) -> str:
        """How the reader's function is called."""
        return f"f({', '.join(self.parameters)})"


def normal(seed: int, *shape: int) -> Tensor:
    """Seeded normal numbers in float64, the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def real(values: Any) -> Tensor:
    """Numbers as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)
