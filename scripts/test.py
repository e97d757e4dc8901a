"""What `make test` and CI run: lint, types, book, notebooks, tests.

python scripts/test.py          all of it
python scripts/test.py lint     lint and types
python scripts/test.py quick    these, and the tests that start no process
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE_TESTS = ("tests/book/test_site.py", "tests/book/test_browser.py")  # of a built site
PYTHON = [sys.executable, "-m"]
LINT = {
    "ruff": [*PYTHON, "ruff", "check", "."],
    "format": [*PYTHON, "ruff", "format", "--check", "."],
    "github": [sys.executable, "scripts/check_github.py"],
    "mypy": [*PYTHON, "mypy"],
}
WORKERS = ["-n", str(os.cpu_count() or 1)]
TESTS = {
    "book": [sys.executable, "book/tools/book.py", "build"],
    "notebooks": [
        *PYTHON,
        *("pytest", "book/chapters", "--nbval", "--nbval-current-env", "-q", *WORKERS),
        *("--dist", "loadfile", "--nbval-cell-timeout=300"),
        "--nbval-sanitize-with=tests/nbval_sanitize.cfg",
    ],
    "tests": [
        *PYTHON,
        *("pytest", "-q", "-m", "not slow", *WORKERS),
        *(f"--ignore={path}" for path in PAGE_TESTS),  # the book's step has run these
    ],
}
# Also for machines without Chromium or POSIX: macOS and Windows run it in CI.
QUICK = {
    "tests": [*PYTHON, "pytest", "-q", "-m", "not slow and not starts_process", *WORKERS],
}
QUICK["tests"] += [f"--ignore={path}" for path in PAGE_TESTS]
STEPS = {"lint": LINT, "quick": {**LINT, **QUICK}, "test": {**LINT, **TESTS}}


def main(which: list[str]) -> int:
    """Run every step, say how long each took, and fail if one failed."""
    steps = STEPS[which[0] if which else "test"]
    failed = []
    # One thread a process: xdist has put a process on every core already.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    for name, command in steps.items():
        print(f"== {name}: {' '.join(command[1:])}", flush=True)
        start = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        print(f"== {name}: {'ok' if code == 0 else 'FAILED'}, {time.monotonic() - start:.0f} s")
        failed += [name] if code else []
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
