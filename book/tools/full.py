"""Run chapters in their full size, `FULL = True`, into a folder of your own, and time them.

    python book/tools/full.py /tmp/full                      every chapter that has the switch
    python book/tools/full.py /tmp/full 07_outputs 10_ekd    these

The book itself is not touched. `NAME.ipynb` in the folder is the chapter with the outputs of that
size, `NAME.txt` what is left to read: claims of hidden cells that hold at the small size only (at
the full size nothing stops at them), and every printed output that differs, with the text after
it. `full_runs.csv` gets a line a chapter, of which data/results keeps the last. Faces that one
chapter drew the next finds in `work`, as with a reader who goes on.
"""

from __future__ import annotations

import argparse
import ast
import csv
import datetime
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prose_numbers import as_text
from rules import ROOT, notebooks

SWITCH = re.compile(r"^FULL = False\b(?:\s*# True: (?P<size>.*))?$", re.MULTILINE)
NOTE = "not at the full size: "
# `assert FULL or x` becomes `assert FULL and noted(lambda: x, "x")`, which says so and goes on.
NOTED = f'''
def noted(holds, text):
    """Say which claim does not hold, with its numbers and the line that makes it."""
    import ast, re, sys, traceback

    try:
        if holds():
            return True
        why = ""
    except Exception as error:
        why = repr(error)
    near = sys._getframe(1)
    known = {{**near.f_globals, **near.f_locals}}
    names = {{n.id for n in ast.walk(ast.parse(text, mode="eval")) if isinstance(n, ast.Name)}}
    for name in sorted(names & set(known)):
        try:
            why += f" {{name}}={{float(known[name]):.4g}}"
        except (TypeError, ValueError, RuntimeError):
            continue
    stack = [f for f in traceback.extract_stack(near) if re.search(r"ipykernel_\\d", f.filename)]
    lines = [f.line for f in stack]
    callers = " < ".join(line for line in reversed(lines) if line.strip() and text not in line)
    print("{NOTE}" + " | ".join(filter(None, (text, why.strip(), callers))), file=sys.stderr)
    return True
'''


def has_switch(path: Path) -> bool:
    """Whether a chapter can be run in another size."""
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    return any(cell.cell_type == "code" and SWITCH.search(cell.source) for cell in cells)


def claims(source: str) -> Iterator[tuple[ast.expr, ast.expr]]:
    """`FULL or x` and its `x`, from the last to the first."""
    found = [
        (node, node.values[1])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.BoolOp)
        and isinstance(node.op, ast.Or)
        and isinstance(node.values[0], ast.Name)
        and node.values[0].id == "FULL"
        and len(node.values) == 2
    ]
    return iter(sorted(found, key=lambda one: (one[0].lineno, one[0].col_offset), reverse=True))


def in_full(source: str) -> str:
    """The source of a cell with the switch on, its claims noted instead of skipped."""
    if "FULL or" in source:
        for whole, claim in claims(source):
            text = ast.unparse(claim)
            call = f"FULL and noted(lambda: ({ast.get_source_segment(source, claim)}), {text!r})"
            lines = [line.encode() for line in source.splitlines()]  # offsets count bytes
            last = (whole.end_lineno or whole.lineno) - 1
            before = lines[whole.lineno - 1][: whole.col_offset]
            after = lines[last][whole.end_col_offset :]
            lines[whole.lineno - 1 : last + 1] = [before + call.encode() + after]
            source = b"\n".join(lines).decode()
    return SWITCH.sub("FULL = True", source)


def run(path: Path, out: Path) -> tuple[Any, float, float]:
    """Run a chapter; its notebook, and the seconds of CPU (with its helpers) and wall."""
    import resource  # here, since Windows lacks it, where the tests are collected, too

    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.source, cell.outputs, cell.execution_count = in_full(cell.source), [], None
    book.cells.insert(0, nbformat.v4.new_code_cell(NOTED))
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    work = out / "work"
    work.mkdir(exist_ok=True)
    variables = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    client = NotebookClient(  # goes on after an error: the rest costs too much to wait for
        book,
        timeout=None,
        allow_errors=True,
        coalesce_streams=True,
        resources={"metadata": {"path": str(work)}},
    )
    client.execute(env={**os.environ, **variables, "EKD_LITE_CACHE": str(work / "cache")})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    del book.cells[0]
    nbformat.write(book, out / path.name)
    return book, cpu, time.monotonic() - start


