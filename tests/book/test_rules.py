"""book/tools/book.py and the nbval gate find what they are there to find."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.programs import load

ROOT = Path(__file__).resolve().parents[2]


book = load(ROOT / "book" / "tools" / "rules.py")
docstrings = load(ROOT / "book" / "_ext" / "plain_docstrings.py")
PNG = new_output("display_data", {"image/png": "", "text/plain": "<Figure>"})
FIGURE = {"figure": {"name": "fig-a", "caption": "A."}, "image": {"alt": "A curve that rises."}}


def printed(text):
    return new_output("stream", name="stdout", text=text)


def cell(source="x = 1", outputs=(), **metadata):
    return new_code_cell(source, outputs=list(outputs), execution_count=1, metadata=metadata)


def notebook(path, *cells):
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


@pytest.mark.starts_process
def test_the_chapters_in_the_tree_are_in_order():
    assert book.check() == []


@pytest.mark.parametrize(
    "good",
    [
        cell(outputs=[printed("0.123 and 1e-05, level 0.0001")]),
        cell(outputs=[printed("0.123456")], tags=["nbval-ignore-output"]),
        cell("plt.show()", [PNG], mystnb=FIGURE),
        cell("print('a;b')"),
        new_markdown_cell(
            ":::{note}\ntext\n:::\n\n```python\nx = 1;\n```\n\nsee `[^1]` and $a < b$"
        ),
        new_markdown_cell(
            ":::{exercise} One\n:label: ex-one\n:::\n\n"
            ":::{solution} ex-one\n:class: dropdown\n1\n:::"
        ),
    ],
)
def test_rules_let_good_cells_pass(tmp_path, good):
    assert book.check_rules(notebook(tmp_path / "a.ipynb", good)) == []


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (cell("\n".join(["x = 1"] * 31)), "31 lines"),
        (cell("x = '" + "a" * 90 + "'"), "line of"),
        (cell("ax.plot(x);"), "ends with ';'"),
        (cell("from tqdm import tqdm"), "tqdm"),
        (cell("%matplotlib inline"), "%matplotlib"),
        (cell("start = time.time()"), "measures time"),
        (new_code_cell("x = 1"), "was not run"),
        (cell(outputs=[printed("0.1234")]), "three decimals"),
        (cell(outputs=[new_output("stream", name="stderr", text="careful")]), "stderr"),
        (
            cell(outputs=[new_output("error", ename="ValueError", evalue="no")]),
            "failed: ValueError",
        ),
        (cell(outputs=[PNG], mystnb={"image": FIGURE["image"]}), "without a name and a caption"),
        (cell(outputs=[PNG], mystnb={"figure": FIGURE["figure"]}), "without words"),
        (cell(outputs=[PNG, PNG], mystnb=FIGURE), "more than one figure"),
        (new_markdown_cell(":::{exercise} One\n:label: ex-one\n:::"), "ex-one has no folded"),
        (
            new_markdown_cell(
                ":::{exercise} One\n:label: ex-one\n:::\n\n:::{solution} ex-one\n1\n:::"
            ),
            "ex-one has no folded",
        ),
        (new_markdown_cell("```{note}\ntext\n```"), "backtick directive"),
        (new_markdown_cell("text[^1]"), "footnote"),
        (new_markdown_cell("<div>text</div>"), "raw HTML"),
    ],
)
def test_rules_name_what_is_wrong(tmp_path, bad, why):
    problems = book.check_rules(notebook(tmp_path / "a.ipynb", bad))
    assert len(problems) == 1
    assert why in problems[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```{code-cell}\nx = 1\n```\n\ntext\n", None),
        ("```{code-cell}\nx = 2\n```\n\ntext\n", "differs from its text twin in source"),
        ("```{code-cell}\n:tags: [hide-input]\nx = 1\n```\n\ntext\n", "in metadata"),
        ("```{code-cell}\nx = 1\n```\n", "2 cells, its text twin has 1"),
    ],
)
def test_pairs_are_compared(tmp_path, monkeypatch, text, why):
    monkeypatch.setattr(book, "TWINS", tmp_path)
    header = (
        "---\njupytext:\n  text_representation:\n    extension: .md\n    format_name: myst\n---\n\n"
    )
    (tmp_path / "a.md").write_text(header + text)
    path = notebook(tmp_path / "a.ipynb", cell("x = 1"), new_markdown_cell("text"))
    problems = book.check_pair(path)
    assert (why is None and problems == []) or (len(problems) == 1 and why in problems[0])


@pytest.mark.parametrize(
    ("address", "right"),
    [
        ("https://github.com/ekd-lite/ekd-lite", True),
        ("https://github.com/ekd-lite/ekd-lite.git", True),
        ("https://github.com/ekd-lite/ekd-lite/blob/main/README.md", True),
        ("https://github.com/ekd-lite/ekd_lite", False),
        ("https://github.com/somebody/else", True),
        ("https://ekd-lite.github.io/ekd-lite/", True),
        ("https://ekd-lite.github.io/ekd-lite/chapters/01_faces.html", True),
        ("https://ekd-lite.github.io/book/", False),
        ("https://ekd-lite.github.io/ekd-lite-book/", False),
        ("https://somebody.github.io/else/", True),
        ("https://colab.research.google.com/github/ekd-lite/ekd-lite/blob/main/a.ipynb", True),
        ("https://colab.research.google.com/github/ekd-lite/other/blob/main/a.ipynb", False),
    ],
)
def test_another_address_of_repository_or_site_is_found(tmp_path, monkeypatch, address, right):
    monkeypatch.setattr(book, "BOOK", tmp_path)
    monkeypatch.setattr(book, "CHAPTERS", tmp_path)
    assert book.check_address() == []
    (tmp_path / "a.md").write_text(f"See {address}, which says more.")
    assert len(book.check_address()) == (0 if right else 1)


def test_the_readme_leads_to_every_chapter_on_the_site_and_in_colab():
    """With the chapter's title or its beginning; a notebook on GitHub would show raw MyST."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = re.compile(
        r"^\| \d+ \[(.+?)\]\(.*/chapters/(\w+)\.html\) \| \[.+?\]\((\S+)\)", re.MULTILINE
    )
    rows = row.findall(readme)
    assert [name for _, name, _ in rows] == [path.stem for path in book.notebooks()]
    for title, name, colab in rows:
        first = nbformat.read(ROOT / f"book/chapters/{name}.ipynb", as_version=4).cells[0].source
        assert re.search(rf"^# {re.escape(title)}", first, re.MULTILINE), title
        path = f"book/colab/{name}.ipynb"
        assert colab.endswith(f"/blob/main/{path}") and (ROOT / path).exists()


