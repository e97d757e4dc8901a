"""A CSV of attributes: the group of every image, or of every person."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path


def read_attributes(
    path: str | Path, names: Sequence[str], *, attribute: str, key: str = "file"
) -> list[str]:
    """The attribute of each name, in the order of `names`.

    Args:
        path: CSV with a header; other columns are ignored.
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
    value_of: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        columns = reader.fieldnames or []
        absent = [column for column in (key, attribute) if column not in columns]
        if absent:
            raise ValueError(f"{path} has no column {absent[0]!r}; it has {', '.join(columns)}")
        try:
            for record in reader:
                where = f"{path}, line {reader.line_num}"
                name, value = record[key] or "", (record[attribute] or "").strip()
                if not name or not value or None in record:
                    raise ValueError(
                        f"{where}: expected {len(columns)} values, with {key} and {attribute} "
                        "among them"
                    )
                if value_of.setdefault(name, value) != value:
                    raise ValueError(
                        f"{where}: {name} is {value!r} here and {value_of[name]!r} before"
                    )
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    unknown = [name for name in names if name not in value_of]
    if unknown:
        raise ValueError(
            f"{path} says nothing of {unknown[0]!r} ({len(set(unknown))} such); give every {key} a "
            "line, if need be with a value such as 'unknown'"
        )
    return [value_of[name] for name in names]
