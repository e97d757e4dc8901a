"""Every file that names a Python, a version or a package says the same; the chapters can import."""

import ast
import json
import re
import runpy
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ekd_lite

if sys.version_info < (3, 11):
    pytest.skip("the tools beside these files need Python 3.11", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
META = PROJECT["project"]
OURS = canonicalize_name(META["name"])
LISTED = [
    line.rpartition(" ")[2] for line in META["classifiers"] if re.search(r"Python :: 3\.\d", line)
]  # "3.10", ..., oldest first
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def pins():
    lines = [line.split("#")[0].strip() for line in text("constraints.txt").splitlines()]
    found = [Requirement(line) for line in lines if line]
    return {
        canonicalize_name(one.name): Version(str(one.specifier).removeprefix("==")) for one in found
    }


def requirements(extra=None):
    """What an extra brings, its references to other extras resolved; None: the package itself."""
    given = META["dependencies"] if extra is None else META["optional-dependencies"][extra]
    for requirement in map(Requirement, given):
        if canonicalize_name(requirement.name) == OURS:
            for other in requirement.extras:
                yield from requirements(other)
        else:
            yield requirement


EVERY = [None, *META["optional-dependencies"]]


def test_oldest_and_newest_python_agree():
    assert [Version(one) for one in LISTED] == sorted(map(Version, LISTED))
    assert META["requires-python"] == f">={LISTED[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + LISTED[0].replace(".", "")
    assert f"Python {LISTED[0]} to {LISTED[-1]}" in text("README.md")
    rows = WORKFLOWS["tests"]["jobs"]["versions"]["strategy"]["matrix"]["include"]
    assert {row["which"]: row["python"] for row in rows} == {
        "lowest": LISTED[0],
        "newest": LISTED[-1],
    }


def test_pinned_python_agrees():
    (stated,) = re.findall(r"Python (3\.\d+) to (3\.\d+)[;)]", text("constraints.txt"))
    pinned, newest = stated
    assert newest == LISTED[-1]
    conda = yaml.safe_load(text("environment.yml"))["dependencies"]
    assert f"python={pinned}" in conda
    assert {"pip": ["-c constraints.txt", "-e .[dev]"]} in conda
    assert f"with Python {pinned} to {newest}, from a fresh clone" in text("README.md")
    for name, workflow in WORKFLOWS.items():
        for job in workflow["jobs"].values():
            for step in job.get("steps", []):
                python = step.get("with", {}).get("python-version", pinned)
                assert python in (pinned, "${{ matrix.python }}"), name


@pytest.mark.parametrize("extra", EVERY)
def test_pins_satisfy_every_bound(extra):
    known = pins()
    for requirement in requirements(extra):
        lower = [one for one in requirement.specifier if one.operator == ">="]
        assert lower, f"{requirement.name} has no lowest version, so none can be tested"
        pin = known.get(canonicalize_name(requirement.name))
        assert pin is None or pin in requirement.specifier, requirement


def test_everything_that_make_installs_is_pinned():
    wanted = {canonicalize_name(one.name) for one in [*requirements(), *requirements("dev")]}
    assert not wanted - pins().keys()


def test_every_extra_for_readers_is_tried_with_the_lowest_and_the_newest_versions():
    tried = runpy.run_path(str(ROOT / "scripts" / "versions.py"))["EXTRAS"]
    ours = {"test", "book", "tools", "dev"}
    wanted = META["optional-dependencies"].keys() - ours
    assert sorted(tried) == sorted(f"--extra={name}" for name in wanted)


def test_the_lowest_torch_agrees():
    (torch,) = (one for one in requirements() if one.name == "torch")
    stated = re.findall(r"PyTorch (\d+\.\d+)", text("README.md"))
    assert stated
    assert {f">={version}" for version in stated} == {str(torch.specifier)}


def test_the_release_is_one_version():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == ekd_lite.__version__
    heading = re.search(r"^## \[(.+?)\]", text("CHANGELOG.md"), re.MULTILINE)
    assert heading
    assert heading[1] in ("Unreleased", ekd_lite.__version__)


def imported(cells):
    """Names of the packages that the code cells of a notebook import."""
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        code = re.sub(r"^(\s*)[%!].*$", r"\1pass", cell["source"], flags=re.MULTILINE)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield str(node.module).partition(".")[0]


NOTEBOOKS = sorted((ROOT / "book").glob("chapters/*.ipynb")) + sorted(
    (ROOT / "book").glob("assignments/*.ipynb")
)
PACKAGES = packages_distributions()  # module -> what installs it; takes a second
WRITTEN = {"steps"}  # chapter 15 writes this module itself


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_extra_book_brings_all_that_a_chapter_imports(path):
    brought = {canonicalize_name(one.name) for one in [*requirements(), *requirements("book")]}
    names = set(imported(nbformat.read(path, as_version=4).cells))
    assert names
    for name in names - set(sys.stdlib_module_names) - {"ekd_lite"} - WRITTEN:
        assert name in PACKAGES, f"{name} is not installed"
        homes = {canonicalize_name(one) for one in PACKAGES[name]}
        assert homes & brought, f"{path.stem} imports {name}: name {homes} in the extra book"


def test_an_import_that_the_extra_book_does_not_bring_would_be_seen():
    cell = {"cell_type": "code", "source": "if True:\n    %pip install x\nimport sklearn.svm as s"}
    assert list(imported([cell, {"cell_type": "markdown", "source": "import no"}])) == ["sklearn"]
    brought = {canonicalize_name(one.name) for one in [*requirements(), *requirements("book")]}
    assert "scikit-learn" not in brought


def test_workflows_ask_for_no_more_than_they_need():
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {}, name
        assert "concurrency" in workflow, name
        for title, job in workflow["jobs"].items():
            write = {key for key, value in job["permissions"].items() if value == "write"}
            allowed = {"deploy": {"pages", "id-token"}, "publish": {"id-token"}}
            assert write == allowed.get(title, {"contents"} if title == "announce" else set())
            for step in job.get("steps", []):
                assert re.search(r"@[0-9a-f]{40}$", step.get("uses", "@" + "0" * 40)), step


def test_workflows_run_targets_that_exist():
    targets = re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE)
    called = re.findall(r"make ([a-z]+)", json.dumps(WORKFLOWS))
    assert {"test", "book", "versions", "audit", "links", "dist", "print"} <= set(called)
    assert not set(called) - set(targets)
