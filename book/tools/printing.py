"""The whole book on one page, for printing: `print.html`, and `book.pdf` where a Chromium is found.

Made from the built pages, not by another Sphinx builder (singlehtml does not know hidden cells, and
LaTeX needs 400 MB of packages), so numbers, figures and formulas are those of the site. What a
click opens on the site needs another place on paper: solutions stand at the end of their page of
exercises, and code that a page folds away is left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from browser import Browser, find_browser

SOLUTIONS = "solutions/index"  # the page above those of the chapters
STYLE = """
@page { size: A4; margin: 18mm 16mm 20mm; }
html { font-size: 9pt; }
body { max-width: 56rem; margin: auto; padding: 0; }
article.page + article.page { break-before: page; }
article.page { min-height: 0; line-height: 1.45; }
h1, h2, h3, h4, dt, .admonition-title { break-after: avoid; break-inside: avoid; }
h1 { font-size: 1.9rem; }
h2 { font-size: 1.5rem; }
h3 { font-size: 1.2rem; }
p, li { orphans: 2; widows: 2; }
figure, img, tr, .exercise, div.math { break-inside: avoid; }
aside.margin { float: none; width: auto; margin: 1em 0 1em 2em; }
figure img { max-height: 22cm; object-fit: contain; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 7.5pt; }
.ekd-slider label, details.hide > summary { display: none !important; }
.solution.admonition { break-inside: auto; border: 0; box-shadow: none; padding-bottom: 0; }
table { font-size: 8pt; overflow-wrap: anywhere; }
"""
NOTE = (
    '<p class="print-note"><em>On paper, solutions stand after the chapters, and code that a page '
    "folds away is left out; the notebooks have it. What can be played with is shown in one "
    "position.</em></p>"
)
FOLDED = re.compile(r"<details[^>]*>.*?</details>", re.DOTALL)
SOLUTION = '<div class="solution '


def pages_of(toc: Path) -> list[str]:
    """The pages of the book in reading order, such as "chapters/02_measuring"."""
    import yaml

    given = yaml.safe_load(toc.read_text(encoding="utf-8"))
    listed = [one for part in given["parts"] for one in part["chapters"]]
    return [given["root"], *(page for one in listed for page in with_solutions(one))]


def with_solutions(entry: dict[str, Any]) -> list[str]:
    """A page of the table of contents; below the one of solutions stands one for each chapter."""
    below = entry.get("sections", []) if entry["file"] == SOLUTIONS else []
    return [entry["file"], *(one["file"] for one in below)]


def unfolded(body: str) -> str:
    """A page with what is folded for a second reading in view (book/_ext/second_reading.py)."""
    opened = re.sub(r'<details class="second-reading"><summary>.*?</summary>', "<div>", body)
    return opened.replace("</details><!-- of the second reading -->", "</div>")


def one_page(site: Path, toc: Path) -> Path:
    """Write site/print.html and return its path."""
    pages = pages_of(toc)
    bodies = [article(site, page, pages) for page in pages]
    bodies[0] = bodies[0].replace("</h1>", f"</h1>{NOTE}", 1)
    first = (site / f"{pages[0]}.html").read_text(encoding="utf-8")
    head = re.sub(r"<script.*?</script>", "", first[: first.index("</head>")], flags=re.DOTALL)
    head = re.sub(r'<link rel="canonical"[^>]*>', '<meta name="robots" content="noindex">', head)
    head = re.sub(r"<html[^>]*>", '<html lang="en" data-theme="light" data-mode="light">', head)
    head += f"{formulas(site, pages)}<style>{STYLE}</style></head>"
    text = "\n".join([head, "<body>", *bodies, "</body></html>\n"])
    path = site / "print.html"
    path.write_text(text, encoding="utf-8")
    return path


def formulas(site: Path, pages: list[str]) -> str:
    """The scripts that set formulas, from the first page that has any."""
    for page in pages:
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        scripts = re.findall(r"<script[^>]*>[^<]*</script>", text)
        found = [script for script in scripts if "mathjax" in script.lower()]
        if any("src=" in script for script in found):
            return "".join(re.sub(r'src="(\.\./)*', 'src="', script) for script in found)
    return ""


def article(site: Path, page: str, pages: list[str]) -> str:
    """One page's text, with ids that are its own among all pages and links to match."""
    text = (site / f"{page}.html").read_text(encoding="utf-8")
    found = re.search(r'<article class="bd-article">(.*?)</article>', text, re.DOTALL)
    if found is None:
        raise ValueError(f"{page}: no article in the page; has the theme changed?")
    folder = Path(page).parent
    here = name_of(page)

    def link(match: re.Match[str]) -> str:
        attribute, path, anchor = match["attribute"], match["path"], match["anchor"]
        if re.match(r"\w+:", path):
            return match.group()
        target = (site / folder / unquote(path)).resolve().relative_to(site.resolve())
        other = target.with_suffix("").as_posix() if path else page
        if other in pages:
            return f'{attribute}="#{name_of(other)}{"--" + anchor if anchor else ""}"'
        return f'{attribute}="{target.as_posix()}{"#" + anchor if anchor else ""}"'

    body = re.sub(r'(\s)id="([^"]+)"', rf'\1id="{here}--\2"', unfolded(found[1]))
    body = re.sub(
        r'(?<=\s)(?P<attribute>href|src)="(?P<path>[^"#]*)#?(?P<anchor>[^"]*)"', link, body
    )
    body = re.sub(r'<a class="headerlink".*?</a>', "", body)
    body = FOLDED.sub(lambda fold: fold[0] if "cell_output" in fold[0] else "", body)
    body, solutions = take_solutions(body.replace("<details", "<details open"))
    if solutions:
        title = f'<h2 id="{here}--solutions">Solutions</h2>'
        apart = ["<section class='tex2jax_ignore mathjax_ignore'>", title, *solutions, "</section>"]
        body += "\n".join(apart)
    return f'<article class="page bd-article" id="{here}">{body}</article>'


def take_solutions(body: str) -> tuple[str, list[str]]:
    """A page's text without its solutions, and the solutions."""
    kept, solutions, at = [], [], 0
    while (start := body.find(SOLUTION, at)) >= 0:
        kept.append(body[at:start])
        depth, at = 0, start
        for tag in re.compile(r"<(/?)div\b").finditer(body, start):
            depth += -1 if tag[1] else 1
            if not depth:
                at = body.index(">", tag.end()) + 1
                break
        else:
            raise ValueError(f"a solution does not end: {body[start : start + 200]}")
        solutions.append(body[start:at])
    return "".join([*kept, body[at:]]), solutions


def name_of(page: str) -> str:
    """A page's path as the id of its part."""
    return page.replace("/", "-")


def write(site: Path, toc: Path) -> list[Path]:
    """Write the page, and the PDF if there is a browser to print it with; what was written."""
    page = one_page(site, toc)
    program = find_browser()
    if program is None:
        return [page]
    pdf = site / "book.pdf"
    with Browser(program, timeout=300) as browser:
        browser.open(page.resolve().as_uri())
        browser.pdf(pdf)
    return [page, pdf]
