"""Lists of pairs over a folder of faces: CSV, and the text files of LFW."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ekd_lite.data.faceset import FaceSet
from ekd_lite.data.folder import ImageFolder
from ekd_lite.data.indexing import index_tensor
from ekd_lite.data.verification import VerificationSet

_COLUMNS = {"left": ("left", "file1"), "right": ("right", "file2")}
_TRUTH = {"1": True, "true": True, "0": False, "false": False}


class _Pair(NamedTuple):
    left: str
    right: str
    is_genuine: bool
    fold: int | None


class Subset:
    """Some images of a face set, in the order given; one may come several times.

    Args:
        faces: the set.
        rows: indices of the images, (N,) int64.
    """

    def __init__(self, faces: FaceSet, rows: Tensor) -> None:
        self.faces = faces
        self.rows = index_tensor(rows, len(faces))
        self.labels = faces.labels[self.rows]
        self.image_size = faces.image_size

    @property
    def num_identities(self) -> int:
        """Number of identities of the whole set, whose labels these are."""
        return self.faces.num_identities

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Images in [-1, 1], (B, 3, image_size, image_size) float32."""
        return self.faces.batch(self.rows[index_tensor(indices, len(self))])


def read_pairs(
    path: str | Path, faces: ImageFolder, *, skip_missing: bool = False
) -> VerificationSet:
    """Read a list of pairs over a folder of faces.

    Two forms: CSV with the columns left, right, is_genuine and, if wanted, fold (file1, file2 will
    do for the files, which are relative to the folder); and LFW's pairs.txt, where `name 1 4` is a
    genuine pair, `name 1 other 2` an impostor pair, and a first line `folds pairs` gives the folds.

    Args:
        path: the list.
        faces: the folder its files are in.
        skip_missing: leave out pairs that name a missing image, with a warning that names it.

    Raises:
        FileNotFoundError: no such list.
        ValueError: a line that is neither form, a label that contradicts the folders, or a missing
            image; the line is named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such list of pairs: {path}")
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines:
        raise ValueError(f"{path} is empty: expected a list of pairs")
    pairs = _from_csv(path, lines) if "," in lines[0] else _from_lfw(path, lines)
    files = [file.relative_to(faces.root) for file in faces.files]
    row = {file.as_posix(): number for number, file in enumerate(files)}
    if "," not in lines[0]:  # LFW's lists do not say the suffix
        row = {file.with_suffix("").as_posix(): number for number, file in enumerate(files)}
    missing = sorted({name for pair in pairs for name in pair[:2] if name not in row})
    if missing:
        text = f"{path} names {len(missing)} images that {faces.root} lacks: {_some(missing)}"
        if not skip_missing:
            raise ValueError(f"{text}; skip_missing=True leaves their pairs out")
        kept = [pair for pair in pairs if pair.left in row and pair.right in row]
        warnings.warn(f"{text}; {len(pairs) - len(kept)} pairs left out", stacklevel=2)
        pairs = kept
    if not pairs:
        raise ValueError(f"{path} holds no pair")
    left = Subset(faces, torch.tensor([row[pair.left] for pair in pairs]))
    right = Subset(faces, torch.tensor([row[pair.right] for pair in pairs]))
    is_genuine = torch.tensor([pair.is_genuine for pair in pairs])
    wrong = ((left.labels == right.labels) != is_genuine).nonzero().flatten().tolist()
    if wrong:
        pair = pairs[wrong[0]]
        raise ValueError(
            f"{path} says is_genuine = {int(pair.is_genuine)} of {pair.left} and {pair.right}, and "
            f"their folders say otherwise ({len(wrong)} such pairs)"
        )
    folds = [pair.fold for pair in pairs if pair.fold is not None]
    return VerificationSet(left, right, is_genuine, torch.tensor(folds) if folds else None)


def _from_csv(path: Path, lines: list[str]) -> list[_Pair]:
    reader = csv.DictReader(lines, strict=True)
    known = reader.fieldnames or []
    columns = {key: next((n for n in names if n in known), None) for key, names in _COLUMNS.items()}
    left, right = columns["left"], columns["right"]
    if left is None or right is None or "is_genuine" not in known:
        raise ValueError(
            f"{path} has the columns {', '.join(known)}; expected left, right, is_genuine (, fold)"
        )
    pairs = []
    for record in reader:
        where = f"{path}, line {reader.line_num}"
        truth = _TRUTH.get((record["is_genuine"] or "").strip().lower())
        if truth is None:
            raise ValueError(f"{where}: is_genuine is {record['is_genuine']!r}, expected 0 or 1")
        if not record[left] or not record[right] or None in record:
            raise ValueError(f"{where}: {len(known)} values expected")
        fold = _whole(record["fold"] or "", where) if "fold" in known else None
        pairs.append(_Pair(record[left], record[right], truth, fold))
    return pairs


def _from_lfw(path: Path, lines: list[str]) -> list[_Pair]:
    first = lines[0].split()
    size = 0  # pairs a fold: so many genuine ones, then as many impostor ones
    if len(first) == 2:
        size = 2 * _whole(first[1], f"{path}, line 1")
    elif len(first) == 1:
        _whole(first[0], f"{path}, line 1")
    else:
        raise ValueError(f"{path}, line 1: expected CSV columns, or the counts of LFW's pairs.txt")
    pairs: list[_Pair] = []
    for number, line in enumerate(lines[1:], 2):
        words = line.split()
        where = f"{path}, line {number}"
        if not words:
            continue
        if len(words) not in (3, 4):
            raise ValueError(f"{where}: expected 'name 1 4' or 'name 1 other 2', got {line!r:.80}")
        other = words[0] if len(words) == 3 else words[2]
        fold = len(pairs) // size if size else None
        left, right = _lfw_file(words[0], words[1], where), _lfw_file(other, words[-1], where)
        pairs.append(_Pair(left, right, len(words) == 3, fold))
    return pairs


def _lfw_file(name: str, number: str, where: str) -> str:
    return f"{name}/{name}_{_whole(number, where):04d}"


def _whole(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{where}: expected a whole number, got {text!r:.40}")
    return int(text)


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if names[10:] else "")
