"""Where the images of a shard are, and whose they are: one walk through its headers.

A shard is a plain tar whose members belong together by their *key*, the name up to its first dot:
`0001.jpg` and `0001.cls`, or `0001.jpg` and `0001.json`. The walk reads headers and labels and
skips the images; what it finds is kept in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import load, save
from tqdm import tqdm

from ekd_lite.data.archives import MAX_MEMBER
from ekd_lite.data.decode import SUFFIXES, open_regular
from ekd_lite.data.faceset import digest_of
from ekd_lite.data.names import is_foreign, printable
from ekd_lite.data.processes import cores, map_in_processes
from ekd_lite.data.tar_walk import Member, walk_tar
from ekd_lite.files import check_regular, user_cache, write_atomically

JSON_KEYS = ("label", "cls", "class", "identity", "id")
_VERSION = 1  # of the files in the cache
_BYTES_A_WORKER = 2 << 30  # of shards: to start a process takes as long as to walk through these
_MAX_LABEL = 1 << 20  # bytes of a .cls or .json
_ARRAYS = ("starts", "sizes", "codes", "keys", "ends")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ShardIndex:
    """The n images of a shard, in its order.

    Attributes:
        starts: where each begins, bytes, int64 (n,).
        sizes: bytes of each, int64 (n,).
        codes: which of `texts` is the label of each, int64 (n,).
        texts: the different labels, as text.
        keys: the keys, one behind the other, uint8.
        ends: where each ends in `keys`, int64 (n,).
    """

    starts: Array
    sizes: Array
    codes: Array
    texts: list[str]
    keys: Array
    ends: Array

    def key(self, row: int) -> str:
        """The key of one image."""
        start = int(self.ends[row - 1]) if row else 0
        return os.fsdecode(self.keys[start : int(self.ends[row])].tobytes())


def read_shards(paths: Sequence[Path], label: str | None) -> list[ShardIndex]:
    """The indices of some shards, from the cache where a file is the same by its size and time.

    Large ones are walked through by several processes at once.

    Args:
        paths: the shards.
        label: where the labels are, as for `Shards`.

    Raises:
        ValueError: as `index_shard`.
    """
    found = [_from_cache(*_cached(path, label)) for path in paths]
    new = [(path,) for path, index in zip(paths, found, strict=True) if index is None]
    workers = min(cores(), sum(path.stat().st_size for (path,) in new) // _BYTES_A_WORKER)
    bar = tqdm(total=len(new), desc="looking through shards", disable=None, leave=False)
    with bar:
        made = []
        for index in map_in_processes(_index_and_keep, label, new, workers=max(1, workers)):
            made.append(index)
            bar.update()
    remaining = iter(made)
    return [next(remaining) if index is None else index for index in found]


def _cached(path: Path, label: str | None) -> tuple[Path, list[Any]]:
    """The file in the cache for a shard, and what it must have been made from."""
    name = digest_of([str(path.resolve()), label])[:20]
    return user_cache() / "shards" / f"{name}.index", [_VERSION, *stamp_of(path), label]


def _index_and_keep(label: str | None, path: Path) -> ShardIndex:
    file, about = _cached(path, label)
    index = index_shard(path, label)
    with contextlib.suppress(OSError):  # read-only, or full: then the next one walks again
        write_atomically(file, _to_bytes(index, about))
    return index


def stamp_of(path: Path) -> tuple[int, int]:
    """Size and time of a file."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _to_bytes(index: ShardIndex, about: list[Any]) -> bytes:
    text = json.dumps({"about": about, "texts": index.texts}).encode()
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    data = save({**arrays, "text": np.frombuffer(text, np.uint8)})
    return hashlib.sha256(data).digest() + data


def _from_cache(path: Path, about: list[Any]) -> ShardIndex | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None  # damaged: made anew, and written over
    arrays = load(content[32:])
    text = json.loads(arrays.pop("text").tobytes())
    return ShardIndex(**arrays, texts=text["texts"]) if text["about"] == about else None


@dataclass(slots=True)
class _Sample:
    """What the walk has found of one key."""

    image: Member | None = None
    label: str | None = None
    others: list[str] = field(default_factory=list)


