"""Slides of every chapter, made from its built page into SITE/slides/NAME.html.

A deck has the chapter's goals; of each section the heading and the first sentences, its numbered
equations with the sentence before each, its small tables, and every figure with caption and alt
text on a slide of its own; then the exercises, "What we learned" and the questionnaire. The pages
need no net: arrow keys, Space, Home and End move, and printing gives a slide a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from string import Template

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString
from printing import formulas

TEMPLATE = Path(__file__).with_name("slides.html")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z“(])")
LINES = 15.0  # of text that a slide holds, see `height`
LEAD = 40  # words of the first paragraph that a section's slide begins with
MOST_ROWS, MOST_COLUMNS = 9, 6  # of a table that is readable from the last row of seats
SKIPPED = ".exercise, .solution, .cell_input, details, .dropdown, .margin, .sidebar"
LEFT_OUT = {"further-reading"}
ENDS = {"exercises", "what-we-learned", "questionnaire", "questions-to-close"}


def deck(site: Path, name: str) -> str:
    """The page of slides of a chapter such as "10_ekd"."""
    text = (site / "chapters" / f"{name}.html").read_text(encoding="utf-8")
    article = BeautifulSoup(text, "html.parser").find("article")
    chapter = article.section if isinstance(article, Tag) else None
    if chapter is None or chapter.h1 is None:
        raise ValueError(f"{name}: no article with a heading; has the theme changed?")
    page = f"../chapters/{name}.html"
    settle(chapter, page)
    title = words_of(chapter.h1)
    first = next(p for p in chapter.find_all("p", recursive=False))
    slides = [f"<h1>{title}</h1>{paragraph(sentences(first), LEAD)}"]
    slides += pack("You will be able to", listed(chapter.select_one(".admonition ul")))
    opening = chapter.find_all(lambda one: one.name != "section", recursive=False)
    slides += body(title, opening)
    for section in chapter.find_all("section", recursive=False):
        slides += part(section, page)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        formulas=formulas(site, [f"chapters/{name}"]).replace('src="_static', 'src="../_static'),
        slides="\n".join(f"<section>{slide}</section>" for slide in slides),
        chapter=page,
    )


def settle(chapter: Tag, page: str) -> None:
    """Drop what only a page needs, and let links lead from the slides back to the chapters."""
    for mark in chapter.select("a.headerlink"):
        mark.decompose()
    for link in chapter.find_all("a", href=True):
        address = str(link["href"])
        if address.startswith("#"):
            link["href"] = f"{page}{address}"
        elif "/" not in address.partition("#")[0]:
            link["href"] = f"../chapters/{address}"


def part(section: Tag, page: str) -> list[str]:
    """The slides of one section of a chapter."""
    heading = section.find(["h2", "h3"])
    kind, title = section["id"], words_of(heading)
    if kind in LEFT_OUT:
        return []
    if kind == "exercises":
        return pack(title, exercises(section, page))
    if kind in ENDS:
        found = section.find(["ul", "ol"], recursive=False)
        return pack(title, listed(found), "ol" if found and found.name == "ol" else "ul")
    return body(title, section.find_all(True, recursive=False), lead=True)


def body(title: str, blocks: Iterable[Tag], *, lead: bool = False) -> list[str]:
    """Text and equations share slides, a figure has its own; subsections follow."""
    slides: list[str] = []
    texts: list[str] = []
    for block in flat(blocks):
        if block.name == "section":
            slides += pack(title, texts, "")
            texts = []
            under = words_of(block.find(["h3", "h4"]))
            head = f"{under}<small>{title}</small>"
            slides += body(head, block.find_all(True, recursive=False), lead=True)
        elif block.name in {"figure", "table"}:
            slides += pack(title, texts, "")
            texts = []
            slides.append(f"<h2>{title}</h2>{block}")
        elif block.name == "p":
            if lead and not texts:
                texts.append(paragraph(sentences(block), LEAD))
            lead = False
        else:
            told = leading(block)
            repeated = texts and told in texts[-1]
            texts.append(f"{'' if repeated else f'<p>{told}</p>'}{block}")
    return slides + pack(title, texts, "")


def flat(blocks: Iterable[Tag]) -> Iterator[Tag]:
    """What slides show, in the order of the page."""
    for block in blocks:
        classes = block.get_attribute_list("class")
        if block.name in {"figure", "section", "p"}:
            yield block
        elif "math" in classes:
            if block.select_one(".eqno"):
                yield block
        elif block.name == "table":
            rows = block.find_all("tr")
            if len(rows) <= MOST_ROWS and len(rows[0].find_all(["th", "td"])) <= MOST_COLUMNS:
                yield block
        elif not block.css.match(SKIPPED) and "admonition" not in classes:
            yield from (
                one for one in flat(block.find_all(True, recursive=False)) if one.name != "p"
            )


def leading(equation: Tag) -> str:
    """The sentence that leads to an equation."""
    before = equation.find_previous_sibling()
    return sentences(before)[-1] if isinstance(before, Tag) and before.name == "p" else ""


def sentences(text: Tag) -> list[str]:
    """A paragraph's sentences as HTML; nothing inside an element ends one."""
    found = [""]
    for child in text.children:
        if isinstance(child, NavigableString):
            first, *rest = SENTENCE.split(escape(str(child), quote=False))
            found[-1] += first
            found += rest
        else:
            found[-1] += str(child)
    return [one.strip() for one in found if one.strip()]


