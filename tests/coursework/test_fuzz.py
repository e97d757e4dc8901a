"""Every check against right answers in odd forms and wrong ones of every kind.

No right answer may be accused, no wrong one may pass. To count both:
python -m tests.coursework.test_fuzz
"""

import copy
import functools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ekd_lite.coursework import EXERCISES, check_general_batch, check_values
from ekd_lite.coursework.judge import is_close
from ekd_lite.coursework.outcome import as_numbers
from tests.coursework.test_checks import ANSWERS, BY_NAME, check
from tests.coursework.test_fairness import QUANTILES, SIGMOIDS, ekd_with, numpy_centres

NAMES = [exercise.name for exercise in EXERCISES]


def is_real(x):
    return isinstance(x, Tensor) and x.is_floating_point()


def with_arguments(function, change):
    return lambda *given: function(*map(change, given))


def with_result(function, change):
    return lambda *given: change(function(*given))


class Callable:
    def __init__(self, function):
        self.function = function

    def __call__(self, *given):
        return self.function(*given)

    def method(self, *given, unused=None):
        return self.function(*given)


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *given):
        return self.function(*given)


def in_place(x):
    """A copy that was worked on in place and is what it was."""
    return x.clone().mul_(4).div_(4) if is_real(x) else copy.copy(x)


def strided(x):
    """The same numbers, two places apart in memory."""
    return torch.stack([x, x + 1], -1)[..., 0] if isinstance(x, Tensor) and x.ndim else x


def normalised(x):
    return normalize(x, dim=1) if is_real(x) and x.ndim == 2 else x


def same(name, function):
    """Whether a function gives what the reference gives, on every case that is compared."""
    exercise = BY_NAME[name]
    for case in exercise.cases():
        if case.is_compared:
            values = [as_numbers(f(*map(in_place, case.arguments))) for f in
                      (function, exercise.reference)]  # fmt: skip
            if not is_close(*(value if value is None else value.detach() for value in values)):
                return False
    return True


def plain(result):
    """As Python's own numbers."""
    return result.tolist() if isinstance(result, (Tensor, np.ndarray, np.generic)) else result


def odd_forms(name):
    """Right answers: two makes of them, in many forms."""
    exercise = BY_NAME[name]
    forms = {}
    for make, f in (("loops", ANSWERS[name][0]), ("reference", exercise.reference)):
        mine = {
            "as it is": f,
            "float32": with_arguments(f, lambda x: x.float() if is_real(x) else x),
            "float64": with_arguments(f, lambda x: x.double() if is_real(x) else x),
            "worked on in place": with_arguments(f, in_place),
            "strided arguments": with_arguments(f, strided),
            "rounded to seven digits": with_result(f, lambda y: y * (1 + 1e-7)),
        }
        if make == "loops":
            mine["partial"] = functools.partial(f)
            mine["callable object"] = Callable(f)
            mine["method"] = Callable(f).method
            mine["module"] = Module(f)
        if name in ("pack", "impostor_thresholds"):  # bytes; a list that multiplies itself
            mine.pop("rounded to seven digits")
        if name == "paired_interval" and make == "reference":
            mine.pop("float32")  # its torch.quantile wants one type
        if name == "bootstrap":
            # Its pairs of the same two images score alike up to rounding, in any precision.
            mine.pop("strided arguments")
        invariant = with_arguments(f, normalised)
        if same(name, invariant):
            mine["normalised once more"] = invariant
        result = exercise.reference(*exercise.cases()[0].arguments)
        is_one = as_numbers(result).numel() == 1
        if exercise.gradient:
            mine["result in float32"] = with_result(f, lambda y: y.float())
            mine["result strided"] = with_result(f, strided)
            if is_one:
                mine["shape (1,)"] = with_result(f, lambda y: y.reshape(1))
                mine["shape (1, 1)"] = with_result(f, lambda y: y.reshape(1, 1))
        elif name != "pack":
            mine["tensor of float64"] = with_result(f, lambda y: as_numbers(y))
            mine["tensor of float32"] = with_result(f, lambda y: as_numbers(y).float())
            mine["array"] = with_result(f, lambda y: as_numbers(y).numpy())
            mine["float32 array"] = with_result(f, lambda y: np.float32(as_numbers(y).numpy()))
            mine["Python's numbers"] = with_result(f, plain)
            mine["array of objects"] = with_result(f, lambda y: np.array(plain(y), dtype=object))
            if is_one:
                mine["list of one"] = with_result(f, lambda y: [y])
                mine["fraction"] = with_result(f, lambda y: Fraction(float(y)))
        else:
            mine["bytearray"] = with_result(f, bytearray)
            mine["memoryview"] = with_result(f, lambda y: memoryview(bytes(y)))
            mine["list of bytes"] = with_result(f, list)
            mine["array"] = with_result(f, lambda y: np.frombuffer(bytes(y), np.uint8))
            mine["tensor"] = with_result(f, lambda y: torch.tensor(list(y), dtype=torch.uint8))
        forms |= {f"{make}, {form}": answer for form, answer in mine.items()}
    return forms | special_forms(name)


