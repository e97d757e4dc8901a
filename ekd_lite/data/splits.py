"""Training, validation and test faces that share no identity."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ekd_lite.data.align import alignment_note
from ekd_lite.data.cache import cache_faces
from ekd_lite.data.faceset import FaceSet, at_size, identity_names, images_digest
from ekd_lite.data.folder import Nested
from ekd_lite.data.indexing import Indices, index_tensor, one_index
from ekd_lite.data.opening import open_faces
from ekd_lite.data.packed import PackedFaces
from ekd_lite.data.synthetic import SyntheticFaces

# Procedural identities: (first, how many, images of each). Ranges that do not overlap share nobody;
# multiples of 3 keep families of look-alikes together.
PROCEDURAL = {"train": (0, 1000, 24), "validation": (3000, 150, 10), "test": (6000, 250, 10)}


class Selection:
    """Some identities of a set, numbered anew from 0 in the order given.

    Attributes:
        whole: the set.
        rows: which of its images these are, (N,) int64.
    """

    def __init__(self, faces: FaceSet, identities: Tensor) -> None:
        number = torch.full((faces.num_identities,), -1)
        number[identities] = torch.arange(len(identities))
        new_labels = number[faces.labels]
        self.whole, self._people = faces, identities
        self.rows = (new_labels >= 0).nonzero().flatten()
        self.labels = new_labels[self.rows]
        self.image_size = faces.image_size
        self.num_identities = len(identities)
        names = identity_names(faces)
        self.identities = None if names is None else [names[i] for i in identities.tolist()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        position = one_index(index, len(self))
        return self.batch([position])[0], int(self.labels[position])

    def at_size(self, image_size: int) -> Selection | None:
        """The same images at another size; None if the set cannot give them."""
        faces = at_size(self.whole, image_size)
        return None if faces is None else Selection(faces, self._people)

    def digest(self, *, whole: bool = False) -> str:
        """A digest of the set and of which of its images these are."""
        own = self.rows.numpy().tobytes()
        return hashlib.sha256(
            f"{images_digest(self.whole, whole=whole)}".encode() + own
        ).hexdigest()

    def batch(self, indices: Indices) -> Tensor:
        """Images in [-1, 1], (B, 3, H, H) float32."""
        return self.whole.batch(self.rows[index_tensor(indices, len(self))])


@dataclass
class Splits:
    """Three sets of faces with no identity in common.

    Attributes:
        train: what nets learn from.
        validation: what choices (weights, schedules) are made on.
        test: what is reported; looked at once.
        flip: whether a mirrored face is still the same identity.
    """

    train: FaceSet
    validation: FaceSet
    test: FaceSet
    flip: bool


def load_splits(
    folder: str | Path | None = None,
    *,
    image_size: int = 32,
    seed: int = 0,
    cache: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    nested: Nested = None,
    label: str | None = None,
    max_bad_fraction: float = 0.0,
    people: int = PROCEDURAL["train"][1],
) -> Splits:
    """Procedural faces, or the faces of a folder divided by identity.

    A folder's identities are shuffled by the seed; 60 % train, 10 % validate and 30 % test. Pixels
    are cached as bytes with a checksum, so the second call takes no time. Photographs that seem not
    to be aligned are warned about.

    Args:
        folder: `identity/image.jpg` tree, .rec file, shards, or a set packed by `data convert`;
            None renders the procedural faces.
        image_size: side of the images, a multiple of 16.
        seed: of the procedural population, or of the division of a folder.
        cache: folder of the cached pixels, by default the one of `cache_faces`.
        workers: processes that render or decode; by default one for each core.
        progress: show a bar on a terminal.
        nested: whose the images in deeper folders are, as for `open_faces`.
        label: where the labels of shards are, as for `open_faces`.
        max_bad_fraction: share of a folder's images that may be undecodable and left out, by name.
        people: procedural training identities, at most 3,000; the other sets stay what they are.

    Raises:
        FileNotFoundError, ValueError: no usable folder, or too few identities in it.
    """
    if folder is None:
        most = PROCEDURAL["validation"][0]
        if not 2 <= people <= most:
            raise ValueError(f"people must lie in 2..{most}, where validation begins; got {people}")
        ranges = {**PROCEDURAL, "train": (0, people, PROCEDURAL["train"][2])}
        sets = [
            cache_faces(
                SyntheticFaces(
                    count, images, image_size=image_size, seed=seed, first_identity=first
                ),
                cache,
                workers=workers,
                progress=progress,
            )
            for first, count, images in ranges.values()
        ]
        return Splits(sets[0], sets[1], sets[2], flip=False)
    faces = open_faces(
        folder,
        image_size=image_size,
        nested=nested,
        label=label,
        max_bad_fraction=max_bad_fraction,
    )
    parts = _divided(faces, folder, seed)
    if isinstance(faces, PackedFaces):
        packed = faces
    else:
        packed = cache_faces(faces, cache, workers=workers, progress=progress)
    note = alignment_note(packed)
    if note is not None:
        warnings.warn(f"{folder}: {note}", stacklevel=2)
    train, validation, test = (Selection(packed, part) for part in parts)
    return Splits(train, validation, test, flip=True)


def split_labels(
    folder: str | Path | None = None, *, image_size: int = 32, seed: int = 0
) -> list[Tensor]:
    """The labels of the three sets that `load_splits` makes; no image is rendered or decoded.

    Args:
        folder: as for `load_splits`.
        image_size: likewise.
        seed: likewise.
    """
    if folder is None:
        ranges = PROCEDURAL.values()
        return [torch.arange(count).repeat_interleave(images) for _, count, images in ranges]
    faces = open_faces(folder, image_size=image_size)
    return [Selection(faces, part).labels for part in _divided(faces, folder, seed)]


def _divided(faces: FaceSet, folder: str | Path, seed: int) -> list[Tensor]:
    """The people of the three sets; a ValueError if they are too few."""
    if faces.num_identities < 10:
        raise ValueError(
            f"{folder} holds {faces.num_identities} identities; training, validation and test need "
            "people of their own: 10 identities are the least, hundreds are useful"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(faces.num_identities, generator=generator)
    train, validation = int(0.6 * len(order)), int(0.7 * len(order))
    parts = order[:train], order[train:validation], order[validation:]
    return [part.sort().values for part in parts]
