"""What an exercise is made of: a reference, cases, and the mistakes people make."""

from __future__ import annotations

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
        unless_finite: empty where the value is compared. Otherwise value and gradient need only be
            finite, and this says why they may not be and how to mend it.
    """

    name: str
    arguments: tuple[Any, ...]
    unless_finite: str = ""


@dataclass(frozen=True)
class Exercise:
    """A function to be written.

    Attributes:
        name: as the verdict begins.
        reference: the right answer; its parameters are the interface.
        cases: made afresh for every check, the smallest first.
        mistakes: wrong answers on the same interface. The name of the function names the mistake,
            its docstring explains it.
        gradient: arguments whose gradient must be that of the reference.
        detached: arguments that must get no gradient (the teacher).
    """

    name: str
    reference: Function
    cases: Callable[[], list[Case]]
    mistakes: tuple[Function, ...]
    gradient: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the arguments."""
        return tuple(inspect.signature(self.reference).parameters)

    @property
    def interface(self) -> str:
        """How the reader's function is called."""
        return f"f({', '.join(self.parameters)})"


def mistake_name(mistake: Function) -> str:
    """The mistake in words."""
    return str(mistake.__name__).strip("_").replace("_", " ")


def explanation(mistake: Function) -> str:
    """What a mistake's docstring says, in one line."""
    return " ".join((mistake.__doc__ or "").split())


def replaced(given: tuple[Any, ...], changes: dict[int, Any]) -> list[Any]:
    """Arguments with some of them, by position, exchanged for others."""
    return [changes.get(index, argument) for index, argument in enumerate(given)]


def normal(seed: int, *shape: int) -> Tensor:
    """Seeded normal numbers in float64, the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def real(values: Any) -> Tensor:
    """Numbers as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)