def special_forms(name):
    """Right answers that only one exercise has."""
    if name == "paired_interval":
        return {
            method: lambda a, b, confidence, method=method: np.quantile(
                (a - b).numpy(), [(1 - confidence) / 2, (1 + confidence) / 2], method=method
            )
            for method in QUANTILES.split()
        }
    if name == "soft_rank":
        return {
            kind: lambda a, at, tau, f=sigmoid: f((a[:, None] - at) / tau).sum(1)
            for kind, (sigmoid, is_right) in SIGMOIDS.items()
            if is_right
        }
    if name == "ekd":
        return {
            "guard by max": ekd_with(lambda x: x.sum() / max(1, len(x))),
            "guard by if": ekd_with(lambda x: x.mean() if len(x) else 0.0),
        }
    if name == "adadistill":
        return {"numpy": numpy_centres, "a bound": functools.partial(numpy_centres, least=1e-6)}
    return {}


def special_mistakes(name):
    if name == "soft_rank":
        return {
            kind: lambda a, at, tau, f=sigmoid: f((a[:, None] - at) / tau).sum(1)
            for kind, (sigmoid, is_right) in SIGMOIDS.items()
            if not is_right
        }
    if name == "ekd":
        return {
            "mean of nothing": ekd_with(torch.mean),
            "divided by nothing": ekd_with(lambda x: x.sum() / len(x)),
        }
    return {}


def first_case(exercise):
    return dict(zip(exercise.parameters, exercise.cases()[0].arguments, strict=True))


def with_one(function, index, change):
    return lambda *given: function(*(change(x) if i == index else x for i, x in enumerate(given)))


def known_mistakes(name):
    """Two makes of each; test_checks.py, which looks at what is said of them, runs them too."""
    answer, bugs = ANSWERS[name]
    found = {f"loops, {bug}": functools.partial(answer, bug=bug) for bug in bugs}
    for bug, mistake in BY_NAME[name].mistakes.items():
        found[f"known, {bug}"] = mistake.function
    return found


