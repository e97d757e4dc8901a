"""A CSV of attributes: the group of every image, or of every person."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Sequence
from pathlib import Path

from ekd_lite.data.pair_forms import list_text


def read_attributes(
    path: str | Path, names: Sequence[str], *, attribute: str, key: str = "file"
) -> list[str]:
    """The attribute of each name, in the order of `names`.

    Args:
        path: CSV with a header, as Excel saves it too; other columns are ignored.
        names: what the column `key` holds: files, or identities once for each image.
        attribute: column of the groups, such as "gender" or "age".
        key: column of the names.

    Returns:
        N attributes, one a name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing; a line lacks a value, or contradicts an earlier one (both
            named); or a name has no line.
    """
    path = Path(path)
    text = list_text(path)
    value_of: dict[str, str] = {}
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        columns = [name.strip() for name in next(reader, [])]
        absent = [column for column in (key, attribute) if column not in columns]
        if absent:
            raise ValueError(f"{path} has no column {absent[0]!r}; it has {', '.join(columns)}")
        twice = [column for column in (key, attribute) if columns.count(column) > 1]
        if twice:
            raise ValueError(f"{path} has the column {twice[0]!r} twice")
        for values in reader:
            if not any(values):
                continue
            where = f"{path}, line {reader.line_num}"
            record = dict(zip(columns, map(str.strip, values), strict=False))
            name, value = record.get(key, ""), record.get(attribute, "")
            if not name or not value or len(values) > len(columns):
                raise ValueError(
                    f"{where}: expected {len(columns)} values, with {key} and {attribute} "
                    "among them"
                )
            if value_of.setdefault(_plain(name), value) != value:
                raise ValueError(
                    f"{where}: {name} is {value!r} here and {value_of[_plain(name)]!r} before"
                )
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    unknown = [name for name in names if _plain(name) not in value_of]
    if unknown:
        raise ValueError(
            f"{path} says nothing of {unknown[0]!r} ({len(set(unknown))} such); give every {key} a "
            "line, if need be with a value such as 'unknown'"
        )
    return [value_of[_plain(name)] for name in names]


def _plain(name: str) -> str:
    """A file's name without what a list may add: `./` in front, and backslashes."""
    return posixpath.normpath(str(name).replace("\\", "/"))
