"""What a label or a citation stands for, for the copies that `portable.py` writes.

Sphinx alone numbers things, so numbers and titles are read from the pages it built; works come
from references.bib.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path

EQUATION = re.compile(r'class="eqno">(\([\w.]+\))<a class="headerlink" href="#equation-([^"]+)"')
HEADING = re.compile(
    r'((?:<span id="[^"]+"></span>)*)<h(?P<level>[1-6])>'
    r'(?:<span class="section-number">(?P<number>[\w.]+?)\. </span>)?'
    r'(?P<title>(?:(?!</h\d>).)*?)<a class="headerlink" href="#(?P<anchor>[^"]+)"',
    re.DOTALL,
)
# An element with an id, and the first number inside it: figures and tables, then boxes.
CAPTIONED = re.compile(
    r'<(figure|table)\b[^>]*\bid="(?P<anchor>[^"]+)"[^>]*>(?:(?!</\1>).)*?'
    r'<span class="caption-number">(?P<number>[^<]+?)\s*</span>'
    r'(?P<title><span class="caption-text">.*?</span>)(?=<a class="headerlink"|</p>|</caption>)',
    re.DOTALL,
)
BOX = re.compile(
    r'<div class="[^"]*admonition[^"]*" id="(?P<anchor>[^"]+)">\s*<p class="admonition-title">'
    r'<span class="caption-number">(?P<number>[^<]+?)\s*</span>\s*(?P<title>.*?)</p>',
    re.DOTALL,
)


@dataclass(frozen=True)
class Target:
    """A labelled thing: its page ("chapters/02_measuring"), number ("Fig. 2.1") and title."""

    page: str
    number: str
    title: str


@dataclass(frozen=True)
class Work:
    """A work of the bibliography: "Huang et al.", "2022", a link or None, and the full entry."""

    names: str
    year: str
    link: str | None
    entry: str


def plain(markup: str) -> str:
    """The text of a piece of HTML, formulas in dollars."""
    text = html.unescape(re.sub(r"<[^>]+>", "", markup)).strip()
    return re.sub(r"\\\((.*?)\\\)", r"$\1$", text)


def labels_of(site: Path) -> dict[str, Target]:
    """Every label of the built site; a page's own path is the label of its title."""
    found: dict[str, Target] = {}
    for path in sorted(site.rglob("*.html")):
        page = path.relative_to(site).with_suffix("").as_posix()
        if page.startswith(("_static", "_modules", "slides/")):  # slides repeat their chapter's
            continue
        text = path.read_text(encoding="utf-8")
        is_of_chapter = page.startswith("solutions/")  # shows a part of it (solution_pages.py)
        page = page.replace("solutions/", "chapters/")
        for number, label in EQUATION.findall(text):
            found[label] = Target(page, number, "")
        for match in [] if is_of_chapter else HEADING.finditer(text):
            number = f"Section {match['number']}" if match["number"] else ""
            if match["level"] == "1" and number:
                number = number.replace("Section", "Chapter")
            target = Target(page, number, plain(match["title"]))
            for label in [*re.findall(r'id="([^"]+)"', match.group(1)), match["anchor"]]:
                found.setdefault(label, target)
            if match["level"] == "1":
                found["/" + page] = target
        for match in [*CAPTIONED.finditer(text), *BOX.finditer(text)]:
            title = plain(match["title"])
            title = re.sub(r"^\((.*)\)$", r"\1", title)  # sphinx-exercise's brackets
            found[match["anchor"]] = Target(page, plain(match["number"]), title)
    return found


def works_of(bibliography: Path) -> dict[str, Work]:
    """Every work of a BibTeX file, by its key."""
    from pybtex.database import parse_file
    from pybtex.plugin import find_plugin

    style = find_plugin("pybtex.style.formatting", "plain")()
    markdown, words = (find_plugin("pybtex.backends", name)() for name in ("markdown", "text"))
    data = parse_file(str(bibliography))
    works = {}
    for formatted in style.format_bibliography(data):
        entry = data.entries[formatted.key]
        people = entry.persons.get("author") or entry.persons.get("editor") or []
        last = [
            " ".join(part.render(words) for part in [*p.rich_prelast_names, *p.rich_last_names])
            for p in people
        ]
        names = f"{last[0]} et al." if len(last) > 2 else " and ".join(last)
        link = entry.fields.get("url")
        if not link and "doi" in entry.fields:
            link = f"https://doi.org/{entry.fields['doi']}"
        text = " ".join(formatted.text.render(markdown).split())
        text = re.sub(r"\\([-.()])", r"\1", text)  # escapes that Markdown does not need
        year = entry.fields.get("year", "")
        works[formatted.key] = Work(names or entry.fields.get("title", ""), year, link, text)
    return works
