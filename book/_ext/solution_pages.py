"""Show what an exercise gives away on a page of its own: starter code, check and solution.

In the sources a solution stands below its exercise, so notebooks, their copies for Colab and CI
have it there. On the site a chapter keeps the text of the exercise and a link, and the directive
`solutions-of` of a page such as book/solutions/04_arcface.md shows the exercises again, each with
its cells and its folded solution. Numbers and references stay those of the chapter.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective
from sphinx_exercise.nodes import exercise_enumerable_node, solution_node


class Place(nodes.General, nodes.Element):
    """Where a page shows the exercises of the chapter `of`."""


class SolutionsOf(SphinxDirective):
    """`solutions-of` followed by the name of a chapter, such as 04_arcface."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A place to fill once the chapter has its numbers."""
        return [Place(of=f"chapters/{self.arguments[0]}")]


@dataclass
class Answered:
    """An exercise of a chapter, and what followed it there, up to its solution."""

    exercise: nodes.Element
    cells: list[nodes.Node]
    solution: nodes.Element

    @property
    def anchor(self) -> str:
        """Its place on the page of solutions."""
        return f"solution-{self.exercise['label']}"

    @property
    def heading(self) -> nodes.title:
        """Such as "Exercise 4.2 (Name)": the words of the link in the title of its solution."""
        link = next(self.solution[0].findall(nodes.reference))
        return nodes.title("", "", *(part.deepcopy() for part in link))


def answered(chapter: nodes.document) -> Iterator[Answered]:
    """Every exercise with a solution after it, in order."""
    for exercise in list(chapter.findall(exercise_enumerable_node)):
        after = exercise.parent[exercise.parent.index(exercise) + 1 :]
        for count, node in enumerate(after):
            if isinstance(node, solution_node):
                yield Answered(exercise, after[:count], node)
            if isinstance(node, (solution_node, exercise_enumerable_node)):
                break


def page_of(chapter: str) -> str:
    """The page of a chapter's solutions."""
    return chapter.replace("chapters/", "solutions/")


def cut(chapter: nodes.document, app: Sphinx, name: str) -> list[Answered]:
    """Leave a link below each exercise instead of its cells and its solution; what was taken."""
    found = list(answered(chapter))
    page = app.builder.get_relative_uri(name, page_of(name))
    for one in found:
        for node in [*one.cells, one.solution]:
            one.exercise.parent.remove(node)
        words = "Code, check and solution" if one.cells else "Solution"
        link = nodes.reference("", words, internal=True, refuri=f"{page}#{one.anchor}")
        one.exercise += nodes.paragraph("", "", link, classes=["to-solution"])
    return found


def shown(one: Answered) -> nodes.section:
    """An exercise with its code, check and solution, as a section of the page of solutions."""
    text = [node.deepcopy() for node in one.exercise[1:] if "to-solution" not in node["classes"]]
    section = nodes.section("", one.heading, *text, ids=[one.anchor])
    section += [node.deepcopy() for node in one.cells]
    section += one.solution.deepcopy()
    for node in section.findall(nodes.section):  # sphinx-exercise gives all the same id
        if node is not section:
            node["ids"] = []
    return section


def relink(part: nodes.Element, app: Sphinx, chapter: str, page: str) -> None:
    """Let references that worked on the chapter's page work on the page of solutions."""
    here = {name for node in part.findall(nodes.Element) for name in node["ids"]}
    folder = posixpath.dirname(chapter)
    back = app.builder.get_relative_uri(page, chapter)
    for link in part.findall(nodes.reference):
        anchor = link.attributes.pop("refid", None)
        if anchor is None:
            address = urlsplit(link.get("refuri", ""))
            if address.scheme or not (address.path or address.fragment):
                continue
            anchor = address.fragment
            path = posixpath.join(folder, address.path) if address.path else ""
        else:
            path = ""
        away = posixpath.relpath(path, posixpath.dirname(page)) if path else back
        stays = not path and anchor in here
        link["refuri"] = ("" if stays else away) + (f"#{anchor}" if anchor else "")


def contents(found: list[Answered], page: str) -> nodes.bullet_list:
    """The list of exercises for the page's table of contents."""
    entries = nodes.bullet_list()
    for one in found:
        link = nodes.reference(
            "",
            one.heading.astext().strip(),
            internal=True,
            refuri=page,
            anchorname=f"#{one.anchor}",
        )
        entries += nodes.list_item("", addnodes.compact_paragraph("", "", link))
    return entries


def fill(place: Place, found: list[Answered], app: Sphinx, page: str) -> None:
    """Put the exercises where the directive stands, with the numbers that their chapter has."""
    env, chapter = app.env, place["of"]
    env.toc_fignumbers[page] = env.toc_fignumbers.get(chapter, {})
    parts = [shown(one) for one in found]
    for part in parts:
        relink(part, app, chapter, page)
        if next(part.findall(lambda n: isinstance(n, (nodes.math, nodes.math_block))), None):
            env.get_domain("math").data["has_equations"][page] = True
    place.replace_self(parts)
    top = next(env.tocs[page].findall(nodes.list_item))
    top += contents(found, page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    taken: dict[str, list[Answered]] = {}

    def refuse(app: Sphinx, env: BuildEnvironment) -> None:
        missing = [name for name in chapters(env) if page_of(name) not in env.found_docs]
        if missing:
            raise ValueError(f"no book/{page_of(missing[0])}.md for the solutions of a chapter")

    def chapters(env: BuildEnvironment) -> list[str]:
        return sorted(name for name in env.found_docs if name.startswith("chapters/"))

    def move(app: Sphinx, tree: nodes.document, name: str) -> None:
        if app.builder.format != "html":
            return
        if name.startswith("chapters/"):
            taken[name] = cut(tree, app, name)
        for place in list(tree.findall(Place)):
            if place["of"] not in taken:  # resolving the chapter calls this function for it
                app.env.get_and_resolve_doctree(place["of"], app.builder)
            fill(place, taken[place["of"]], app, name)

    app.add_node(Place)
    app.add_directive("solutions-of", SolutionsOf)
    app.connect("env-check-consistency", refuse)
    app.connect("doctree-resolved", move, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
