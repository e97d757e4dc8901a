"""Readers of the lists that come with IJB-B and IJB-C, in the form insightface shares them.

| file | a line |
|---|---|
| `ijbc_face_tid_mid.txt` | image name, template id, media id |
| `ijbc_template_pair_label.txt` | template id, template id, 1 if of one person and 0 if not |
| `ijbc_name_5pts_score.txt` | image name, x and y of five landmarks, score of the detector |

Fields are separated by blanks, and there is no header. Line i of the first and of the third file
speak of image i. The 1:N lists (`ijbc_1N_gallery_G1.csv`, `ijbc_1N_probe_mixed.csv`, ...) have a
header, commas, and begin with template id and subject id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from ekd_lite.files import check_regular

T = TypeVar("T", int, float)


class TemplateMedia(NamedTuple):
    """Which template and which medium (still image or video) each of N images belongs to."""

    files: list[str]
    template_ids: Tensor  # (N,) int64
    media_ids: Tensor  # (N,) int64


class TemplatePairs(NamedTuple):
    """P pairs of templates to be compared."""

    first: Tensor  # template ids, (P,) int64
    second: Tensor  # (P,) int64
    is_genuine: Tensor  # (P,) bool


class FaceLandmarks(NamedTuple):
    """What a detector said about N images."""

    files: list[str]
    landmarks: Tensor  # (N, 5, 2) float32: x, y in pixels
    scores: Tensor  # (N,) float32


def read_template_media(path: str | Path) -> TemplateMedia:
    """Read `*_face_tid_mid.txt`; a line that does not fit is a ValueError that names it."""
    files, numbers = [], []
    for line, fields in _lines(Path(path), 3, "image name, template id, media id"):
        files.append(fields[0])
        numbers.append(_parse(int, fields[1:], Path(path), line))
    ids = torch.tensor(numbers, dtype=torch.int64).reshape(-1, 2)
    return TemplateMedia(files, ids[:, 0].clone(), ids[:, 1].clone())


def read_template_pairs(path: str | Path) -> TemplatePairs:
    """Read `*_template_pair_label.txt` (15.7 million lines for IJB-C, some two seconds)."""
    path = Path(path)
    check_regular(path)
    try:
        table = np.loadtxt(path, dtype=np.int64, ndmin=2, comments=None, encoding="utf-8-sig")
    except ValueError:
        _find_bad_pair(path)
    if table.shape[1] != 3 or not np.isin(table[:, 2], (0, 1)).all():
        _find_bad_pair(path)
    columns = torch.from_numpy(np.ascontiguousarray(table.T))
    return TemplatePairs(columns[0], columns[1], columns[2].bool())


def _find_bad_pair(path: Path) -> NoReturn:
    """Read a list of pairs slowly, to name the line that is wrong."""
    for line, fields in _lines(path, 3, "template id, template id, 0 or 1"):
        if _parse(int, fields, path, line)[2] not in (0, 1):
            raise ValueError(f"{path}, line {line}: expected 0 or 1 at the end, got {fields[2]!r}")
    raise ValueError(f"{path} holds no list of template pairs")


def read_face_landmarks(path: str | Path) -> FaceLandmarks:
    """Read `*_name_5pts_score.txt`; a line that does not fit is a ValueError that names it."""
    files, numbers = [], []
    for line, fields in _lines(Path(path), 12, "image name, 10 coordinates, score"):
        files.append(fields[0])
        numbers.append(_parse(float, fields[1:], Path(path), line))
    values = torch.tensor(numbers, dtype=torch.float32).reshape(-1, 11)
    if not values.isfinite().all():
        bad = int((~values.isfinite().all(dim=1)).nonzero()[0])
        raise ValueError(f"{path}: the numbers of {files[bad]} are not finite")
    return FaceLandmarks(files, values[:, :10].reshape(-1, 5, 2).clone(), values[:, 10].clone())


def read_template_subjects(path: str | Path) -> tuple[Tensor, Tensor]:
    """Read a gallery or probe list of the 1:N protocol, `TEMPLATE_ID,SUBJECT_ID,...`.

    The list has a line per image; templates are given out once each, in order of their ids.

    Returns:
        template ids (T,) and subject ids (T,), int64.
    """
    path = Path(path)
    subject_of: dict[int, int] = {}
    for number, text in _texts(path):
        if number == 1:
            _check_header(path, text)
        elif text.strip():
            template, subject = _parse(int, [*text.split(","), ""][:2], path, number)
            if subject_of.setdefault(template, subject) != subject:
                raise ValueError(f"{path}, line {number}: template {template} has two subjects")
    if not subject_of:
        raise ValueError(f"{path} is empty: expected a header, then template and subject ids")
    pairs = torch.tensor(sorted(subject_of.items()), dtype=torch.int64)
    return pairs[:, 0].clone(), pairs[:, 1].clone()


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text in UTF-8, numbered from 1."""
    check_regular(path)
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from enumerate(lines, start=1)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 ({error.reason} at byte {error.start})"
        ) from None


def _lines(path: Path, width: int, what: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line, and its number from 1; a line of another width is an error."""
    is_empty = True
    for number, text in _texts(path):
        fields = text.split()
        if not fields:
            continue
        is_empty = False
        if len(fields) != width:
            raise ValueError(
                f"{path}, line {number}: expected {width} fields ({what}), got {len(fields)}"
            )
        yield number, fields
    if is_empty:
        raise ValueError(f"{path} is empty: expected lines of {what}")


def _parse(kind: Callable[[str], T], fields: list[str], path: Path, line: int) -> list[T]:
    """Numbers of one line; what is no number is an error that names the line."""
    try:
        numbers = [kind(field) for field in fields]
        if kind is int and any(abs(number) >= 2**63 for number in numbers):
            raise ValueError
        return numbers
    except ValueError:
        word = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"{path}, line {line}: expected {word}, got {fields}") from None


def _check_header(path: Path, text: str) -> None:
    """Raise a ValueError where the first line holds numbers, or other columns come first."""
    first, _, second = text.upper().replace('"', "").partition(",")
    if "SUBJECT" in first or "TEMPLATE" in second.partition(",")[0]:
        raise ValueError(f"{path}: expected the columns template id, subject id, got {text!r:.80}")
    if first.strip().isdigit():
        raise ValueError(f"{path}: expected a header in line 1, got {text!r:.80}")
