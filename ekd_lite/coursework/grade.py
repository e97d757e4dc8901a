"""Run a handed-in notebook and give points by the marking scheme.

This executes the notebook's code with the rights of whoever starts it: do it in a container without
network and without anything worth taking. The checks run in the same process as that code, so they
measure an honest answer; they are no defence against one who sets out to cheat.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from ekd_lite.coursework.schemes import SCHEMES
from ekd_lite.files import check_regular

KEY = "ekd_lite_assignment"


@dataclass(frozen=True)
class Mark:
    """Points for one part; `earned` is None where a person has to give them."""

    notebook: str
    part: str
    points: int
    earned: float | None
    remark: str


def read_notebook(path: Path) -> tuple[str, list[str]]:
    """The assignment's name and the code cells.

    Raises:
        ValueError: no notebook, or none of ours.
    """
    check_regular(path)
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        name = book["metadata"].get(KEY, path.stem)
        cells = [
            source if isinstance(source := cell["source"], str) else "".join(source)
            for cell in book["cells"]
            if cell["cell_type"] == "code"
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a Jupyter notebook ({error})") from error
    if name not in SCHEMES:
        raise ValueError(
            f"{path}: assignment {name!r} is unknown, expected {', '.join(SCHEMES)} as {KEY!r} in "
            "the notebook's metadata or as its file name"
        )
    return name, cells


def run_cells(cells: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Execute cells in one namespace; a cell that fails does not stop those after it.

    Returns:
        The namespace, and one line for each cell that failed.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    failed = []
    for number, source in enumerate(cells, start=1):
        lines = source.splitlines()
        plain = "\n".join(
            f"{line[: len(line) - len(line.lstrip())]}pass"
            if line.lstrip().startswith(("%", "!"))
            else line
            for line in lines
        )
        try:
            exec(compile(ast.parse(plain), f"cell {number}", "exec"), namespace)  # noqa: S102
        except (Exception, SystemExit) as error:
            failed.append(f"code cell {number}: {type(error).__name__}: {error}")
    return namespace, failed


def mark_namespace(notebook: str, name: str, namespace: dict[str, Any]) -> list[Mark]:
    """The points of each part, from what the notebook defined."""
    marks = []
    for part in SCHEMES[name]:
        if part.check is None:
            marks.append(Mark(notebook, part.title, part.points, None, "to be marked by hand"))
        elif part.answer not in namespace:
            marks.append(Mark(notebook, part.title, part.points, 0.0, f"no {part.answer}"))
        else:
            feedback = part.check(namespace[part.answer])
            earned = round(2 * part.points * feedback.score) / 2  # half points
            remark = feedback.mistake or feedback.headline.split(": ", 1)[1]
            marks.append(Mark(notebook, part.title, part.points, earned, remark))
    return marks


def grade(path: Path, *, timeout: float = 600.0) -> list[Mark]:
    """Run one notebook in a process of its own and mark it.

    Args:
        path: the notebook.
        timeout: seconds until the process is ended.

    Raises:
        ValueError: not a notebook of ours, or its process did not end well.
    """
    read_notebook(path)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "marks.json"
        command = [sys.executable, "-m", "ekd_lite.coursework", "run", str(path.resolve())]
        try:
            done = subprocess.run(  # noqa: S603
                [*command, str(result)],
                cwd=folder,
                env={**os.environ, "MPLBACKEND": "Agg"},  # a figure must not open a window
                timeout=timeout,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{path}: still running after {timeout:.0f} s") from error
        if not result.exists():
            end = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ValueError(f"{path}: the run ended with status {done.returncode}: {end}")
        return [Mark(**mark) for mark in json.loads(result.read_text(encoding="utf-8"))]


def run_and_write(path: Path, result: Path) -> None:
    """What the process does: run the cells, mark them, write the marks."""
    name, cells = read_notebook(path)
    namespace, failed = run_cells(cells)
    marks = mark_namespace(path.name, name, namespace)
    marks += [Mark(path.name, "(a cell failed)", 0, 0.0, line) for line in failed]
    result.write_text(json.dumps([asdict(mark) for mark in marks]), encoding="utf-8")


def write_table(marks: Sequence[Mark], out: TextIO) -> None:
    """The marks of one notebook as a plain table."""
    width = max(len(mark.part) for mark in marks)
    print(marks[0].notebook, file=out)
    for mark in marks:
        earned = "    " if mark.earned is None else f"{mark.earned:4.1f}"
        print(f"  {mark.part:{width}}  {earned} of {mark.points}  {mark.remark}", file=out)
    total = sum(mark.earned or 0 for mark in marks)
    automatic = sum(mark.points for mark in marks if mark.earned is not None)
    by_hand = sum(mark.points for mark in marks if mark.earned is None)
    print(f"  {total:.1f} of {automatic} points; {by_hand} more are given by hand", file=out)


def write_csv(marks: Sequence[Mark], path: Path) -> None:
    """All marks, one line a part."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["notebook", "part", "points", "earned", "remark"])
        for mark in marks:
            earned = "" if mark.earned is None else mark.earned
            writer.writerow(
                [as_text(mark.notebook), mark.part, mark.points, earned, as_text(mark.remark)]
            )


def as_text(value: str) -> str:
    """A cell that no spreadsheet takes for a formula: the words come from a student."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
