"""`ekd-lite data ...`: look at, convert, check and fetch sets of faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import tyro
from tqdm import tqdm

from ekd_lite.commands.outputs import check_output
from ekd_lite.data import PackedFaces, convert, open_faces, open_packed, preview, verify
from ekd_lite.data.align import alignment_note
from ekd_lite.data.download import download
from ekd_lite.data.registry import REGISTRY
from ekd_lite.data.sets import write_checksums


@dataclass(frozen=True)
class Preview:
    """Write a contact sheet of the procedural faces."""

    out: Path = Path("faces.png")
    """The picture to write."""
    identities: int = 9
    """Rows."""
    images: int = 10
    """Columns; the first is the studio portrait."""
    image_size: int = 112
    """Side of a face, pixels."""
    seed: int = 0
    """Of the population."""
    identity_spread: float = 1.5
    """How far apart people are."""
    nuisance_strength: float = 0.4
    """How much pictures of one person differ."""

    def run(self) -> None:
        """Write the picture."""
        if self.out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise ValueError(f"--out names a picture, such as faces.png, got {self.out}")
        check_output(self.out)
        preview(
            self.out,
            num_identities=self.identities,
            images_per_identity=self.images,
            image_size=self.image_size,
            seed=self.seed,
            identity_spread=self.identity_spread,
            nuisance_strength=self.nuisance_strength,
        )
        print(f"wrote {self.out}")


def _named(path: Path | None, faces: Path | None, command: str) -> Path:
    """The set that was named, by its place or by the option."""
    if path is None and faces is None:
        raise ValueError(f"name the set: ekd-lite data {command} PATH")
    if path is not None and faces is not None:
        raise ValueError(f"name the set once, got {path} and --faces {faces}")
    return path if path is not None else cast(Path, faces)


@dataclass(frozen=True)
class Info:
    """Count the images and identities of a set, and read every image once."""

    path: tyro.conf.Positional[Path | None] = None
    """Folder of identity/image.jpg, .rec file, shards (.tar), or packed set."""
    faces: Path | None = None
    """The same, as an option."""
    nested: Literal["first", "last"] | None = None
    """Whose the images in deeper folders are: all below a first folder one person's, or each folder
    with images a person's."""
    label: str | None = None
    """Where the labels of shards (.tar) are: cls, or a key of their .json."""

    def run(self) -> None:
        """Count and read."""
        path = _named(self.path, self.faces, "info")
        packed = (path / "images.npy").is_file()
        if packed and (self.nested or self.label):
            raise ValueError(f"{path} is packed: --nested and --label are for folders and shards")
        faces = (
            open_packed(path) if packed else open_faces(path, nested=self.nested, label=self.label)
        )
        for index in tqdm(range(len(faces)), desc="reading", disable=None):
            faces.batch([index])
        sizes = torch.bincount(faces.labels)
        print(
            f"{len(faces):,} readable images of {faces.num_identities:,} identities, "
            f"{int(sizes.min())} to {int(sizes.max())} each; "
            f"{int((sizes > 1).sum()):,} identities have two or more"
        )
        note = alignment_note(faces)
        if note is not None:
            print(f"note: {note}")


@dataclass(frozen=True)
class Convert:
    """Turn a folder, a .rec file or shards into a set that opens at once and has checksums."""

    faces: Path
    """Folder of identity/image.jpg, .rec file, or shards (.tar)."""
    out: Path
    """New folder to write."""
    to: Literal["packed", "rec"] = "packed"
    """Decoded pixels to be memory-mapped, or the encoded images in one RecordIO file."""
    image_size: int = 112
    """Side of the decoded images, pixels."""
    nested: Literal["first", "last"] | None = None
    """Whose the images in deeper folders are: all below a first folder one person's, or each folder
    with images a person's."""
    label: str | None = None
    """Where the labels of shards (.tar) are: cls, or a key of their .json."""
    max_bad_fraction: float = 0.0
    """Share of undecodable images that are left out by name; one more, and nothing is written."""

    def run(self) -> None:
        """Convert."""
        faces = open_faces(
            self.faces,
            image_size=self.image_size,
            nested=self.nested,
            label=self.label,
            max_bad_fraction=self.max_bad_fraction,
        )
        if isinstance(faces, PackedFaces):
            raise ValueError(f"{self.faces} is packed already")
        convert(faces, self.out, to=self.to)
        for name in faces.bad:
            print(f"left out: {name}")
        print(f"wrote {self.out}: {len(faces):,} images of {faces.num_identities:,} identities")


@dataclass(frozen=True)
class Verify:
    """Name every damaged image and file of a set; the exit status is 2 if there is one."""

    path: tyro.conf.Positional[Path | None] = None
    """Folder of identity/image.jpg, .rec, .tar or .bin file, or what `convert` wrote."""
    faces: Path | None = None
    """The same, as an option."""
    nested: Literal["first", "last"] | None = None
    """Whose the images in deeper folders are: all below a first folder one person's, or each folder
    with images a person's."""
    label: str | None = None
    """Where the labels of shards (.tar) are: cls, or a key of their .json."""
    write_checksums: bool = False
    """For a folder of images: write SHA256SUMS, which later finds damage that still decodes."""

    def run(self) -> None:
        """Look at everything."""
        path = _named(self.path, self.faces, "verify")
        if self.write_checksums:
            if self.label is not None:
                raise ValueError("--write-checksums is for a folder of images, --label for shards")
            count = write_checksums(path, nested=self.nested)
            print(f"wrote {path / 'SHA256SUMS'}: {count:,} images, all of them readable")
            return
        count, faults = verify(path, nested=self.nested, label=self.label)
        for fault in faults:
            print(fault)
        if faults:
            raise ValueError(f"{len(faults):,} damaged of {count:,} in {path}; named above")
        print(f"{count:,} checked in {path}: none damaged")


@dataclass(frozen=True)
class Download:
    """Download a data set by its name, or say where and how to ask for it."""

    name: str
    """Such as lfw, lfw-pairs, ms1mv3; an unknown one lists all."""
    out: Path = Path("downloads")
    """Folder to put it in."""

    def run(self) -> None:
        """Fetch it, or say how to ask."""
        path = download(self.name, self.out)
        source = REGISTRY[self.name]
        print(f"{path}: {source.how}; its checksum is right. Terms: {source.terms}")
