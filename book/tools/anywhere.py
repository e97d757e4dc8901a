"""Execute the copies for Colab with the installed wheel: empty folder, no checkout, no net.

    python book/tools/anywhere.py                      all copies, one after the other
    python book/tools/anywhere.py 01_faces 10_ekd      these
    /tmp/colab/bin/python book/tools/anywhere.py       with the versions of another environment

The wheel is built and unpacked into a folder of its own, from which alone the kernels take
`ekd_lite`. What a chapter reads has to come with the package, then. `google.colab` is not there,
so that the cells that install something do nothing, as in JupyterLab.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from rules import BOOK, ROOT

COPIES = BOOK / "colab"
TIMEOUT = 900  # seconds a cell, on a machine that does something else beside it
NOWHERE = "http://127.0.0.1:9"  # the port that drops what it gets: nothing listens there

# Python runs it before anything else. A checkout that was installed with `pip install -e` is on the
# path of every interpreter, as are the tests' neighbours.
SITE_CUSTOMIZE = """
import os
import sys

library = os.path.dirname(os.path.abspath(__file__))
for folder in list(sys.path):  # a checkout has the book beside the package
    if folder != library and os.path.isdir(os.path.join(folder or os.getcwd(), "book")):
        sys.path.remove(folder)
sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in repr(one)]
"""


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout into a folder; nothing is downloaded."""
    call = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(call, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, library: Path) -> None:
    """Put the wheel alone into a folder that a kernel finds before everything else."""
    call = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run(
        [*call, "--no-deps", "--no-index", "--no-compile", "--target", str(library), str(wheel)],
        check=True,
    )
    (library / "sitecustomize.py").write_text(SITE_CUSTOMIZE, encoding="utf-8")


def environment(library: Path, home: Path) -> dict[str, str]:
    """What a kernel finds: the library, a home without a cache, and no net."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EKD_")}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    return {
        **kept,
        **proxies,
        "PYTHONPATH": str(library),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "no_proxy": "",
    }


def execute(copy: Path, library: Path) -> str:
    """Execute a copy from an empty folder; "" if it reached its end, else what stopped it."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    book = nbformat.read(copy, as_version=4)
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as home:
        first = (
            "import ekd_lite, pathlib\n"
            f"assert pathlib.Path(ekd_lite.__file__).is_relative_to({str(library)!r})\n"
        )
        book.cells.insert(0, nbformat.v4.new_code_cell(first))
        client = NotebookClient(
            book,
            timeout=TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": empty}},
        )
        try:
            client.execute(env=environment(library, Path(home)))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            done = sum(bool(cell.get("execution_count")) for cell in book.cells)
            plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
            return f"code cell {done - 1}: {plain.strip().splitlines()[-1]}"
    return ""


def versions() -> str:
    """What the kernels run with, for the record in `book/making.md`."""
    names = ("torch", "numpy", "pandas", "matplotlib", "seaborn", "ipykernel", "ipython")
    return ", ".join([f"Python {platform.python_version()}", *(f"{n} {version(n)}" for n in names)])


def execute_all(copies: Iterable[Path]) -> int:
    """Execute copies one after the other and say how long each took; 1 if one failed."""
    failed = []
    print(versions(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "library"
        install(build_wheel(Path(folder)), library)
        for copy in copies:
            start = time.monotonic()
            problem = execute(copy, library)
            took = f"{time.monotonic() - start:.0f} s"
            print(f"{copy.stem}: {problem or 'reached its end'} ({took})", flush=True)
            failed += [copy.stem] if problem else []
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only these copies, such as 02_measuring")
    names = parser.parse_args().names
    copies = [COPIES / f"{name}.ipynb" for name in names] or sorted(COPIES.glob("*.ipynb"))
    missing = [copy.stem for copy in copies if not copy.exists()]
    if missing or not copies:
        parser.error(f"no copy {', '.join(missing)} in {COPIES}")
    return execute_all(copies)


if __name__ == "__main__":
    sys.exit(main())
