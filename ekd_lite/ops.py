"""Small operations that heads, losses and metrics share."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Where the host may look at numbers for nothing. Elsewhere it waits until the device has done all
# that was asked of it before, and losses avoid it: sizes there do not depend on values.
FREE_TO_FETCH = frozenset({"cpu"})


def is_free_to_fetch(x: Tensor) -> bool:
    """Whether the host may look at the values of a tensor without waiting for a device."""
    return x.device.type in FREE_TO_FETCH


@functools.lru_cache(maxsize=64)
def constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers that never change, float64, copied to a device once; not to be overwritten."""
    return torch.tensor(values, dtype=torch.float64, device=device)


ROWS_AT_ONCE = 1024  # looked at where a table may be larger than memory
MAX_IMAGE_SIZE = 1024  # pixels; the largest weights of a net grow as its square


def unit_rows(x: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Scale every row to length one, in float32 or better, with a finite gradient everywhere.

    A row shorter than `eps` has no direction: it becomes the zero vector and receives zero
    gradient, so that one dead embedding neither makes a NaN nor a gradient of size 1/eps. (With
    `torch.nn.functional.normalize` the gradient at a zero row is 5.5e12.) Half-precision input is
    computed in float32: bfloat16 cosines times a scale of 64 are wrong by 0.2. A row longer than
    1.8e19, whose square is no number of float32, becomes NaN: it shows in every loss.

    Args:
        x: rows to normalise, shape (N, D).
        eps: length under which a row counts as zero.

    Returns:
        Unit rows, shape (N, D), float64 if `x` is float64 and float32 otherwise.
    """
    x = x if x.dtype == torch.float64 else x.float()
    if not (x.requires_grad and torch.is_grad_enabled()):
        return _unit_and_inverse(x, eps)[0]
    unit: Tensor = _UnitRows.apply(x, eps)  # type: ignore[no-untyped-call]
    return unit


class _UnitRows(torch.autograd.Function):
    """u = x / |x| with dL/dx = (g - (g . u) u) / |x|, in half of autograd's passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        unit, inverse = _unit_and_inverse(x, eps)
        ctx.save_for_backward(x, unit, inverse)
        ctx.eps = eps
        return unit

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, unit, inverse = ctx.saved_tensors
        again = torch.is_grad_enabled()  # a second derivative must see both depend on x
        if again:
            unit, inverse = _unit_and_inverse(x, ctx.eps)
        product = grad * unit
        along = product.sum(dim=-1, keepdim=True)
        if again:
            return torch.addcmul(grad, unit, along, value=-1) * inverse, None
        return torch.addcmul(grad, unit, along, value=-1, out=product).mul_(inverse), None


def _unit_and_inverse(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Unit rows, and one over their lengths; zero for a row that is too short."""
    squared = (x * x).sum(dim=-1, keepdim=True)
    if not squared.requires_grad:  # the same in half of the operations
        squared.nan_to_num_(nan=math.nan, posinf=math.nan)
        inverse = torch.threshold_(squared, eps * eps, math.inf).rsqrt_()  # NaN passes
        return x * inverse, inverse
    # A length beyond float32 must not pass for no length either, as 1 / inf would let it.
    squared = torch.where(squared == torch.inf, torch.nan, squared)
    # Written with "short", which is false for NaN: a NaN must not pass for a dead embedding.
    is_short = squared <= eps * eps
    # The inner where keeps 1/sqrt(0) out of a graph; the outer one alone would give 0 * inf.
    inverse = torch.where(is_short, 0.0, torch.where(is_short, 1.0, squared).rsqrt())
    return x * inverse, inverse


def false_accepts_at(fpr: float, num_impostor: int) -> int:
    """The number of impostor pairs that may be accepted at a false-positive rate: floor(n * fpr).

    The level is taken as the decimal number it prints as, so that 0.29 of 100 pairs is 29 pairs and
    not the 28 that binary floating point gives.
    """
    rate = _as_decimal(fpr)
    return rate.numerator * int(num_impostor) // rate.denominator


@functools.lru_cache(maxsize=64)
def _as_decimal(fpr: float) -> Fraction:
    return Fraction(repr(float(fpr)))


def largest(values: Tensor, count: int) -> Tensor:
    """The `count` largest values of a 1-D tensor, sorted from the largest down.

    On the CPU a partition and a sort of the prefix by numpy, many times faster than `torch.sort`
    and `torch.topk` there (benchmarks/); elsewhere `torch.topk`.
    """
    if values.device.type != "cpu":
        return torch.topk(values, count).values
    array = values.detach().numpy()
    if count < array.size:
        array = np.partition(array, array.size - count)[array.size - count :]
    return torch.from_numpy(np.sort(array)[::-1].copy())


def fresh(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for a large result on the CPU, with whatever stands in it.

    From numpy, which asks Linux for huge pages; torch does not. Where pages are dear, as on virtual
    machines, to touch 128 images of `torch.empty` costs as much as decoding half of them.
    """
    return torch.from_numpy(np.empty(shape, str(dtype).removeprefix("torch.")))


def product(first: Tensor, second: Tensor) -> Tensor:
    """The product of two matrices that autograd shall not see, on the CPU in `fresh` memory."""
    if first.device.type != "cpu":
        return first @ second
    result = fresh(len(first), second.shape[1], dtype=first.dtype)
    return torch.mm(first, second, out=result)


def generator_for(seed: int, stream: int, step: int, rank: int = 0) -> np.random.Generator:
    """A generator of its own for every (seed, stream, step, rank): any draw can be replayed.

    The four numbers are mixed by numpy's SeedSequence, so that neighbours are independent. Not a
    `torch.Generator`: on the CPU it looks at 32 bits of its seed alone, and of a million steps some
    hundred would repeat another's draws.
    """
    return np.random.default_rng([seed, stream, step, rank])


def hashed_uniforms(count: int, start: int, device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1) made on the device from a start, the same on every device.

    They are SplitMix64's, whose i-th number is a hash of start + i * 0x9E3779B97F4A7C15.

    Args:
        count: how many.
        start: 0 .. 2^62 - 1.
        device: where they shall be.

    Returns:
        float64, (count,).
    """

    def signed(number: int) -> int:
        return (number + 2**63) % 2**64 - 2**63

    x = torch.arange(1, count + 1, device=device) * signed(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * signed(factor)
    x ^= (x >> 31) & (2**33 - 1)
    return ((x >> 11) & (2**53 - 1)).double() * 2.0**-53


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known one, and all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.4)
    guess = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{guess} known: {', '.join(known)}"


def check_embeddings(output: Any, num_images: int) -> Tensor:
    """What a net gave for a batch, if that is one embedding an image.

    Args:
        output: of the net.
        num_images: N.

    Returns:
        `output`, (N, D).

    Raises:
        ValueError: a tuple, a dictionary, feature maps, another number of rows or whole numbers.
    """
    if not isinstance(output, Tensor):
        held = f" of {len(output)}" if isinstance(output, (tuple, list, dict)) else ""
        raise ValueError(
            f"the net gives a {type(output).__name__}{held}, expected a tensor of embeddings "
            f"({num_images}, D): wrap it in a module that returns the embeddings alone"
        )
    if output.ndim != 2 or len(output) != num_images or not output.shape[1]:
        raise ValueError(
            f"the net gives {tuple(output.shape)} for {num_images} images, expected embeddings "
            f"({num_images}, D)"
        )
    if not output.is_floating_point():
        raise ValueError(f"the net gives {output.dtype}, expected embeddings in floating point")
    return output


def one_line(error: BaseException) -> str:
    """An error's message on one line of at most 200 characters; its type where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = f"there is no {text}" if isinstance(error, KeyError) else text
    return text if len(text) <= 200 else f"{text[:197]}..."


def check_tensors(**values: Any) -> None:
    """Raise a ValueError that names the first argument that is no tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{name.replace('_', ' ')} must be a torch Tensor, got {type(value).__name__}: "
                "torch.as_tensor makes one of an array or a list"
            )


def check_finite(name: str, rows: Tensor) -> None:
    """Raise a ValueError that names the first row with NaN or infinity in it; chunk by chunk."""
    bad: list[int] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        is_bad = ~rows[start : start + ROWS_AT_ONCE].isfinite().all(dim=1)
        bad += (start + is_bad.nonzero().flatten()).tolist()
    if bad:
        raise ValueError(f"{name}: row {bad[0]} holds NaN or infinity ({len(bad)} such)")


def check_table(count: str, rows: Tensor) -> None:
    """Raise a ValueError unless rows are a dense table of finite floating-point numbers.

    Args:
        count: the letter for how many they are, such as N.
        rows: (N, D).
    """
    is_plain = rows.layout == torch.strided and not rows.is_meta
    if rows.ndim != 2 or not rows.shape[1] or not rows.is_floating_point() or not is_plain:
        kind = rows.dtype if is_plain else "meta" if rows.is_meta else rows.layout
        raise ValueError(
            f"expected rows ({count}, D) of a floating-point type, got {tuple(rows.shape)} of "
            f"{kind}"
        )
    check_finite("rows", rows)


def are_numbers(*values: Any, whole: bool = False) -> bool:
    """Whether all are finite real numbers, or whole ones: no NaN, no text, no list, no tensor.

    Nor a truth value, which Python takes for 0 or 1 and torch's shapes do not. An option is asked
    before it is compared: a comparison with NaN is false without a word, and one with text is an
    error that names neither.
    """
    kinds: Any = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    return all(
        isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < math.inf
        for value in values
    )


def check_image_size(image_size: int) -> None:
    """Raise a ValueError unless the side is a multiple of 16, the backbones' stride, up to 1024."""
    is_whole = isinstance(image_size, int | np.integer)
    if not is_whole or not 16 <= image_size <= MAX_IMAGE_SIZE or image_size % 16:
        raise ValueError(
            f"image_size must be a multiple of 16 up to {MAX_IMAGE_SIZE}, got {image_size!r}"
        )
