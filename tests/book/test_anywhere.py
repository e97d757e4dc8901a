"""The book runs anywhere: the wheel holds what chapters read, copies run without a checkout."""

import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "tools"))

import anywhere  # noqa: E402

pytestmark = pytest.mark.starts_process
COPIES = sorted((ROOT / "book" / "colab").glob("*.ipynb"))
ALWAYS = "01"  # whoever comes from the site begins there; `make colab` runs all, every night in CI


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return anywhere.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def library(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    anywhere.install(wheel, folder)
    return folder


def test_the_wheel_holds_every_recorded_result(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {
            Path(name).relative_to("ekd_lite/assets/results").as_posix(): archive.read(name)
            for name in archive.namelist()
            if name.startswith("ekd_lite/assets/results/")
        }
        modules = {name for name in archive.namelist() if name.endswith(".py")}
    folder = ROOT / "data" / "results"
    recorded = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert held == recorded
    assert modules == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "ekd_lite").rglob("*.py")
    }


def notebook(path, *cells):
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in cells]), path)
    return path


def test_a_copy_sees_the_installed_library_and_nothing_of_the_checkout(library, tmp_path):
    looks = f"""
import os, sys
from pathlib import Path
import ekd_lite.experiments
from ekd_lite.assets import results

assert Path(ekd_lite.__file__).parent == Path({str(library)!r}) / "ekd_lite"
assert Path({str(library)!r}) in results("demo.csv").parents
assert os.listdir() == []
found = [one for one in sys.path if (Path(one) / "data" / "results").exists()]
assert found == [], found
"""
    nets = """
import urllib.request
try:
    urllib.request.urlopen("https://example.org", timeout=5)
except OSError:
    pass
else:
    raise AssertionError("the net answers")
try:
    import google.colab
except ImportError:
    pass
else:
    raise AssertionError("google.colab is here")
"""
    assert anywhere.execute(notebook(tmp_path / "a.ipynb", looks, nets), library) == ""


def test_a_copy_that_needs_a_checkout_is_found(library, tmp_path):
    path = notebook(tmp_path / "a.ipynb", "x = 1", "open('data/results/demo.csv')", "y = 2")
    assert anywhere.execute(path, library).startswith("code cell 2: FileNotFoundError")


def undefined_names(*copies):
    call = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821"]
    told = subprocess.run(
        [*call, "--output-format", "concise", *map(str, copies)], capture_output=True, text=True
    )
    return [line for line in told.stdout.splitlines() if "F821" in line]


def test_no_copy_uses_what_only_a_removed_cell_defines(tmp_path):
    assert len(COPIES) == 17
    assert undefined_names(*COPIES) == []
    path = notebook(tmp_path / "a.ipynb", "%matplotlib inline", "x = 1", "print(x + seven)")
    assert "`seven`" in "".join(undefined_names(path))


@pytest.mark.parametrize(
    "copy",
    [
        pytest.param(
            copy, marks=() if copy.stem.startswith(ALWAYS) else pytest.mark.slow, id=copy.stem
        )
        for copy in COPIES
    ],
)
def test_a_copy_reaches_its_end(copy, library):
    assert anywhere.execute(copy, library) == ""


def test_the_versions_are_those_that_run():
    wanted = {f"Python {platform.python_version()}", f"numpy {numpy.__version__}"}
    assert wanted | {f"torch {torch.__version__}"} <= set(anywhere.versions().split(", "))
