"""Counter-based random numbers: a value depends on its counters, never on what was drawn before.

A generator with a state would tie face 7 to faces 0..6. Here every number is a hash of
(seed, stream, identity, image, column), so any subset can be drawn in any order, by any process,
and a longer set begins with the shorter one. The hash is splitmix64 (Steele, Lea and Flood,
2014), written with int64 tensors, whose products wrap around as unsigned ones do.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """Reads a 64-bit pattern as the signed number with the same bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's own shift copies the sign bit, which would spoil the mixing."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _splitmix64(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def hash_uniforms(seed: int, stream: int, *counters: Tensor, columns: int) -> Tensor:
    """Draws uniform numbers in the open interval (0, 1).

    Args:
        seed: non-negative seed of the whole set.
        stream: which use of the seed this is, so that two uses never share numbers.
        counters: int64 tensors of one shape `(N,)`, for example identity and image.
        columns: how many numbers for each row.

    Returns:
        float64 tensor `(N, columns)` on the CPU.
    """
    key = _splitmix64(torch.tensor(_signed(seed % (1 << 64))))
    key = _splitmix64(key ^ stream)
    for counter in counters:
        key = _splitmix64(key ^ counter)
    bits = _splitmix64(key[..., None] ^ torch.arange(1, columns + 1))
    return (_shift_right(bits, 11).double() + 0.5) * 2.0**-53


def normals_from_uniforms(uniforms: Tensor) -> Tensor:
    """Turns uniform numbers in (0, 1) into standard normal ones of the same shape."""
    normals: Tensor = torch.erfinv(2.0 * uniforms - 1.0) * 2.0**0.5
    return normals
