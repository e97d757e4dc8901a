"""The copies of the chapters that Colab opens: book/colab/NAME.ipynb, written by `book.py copies`.

Code cells keep their code and outputs to the letter, but those that only check the text (tag
remove-cell) are left out; Markdown cells lose what only the book's
pages understand (plain_markdown.py); a figure's caption and the works cited become cells. They
are committed because Colab opens what lies in the repository. Nobody edits them.
"""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import nbformat
from labels import labels_of, works_of
from nbformat.v4 import new_markdown_cell
from plain_markdown import Plain, UnknownMarkupError

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
COPIES = BOOK / "colab"
COLAB = "https://colab.research.google.com/github"
HIDING_TAGS = {"hide-input", "hide-cell", "remove-input"}
CHECKS = "remove-cell"  # cells that only check the text: neither the page nor the copy has them
# Code folded away; Colab reads the first, Jupyter the second.
HIDDEN: dict[str, Any] = {"cellView": "form", "jupyter": {"source_hidden": True}}


class Repository:
    """Addresses of files and pages, from the one place that holds those of both: _config.yml."""

    def __init__(self, config: Path = ROOT / "_config.yml") -> None:
        import yaml

        whole = yaml.safe_load(config.read_text(encoding="utf-8"))
        given, self.site = whole["repository"], whole["html"]["baseurl"]
        self.url, self.branch = given["url"].rstrip("/"), given["branch"]

    def page(self, file: Path) -> str:
        """Where the site shows what a file of the book says; on GitHub its markup would show."""
        return f"{self.site}{file.relative_to(BOOK).with_suffix('.html').as_posix()}"

    def colab(self, name: str) -> str:
        """Where Colab opens the copy of a chapter."""
        owner = self.url.removeprefix("https://github.com/")
        return f"{COLAB}/{owner}/blob/{self.branch}/book/colab/{name}.ipynb"

    def address(self, origin: Path, path: str, is_picture: bool) -> str:
        """A path in the book ("/chapters/x": a page; else beside `origin`) as an address."""
        base = BOOK if path.startswith("/") else origin.parent
        file = Path(os.path.normpath(base / path.lstrip("/")))
        if not file.suffix:
            found = [file.with_suffix(end) for end in (".ipynb", ".md")]
            file = next((one for one in found if one.exists()), file)
        if not file.exists():
            raise UnknownMarkupError(f"no such file: {path}")
        if file.suffix == ".ipynb" and file.parent == BOOK / "chapters":
            return self.colab(file.stem)
        if file.suffix == ".md" and file.is_relative_to(BOOK):
            return self.page(file)
        kind = "raw" if is_picture else "blob"
        return f"{self.url}/{kind}/{self.branch}/{file.relative_to(ROOT).as_posix()}"


def portable(path: Path, labels: dict[str, Any], works: dict[str, Any]) -> Any:
    """The plain copy of one chapter, as a notebook."""
    source = nbformat.read(path, as_version=4)
    repository = Repository()
    page = path.relative_to(BOOK).with_suffix("").as_posix()
    plain = Plain(page, labels, works, lambda to, pic: repository.address(path, to, pic))
    cells: list[Any] = [markdown("about", about(path, labels["/" + page].number, repository))]
    solutions: list[list[int]] = []  # first cell and the one after the last, of each
    for index, cell in enumerate(source.cells):
        try:
            add_copies(cell, plain, cells, solutions)
        except UnknownMarkupError as error:
            raise UnknownMarkupError(f"{path.stem}, cell {index}: {error}") from None
    folded = fold(cells, solutions)
    if plain.cited:
        entries = [f"- {works[key].entry}" for key in sorted(plain.cited)]
        cells.append(markdown("works-cited", "\n".join(["## Works cited", "", *entries])))
    book = copy.deepcopy(source)
    book.cells = cells
    book.metadata = {
        "colab": {"provenance": [], "toc_visible": True, "collapsed_sections": folded},
        "kernelspec": source.metadata["kernelspec"],
        "language_info": source.metadata.get("language_info", {"name": "python"}),
    }
    return book


