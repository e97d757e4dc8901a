"""What the assignments measure: two models on the same people, and a small set of faces."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ekd_lite.data import SyntheticFaces
from ekd_lite.ops import unit_rows


@dataclass(frozen=True)
class TwoModels:
    """Embeddings of the same images by two models.

    Attributes:
        first: (N, D).
        second: (N, D).
        labels: identities, (N,).
    """

    first: Tensor
    second: Tensor
    labels: Tensor


def two_models(
    *, num_identities: int = 60, images_per_identity: int = 6, seed: int = 0
) -> TwoModels:
    """Simulated embeddings of two models of nearly the same quality, on the same people.

    Every person has a centre on the sphere; an image lies around it, at a distance that depends on
    the image and, for the smaller part, on the model. A course that does not want last year's
    numbers handed in changes the seed.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.arange(num_identities).repeat_interleave(images_per_identity)
    centres = unit_rows(draw(num_identities, 32))[labels]
    size = (0.3 * draw(num_identities)[labels] + 0.4 * draw(len(labels))).exp()[:, None]
    common = unit_rows(draw(len(labels), 32))

    def embed(noise: float) -> Tensor:
        return unit_rows(
            centres + noise * size * (0.9 * common + 0.4 * unit_rows(draw(*common.shape)))
        )

    return TwoModels(embed(0.95), embed(1.0), labels)


@dataclass(frozen=True)
class SmallFaces:
    """Procedural faces to train and to test on, of different people.

    Attributes:
        train_images: (N, 3, 32, 32) in [-1, 1].
        train_labels: (N,), 0 ... num_train - 1.
        test_images: of people who are not in the training set.
        test_labels: their identities.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def small_faces(
    *, num_train: int = 80, images_per_identity: int = 12, num_test: int = 60, seed: int = 0
) -> SmallFaces:
    """Render a set for the assignments; about two seconds on one core.

    Args:
        num_train: identities to train on.
        images_per_identity: of each of them; two thirds as many of the others.
        num_test: identities to test on.
        seed: of the people.
    """

    def render(count: int, images: int, first: int) -> tuple[Tensor, Tensor]:
        faces = SyntheticFaces(count, images, image_size=32, seed=seed, first_identity=first)
        labels = torch.arange(count).repeat_interleave(images)
        return faces.render(torch.arange(len(faces))), labels

    train = render(num_train, images_per_identity, 0)
    test = render(num_test, max(2, images_per_identity * 2 // 3), 100_000)
    return SmallFaces(*train, *test)