def paragraph(told: list[str], most: int) -> str:
    """The first sentences, up to so many words; more only after a very short one."""
    kept: list[str] = []
    for one in told:
        so_far = len(words_in(" ".join(kept)))
        if so_far > 8 and so_far + len(words_in(one)) > most:
            break
        kept.append(one)
    return f"<p>{' '.join(kept)}</p>" if kept else ""


def listed(found: Tag | None) -> list[str]:
    """The items of a list."""
    return (
        [item.decode_contents() for item in found.find_all("li", recursive=False)] if found else []
    )


def exercises(section: Tag, page: str) -> list[str]:
    """The name of every exercise, with its kind, as a link to it."""
    found = []
    for one in section.select(".exercise"):
        name = words_of(one.select_one(".admonition-title"))
        kind = one.select_one("section em")
        mark = f"<em>{words_of(kind)}</em> " if kind and words_of(kind).endswith(".") else ""
        found.append(f'{mark}<a href="{page}#{one["id"]}">{name}</a>')
    return found


def pack(title: str, blocks: list[str], listing: str = "ul") -> list[str]:
    """Blocks under their heading, on as many slides as they need."""
    slides: list[str] = []
    start = 0
    while start < len(blocks):
        end, used = start, 0.0
        while end < len(blocks) and (end == start or used + height(blocks[end]) <= LINES):
            used += height(blocks[end])
            end += 1
        inside = "".join(blocks[start:end])
        if listing:
            items = "".join(f"<li>{one}</li>" for one in blocks[start:end])
            number = f' start="{start + 1}"' if listing == "ol" else ""
            inside = f"<{listing}{number}>{items}</{listing}>"
        slides.append(f"<h2>{title}</h2>{inside}")
        start = end
    return slides


def height(block: str) -> float:
    """Lines of text that a block takes, roughly."""
    return len(words_in(block)) / 14 + 0.6 + (3.0 if "eqno" in block else 0.0)


def words_in(text: str) -> list[str]:
    """The words of a piece of HTML."""
    return re.sub(r"<[^>]*>", " ", text).split()


def words_of(element: Tag | None) -> str:
    """An element's text on one line."""
    return " ".join(element.get_text().split()) if element else ""


def write(site: Path) -> list[Path]:
    """Write the slides of all chapters of a built site; the files."""
    folder = site / "slides"
    folder.mkdir(exist_ok=True)
    written = []
    for page in sorted((site / "chapters").glob("*.html")):
        path = folder / page.name
        path.write_text(deck(site, page.stem), encoding="utf-8")
        written.append(path)
    return written