def about(path: Path, number: str, repository: Repository) -> str:
    """The first cell: what this is, and how to keep what one writes."""
    book = f"[Face Recognition, Distilled]({repository.site})"
    return (
        f"*[{number}]({repository.page(path)}) of {book}. "
        "Run it from top to bottom: Runtime, Run all. To keep your answers: File, "
        "Save a copy in Drive.*"
    )


def markdown(name: str, text: str) -> Any:
    """A Markdown cell with an id that stays the same with every writing."""
    return new_markdown_cell(text, id=name[:64], metadata={"id": name[:64]})


def add_copies(cell: Any, plain: Plain, cells: list[Any], solutions: list[list[int]]) -> None:
    """Append what stands in the copy for one cell: nothing, itself, or several cells."""
    if CHECKS in cell.metadata.get("tags", []):
        return
    if cell.cell_type == "code":
        cells.append(code(cell))
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if figure.get("name"):
            caption = plain.captioned(figure["name"], figure["caption"])
            cells.append(markdown(f"{cell.id}-caption", caption))
        return
    for number, piece in enumerate(pieces(cell.source)):
        if "{solution-start}" in piece:
            solutions.append([len(cells)])
        if piece.lstrip(":").startswith("{solution-end}"):
            solutions[-1].append(len(cells))
        text = plain(piece)
        if text:
            cells.append(markdown(f"{cell.id}-{number}" if number else cell.id, text))


def pieces(source: str) -> list[str]:
    """Markdown cut where a solution begins and ends, and before exercises.

    Notebooks fold whole cells, so a heading that folds needs a cell of its own.
    """
    cut = r"^(?=:{3,}\{(?:solution-start|solution-end|exercise)\})"
    heading = r"(:{3,}\{solution-start\}.*?^:{3,}\s*?$)(.*)"
    found: list[str] = []
    for piece in re.split(cut, source, flags=re.MULTILINE):
        split = re.fullmatch(heading, piece, re.MULTILINE | re.DOTALL)
        found += split.groups() if split else [piece]
    return found


def code(cell: Any) -> Any:
    """A code cell with its code and outputs untouched."""
    ours = copy.deepcopy(cell)
    ours.metadata = {"id": cell.id}
    if HIDING_TAGS & set(cell.metadata.get("tags", [])):
        ours.metadata |= HIDDEN
    return ours


def fold(cells: list[Any], solutions: list[list[int]]) -> list[str]:
    """Fold the solutions that are cells of their own; the ids of the folded headings.

    A folded heading hides all up to the next one, so a solution that prose follows is left open,
    and only its code is hidden.
    """
    folded = []
    for start, end in solutions:
        if end == len(cells) or cells[end].source.startswith("#"):
            cells[start].metadata["jp-MarkdownHeadingCollapsed"] = True
            folded.append(cells[start].metadata["id"])
        else:
            for cell in cells[start:end]:
                cell.metadata |= HIDDEN if cell.cell_type == "code" else {}
    return folded


def write(site: Path) -> list[Path]:
    """Write the copy of every chapter, and remove copies of chapters that are gone."""
    COPIES.mkdir(exist_ok=True)
    for name in COPIES.glob("*.ipynb"):
        if not (BOOK / "chapters" / name.name).exists():
            name.unlink()
    written = []
    for path, text in texts(site):
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def check(site: Path) -> list[str]:
    """Copies that are missing, old or left over, one line each."""
    problems = []
    wanted = dict(texts(site))
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            state = "is not up to date" if path.exists() else "is missing"
            problems.append(f"book/colab/{path.name} {state}: run `make notebooks`")
    left = set(COPIES.glob("*.ipynb")) - set(wanted)
    return problems + [f"book/colab/{path.name} has no chapter" for path in sorted(left)]


def texts(site: Path) -> list[tuple[Path, str]]:
    """(path, content) of every copy as it should be; a chapter not yet in the book has none."""
    labels, works = labels_of(site), works_of(BOOK / "references.bib")
    return [
        (COPIES / path.name, nbformat.writes(portable(path, labels, works)) + "\n")
        for path in sorted((BOOK / "chapters").glob("*.ipynb"))
        if f"/chapters/{path.stem}" in labels
    ]
