"""Checks that chapters define: wrapped numbers are numbers, and nothing an answer does gets out."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from ekd_lite.coursework import fair


@fair
def check_half(answer):
    if answer(4) is None:
        return "not written yet"
    for number in (3, 4):
        if (got := answer(number)) != number / 2:
            return f"expected {number / 2:,}, got {got:,}"
    return "correct"


@fair
def check_pair(one, other):
    if one is None or other is None:
        return "not written yet"
    return "correct" if (one, other) == (1, [2, 3.5]) else f"got {one} and {other}"


HALVES = {
    "number": lambda x: x / 2,
    "tensor": lambda x: torch.tensor(x / 2),
    "float64": lambda x: torch.tensor(x / 2, dtype=torch.float64),
    "shape (1,)": lambda x: torch.tensor([x / 2]),
    "shape (1, 1)": lambda x: torch.tensor([[x / 2]]),
    "array": lambda x: np.array([x / 2]),
    "0-dim array": lambda x: np.array(x / 2),
    "numpy's number": lambda x: np.float32(x / 2),
    "fraction": lambda x: Fraction(x, 2),
    "in place": lambda x: torch.tensor([float(x)]).div_(2),
    "default": lambda x, by=2: x / by,
    "star": lambda *x: x[0] / 2,
}


@pytest.mark.parametrize("form", HALVES)
def test_a_number_is_a_number_however_it_is_wrapped(form):
    assert check_half(HALVES[form]) == "correct"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: None, "not written yet"),
        (lambda x: x, "expected 1.5, got 3"),
        (lambda x: torch.tensor([x]), "expected 1.5, got 3"),
        (lambda x: 1 / 0, "your function raises ZeroDivisionError: division by zero (its line: "),
        (lambda: 1, "your function raises TypeError: "),
        (lambda x: torch.ones(2), "the answer cannot be compared with what is expected: "),
        (lambda x: {}, "the answer cannot be compared with what is expected: "),
        (3, "the answer cannot be compared with what is expected: "),
    ],
)
def test_what_is_wrong_is_told_and_never_raised(answer, said):
    assert check_half(answer).startswith(said)


def test_a_function_that_says_it_is_not_written():
    def later(number):
        raise NotImplementedError

    assert check_half(later) == "not written yet"


def test_values_are_made_plain_too_and_longer_ones_left():
    assert check_pair(torch.tensor(1), [torch.tensor([2]), np.float64(3.5)]) == "correct"
    assert check_pair(None, 3) == "not written yet"
    assert check_pair(1, (2, 3.5)).startswith("got 1 and (2, 3.5)")
    assert fair(lambda x: str(tuple(x.shape)))(torch.ones(2, 1)) == "(2, 1)"


def test_a_gradient_is_kept():
    x = torch.ones(3, requires_grad=True)

    @fair
    def check(answer):
        (slope,) = torch.autograd.grad(answer(x), x)
        return str(slope.tolist())

    assert check(lambda x: 2 * x.sum()) == "[2.0, 2.0, 2.0]"


def test_the_check_keeps_its_name():
    assert check_half.__name__ == "check_half"