def wrong_answers(name):
    """What can go wrong with any answer, and what only one exercise has."""
    exercise = BY_NAME[name]
    right, found = exercise.reference, special_mistakes(name)
    last = []

    def late(*given):
        last.append(right(*given))
        return last[-2] if len(last) > 1 else last[-1]

    changes = {
        "twice": lambda y: 2 * y,
        "negative": lambda y: -y,
        "a thousandth more": lambda y: y * 1.001 + 1e-3,
        "not a number": lambda y: math.nan * y,
        "nothing": lambda y: None,
        "zero": lambda y: 0 * y,
        "square": lambda y: y * y + 1e-3,
    }
    if name == "pack":
        changes = {
            "reversed": lambda y: bytes(y[::-1]),
            "cut": lambda y: bytes(y[:-1]),
            "text": str,
            "nothing": lambda y: None,
            "one bit": lambda y: [*y[:-1], y[-1] ^ 1],
        }
    found |= {
        what: with_result(right, lambda y, f=change: f(numeric(y, name)))
        for what, change in changes.items()
    }
    found["the call before"] = late
    found["by chance"] = with_result(
        right,
        lambda y: numeric(y, name)[0] if name == "pack" else numeric(y, name) * torch.rand(()),
    )
    if exercise.gradient:
        found["no gradient"] = with_result(right, lambda y: torch.as_tensor(y).detach())
        found["half the gradient"] = with_result(right, lambda y: (y + y.detach()) / 2)
    for target in exercise.detached:
        index = exercise.parameters.index(target)
        found[f"gradient to {target}"] = lambda *given, i=index: (
            right(*given) + (given[i] - given[i].detach()).sum()
        )
    for index, (parameter, first) in enumerate(first_case(exercise).items()):
        by_heart = with_one(right, index, lambda x, first=first: ignored(x, first))
        if not gives_the_same(exercise, by_heart):
            found[f"{parameter} ignored"] = by_heart
    return found


def numeric(result, name):
    if name == "pack" or isinstance(result, Tensor):
        return result
    return as_numbers(result)


def ignored(x, first):
    """An argument that does not matter: a number of the first case, a table of nothing."""
    if isinstance(x, Tensor):
        return torch.ones_like(x) if x.is_floating_point() else torch.zeros_like(x)
    return first


def gives_the_same(exercise, function):
    """Whether what looks like a mistake is none, as where the argument does not matter at all."""
    try:
        return all(
            is_close(
                as_numbers(function(*case.arguments)),
                as_numbers(exercise.reference(*case.arguments)),
            )
            for case in exercise.cases()
        )
    except Exception:
        return False


@pytest.mark.parametrize("name", NAMES)
def test_no_right_answer_is_accused(name):
    forms = odd_forms(name)
    assert len(forms) >= 12
    accused = {form: repr(check(name, answer)) for form, answer in forms.items()}
    assert {form: said for form, said in accused.items() if said != f"{name}: correct"} == {}


@pytest.mark.parametrize("name", NAMES)
def test_no_wrong_answer_passes(name):
    answers = wrong_answers(name)
    assert len(answers) + len(known_mistakes(name)) >= 12
    assert [what for what, answer in answers.items() if check(name, answer)] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_number_can_be_written_by_heart(name):
    """Every argument that is a plain number has several values in the cases."""
    exercise = BY_NAME[name]
    for index, parameter in enumerate(exercise.parameters):
        values = [case.arguments[index] for case in exercise.cases() if not case.hint]
        if not isinstance(values[0], Tensor):
            assert len(set(values)) > 1, parameter


# The general part of a sampler: any order of the images is right.


