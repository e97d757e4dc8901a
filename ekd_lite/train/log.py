"""The log of a run: one JSON object a line, the same after a restart as without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ekd_lite.files import write_atomically


class JsonLines:
    """Append records to a file; on opening, drop the lines after the step that is resumed.

    Args:
        path: the file.
        step: steps done; a killed run may have logged more than its checkpoint holds.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self.path = path
        kept = [r for r in read_json_lines(path) if r["step"] <= step] if path.exists() else []
        write_atomically(path, "".join(json.dumps(r) + "\n" for r in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, which must have a "step"."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a log; a last line that a kill cut short is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
