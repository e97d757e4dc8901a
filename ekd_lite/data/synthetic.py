"""Procedural faces: an endless, licence-free face set that shows nobody.

An identity is a vector of dozens of continuous parameters (skull, eyes, nose, mouth, skin, hair,
moles); an image adds nuisance (pose, expression, light, glasses, blur). Both are hashes of (seed,
identity, image), so a picture never depends on what else is in the set or in the batch.
"""

from __future__ import annotations

import copy
import operator

import torch
from torch import Tensor

from ekd_lite.data.faceset import digest_of
from ekd_lite.data.indexing import Indices, index_tensor, one_index
from ekd_lite.data.renderer.draw import identity_latents, identity_table, nuisance_table
from ekd_lite.data.renderer.render import RENDERER_VERSION, render_faces

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 224
_PIXELS_PER_BATCH = 96 << 10  # so many at a time stay in a core's cache; a GPU takes far more
_PIXELS_PER_BATCH_GPU = 1 << 22


class SyntheticFaces:
    """A set of procedural faces, `images_per_identity` pictures of each of `num_identities`.

    Image `i` shows identity `i // images_per_identity`. The same (seed, identity, image) gives the
    same pixels: bit for bit on a CPU, whatever the batch; up to one level of 255 in a few pixels
    between CPU and GPU. Faces are not symmetric (moles, asymmetry), so a mirrored picture
    shows somebody else.

    Args:
        num_identities: how many people, at least 1.
        images_per_identity: pictures of each, at least 1.
        image_size: height and width in pixels, a multiple of 16 from 32 to 224.
        seed: non-negative; another seed is another population.
        first_identity: number of the first person. Sets of one seed whose ranges do not overlap
            share nobody: that is how training and test identities are kept apart.
        first_image: number of the first picture of each person; a second range gives new
            pictures of the same people.
        identity_spread: how far apart identities are; larger is easier.
        nuisance_strength: scale of pose, expression, light and the rest; at 0 all
            pictures of a person are one and the same studio portrait; larger is harder.
        family_share: share of identities that come in families of three look-alikes, 0..1.
        family_likeness: correlation between siblings, 0 (strangers) to 1 (the same face).

    Attributes:
        labels: int64 `(N,)`, 0..num_identities-1, whatever `first_identity` is.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        num_identities: int,
        images_per_identity: int,
        *,
        image_size: int = 32,
        seed: int = 0,
        first_identity: int = 0,
        first_image: int = 0,
        identity_spread: float = 1.5,
        nuisance_strength: float = 0.4,
        family_share: float = 0.3,
        family_likeness: float = 0.6,
    ):
        self.num_identities = whole("num_identities", num_identities, at_least=1)
        self.images_per_identity = whole("images_per_identity", images_per_identity, at_least=1)
        self.image_size = whole("image_size", image_size, at_least=MIN_IMAGE_SIZE)
        if self.image_size % 16 or self.image_size > MAX_IMAGE_SIZE:
            raise ValueError(
                f"image_size must be a multiple of 16 from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}, "
                f"got {image_size}: use for example 32, 48, 64 or 112"
            )
        self.seed = whole("seed", seed, at_least=0)
        self.first_identity = whole("first_identity", first_identity, at_least=0)
        self.first_image = whole("first_image", first_image, at_least=0)
        self.identity_spread = _number("identity_spread", identity_spread, 0.0, 10.0)
        self.nuisance_strength = _number("nuisance_strength", nuisance_strength, 0.0, 10.0)
        self.family_share = _number("family_share", family_share, 0.0, 1.0)
        self.family_likeness = _number("family_likeness", family_likeness, 0.0, 1.0)
        self.labels = torch.arange(self.num_identities).repeat_interleave(self.images_per_identity)

    def parameters(self) -> dict[str, int | float | str]:
        """Everything that the pixels depend on, as plain values: the key of a cache."""
        return {
            "kind": "SyntheticFaces",
            "renderer_version": RENDERER_VERSION,
            "num_identities": self.num_identities,
            "images_per_identity": self.images_per_identity,
            "image_size": self.image_size,
            "seed": self.seed,
            "first_identity": self.first_identity,
            "first_image": self.first_image,
            "identity_spread": self.identity_spread,
            "nuisance_strength": self.nuisance_strength,
            "family_share": self.family_share,
            "family_likeness": self.family_likeness,
        }

    @property
    def identities(self) -> list[str]:
        """Names of the people by label: what makes a face, and the person's number.

        The same person in another picture, size or strength of nuisance has the same name.
        """
        person = (self.seed, self.identity_spread, self.family_share, self.family_likeness)
        population = "/".join(map(str, person))
        numbers = range(self.first_identity, self.first_identity + self.num_identities)
        return [f"procedural/{population}/{number}" for number in numbers]

    def at_size(self, image_size: int) -> SyntheticFaces | None:
        """The same faces drawn at another size; None if it is not among the possible ones."""
        if image_size % 16 or not MIN_IMAGE_SIZE <= image_size <= MAX_IMAGE_SIZE:
            return None
        other = copy.copy(self)
        other.image_size = image_size
        return other

    def digest(self) -> str:
        """A digest of `parameters()`, which decide every pixel."""
        return digest_of(self.parameters())

    def __len__(self) -> int:
        return self.num_identities * self.images_per_identity

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Renders one picture: float `(3, H, W)` in [-1, 1], and its label.

        Raises:
            IndexError: the index is not an integer, or not one of this set.
        """
        position = one_index(index, len(self))
        return self.render([position])[0], position // self.images_per_identity

    def batch(self, indices: Indices) -> Tensor:
        """Renders pictures on the CPU: float `(B, 3, H, W)` in [-1, 1].

        Raises:
            IndexError: an index is not an integer, or not one of this set.
        """
        return self.render(indices)

    def tables(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The parameters behind pictures: what there is to know about them.

        Args:
            index: int64 `(B,)`, in 0..len-1.

        Returns:
            float32 tables `(B, K)` of identity and `(B, L)` of nuisance, on the CPU, with columns
            as in `identity_names()` and `nuisance_names()`.
        """
        identities = self.first_identity + index // self.images_per_identity
        numbers = self.first_image + index % self.images_per_identity
        latents = identity_latents(
            self.seed, identities,
            family_share=self.family_share, family_likeness=self.family_likeness,
        )  # fmt: skip
        return (
            identity_table(latents, spread=self.identity_spread),
            nuisance_table(self.seed, identities, numbers, strength=self.nuisance_strength),
        )

    @torch.no_grad()
    def render(self, indices: Indices, device: torch.device | str | None = None) -> Tensor:
        """Renders pictures on any device.

        Args:
            indices: `(B,)` integers in 0..len-1, in any order, repeats allowed.
            device: where to render; the CPU by default.

        Returns:
            float32 `(B, 3, H, W)` in [-1, 1] on that device, on the levels `k / 127.5 - 1` of
            8-bit pixels.

        Raises:
            IndexError: an index is not an integer, or not one of this set.
        """
        where = torch.device("cpu" if device is None else device)
        index = index_tensor(indices, len(self))
        size = self.image_size
        images = torch.empty(len(index), 3, size, size, device=where)
        pixels = _PIXELS_PER_BATCH if where.type == "cpu" else _PIXELS_PER_BATCH_GPU
        start = 0
        for part in torch.split(index, max(1, pixels // size**2)):
            who, how = self.tables(part)
            images[start : start + len(part)] = render_faces(who, how, size=size, device=where)
            start += len(part)
        return images


def whole(name: str, value: object, *, at_least: int) -> int:
    """The value as an int, or a ValueError that names the argument."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not at_least <= number < 1 << 62:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
    return number


def _number(name: str, value: float, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}")
    return float(value)
