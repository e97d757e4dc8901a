"""python -m ekd_lite.coursework grade NOTEBOOK.ipynb ... [--csv FILE] [--timeout SECONDS].

Runs each notebook, which is a student's code: use a container (book/instructors.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ekd_lite.coursework.grade import grade, run_and_write, write_csv, write_table


def main(arguments: list[str] | None = None) -> int:
    """Grade notebooks; 1 if one of them could not be graded."""
    parser = argparse.ArgumentParser(prog="python -m ekd_lite.coursework", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    grading = commands.add_parser("grade", help="run notebooks and print their points")
    grading.add_argument("notebooks", nargs="+", type=Path)
    grading.add_argument("--csv", type=Path, help="also write all points to this file")
    grading.add_argument("--timeout", type=float, default=600.0, help="seconds for one notebook")
    running = commands.add_parser("run", help="what grade starts in a process of its own")
    running.add_argument("notebook", type=Path)
    running.add_argument("result", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "run":
        run_and_write(options.notebook, options.result)
        return 0
    marks, status = [], 0
    for path in options.notebooks:
        try:
            mine = grade(path, timeout=options.timeout)
        except ValueError as error:
            print(error, file=sys.stderr)
            status = 1
        else:
            write_table(mine, sys.stdout)
            marks += mine
    if options.csv:
        write_csv(marks, options.csv)
    return status


if __name__ == "__main__":
    sys.exit(main())