def ordered(make_order):
    def general_batch(step, rank, world_size, size, num_images, seed):
        epoch, position = divmod(step, num_images // (size * world_size))
        first = (position * world_size + rank) * size
        return make_order(seed, epoch, num_images)[first : first + size]

    return general_batch


def by_numpy(seed, epoch, num_images):
    return np.random.default_rng((seed, epoch)).permutation(num_images)


def by_torch(seed, epoch, num_images):
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(num_images, generator=generator)


def by_ranks(step, rank, world_size, size, num_images, seed):
    """Every rank a part of the epoch's order."""
    steps = num_images // (size * world_size)
    epoch, position = divmod(step, steps)
    mine = by_numpy(seed, epoch, num_images)[rank::world_size]
    return mine[position * size : (position + 1) * size]


GENERAL_RIGHT = {
    "array": ordered(by_numpy),
    "tensor": ordered(by_torch),
    "list": with_result(ordered(by_numpy), lambda y: y.tolist()),
    "tuple": with_result(ordered(by_numpy), tuple),
    "list of 0-dim tensors": with_result(ordered(by_torch), list),
    "int32": with_result(ordered(by_numpy), np.int32),
    "floats that are whole": with_result(ordered(by_numpy), np.float64),
    "sorted in the batch": with_result(ordered(by_numpy), sorted),
    "ranks by stride": by_ranks,
    "reversed order": ordered(lambda *given: by_numpy(*given)[::-1].copy()),
    "seed and epoch added": ordered(lambda seed, epoch, n: by_numpy(seed + epoch, 0, n)),
    "sorted by random keys": ordered(
        lambda seed, epoch, n: np.argsort(np.random.default_rng([seed, epoch]).random(n))
    ),
    "callable": Callable(ordered(by_numpy)),
}
GENERATOR = np.random.default_rng(0)


def overlapping(step, rank, world_size, size, num_images, seed):
    epoch, position = divmod(step, num_images // (size * world_size))
    return by_numpy(seed, epoch, num_images)[(position + rank) * size :][:size]


GENERAL_WRONG = {
    "seed ignored": ordered(lambda seed, epoch, n: by_numpy(0, epoch, n)),
    "epoch ignored": ordered(lambda seed, epoch, n: by_numpy(seed, 0, n)),
    "not shuffled": ordered(lambda seed, epoch, n: np.arange(n)),
    "rank ignored": lambda step, rank, *others: ordered(by_numpy)(step, 0, *others),
    "batches overlap": overlapping,
    "one generator for all calls": ordered(lambda seed, epoch, n: GENERATOR.permutation(n)),
    "drawn with replacement": lambda step, rank, world, size, n, seed: np.random.default_rng(
        (seed, step, rank)
    ).integers(n, size=size),
    "each batch by itself": lambda step, rank, world, size, n, seed: np.random.default_rng(
        (seed, step, rank)
    ).permutation(n)[:size],
    "the same rest left out": ordered(
        lambda seed, epoch, n: by_numpy(seed, epoch, {100: 96, 45: 45, 10: 8}[n])
    ),
    "too few": with_result(ordered(by_numpy), lambda y: y[:-1]),
    "counted from one": with_result(ordered(by_numpy), lambda y: y + 1),
    "not whole": with_result(ordered(by_numpy), lambda y: y + 0.25),
    "epoch one step too long": lambda step, rank, world, size, n, seed: by_numpy(
        seed, step // (n // (size * world) + 1), n
    )[(step % (n // (size * world) + 1) * world + rank) * size :][:size],
    "world size ignored": lambda step, rank, world, size, n, seed: by_numpy(
        seed, step // (n // size), n
    )[(step % (n // size)) * size :][:size],
    "nothing": lambda *given: None,
    "text": lambda *given: "0",
    "raises": lambda *given: 1 / 0,
    "too few arguments": lambda step: [0],
    "no function": 3,
    "not written": lambda *given: (_ for _ in ()).throw(NotImplementedError),
}


@pytest.mark.parametrize("form", GENERAL_RIGHT)
def test_any_order_of_the_images_is_right(form):
    assert repr(check_general_batch(GENERAL_RIGHT[form])) == "general_batch: correct"


@pytest.mark.parametrize("bug", GENERAL_WRONG)
def test_a_wrong_sampler_is_told_so(bug):
    feedback = check_general_batch(GENERAL_WRONG[bug])
    assert not feedback
    assert feedback.score < 1
    assert feedback.lines or not feedback.is_written
    words = {
        "seed ignored": "seed must matter",
        "rank ignored": "rank must matter",
        "one generator for all calls": "from seed and epoch",
        "the same rest left out": "some image never comes",
        "epoch ignored": "each has a new order",
        "batches overlap": "comes twice",
    }
    assert words.get(bug, "") in repr(feedback).replace("\n  ", " ")


# Numbers and names that were found.

RIGHT_VALUES = [0.25, 0.5, 0.125]
SHAPES = {
    "list": RIGHT_VALUES,
    "tuple": tuple(RIGHT_VALUES),
    "array": np.array(RIGHT_VALUES),
    "float32": np.array(RIGHT_VALUES, dtype=np.float32),
    "tensor": torch.tensor(RIGHT_VALUES),
    "with gradient": torch.tensor(RIGHT_VALUES, requires_grad=True),
    "list of tensors": [torch.tensor(x) for x in RIGHT_VALUES],
    "list of (1,)": [torch.tensor([x]) for x in RIGHT_VALUES],
    "numpy's numbers": [np.float64(x) for x in RIGHT_VALUES],
    "fractions": [Fraction(x) for x in RIGHT_VALUES],
    "column": np.array(RIGHT_VALUES)[:, None],
    "array of objects": np.array(RIGHT_VALUES, dtype=object),
    "slightly off": [x + 1e-8 for x in RIGHT_VALUES],
}
WRONG_VALUES = {
    "none": None,
    "none among them": [0.25, None, 0.125],
    "one off": [0.25, 0.5, 0.13],
    "another order": [0.5, 0.25, 0.125],
    "two": RIGHT_VALUES[:2],
    "four": [*RIGHT_VALUES, 0.0],
    "percent": [25, 50, 12.5],
    "not a number": [0.25, 0.5, math.nan],
    "infinite": [0.25, 0.5, math.inf],
    "text": "0.25 0.5 0.125",
    "names": ["0.25", "0.5", "0.125"],
    "dictionary": {0.25: 1},
    "ragged": [[0.25, 0.5], [0.125]],
    "a function": len,
    "one number": 0.25,
    "empty": [],
    "complex": np.array([0.25, 0.5, 0.125j]),
}


@pytest.mark.parametrize("form", SHAPES)
def test_values_in_any_container_are_right(form):
    assert repr(check_values("rates", SHAPES[form], RIGHT_VALUES)) == "rates: correct"


@pytest.mark.parametrize("what", WRONG_VALUES)
def test_wrong_values_do_not_pass(what):
    feedback = check_values("rates", WRONG_VALUES[what], RIGHT_VALUES)
    assert not feedback
    assert feedback.score < 1
    assert feedback.lines or not feedback.is_written


def test_what_is_wrong_with_values_is_told():
    right = "fitnet", "kd"
    mistakes = {
        "The two are exchanged.": ("kd", "fitnet"),
        "One name twice.": lambda names: len(set(names)) == 1,
    }

    def said(*names):
        return repr(check_values("named", names, right, mistakes)).replace("\n  ", " ")

    assert said("fitnet", "kd") == "named: correct"
    assert said("kd", "fitnet").endswith("The two are exchanged.")
    assert said("kd", "kd").endswith("One name twice.")
    assert said("fitnet", "sp").endswith("Number 2 of 2: expected 'kd', got 'sp'.")
    assert said("fitnet", 3.0).endswith("Expected 2 names, got 3.0 where 'kd' or the like belongs.")
    assert said("fitnet", "sp").startswith("named: not correct yet, 1 of 2 parts right")
    assert repr(check_values("a", 0.0251, 0.0252)).endswith("Expected 0.0252, got 0.0251.")
    assert check_values("a", 0.0251, 0.0252, within=1e-3)


if __name__ == "__main__":
    right = {name: odd_forms(name) for name in NAMES}
    wrong = {name: known_mistakes(name) | wrong_answers(name) for name in NAMES}
    accused = sum(not check(n, f) for n, forms in right.items() for f in forms.values())
    passed = sum(bool(check(n, f)) for n, answers in wrong.items() for f in answers.values())
    print(f"{len(NAMES)} checks of functions: {accused} of {sum(map(len, right.values()))} right")
    print(f"answers accused, {passed} of {sum(map(len, wrong.values()))} wrong ones passed;")
    print(f"and {len(GENERAL_RIGHT)} right, {len(GENERAL_WRONG)} wrong samplers,")
    print(f"{len(SHAPES)} right, {len(WRONG_VALUES)} wrong lists of values")
