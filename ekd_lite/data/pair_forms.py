"""The forms in which lists of pairs come: CSV, text with a flag, and LFW's, CALFW's, CPLFW's."""

from __future__ import annotations

import csv
import posixpath
import re
from pathlib import Path
from typing import NamedTuple

from ekd_lite.data.decode import SUFFIXES
from ekd_lite.files import check_regular

_COLUMNS = {"left": ("left", "file1"), "right": ("right", "file2")}
_TRUTH = {"true": True, "false": False}
_NUMBERED = re.compile(r"(.+)_([0-9]{1,9})")


class Pair(NamedTuple):
    """Two names as the list gives them, whether they are one person, and the fold if it says so."""

    left: str
    right: str
    is_genuine: bool
    fold: int | None


def pairs_in(path: Path) -> tuple[str, list[Pair]]:
    """Read a list; its form is "csv" (also with blanks), "lfw" or "two lines" (CALFW and CPLFW).

    Raises:
        ValueError: a line that is of no form, or another number of pairs than announced.
    """
    lines = _lines(path)
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise ValueError(f"{path} is empty: expected a list of pairs")
    line, words = lines[first].lower(), lines[first].split()
    if "," in line or ";" in line or "is_genuine" in line:
        return "csv", _from_csv(path, lines[first:], first)
    if len(words) == 2 and _is_image(words[0]):
        return "two lines", _from_two_lines(path, lines)
    if len(_words(lines[first])) == 3 and sum(map(_is_image, _words(lines[first]))) == 2:
        return "csv", _from_flagged(path, lines[first:], first)
    return "lfw", _from_lfw(path, lines[first:], first)


def person_and_number(stem: str) -> tuple[str, int] | None:
    """`Ann_Lee_0004` -> ("Ann_Lee", 4); None for a name that does not end in a number."""
    match = _NUMBERED.fullmatch(stem)
    return (match[1], int(match[2])) if match else None


def person(name: str) -> str | None:
    """Who is in an image, by the name of its file."""
    found = person_and_number(posixpath.splitext(posixpath.basename(name.replace("\\", "/")))[0])
    return found[0] if found else None


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in SUFFIXES


def list_text(path: Path) -> str:
    """A text in UTF-8 or, with its mark in front, UTF-16; a ValueError for other bytes."""
    check_regular(path)
    data = path.read_bytes()
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}): save it as "
            "'CSV UTF-8'"
        ) from None
    return text.lstrip("\ufeff")  # some editors write the mark twice


def _lines(path: Path) -> list[str]:
    return re.split("\r\n|\n|\r", list_text(path))


