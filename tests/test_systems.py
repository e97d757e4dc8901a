"""macOS and Windows run `make quick`: what it runs needs no POSIX and no encoding of the system."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.starts_process
def test_all_tests_can_be_collected_without_posix():
    options = ["-qq", "--collect-only", "-p", "tests.no_posix", "-p", "no:nbval"]
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", "tests"],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert collected.returncode == 0, collected.stdout[-3000:] + collected.stderr[-1000:]


def unsaid(source):
    """Lines that read or write text without saying how; Windows would not take UTF-8 for it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            said = {one.value for one in given if isinstance(one, ast.Constant)}
            if node.func.attr in ("read_text", "write_text") and not {"ascii", "utf-8"} & said:
                yield node.lineno


@pytest.mark.parametrize(
    "folder", ["benchmarks", "book", "ekd_lite", "examples", "scripts", "studies"]
)
def test_text_is_read_and_written_in_one_encoding(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    found = {path.name: list(unsaid(path.read_text(encoding="utf-8"))) for path in paths}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_an_encoding_that_is_not_said_would_be_seen():
    source = 'a.read_text("utf-8")\na.read_text()\na.write_text(b, encoding="ascii")\n'
    assert list(unsaid(source + "a.write_text(b)")) == [2, 4]
