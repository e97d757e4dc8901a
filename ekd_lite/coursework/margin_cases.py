"""What the checks of margin heads are tried on."""

from __future__ import annotations

import torch

from ekd_lite.coursework.exercise import Case, normal, real


def margin_cases() -> list[Case]:
    """Angles with theta + m below pi, where all forms of ArcFace agree; then a parallel pair."""
    embeddings, prototypes = normal(35, 5, 8), normal(36, 4, 8)
    labels = torch.tensor([0, 2, 1, 3, 2])
    # The first two images lie more than a right angle from their prototypes.
    embeddings[:2] = -0.6 * prototypes[labels[:2]] + embeddings[:2]
    near = prototypes[labels] + 0.3 * embeddings
    parallel = (3 * prototypes[labels]).float()
    why = (
        "Here embeddings are parallel to their prototypes. Rounding makes a cosine of 1.0000001, "
        "whose arccos is NaN, and at 1 the slope of arccos and of sqrt(1 - cos^2) is infinite: "
        "clamp the cosine to -1 + 1e-6 .. 1 - 1e-6 first."
    )
    return [
        Case("by hand", (real([[3.0, 4.0]]), torch.eye(2).double(), torch.tensor([0]), 10.0, 0.5)),
        Case("5 images, far", (embeddings, prototypes, labels, 64.0, 0.5)),
        Case("5 images, near", (2 * near, 0.4 * prototypes, labels, 30.0, 0.35)),
        Case("parallel, float32", (parallel, prototypes.float(), labels, 64.0, 0.5), why),
    ]