def _from_csv(path: Path, lines: list[str], skipped: int) -> list[Pair]:
    if lines[0].lower().startswith("sep=") and len(lines) > 1:  # for Excel alone
        lines, skipped = lines[1:], skipped + 1
    delimiter = max(",;\t", key=lines[0].count)
    try:
        # One line a record: a name with a line break in it cannot stand in a list.
        records = list(csv.reader(lines, strict=True, delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV: {error}") from None
    known = [name.strip().lower() for name in records[0]]
    while known and not known[-1]:
        known.pop()
    columns = {key: next((n for n in names if n in known), None) for key, names in _COLUMNS.items()}
    left, right = columns["left"], columns["right"]
    if left is None or right is None or "is_genuine" not in known:
        raise ValueError(
            f"{path} has the columns {', '.join(known)}; expected left, right, is_genuine (, fold)"
        )
    pairs = []
    for number, values in enumerate(records[1:], skipped + 2):
        where = f"{path}, line {number}"
        values = [value.strip() for value in values]
        if not any(values):
            continue
        record = dict(zip(known, values, strict=False))
        truth = _truth(record.get("is_genuine", ""))
        if truth is None:
            given = record.get("is_genuine", "")
            raise ValueError(f"{where}: is_genuine is {given!r}, expected 0 or 1")
        if not record[left] or not record[right] or any(values[len(known) :]):
            raise ValueError(f"{where}: {len(known)} values expected")
        fold = _whole(record.get("fold", ""), where) if "fold" in known else None
        pairs.append(Pair(record[left], record[right], truth, fold))
    return pairs


def _words(line: str) -> list[str]:
    """What stands between blanks, or between tabs: a name may then hold blanks."""
    return [word.strip() for word in line.split("\t")] if "\t" in line else line.split()


def _from_flagged(path: Path, lines: list[str], skipped: int) -> list[Pair]:
    place = 2 if _is_image(_words(lines[0])[0]) else 0  # of the flag
    pairs = []
    for number, line in enumerate(lines, skipped + 1):
        words = _words(line)
        if not any(words):
            continue
        truth = _truth(words.pop(place)) if len(words) == 3 else None
        if truth is None or not all(map(_is_image, words)):
            form = "a.jpg b.jpg 1" if place else "1 a.jpg b.jpg"
            raise ValueError(f"{path}, line {number}: expected {form!r}, got {line!r:.80}")
        pairs.append(Pair(words[0], words[1], truth, None))
    return pairs


def _truth(text: str) -> bool | None:
    """1, 1.0, 1,0 and TRUE are true."""
    try:
        return {1.0: True, 0.0: False}.get(float(text.replace(",", ".")))
    except ValueError:
        return _TRUTH.get(text.lower())


def _from_lfw(path: Path, lines: list[str], skipped: int) -> list[Pair]:
    first = lines[0].split()
    where = f"{path}, line {skipped + 1}"
    if len(first) not in (1, 2):
        raise ValueError(f"{where}: expected CSV columns, or the counts of LFW's pairs.txt")
    counts = [_whole(word, where) for word in first]
    size = 2 * counts[1] if len(counts) == 2 else 0  # pairs a fold: half of them are genuine
    pairs: list[Pair] = []
    for number, line in enumerate(lines[1:], skipped + 2):
        words = _words(line)  # LFW's own file has tabs
        where = f"{path}, line {number}"
        if not any(words):
            continue
        if len(words) not in (3, 4):
            raise ValueError(f"{where}: expected 'name 1 4' or 'name 1 other 2', got {line!r:.80}")
        other = words[0] if len(words) == 3 else words[2]
        fold = len(pairs) // size if size else None
        left, right = _lfw_file(words[0], words[1], where), _lfw_file(other, words[-1], where)
        pairs.append(Pair(left, right, len(words) == 3, fold))
    _check_counts(path, counts, pairs)
    return pairs


def _check_counts(path: Path, counts: list[int], pairs: list[Pair]) -> None:
    """LFW's first line says how many pairs there are, half of them genuine."""
    folds, each = counts if len(counts) == 2 else (1, counts[0])
    genuine = sum(pair.is_genuine for pair in pairs)
    if genuine != folds * each or len(pairs) != 2 * folds * each:
        raise ValueError(
            f"{path} announces {folds * each} genuine and as many impostor pairs and holds "
            f"{genuine} and {len(pairs) - genuine}: it is cut off, or its first line is wrong"
        )


def _from_two_lines(path: Path, lines: list[str]) -> list[Pair]:
    found: list[tuple[str, int, str]] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        where = f"{path}, line {number}"
        if not words:
            continue
        if len(words) != 2 or not _is_image(words[0]):
            raise ValueError(f"{where}: expected 'name_1.jpg 1', got {line!r:.80}")
        found.append((words[0], _whole(words[1], where), where))
    if len(found) % 2:
        raise ValueError(f"{path} has {len(found)} lines, and a pair has two: it is cut off")
    pairs = []
    for (left, one, _), (right, two, where) in zip(found[0::2], found[1::2], strict=True):
        if one != two:
            raise ValueError(f"{where}: the two lines of a pair say {one} and {two}")
        pairs.append(Pair(left, right, one > 0, None))
    return pairs


def _lfw_file(name: str, number: str, where: str) -> str:
    return f"{name}/{name}_{_whole(number, where):04d}"


def _whole(text: str, where: str) -> int:
    text = re.sub(r"[.,]0+$", "", text)  # 1.0: a column that once held a gap
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{where}: expected a whole number, got {text!r:.40}")
    return int(text)
