"""What the site moves or folds: solutions on pages of their own, sections for a second reading.

The first half works on small documents; the second, marked `page`, holds a built site against the
notebooks.
"""

import re
import sys
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from docutils import nodes
from docutils.utils import new_document
from sphinx_exercise.nodes import exercise_enumerable_node, solution_node

from tests.book.built import ROOT, SITE, article, pages_of

sys.path[:0] = [str(ROOT / "book" / "tools"), str(ROOT / "book" / "_ext")]

import printing  # noqa: E402
import second_reading  # noqa: E402
import solution_pages  # noqa: E402


class Builder:
    """Addresses as of a builder that writes one file for each page."""

    def get_relative_uri(self, start, to):
        return "" if start == to else f"../{to}.html"


APP: Any = SimpleNamespace(builder=Builder(), env=SimpleNamespace(docname="chapters/01_a"))


def exercise(name):
    title, body = nodes.title("", f"Exercise ({name})"), nodes.section("", ids=["exercise-content"])
    body += nodes.paragraph("", f"Ask {name}.")
    return exercise_enumerable_node("", title, body, ids=[name], label=name)


def solution(name, *more):
    link = nodes.reference("", f" Exercise 1.1 ({name})", refuri=f"#{name}")
    body = nodes.section(
        "", nodes.paragraph("", f"Answer {name}."), *more, ids=["solution-content"]
    )
    return solution_node("", nodes.title("", "Solution to", link), body)


@pytest.fixture
def chapter():
    """Two exercises with solutions, one of them with a cell, and one without a solution."""
    tree = new_document("chapter")
    cell = nodes.container("", nodes.paragraph("", "CODE"), classes=["cell"])
    tree += nodes.section("", nodes.title("", "Exercises"), ids=["exercises"])
    tree[0] += [exercise("a"), solution("a"), exercise("b"), cell, solution("b"), exercise("c")]
    tree[0] += nodes.paragraph("", "THE END")
    return tree


def test_a_chapter_keeps_questions_and_links_and_loses_cells_and_solutions(chapter):
    found = solution_pages.cut(chapter, APP, "chapters/01_a")
    text = chapter.astext()
    assert [one.anchor for one in found] == ["solution-a", "solution-b"]
    assert all(f"Ask {name}." in text for name in "abc") and "THE END" in text
    assert "Answer" not in text and "CODE" not in text
    links = [(link.astext(), link["refuri"]) for link in chapter.findall(nodes.reference)]
    assert links == [
        ("Solution", "../solutions/01_a.html#solution-a"),
        ("Code, check and solution", "../solutions/01_a.html#solution-b"),
    ]


def test_the_page_of_solutions_shows_question_cells_and_solution_in_this_order(chapter):
    _, one = solution_pages.cut(chapter, APP, "chapters/01_a")
    section = solution_pages.shown(one)
    assert section["ids"] == ["solution-b"] and section[0].astext().strip() == "Exercise 1.1 (b)"
    words = section.astext()
    assert words.index("Ask b.") < words.index("CODE") < words.index("Answer b.")
    assert "Code, check and solution" not in words
    inner = [name for part in section.findall(nodes.section) for name in part["ids"]]
    assert inner == ["solution-b"]  # sphinx-exercise's ids would be there once for each exercise


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"refid": "eq-a"}, "../chapters/01_a.html#eq-a"),
        ({"refuri": "#eq-a"}, "../chapters/01_a.html#eq-a"),
        ({"refid": "fig-here"}, "#fig-here"),
        ({"refuri": "02_b.html#x"}, "../chapters/02_b.html#x"),
        ({"refuri": "../glossary.html"}, "../glossary.html"),
        ({"refuri": "https://a.b/c#d"}, "https://a.b/c#d"),
    ],
)
def test_links_of_a_solution_lead_where_they_led(given, wanted):
    link = nodes.reference("", "there", **given)
    part = nodes.section("", nodes.figure("", ids=["fig-here"]), nodes.paragraph("", "", link))
    solution_pages.relink(part, APP, "chapters/01_a", "solutions/01_a")
    assert link["refuri"] == wanted and "refid" not in link