def index_shard(path: Path, label: str | None) -> ShardIndex:
    """Walk through a shard.

    Args:
        path: the shard.
        label: where the labels are, as for `Shards`.

    Raises:
        ValueError: no tar, damaged or with something in it that is no plain file (`walk_tar`); an
            image without a label or a label without an image; a key with two images, or a member
            that is there twice; a label that is none.
    """
    samples: dict[str, _Sample] = {}
    check_regular(path)
    with open_regular(path) as file:
        for member in walk_tar(file, path):
            _take(member, samples, file, path, label)
    images: list[tuple[int, int, int, bytes]] = []  # start, size, number of the label, key
    numbers: dict[str, int] = {}
    for key, sample in samples.items():
        if sample.image is None or sample.label is None:
            _check_nothing_missing(key, sample, path, label)
        else:
            code = numbers.setdefault(sample.label, len(numbers))
            images.append((sample.image.start, sample.image.size, code, os.fsencode(key)))
    if not images:
        raise ValueError(f"{path} holds no image: expected {', '.join(SUFFIXES)} files in it")
    images.sort()
    starts, sizes, codes, encoded = zip(*images, strict=True)
    return ShardIndex(
        starts=np.array(starts, np.int64),
        sizes=np.array(sizes, np.int64),
        codes=np.array(codes, np.int64),
        texts=list(numbers),
        keys=np.frombuffer(b"".join(encoded), np.uint8),
        ends=np.cumsum([len(key) for key in encoded], dtype=np.int64),
    )


def _take(
    member: Member,
    samples: dict[str, _Sample],
    file: BinaryIO,
    path: Path,
    label: str | None,
) -> None:
    """Add a member to the sample it belongs to."""
    folder, slash, base = member.name.rpartition("/")
    if any(map(is_foreign, member.name.split("/"))):
        return
    stem, _, ending = base.partition(".")
    sample = samples.setdefault(f"{folder}{slash}{stem}", _Sample())
    name = f"{path}: {printable(member.name)}"
    if ending in sample.others:
        raise ValueError(f"{name} is in it twice")
    sample.others.append(ending)
    suffix = f".{ending.rpartition('.')[2].lower()}"
    if suffix in SUFFIXES:
        if sample.image is not None:
            raise ValueError(
                f"{name} is a second image of its key, beside {printable(sample.image.name)}: a "
                "key is the name up to its first dot, and holds one"
            )
        if member.size > MAX_MEMBER:
            raise ValueError(f"{name} has {member.size:,} bytes, more than {MAX_MEMBER:,}")
        sample.image = member
    elif ending in (label or "cls", "json"):
        if member.size > _MAX_LABEL:
            raise ValueError(f"{name} has {member.size:,} bytes, too many for a label")
        file.seek(member.start)
        data = file.read(member.size)
        if ending != "json":
            sample.label = _text_of(data, name)
        elif sample.label is None:
            sample.label = _json_label(data, label, name)


def _check_nothing_missing(key: str, sample: _Sample, path: Path, label: str | None) -> None:
    """Raise a ValueError if a key has only one of image and label; it may well have neither."""
    name = f"{path}: {printable(key)}"
    if sample.image is None:
        if sample.label is not None:
            raise ValueError(f"{name} has a label and no image beside it: the shard is damaged")
        return
    keys = f"with the key {label!r}" if label else f"with one of {', '.join(JSON_KEYS)}"
    raise ValueError(
        f"{name} has no label: expected {printable(key)}.{label or 'cls'}, or "
        f"{printable(key)}.json {keys}; there is {', '.join(map(printable, sample.others))}. "
        "(Images in folders of people: ekd_lite.data.unpack_faces)"
    )


def _text_of(data: bytes, name: str) -> str:
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(text) > 200 or "\n" in text:
        raise ValueError(f"{name} is no label: expected the number or the name of an identity")
    return text


def _json_label(data: bytes, label: str | None, name: str) -> str | None:
    """The label in a JSON object; None if it has none."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{name} is no JSON object with a label in it")
    found = {key: content[key] for key in ((label,) if label else JSON_KEYS) if key in content}
    if not found:
        return None
    texts = {key: _value(value, f"{name}, {key!r}") for key, value in found.items()}
    if len(set(texts.values())) > 1:
        raise ValueError(f"{name} has several labels, {texts}: say which with label=")
    return next(iter(texts.values()))


def _value(value: Any, name: str) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{name} is {value!r}: expected the number or the name of an identity")
    return _text_of(str(value).encode(errors="replace"), name)
