"""Check, run, build and print the book.

    python book/tools/book.py check     notebooks and text twins agree; house rules hold
    python book/tools/book.py run       run every chapter in place, then sync the twins
    python book/tools/book.py copies    write book/colab, the copies that Colab opens
    python book/tools/book.py build     check, build from nothing (warnings are errors), test pages
    python book/tools/book.py print     all chapters on one page, and as a PDF if Chromium is here

A chapter is `book/chapters/NAME.ipynb` with its outputs, which Sphinx renders and nbval proves;
`book/_md/NAME.md`, the same cells as text, which people review and may edit; and a copy for Colab.
After an edit of one of the first two: `make notebooks`, which is `run` and then `copies`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import portable
import printing
import slides
from rules import BOOK, CHAPTERS, ROOT, TWINS, check, notebooks

SITE = Path("_build") / "html"
TIMEOUT = 300
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # it has no __main__


def run(names: list[str]) -> None:
    """Take the newer of each pair, run the notebook in place, and sync the twin."""
    import nbformat
    from nbclient import NotebookClient

    wanted = [CHAPTERS / f"{name}.ipynb" for name in names]
    for twin in sorted(TWINS.glob("*.md")):  # a new chapter may begin as text
        if not (CHAPTERS / f"{twin.stem}.ipynb").exists():
            sync(twin)
    for path in wanted or notebooks():
        sync(path)
        print(f"running {path.relative_to(ROOT)}", flush=True)
        book = nbformat.read(path, as_version=4)
        NotebookClient(
            book,
            timeout=TIMEOUT,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(CHAPTERS)}},
        ).execute()
        # The interpreter's version would change with every machine and says nothing.
        book.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
        nbformat.write(book, path)
        sync(path)


def sync(path: Path) -> None:
    """Let jupytext bring the older of the pair up to the newer."""
    call = [sys.executable, "-m", "jupytext", "--quiet", "--sync", str(path)]
    subprocess.run(call, check=True, cwd=ROOT)


def copies(out: Path) -> None:
    """Write the copies for Colab; the numbers in them come from a build."""
    sphinx(out)
    for path in portable.write(out / SITE):
        print(f"wrote {path.relative_to(ROOT)}")


def print_pages(out: Path) -> None:
    """Write the single page and, if there is a browser, the PDF."""
    sphinx(out)
    written = printing.write(out / SITE, BOOK / "_toc.yml")
    for path in written:
        print(f"wrote {path}")
    if len(written) == 1:
        print("no Chromium here, so no PDF: open the page in a browser and print it")


def build(out: Path) -> int:
    """Check the sources, build from nothing, check the copies, test the pages; the exit status."""
    if report(check()):
        return 1
    sphinx(out)
    if report(portable.check(out / SITE), "copies for Colab are up to date"):
        return 1
    pages = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "page", "tests/book"]
    environment = {**os.environ, "EKD_SITE": str(out / SITE)}
    return subprocess.run(pages, cwd=ROOT, env=environment, check=False).returncode


def sphinx(out: Path) -> None:
    """Build from nothing into `out`/_build; warnings and broken references are errors."""
    shutil.rmtree(out / "_build", ignore_errors=True)
    call = ["build", "book/", "--path-output", str(out), "-W", "-n", "--keep-going"]
    done = subprocess.run([sys.executable, "-c", JUPYTER_BOOK, *call], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit("the book has warnings or errors: see above")
    slides.write(out / SITE)


def report(problems: list[str], well: str = "pairs agree, house rules hold") -> int:
    """Print the problems; 1 if there is any."""
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{len(notebooks())} chapter(s): {well}", flush=True)
    return int(bool(problems))


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["check", "run", "copies", "build", "print"])
    parser.add_argument("names", nargs="*", help="run: only these chapters, such as 02_measuring")
    parser.add_argument(
        "--out", type=Path, default=ROOT, help="folder whose _build to write, such as /tmp/mine"
    )
    options = parser.parse_args()
    out = options.out.resolve()
    if options.what == "build":
        return build(out)
    if options.what == "run":
        run(options.names)
    elif options.what == "copies":
        copies(out)
    elif options.what == "print":
        print_pages(out)
    return report(check()) if options.what in {"check", "run"} else 0


if __name__ == "__main__":
    sys.exit(main())