def test_what_follows_the_mark_is_folded_with_its_subsections_and_nothing_else():
    tree = new_document("chapter")
    inner = nodes.section("", nodes.title("", "Deeper"), nodes.paragraph("", "inside"))
    first = nodes.section("", nodes.title("", "One"), nodes.paragraph("", "lead"))
    first += [nodes.comment("", "second reading"), nodes.paragraph("", "rest"), inner]
    other = nodes.section("", nodes.title("", "Two"), nodes.comment("", "a remark"))
    tree += [first, other]
    second_reading.fold(APP, tree)
    (folded,) = tree.findall(second_reading.Folded)
    assert folded.parent is first and [n.astext() for n in first[:2]] == ["One", "lead"]
    assert [n.astext() for n in folded] == ["rest", "Deeper\n\ninside"]
    assert len(other) == 2  # another comment is left alone


def test_a_mark_with_nothing_after_it_is_refused():
    tree = new_document("chapter")
    tree += nodes.section("", nodes.title("", "One"), nodes.comment("", "second reading"))
    with pytest.raises(ValueError, match="nothing to fold"):
        second_reading.fold(APP, tree)


def test_print_shows_what_is_folded_and_has_the_pages_of_solutions(tmp_path):
    inside = '<details class="hide"><summary>S</summary>x</details>'
    page = f"{second_reading.START}\n{inside}{second_reading.END}"
    assert printing.unfolded(page) == f"<div>\n{inside}</div>"
    toc = tmp_path / "_toc.yml"
    toc.write_text(
        "root: index\nparts:\n- chapters:\n  - file: solutions/index\n"
        "    sections: [{file: solutions/a}]\n  - {file: api, sections: [{file: api/x}]}\n"
    )
    assert printing.pages_of(toc) == ["index", "solutions/index", "solutions/a", "api"]


def of_notebook(name):
    """For every exercise of a notebook its label and the code cells up to its solution's end."""
    found, label, inside = {}, None, False
    for cell in nbformat.read(ROOT / "book" / "chapters" / f"{name}.ipynb", 4).cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if re.match(r":{3,}\{exercise\}", line):
                    label = "?"
                elif label == "?" and line.startswith(":label:"):
                    label = line.split()[1]
                    found[label] = []
                elif re.match(r":{3,}\{solution-start\}", line):
                    inside = True
                elif re.match(r":{3,}\{solution-end\}", line) or (
                    re.match(r":{3,}\{solution\}", line) and not inside
                ):
                    label, inside = None, False
        elif label and "remove-cell" not in cell.metadata.get("tags", []):
            found[label].append(cell.source)
    return found


@pytest.mark.page
def test_every_exercise_has_its_code_check_and_solution_on_the_other_page_and_not_on_its_own():
    for path in pages_of("chapters/*.html"):
        chapter, other = article(path), article(SITE / "solutions" / path.name)
        assert chapter.select(".solution") == []
        shown = {one["id"]: one for one in other.select("section[id^=solution-]")}
        asked = {one["id"]: one for one in chapter.select(".exercise")}
        wanted = of_notebook(path.stem)
        assert {f"solution-{label}" for label in wanted} == shown.keys(), path.stem
        for label, cells in wanted.items():
            part = shown[f"solution-{label}"]
            link = asked[label].select_one(".to-solution a")
            assert link["href"] == f"../solutions/{path.name}#solution-{label}"
            back = part.select_one(".solution.dropdown .admonition-title a")
            assert back["href"] == f"../chapters/{path.name}#{label}"
            assert f"{back.get_text().strip()}#" == part.find("h2").get_text().strip()
            code = [one.get_text().strip() for one in part.select(".cell_input pre")]
            assert code == [one.strip() for one in cells], label
        text = chapter.select_one("#exercises").get_text()
        assert "your code here" not in text, path.stem


@pytest.mark.page
def test_what_is_marked_for_a_second_reading_is_folded_below_its_heading():
    marked = 0
    for path in pages_of("chapters/*.html"):
        notebook = nbformat.read(ROOT / "book" / "chapters" / f"{path.stem}.ipynb", 4)
        marks = sum(cell.source.splitlines().count("% second reading") for cell in notebook.cells)
        folds = article(path).select("section > details.second-reading")
        assert len(folds) == marks, path.stem
        assert all(one.parent.find(["h2", "h3"], recursive=False) for one in folds)
        # One section may stand in a fold, if only a small one: not the exercises.
        assert not any(one.select(":scope section section, #exercises") for one in folds)
        marked += marks
    assert marked > 20
