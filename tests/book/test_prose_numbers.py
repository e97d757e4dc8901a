"""Numbers before "%" and "points" come from a cell, a table or a source that is named."""

import csv
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "tools"))

import prose_numbers  # noqa: E402
from rules import notebooks  # noqa: E402


def texts(markdown):
    return [found.text for found in prose_numbers.in_prose("a", markdown)]


@pytest.mark.parametrize(
    ("markdown", "numbers"),
    [
        ("It is 3.5 % and 4 points.", ["3.5", "4"]),
        ("from 3.5 to 4 %, or +0.2 and -1,000 points", ["3.5", "4", "+0.2", "-1,000"]),
        ("by [+0.2, +1.1] points", ["+0.2", "+1.1"]),
        ("93.2 ± 0.1 % or 12 to 16\ndollars", ["93.2", "0.1"]),
        ("two more points, 3 percentage points, 7 per cent", ["two", "3", "7"]),
        ("`3 %` and\n```python\nx = 5 % 3\n```\n2 %", ["2"]),
        ("50 people, point 3, chapter 4", []),
        ("$90\\%$", ["90"]),
        ("$40/49 = 82\\ \\%$, $= 0.2$ points, fifteen points", ["82", "0.2", "fifteen"]),
    ],
)
def test_what_is_collected(markdown, numbers):
    assert texts(markdown) == numbers


@pytest.mark.parametrize(
    ("text", "known", "is_tied"),
    [
        ("3.5", 3.46, True),
        ("3.5", 3.56, False),
        ("3.5", 0.0352, True),
        ("3.50", 3.46, False),
        ("-3.5", 3.5, True),
        ("seven", 7.2, True),
        ("12,000", 12_000.4, True),
        ("12", 13, False),
    ],
)
def test_a_number_ties_to_what_rounds_to_it(text, known, is_tied):
    assert prose_numbers.ties(prose_numbers.Found("a", text, ""), [known]) == is_tied


def test_where_numbers_come_from_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(prose_numbers, "quoted", lambda: {("a", "77.123"): "a paper"})
    out = [new_output("stream", name="stdout", text="TPR 0.8312\n")]
    table = [
        new_output("display_data", data={"text/html": "<style>a {width: 66.66%}</style><b>55.5"})
    ]
    filler = [new_markdown_cell("text") for _ in range(prose_numbers.BEFORE)]
    cells = [
        new_code_cell("level = 0.4413", outputs=out),
        new_code_cell("", outputs=table),
        new_markdown_cell("Of 83.1 %, 55.5 %, 44.13 %, 77.123 %, 66.66 % and 22.222 points."),
        *filler,
        new_markdown_cell("Again 83 %. `demo.csv` has 87.32 %."),
    ]
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    counts, loose = prose_numbers.examine(path)
    assert counts == {"near": 2, "printed": 1, "recorded": 1, "set": 1, "quoted": 1}
    assert [found.text for found in loose] == ["66.66", "22.222"]


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_every_number_of_a_chapter_comes_from_somewhere(path):
    """`python book/tools/prose_numbers.py --csv NN` writes lines for quoted_numbers.csv."""
    _, loose = prose_numbers.examine(path)
    assert loose == []


def test_every_quoted_number_has_a_source_and_is_still_quoted():
    with prose_numbers.QUOTED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["source"].strip() for row in rows)
    said = {
        (found.chapter, found.text)
        for path in notebooks()
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
        for found in prose_numbers.in_prose(path.stem, cell.source)
    }
    assert {(row["chapter"], row["number"]) for row in rows} <= said
