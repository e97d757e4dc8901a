"""What a run is made from, as short texts to be compared: its faces, its people, its teacher.

An *origin* is a plain dict such as

    {"faces": "240 images of 32 pixels (digest 5f0c...)", "labels": "digest 91ab...",
     "people": "40 people (digest 77d2...)", "teacher": "tiny_teacher (digest c0de...)"}

with the beginnings of sha256 digests. It stands in the checkpoint, in the finished model and in the
cache of a teacher's rows; whoever reads these compares it with his own and names what differs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.data.faceset import digest_of, identity_names, images_digest
from ekd_lite.parallel import broadcast_bytes, gather_bytes, rank
from ekd_lite.train.config import CHANGES_NOTHING, TrainConfig, read_config
from ekd_lite.train.distributed import agree
from ekd_lite.train.model_file import read_origin

Origin = dict[str, str]
SHOWN = 16  # hexadecimal digits: no two sets will share them by chance


def faces_origin(faces: FaceSet, *, whole: bool = False) -> Origin:
    """The origin of a set: its images, its labels and its people.

    Args:
        faces: the set.
        whole: read every image, even of a set so large that it takes minutes (`images_digest`).
    """
    digest = images_digest(faces, whole=whole)
    pixels = "others at every reading" if digest is None else f"digest {digest[:SHOWN]}"
    names = identity_names(faces)
    people = "without names" if names is None else f"digest {digest_of(names)[:SHOWN]}"
    return {
        "faces": f"{len(faces)} images of {faces.image_size} pixels ({pixels})",
        "labels": tensors_digest([("labels", faces.labels)]),
        "people": f"{faces.num_identities} people ({people})",
    }


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A digest of named tensors: of weights, or of a teacher's rows."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return f"digest {digest.hexdigest()[:SHOWN]}"


def differences(mine: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """One line for everything in which two origins differ."""
    return [
        f"{name}: {mine.get(name, 'none')} here, {theirs.get(name, 'none')} there"
        for name in {**mine, **theirs}
        if mine.get(name) != theirs.get(name)
    ]


def check_ranks(config: TrainConfig, origin: Origin) -> None:
    """Raise a ValueError, on all processes, if one has another configuration, set or teacher."""
    ignored = {*CHANGES_NOTHING, "device"}
    values = {k: repr(v) for k, v in dataclasses.asdict(config).items() if k not in ignored}
    ranks = [json.loads(data) for data in gather_bytes(json.dumps(values | origin).encode())]
    found = [
        f"process {number}: {'; '.join(lines)}"
        for number, theirs in enumerate(ranks)
        if (lines := differences(ranks[0], theirs))
    ]
    problem = broadcast_bytes("\n  ".join(found).encode())
    if problem:
        raise ValueError(
            "the processes of a run must be given the same, but (process 0 is here):\n  "
            + problem.decode()
        )


def is_finished(finished: Path, saved: bytes | None, config: TrainConfig, origin: Origin) -> bool:
    """Whether a folder holds the finished model of this very run, though no checkpoint of it.

    All processes must call it; the first one looks.

    Args:
        finished: where the model would be.
        saved: the checkpoint that was found, or None.
        config: of the run.
        origin: of the run.

    Raises:
        ValueError: it is another run's, and training would write over it.
    """
    is_there, problem = False, ""
    if rank() == 0 and saved is None and finished.exists():
        is_there = True
        try:
            said = finished.parent / "config.json"
            found = config.differences(read_config(said)) if said.exists() else []
            found += differences(origin, read_origin(finished))
        except ValueError as error:
            found = [str(error)]
        if found:
            problem = (
                f"{finished} is a finished model, and not that of this run:\n  "
                + "\n  ".join(found)
                + "\nits checkpoint is gone; train into another folder"
            )
    told = broadcast_bytes(problem.encode())
    if told:
        raise ValueError(told.decode())
    return bool(agree(int(is_there)))
