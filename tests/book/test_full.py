"""The full size: the switch is on, claims are noted instead of skipped, the time is measured."""

import csv
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "tools"))

import full  # noqa: E402
from rules import TWINS, notebooks  # noqa: E402

CLAIMS = '''
FULL = False  # True: more
people = 7 if FULL else 3


def expect(value, told, tolerance):
    """A helper, as the chapters have them."""
    close = FULL or abs(value - told) <= tolerance
    assert close, f"got {value}"


expect(5.0, 5.1, 0.2)
expect(people, 3, 0.5)
assert FULL or (people < 5 and "ü" != "é")  # it is
assert FULL or people > 5
assert FULL or 1 < missing < max(
    people, 2
), "no such name"
'''


def test_claims_of_the_small_size_are_noted_and_do_not_stop(capsys):
    names = {}
    exec(full.NOTED, names)  # noqa: S102 - the cell that the program puts first
    exec(full.in_full(CLAIMS), names)  # noqa: S102
    noted = [line for line in capsys.readouterr().err.splitlines() if line]
    assert names["FULL"] is True
    assert names["people"] == 7
    assert [line.startswith(full.NOTE) for line in noted] == [True] * 3
    assert "value=7" in noted[0]
    assert "told=3" in noted[0]
    assert "people < 5" in noted[1]
    assert "people=7" in noted[1]
    assert "NameError" in noted[2]


def test_without_the_program_the_small_size_holds_and_the_full_one_skips():
    small = {"missing": 2}
    exec(CLAIMS.replace("people > 5", "True"), small)  # noqa: S102
    assert small["people"] == 3
    exec(CLAIMS.replace("FULL = False", "FULL = True"), {})  # noqa: S102


def test_a_cell_without_the_switch_stays_as_it_is():
    source = "x = FULLY or 3\n# FULL = False\n%timeit = 3"
    assert full.in_full(source) == source


@pytest.mark.starts_process
def test_a_chapter_runs_outside_the_book_and_its_time_counts_every_process(tmp_path, monkeypatch):
    burn = "import time\nwhile time.process_time() < 1.5: pass"
    cells = [
        new_code_cell("FULL = False  # True: nine\npeople = 9 if FULL else 3\nprint(people)"),
        new_markdown_cell("It is 3."),
        new_code_cell("assert FULL or 2 > 3\nprint('equal')"),
        new_code_cell("assert people == 3"),
        new_code_cell(
            f"import os, subprocess, sys\n{burn}\n"
            f"subprocess.run([sys.executable, '-c', {burn!r}], check=True)\n"
            "open('left', 'w').close()"
        ),
    ]
    cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text="3\n")]
    cells[2].outputs = [nbformat.v4.new_output("stream", name="stdout", text="equal\n")]
    chapter, out = tmp_path / "a.ipynb", tmp_path / "out"
    nbformat.write(new_notebook(cells=cells), chapter)
    out.mkdir()
    before = chapter.read_bytes()
    assert full.has_switch(chapter)
    book, cpu, wall = full.run(chapter, out)
    assert chapter.read_bytes() == before
    assert 3.0 < cpu < 20
    assert wall > 2.5
    text = full.to_read(cells, book.cells)
    assert f"cell 2: {full.NOTE}2 > 3" in text
    assert "cell 0, small size:\n3\n-- full size:\n9\n-- It is 3." in text
    assert "equal" not in text
    assert re.findall(r"cell (\d) FAILED: AssertionError:.*people == 3", text) == ["3"]
    assert {path.name for path in out.iterdir()} == {"a.ipynb", "work"}
    assert {path.name for path in (out / "work").iterdir()} == {"left"}


def test_an_error_is_told():
    trace = ["Traceback", "\x1b[32m----> 3\x1b[39m\x1b[1m assert x\n      4 y"]
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=trace)
    cell = new_code_cell("x", outputs=[error])
    text = full.to_read([new_code_cell("x")], [cell])
    assert text.splitlines()[0] == "cell 0 FAILED: ValueError: no < assert x"


def test_the_table_keeps_one_line_a_chapter(tmp_path):
    table = tmp_path / "t.csv"
    for chapter, seconds in (("b", "1"), ("a", "2"), ("b", "3")):
        full.keep(table, {"chapter": chapter, "cpu_seconds": seconds})
    assert table.read_text(encoding="utf-8") == "chapter,cpu_seconds\na,2\nb,3\n"


def timed():
    with (ROOT / "data" / "results" / "full_runs.csv").open(encoding="utf-8", newline="") as file:
        return {row["chapter"]: row for row in csv.DictReader(file)}


def with_switch():
    """Their twins, found another way than the program's."""
    return {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted(TWINS.glob("*.md"))
        if "\nFULL = False" in path.read_text(encoding="utf-8")
    }


def test_the_table_has_the_sizes_that_the_chapters_name():
    """Whoever changes a size runs `book/tools/full.py FOLDER NAME` and keeps the new line."""
    chapters = with_switch()
    assert set(chapters) == {path.stem for path in notebooks() if full.has_switch(path)}
    said = {
        name: re.search(r"^FULL = False  # True: (.*)$", chapters[name], re.MULTILINE)[1]
        for name in timed()
    }
    assert {name: row["size"] for name, row in timed().items()} == said


@pytest.mark.parametrize("name", sorted(with_switch()))
def test_a_chapter_names_the_measured_time_or_says_that_there_is_none(name):
    line = next(line for line in with_switch()[name].splitlines() if line.startswith("**Time**"))
    told = re.search(r"`FULL = True`.* took ([\d.]+) minutes? of one core", line)
    if name not in timed():
        assert told is None
        assert line.endswith("nobody has timed that yet.")
        return
    digits = len(told[1].partition(".")[2])
    assert f"{int(timed()[name]['cpu_seconds']) / 60:.{digits}f}" == told[1]
