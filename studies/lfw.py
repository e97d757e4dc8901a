"""LFW as the studies of real faces read it: index, pixels, the teacher's rows, and who is who.

The data folder holds `lfw112/IDENTITY/FILE.jpg` (aligned), `lfw_index.csv`, the teacher's rows in
`lfw_sface_embeddings.npy` and the list `lfw_pairs_devtest.csv`. None of them is copied into the
repository: what goes there are numbers.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ekd_lite.data import ImageFolder, PackedFaces, cache_faces
from ekd_lite.data.splits import Selection

FILES = ("lfw112", "lfw_index.csv", "lfw_sface_embeddings.npy", "lfw_pairs_devtest.csv")
DIM = 128  # of the teacher's rows
Row = dict[str, str]


@dataclass(frozen=True)
class Faces:
    """Real faces of some people, and what the teacher makes of them.

    Attributes:
        images: the faces, labels counted from 0.
        teacher: the teacher's embeddings, (N, DIM), with a mean square of 1 over the whole set.
        files: names of the images, as in the index.
    """

    images: Selection
    teacher: Tensor
    files: list[str]


def read_index(data: Path) -> list[Row]:
    """The rows of the index; each has a row of the teacher's array."""
    with (data / "lfw_index.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def split_people(index: list[Row]) -> dict[str, list[str]]:
    """Training, validation and test people: LFW's View 1, and a tenth of its training people.

    Ordered by their number of images, every tenth is for validation, so that both parts have as
    many images a person.
    """
    images = Counter(row["identity"] for row in index)
    split = {row["identity"]: row["dev_split"] for row in index}
    known = sorted((p for p in split if split[p] == "train"), key=lambda p: (-images[p], p))
    validation = set(known[9::10])
    return {
        "train": sorted(set(known) - validation),
        "validation": sorted(validation),
        "test": sorted(p for p in split if split[p] == "test"),
    }


@cache
def read_all(data: Path, work: Path, size: int) -> tuple[ImageFolder, PackedFaces, Tensor]:
    """Files, pixels and teacher's embeddings of all images, one order for all three."""
    index = read_index(data)
    rows = np.load(data / "lfw_sface_embeddings.npy", allow_pickle=False)
    if rows.shape != (len(index), DIM):
        raise ValueError(f"{len(index)} images in the index, embeddings of shape {rows.shape}")
    folder = ImageFolder(data / "lfw112", image_size=size)
    place = {row["file"]: i for i, row in enumerate(index)}
    files = [file.relative_to(folder.root).as_posix() for file in folder.files]
    if sorted(files) != sorted(place):
        raise ValueError(f"{len(index)} images in the index, other {len(files)} in {folder.root}")
    teacher = torch.from_numpy(rows).float()[[place[file] for file in files]]
    teacher = teacher / teacher.square().mean().sqrt()  # one constant: directions stay
    return folder, cache_faces(folder, work / "faces", workers=1), teacher


@cache
def read_faces(
    data: Path, work: Path, part: str, *, size: int, share: float = 1.0, seed: int = 0
) -> Faces:
    """The faces of the training, validation or test people, or of a random share of them."""
    folder, packed, teacher = read_all(data, work, size)
    people = split_people(read_index(data))[part]
    order = torch.randperm(len(people), generator=torch.Generator().manual_seed(seed))
    kept = order[: round(share * len(people))].sort().values.tolist()
    number = {person: label for label, person in enumerate(folder.identities)}
    identities = torch.tensor([number[people[i]] for i in kept])
    own = torch.isin(packed.labels, identities).nonzero().flatten()
    files = [folder.files[i].relative_to(folder.root).as_posix() for i in own.tolist()]
    return Faces(Selection(packed, identities), teacher[own], files)