def shown(cell: Any) -> str:
    """What a cell printed or returned as text; pictures are left to the eye."""
    texts = (
        output.get("text", "") + as_text(output.get("data", {}))
        for output in cell.get("outputs", [])
        if output.get("name") != "stderr"
        and "<script" not in output.get("data", {}).get("text/html", "")  # to play with
    )
    return re.sub(r"<Figure size[^>]*>", "", "\n".join(texts)).strip()


def failing(traceback: list[str]) -> str:
    """The lines of a cell at which it failed, outermost first."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))
    return "".join(f" < {line}" for line in re.findall(r"^-+> \d+ (.*)$", plain, re.MULTILINE))


def to_read(small: list[Any], full: list[Any]) -> str:
    """Notes of claims, errors, and the outputs that differ with the prose that follows them."""
    parts = []
    for index, (old, new) in enumerate(zip(small, full, strict=True)):
        for output in new.get("outputs", []):
            if output.output_type == "error":
                line = failing(output.traceback)
                parts.append(f"cell {index} FAILED: {output.ename}: {output.evalue}{line}")
            elif output.get("name") == "stderr":
                parts.append(f"cell {index}: {output.text.strip()}")
        if new.cell_type == "code" and shown(old) != shown(new):
            prose = next((c.source for c in full[index + 1 :] if c.cell_type == "markdown"), "")
            parts.append(
                f"cell {index}, small size:\n{shown(old)}\n-- full size:\n{shown(new)}\n-- {prose}"
            )
    return "\n\n".join(parts) + "\n"


def size_of(cells: Iterable[Any]) -> str:
    """The full size in the words of the chapter's switch."""
    found = (SWITCH.search(cell.source) for cell in cells if cell.cell_type == "code")
    return next((match["size"] or "" for match in found if match), "")


def processor() -> str:
    """The name that the machine gives its processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not on Linux
        return os.uname().machine
    found = re.search(r"model name\s*: (.*)", text)
    return found[1] if found else os.uname().machine


def keep(table: Path, row: dict[str, str]) -> None:
    """Put a chapter's line into the table, in place of an older one."""
    rows = []
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            rows = [old for old in csv.DictReader(file) if old["chapter"] != row["chapter"]]
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*rows, row], key=lambda one: one["chapter"]))


def main() -> int:
    """Read the command line and run the chapters; 1 if a cell of them failed."""
    import nbformat

    from ekd_lite.experiments.study import code_version

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write, outside the book")
    parser.add_argument("names", nargs="*", help="only these chapters, such as 07_outputs")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    chosen = {path.stem: path for path in notebooks() if has_switch(path)}
    unknown = sorted(set(options.names) - set(chosen))
    if unknown:
        parser.error(f"no such chapter with FULL: {', '.join(unknown)}")
    failed = 0
    for name in options.names or sorted(chosen):
        small = nbformat.read(chosen[name], as_version=4).cells
        book, cpu, wall = run(chosen[name], out)
        text = to_read(small, book.cells)
        (out / f"{name}.txt").write_text(text, encoding="utf-8")
        errors = len(re.findall(r"^cell \d+ FAILED", text, re.MULTILINE))
        print(f"{name}: {cpu:.0f} s of CPU, {wall:.0f} s of wall, {errors} errors", flush=True)
        failed += errors
        row = {
            "chapter": name,
            "size": size_of(small),
            "cpu_seconds": f"{cpu:.0f}",
            "wall_seconds": f"{wall:.0f}",
            "commit": code_version(),
            "hardware": f"one core of an {processor()}",
            "date": datetime.date.today().isoformat(),
        }
        keep(out / "full_runs.csv", row)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
