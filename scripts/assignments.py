"""Make the assignments' starter and solved notebooks from their sources.

python scripts/assignments.py starters            write book/assignments/*.ipynb
python scripts/assignments.py check               exit 1 if these are not up to date
python scripts/assignments.py release DIR         starters for the students, into a folder
python scripts/assignments.py solutions DIR       solved notebooks, into a folder
python scripts/assignments.py branch              solved notebooks as the local git branch
                                                  assignments-solutions; nothing is pushed

A source is book/assignments/source/NAME.md. In code, what stands between ### BEGIN SOLUTION and
### END SOLUTION is taken out; a text cell tagged "solution" becomes a place for the answer.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parent.parent
STARTERS = ROOT / "book" / "assignments"
SOURCES = STARTERS / "source"
BRANCH = "assignments-solutions"
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION$", re.DOTALL | re.MULTILINE)
MARKER = re.compile(r"^ *### (BEGIN|END) SOLUTION\n?", re.MULTILINE)
STUB = r'\1raise NotImplementedError("your code here")'
ANSWER = "*Your answer:*"


def notebook(source: Path, *, solved: bool) -> str:
    """One assignment as the text of an .ipynb file, with or without its solutions."""
    book = jupytext.read(source)
    for index, cell in enumerate(book.cells):
        cell.id = f"{source.stem}-{index:02d}"  # jupytext draws a new one every time
        is_answer = "solution" in cell.metadata.pop("tags", [])
        if is_answer and not solved:
            cell.source = ANSWER
        if cell.cell_type == "code":
            cell.source = MARKER.sub("", cell.source) if solved else SOLUTION.sub(STUB, cell.source)
        if "SOLUTION" in cell.source:
            raise ValueError(f"{source.name}, cell {index}: a marker without its partner")
    book.metadata = without_jupytext(book.metadata)
    return str(nbformat.writes(book)) + "\n"


def without_jupytext(metadata: Any) -> Any:
    """The notebook's metadata without the note that would tie it to a text twin."""
    kept = {key: value for key, value in metadata.items() if key != "jupytext"}
    kept["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return nbformat.from_dict(kept)


def notebooks(*, solved: bool) -> dict[str, str]:
    """All assignments, by file name."""
    return {
        f"{source.stem}.ipynb": notebook(source, solved=solved)
        for source in sorted(SOURCES.glob("*.md"))
    }


def write(folder: Path, *, solved: bool) -> None:
    """Write all notebooks into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in notebooks(solved=solved).items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


def out_of_date() -> list[str]:
    """Names of starters that differ from what their source makes."""
    wanted = notebooks(solved=False)
    found = {path.name: path.read_text(encoding="utf-8") for path in STARTERS.glob("*.ipynb")}
    return sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )


def git(*arguments: str, text: str | None = None) -> str:
    """Run git in the repository and return what it prints."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def branch() -> str:
    """Commit the solved notebooks to a branch of their own, past index and working tree."""
    entries = []
    for name, text in notebooks(solved=True).items():
        blob = git("hash-object", "-w", "--stdin", text=text)
        entries.append(f"100644 blob {blob}\t{name}")
    tree = git("mktree", text="\n".join(entries) + "\n")
    commit = git("commit-tree", tree, "-m", "Solved assignments, for instructors")
    git("update-ref", f"refs/heads/{BRANCH}", commit)
    return commit


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["starters", "check", "release", "solutions", "branch"])
    parser.add_argument("folder", nargs="?", type=Path, help="for release and solutions")
    options = parser.parse_args(arguments)
    if (options.what in ("release", "solutions")) != (options.folder is not None):
        parser.error("release and solutions need a folder, the others take none")
    if options.what == "check":
        stale = out_of_date()
        for name in stale:
            print(f"{name}: run python scripts/assignments.py starters", file=sys.stderr)
        return int(bool(stale))
    if options.what == "branch":
        print(f"{BRANCH} is at {branch()[:12]}; it is not pushed")
    else:
        write(options.folder or STARTERS, solved=options.what == "solutions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