DRAW = "import matplotlib.pyplot as plt\nplt.figure()\nplt.plot([1, 2])\nplt.show()"
ANOTHER = new_output(
    "display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 1x1 with 1 Axes>"}
)
TIMED = "import time\nprint(time.process_time())"


PROVED = {  # name: a cell with what it printed once, and whether nbval takes it
    "as it was": (cell("print(0.123)", [printed("0.123\n")]), True),
    "printed digit": (cell("print(0.123)", [printed("0.124\n")]), False),
    "value": (cell("0.123", [new_output("execute_result", {"text/plain": "0.124"})]), False),
    "figure": (cell(DRAW, [ANOTHER]), True),  # looked at, not compared
    "marked time": (cell(TIMED, [printed("0.1\n")], tags=["nbval-ignore-output"]), True),
    "time": (cell(TIMED, [printed("0.1\n")]), False),
}


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    """Exit code of one run over a notebook of all these cells, and those that failed."""
    folder = tmp_path_factory.mktemp("proof")
    path = notebook(folder / "a.ipynb", *(stored for stored, _ in PROVED.values()))
    call = ["pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    rules = f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval_sanitize.cfg'}"
    done = subprocess.run(
        [sys.executable, "-m", *call, rules, "--junit-xml=found.xml", str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    cases = ElementTree.parse(folder / "found.xml").findall(".//testcase")  # noqa: S314 - our own
    return done.returncode, [case.find("failure") is not None for case in cases]


@pytest.mark.starts_process
@pytest.mark.parametrize("name", PROVED)
def test_nbval_compares_every_digit_and_no_figure(proof, name):
    code, failed = proof
    assert code == 1  # as soon as one cell fails
    assert dict(zip(PROVED, failed, strict=True))[name] != PROVED[name][1]


@pytest.mark.parametrize(
    ("plain", "markup"),
    [
        (["Scale by `eps`, |x| rows."], ["Scale by ``eps``, \\|x\\| rows."]),
        (["A list of `Model`s."], ["A list of ``Model``\\ s."]),
        (["A *new* word, 2 * x."], ["A *new* word, 2 \\* x."]),
        (["Args:", "    scale: s."], ["Args:", "    scale: \\s."]),
        (["A link_ and ``code``."], ["A link\\_ and ``code``."]),
        (["See :func:`roc`."], ["See :func:`roc`."]),
        (["Rates:", "", "    a|b", "", "More."], ["Rates:", "::", "", "", "    a|b", "", "More."]),
        (["Args:", "    x: one", "        more."], ["Args:", "    x: one", "        more."]),
    ],
)
def test_plain_docstrings_become_markup(plain, markup):
    drop_blanks = [line for line in docstrings.convert(plain) if line]
    assert drop_blanks == [line for line in markup if line]
