"""Draws who a face is and how it was photographed: values of the parameters, from a hash.

A picture depends on (seed, identity, image) alone, never on what else is in the set or the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ekd_lite.data.renderer.parameters import (
    IDENTITY_PARAMETERS,
    NUISANCE_CHOICES,
    NUISANCE_EVENTS,
    NUISANCE_PARAMETERS,
    TURNED,
    Parameter,
    nuisance_names,
)
from ekd_lite.data.renderer.random import hash_uniforms, normals_from_uniforms

_FAMILY_SIZE = 3
_IDENTITY, _FAMILY, _FAMILY_SHARE, _NUISANCE = range(4)  # streams of the hash


def _values(table: Sequence[Parameter], normals: Tensor, scale: float) -> Tensor:
    """Values `(N, K)` of a table's parameters for standard normal numbers `(N, K)`.

    In float64: on the CPU a vector unit and the scalar code for the last few numbers of an array
    may differ in the last bit of an exponential, and rounding to float32 hides that.
    """
    numbers = torch.tensor([row[1:5] for row in table], dtype=torch.float64)
    mean, std, low, high = numbers.unbind(1)
    values = torch.maximum(torch.minimum(mean + scale * std * normals, high), low)
    for k, row in enumerate(table):
        if row.law == "log":
            values[:, k] = values[:, k].exp()
        elif row.law == "rank":
            values[:, k] = 0.5 + 0.5 * torch.erf(values[:, k] / 2.0**0.5)
    return values


def identity_latents(
    seed: int, identities: Tensor, *, family_share: float, family_likeness: float
) -> Tensor:
    """Draws the standard normal vector that is a person.

    Identities 3k, 3k+1, 3k+2 are siblings with probability `family_share`, decided by a hash of
    k; siblings correlate by `family_likeness` (0 strangers, 1 twins).

    Args:
        seed: non-negative seed.
        identities: int64 `(N,)` identity numbers.
        family_share: share of identities that have siblings, 0..1.
        family_likeness: correlation of two siblings' vectors, 0..1.

    Returns:
        float64 `(N, K)`, one column for each row of `IDENTITY_PARAMETERS`.
    """
    columns = len(IDENTITY_PARAMETERS)
    own = normals_from_uniforms(hash_uniforms(seed, _IDENTITY, identities, columns=columns))
    family = torch.div(identities, _FAMILY_SIZE, rounding_mode="floor")
    shared = normals_from_uniforms(hash_uniforms(seed, _FAMILY, family, columns=columns))
    has_siblings = hash_uniforms(seed, _FAMILY_SHARE, family, columns=1) < family_share
    mixed = family_likeness**0.5 * shared + (1 - family_likeness) ** 0.5 * own
    return torch.where(has_siblings, mixed, own)


def identity_table(latents: Tensor, *, spread: float) -> Tensor:
    """Turns latent vectors `(N, K)` into float32 parameter values, `spread` times as far apart."""
    return _values(IDENTITY_PARAMETERS, latents, spread).float()


def nuisance_table(seed: int, identities: Tensor, images: Tensor, *, strength: float) -> Tensor:
    """Draws how each picture was taken.

    Args:
        seed: non-negative seed.
        identities: int64 `(N,)` identity numbers.
        images: int64 `(N,)` number of the image within its identity.
        strength: scale of all nuisance; 0 is a studio portrait, 1 is very hard.

    Returns:
        float32 `(N, K)`, columns as in `nuisance_names()`.
    """
    drawn, events = len(NUISANCE_PARAMETERS), len(NUISANCE_EVENTS)
    columns = drawn + events + len(NUISANCE_CHOICES)
    uniforms = hash_uniforms(seed, _NUISANCE, identities, images, columns=columns)
    chances = strength * torch.tensor(list(NUISANCE_EVENTS.values()), dtype=torch.float64)
    happens = (uniforms[:, drawn : drawn + events] < chances).double()
    normals = normals_from_uniforms(uniforms[:, :drawn])
    normals[:, :2] *= 1.0 + 0.7 * happens[:, :1]  # yaw and pitch: a few hard genuine pairs
    values = _values(NUISANCE_PARAMETERS, normals, strength)
    angles = values[:, [nuisance_names().index(name) for name in TURNED]]
    outside = torch.full_like(values[:, :1], min(1.0, 5.0 * strength))  # 0: studio background
    choices = 0.5 + (uniforms[:, drawn + events :] - 0.5) * outside
    return torch.cat([values, happens, choices, angles.sin(), angles.cos(), outside], dim=1).float()
