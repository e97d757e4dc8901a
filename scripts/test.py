"""What `make test` and CI run: lint, types, book, notebooks, tests.

python scripts/test.py          all of it
python scripts/test.py lint     lint and types
python scripts/test.py quick    these, and the tests that start no process
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = [sys.executable, "-m"]
# A file stays with one worker, so that what its fixtures start or train is made once; files are
# taken in the order given, or that of tests/conftest.py.
WORKERS = ["-q", "-n", str(os.cpu_count() or 1), "--dist", "loadfile", "--no-loadscope-reorder"]
LONGEST = ("06", "04", "07", "08", "02")  # 85, 81, 60, 51, 40 CPU s on a busy machine; 05: 30
MOST = "not slow and not page"  # the book's step looks at the pages
NO_NOTEBOOKS = ["-p", "no:nbval"]  # a second to import


def chapters() -> list[str]:
    """The notebooks, the longest first, so that none of them begins when the others are done."""
    paths = sorted((ROOT / "book" / "chapters").glob("*.ipynb"))
    first = [path for number in LONGEST for path in paths if path.stem.startswith(number)]
    rest = [path for path in paths if path not in first]
    return [str(path.relative_to(ROOT)) for path in [*first, *rest]]


STEPS = {
    "ruff": [*PYTHON, "ruff", "check", "."],
    "format": [*PYTHON, "ruff", "format", "--check", "."],
    "github": [sys.executable, "scripts/check_github.py"],
    "mypy": [*PYTHON, "mypy"],
    "book": [sys.executable, "book/tools/book.py", "build"],
    "notebooks": [
        *PYTHON,
        *("pytest", *chapters(), "--nbval", "--nbval-current-env", "-p", "tests.kernels", *WORKERS),
        *("--nbval-cell-timeout=300", "--nbval-sanitize-with=tests/nbval_sanitize.cfg"),
    ],
    "tests": [*PYTHON, "pytest", "-m", MOST, *WORKERS, *NO_NOTEBOOKS],
    "quick tests": [
        *PYTHON,
        *("pytest", "-m", f"{MOST} and not starts_process", *WORKERS, *NO_NOTEBOOKS),
    ],
}
# Read by glibc when a process starts: keep freed memory instead of giving it back. Page faults of
# fresh tensors take a tenth of a chapter. Not for the tests, some of which measure memory.
ENVIRONMENT = {
    "notebooks": {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)},
}
# Steps of one row run side by side: building the book, mypy and the checks of .github use one core
# each. The tests have the machine to themselves, because some of them wait for a process only so
# long.
ROWS = {
    "lint": [["ruff"], ["format"], ["github", "mypy"]],
    # Also for machines without Chromium or POSIX: macOS and Windows run it in CI.
    "quick": [["ruff"], ["format"], ["github", "mypy", "quick tests"]],
    "": [["ruff"], ["format"], ["github", "mypy", "book", "notebooks"], ["tests"]],
}


def main(which: str) -> int:
    """Run every step, say how long each took, and fail if one failed."""
    failed = []
    start = time.monotonic()
    for row in ROWS[which]:
        failed += run_side_by_side(row)
    print(f"== all: {time.monotonic() - start:.0f} s")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def run_side_by_side(names: list[str]) -> list[str]:
    """The steps that failed. What several at once print comes in one piece when each has ended."""
    # One thread a process: xdist has put a process on every core already.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    # Hundreds of processes would each compile the package: containers like to set this.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start, running, failed = time.monotonic(), {}, []
    for name in names:
        print(f"== {name}: {' '.join(STEPS[name][1:])}", flush=True)
        output = tempfile.TemporaryFile() if len(names) > 1 else None  # noqa: SIM115
        running[name] = (
            output,
            subprocess.Popen(
                STEPS[name],
                cwd=ROOT,
                env={**environment, **ENVIRONMENT.get(name, {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            ),
        )
    while running:
        time.sleep(0.05)
        for name in [name for name, (_, process) in running.items() if process.poll() is not None]:
            output, process = running.pop(name)
            if output is not None:
                print(f"== {name} printed:", flush=True)
                output.seek(0)
                sys.stdout.buffer.write(output.read())
                output.close()
            result = f"FAILED, exit code {process.returncode}" if process.returncode else "ok"
            print(f"== {name}: {result}, {time.monotonic() - start:.0f} s", flush=True)
            failed += [name] if process.returncode else []
    return failed


if __name__ == "__main__":
    asked = " ".join(sys.argv[1:])
    if asked not in ROWS:
        sys.exit(f"unknown selection {asked!r}: say lint, quick or nothing")
    sys.exit(main(asked))
