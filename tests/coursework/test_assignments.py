"""Assignments: starters hold no solution and fail kindly, solved versions get full points."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from ekd_lite.coursework.__main__ import main
from ekd_lite.coursework.grade import grade, mark_namespace, read_notebook, run_cells
from ekd_lite.coursework.schemes import SCHEMES
from tests.programs import load

ROOT = Path(__file__).parents[2]
assignments = load(ROOT / "scripts" / "assignments.py")


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("solved")
    assignments.write(folder, solved=True)
    return folder


def code_of(text):
    cells = json.loads(text)["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def test_every_scheme_has_an_assignment_of_20_points():
    assert {Path(name).stem for name in assignments.notebooks(solved=False)} == SCHEMES.keys()
    for parts in SCHEMES.values():
        assert sum(part.points for part in parts) == 20
        assert all((part.check is None) == (part.answer == "") for part in parts)


def test_the_starters_in_the_book_are_up_to_date():
    assert assignments.out_of_date() == []


@pytest.mark.parametrize("name", SCHEMES)
def test_a_starter_holds_no_solution(name):
    starter = assignments.notebooks(solved=False)[f"{name}.ipynb"]
    solution = assignments.notebooks(solved=True)[f"{name}.ipynb"]
    assert "SOLUTION" not in starter
    assert "SOLUTION" not in solution
    answers = [part.answer for part in SCHEMES[name] if part.answer]
    assert code_of(starter).count('raise NotImplementedError("your code here")') == len(answers)
    assert "NotImplementedError" not in code_of(solution)
    assert "*Your answer:*" in starter
    source = (assignments.SOURCES / f"{name}.md").read_text(encoding="utf-8")
    hidden = [
        line.strip()
        for block in assignments.SOLUTION.finditer(source)
        for line in block.group().splitlines()[1:-1]
        if len(line.strip()) > 30
    ]
    assert hidden
    assert not [line for line in hidden if line in starter]
    words = source.split('+++ {"tags": ["solution"]}')[1].strip()
    assert words[:60] not in starter
    assert words[:60] in solution


@pytest.mark.parametrize("name", SCHEMES)
def test_a_starter_runs_through_and_says_what_is_to_do(name, capsys):
    _, cells = read_notebook(assignments.STARTERS / f"{name}.ipynb")
    namespace, failed = run_cells(cells)
    assert failed == []
    assert "first\n" in capsys.readouterr().out
    marks = mark_namespace(name, name, namespace)
    for mark, part in zip(marks, SCHEMES[name], strict=True):
        expected = (
            (None, "to be marked by hand") if part.check is None else (0.0, "not written yet")
        )
        assert (mark.earned, mark.remark) == expected


def expect_all_points(path, name):
    marks = grade(path)
    for mark in marks:
        assert mark.earned is None or mark.earned == mark.points, mark
    assert [mark.part for mark in marks] == [part.title for part in SCHEMES[name]]


@pytest.mark.starts_process
@pytest.mark.parametrize("name", SCHEMES)
def test_the_solution_gets_all_points(name, solved, tmp_path):
    """With the experiment at its end cut short: 20 steps of training instead of 150."""
    text = (solved / f"{name}.ipynb").read_text(encoding="utf-8")
    short = re.sub(r"(STEPS, \w+(, \w+)? = )150\b", r"\g<1>20", text)
    assert (short != text) == (name != "measuring")
    path = tmp_path / f"{name}.ipynb"
    path.write_text(short, encoding="utf-8")
    expect_all_points(path, name)


@pytest.mark.starts_process
@pytest.mark.slow
@pytest.mark.parametrize("name", ["heads", "distillation", "decisions"])
def test_the_solution_gets_all_points_with_its_whole_experiment(name, solved):
    expect_all_points(solved / f"{name}.ipynb", name)


def write_notebook(path, name, *cells):
    book = {
        "metadata": {"ekd_lite_assignment": name},
        "cells": [{"cell_type": "code", "source": source} for source in cells],
    }
    path.write_text(json.dumps(book), encoding="utf-8")
    return path


@pytest.mark.starts_process
def test_partial_credit_a_failing_cell_and_the_csv(tmp_path, capsys):
    path = write_notebook(
        tmp_path / "ada.ipynb",
        "measuring",
        "%pip install nothing\n!ls\nimport torch",
        "def tpr_at_fpr(scores, is_genuine, fpr):\n    return 0.0",
        "1 / 0",
        ["def best_accuracy(scores, is_genuine):\n", "    tries = [*scores.tolist()]\n",
         "    return max(((scores >= t) == is_genuine).double().mean().item() for t in tries)"],
    )  # fmt: skip
    table = tmp_path / "marks.csv"
    assert main(["grade", str(path), "--csv", str(table)]) == 0
    text = capsys.readouterr().out
    assert "refusing every pair left out" in text
    assert "code cell 3: ZeroDivisionError: division by zero" in text
    assert "no resample" in text
    rows = {
        row["part"]: row for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    }
    assert rows["TPR at FPR"]["earned"] == "0.0"
    assert 0 < float(rows["Best accuracy"]["earned"]) < 3
    assert rows["Which model is better? (text)"]["earned"] == ""


def test_a_notebook_of_brackets_alone_is_none(tmp_path):
    path = tmp_path / "deep.ipynb"
    path.write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"deep\.ipynb: not a Jupyter notebook"):
        read_notebook(path)


@pytest.mark.starts_process
def test_what_cannot_be_graded_is_said_and_the_rest_goes_on(tmp_path, capsys):
    broken = tmp_path / "broken.ipynb"
    broken.write_text("no json", encoding="utf-8")
    other = write_notebook(tmp_path / "other.ipynb", "cooking")
    gone = write_notebook(tmp_path / "gone.ipynb", "heads", "import os\nos._exit(7)")
    fine = write_notebook(tmp_path / "fine.ipynb", "heads", "raise SystemExit")
    names = [str(path) for path in (broken, other, gone, fine)]
    assert main(["grade", *names]) == 1
    out, err = capsys.readouterr()
    assert "broken.ipynb: not a Jupyter notebook" in err
    assert "assignment 'cooking' is unknown" in err
    assert "gone.ipynb: the run ended with status 7" in err
    assert out.startswith("fine.ipynb\n")
    assert "0.0 of 14 points" in out


@pytest.mark.starts_process
def test_a_notebook_that_does_not_end_is_ended(tmp_path):
    slow = write_notebook(tmp_path / "slow.ipynb", "heads", "while True:\n    pass")
    with pytest.raises(ValueError, match=r"slow.ipynb: still running after 2 s"):
        grade(slow, timeout=2)


def test_a_formula_in_a_remark_stays_text(tmp_path):
    from ekd_lite.coursework.grade import Mark, write_csv

    path = tmp_path / "marks.csv"
    write_csv([Mark("=HYPERLINK()", "a", 1, 0.0, "-1+2")], path)
    assert path.read_text(encoding="utf-8").splitlines()[1] == "'=HYPERLINK(),a,1,0.0,'-1+2"


@pytest.mark.starts_process
def test_the_branch_holds_the_solved_notebooks(tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("no git")
    monkeypatch.setattr(assignments, "ROOT", tmp_path)
    for key in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{key}_NAME", "a")
        monkeypatch.setenv(f"{key}_EMAIL", "a@b.c")
    assignments.git("init", "-q")
    assignments.branch()
    listed = assignments.git("ls-tree", "--name-only", assignments.BRANCH).splitlines()
    assert listed == ["decisions.ipynb", "distillation.ipynb", "heads.ipynb", "measuring.ipynb"]
    text = assignments.git("show", f"{assignments.BRANCH}:heads.ipynb") + "\n"
    assert text == assignments.notebooks(solved=True)["heads.ipynb"]
    assert assignments.git("status", "--porcelain") == ""


def test_the_table_of_checks_is_up_to_date(run_tool):
    assert run_tool("coursework_table.py", "--check") == 0
