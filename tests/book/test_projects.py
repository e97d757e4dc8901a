"""The projects: two for each part of the book, and the code that they start from runs."""

import re
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "book" / "projects.md").read_text(encoding="utf-8")
PROJECTS = re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)


def test_every_part_of_the_book_has_two_projects_with_all_that_they_need():
    index = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    parts = re.findall(r"^## (Part \w+: .+)$", index, re.MULTILINE)
    found = re.split(r"^## (?=Part )", TEXT, flags=re.MULTILINE)[1:]
    assert [one.splitlines()[0] for one in found] == parts
    assert [one.count("\n### ") for one in found] == [2] * len(parts)
    for name, text in PROJECTS:
        for needed in ("**Goal.**", "**Steps.** (1)", "**Data.**", "**Hand in**"):
            assert needed in text, name
        assert text.count("```python") == 1, name


def test_the_marking_scheme_adds_up():
    points = re.findall(r"^\| (\d+) \| (?:the|a) ", TEXT, re.MULTILINE)
    assert sum(map(int, points)) == 20


@pytest.mark.parametrize(("name", "text"), PROJECTS, ids=[name for name, _ in PROJECTS])
def test_the_code_to_start_from_runs_and_is_small(name, text, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    begun = time.process_time()
    exec(compile(code, name, "exec"), {"__name__": "project"})  # noqa: S102
    assert time.process_time() - begun < 60
    assert re.search(r"\d", capsys.readouterr().out)
