"""What the sources of the book must keep to: `book.py check` prints every breach of it.

Notebooks and text twins agree, the repository has one address, cells are short and print the
same on every run, every figure has a caption and words for those who cannot see it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
CHAPTERS = BOOK / "chapters"
TWINS = BOOK / "_md"
MAX_LINES = 30
MAX_BYTES = 1_000_000
MAX_WIDTH = 88  # what a page shows without scrolling
LONG_DECIMAL = re.compile(r"(?!0\.0+1\b)\b\d+\.\d{4,}")  # 0.0001 is a level, not a result
EXERCISE = re.compile(r"^:::+\{exercise(?:-start)?\}.*\n:label: (\S+)", re.MULTILINE)
SOLUTION = re.compile(r"^:::+\{solution(?:-start)?\} (\S+)\n:class: dropdown", re.MULTILINE)
FORBIDDEN_CODE = {
    r";\s*$": "ends with ';' (nbval would print what the reader does not see)",
    r"\btqdm\b": "uses tqdm (a progress bar never prints the same twice)",
    r"^\s*%matplotlib": "uses %matplotlib",
    r"\btime\.(time|perf_counter)\(": "measures time (never prints the same twice)",
}
FORBIDDEN_TEXT = {
    r"^```\{": "uses a backtick directive; use a ::: fence",
    r"\[\^[^\]]+\]": "uses a footnote; use a {margin} fence",
    r"</?(div|span|img)\b": "uses raw HTML",
}


def notebooks() -> list[Path]:
    """All chapters, in order."""
    found = sorted(CHAPTERS.glob("*.ipynb"))
    if not found:
        sys.exit(f"no chapter in {CHAPTERS}")
    return found


def check() -> list[str]:
    """Everything that is wrong with the sources of the book, one line each."""
    problems = check_address()
    twins = {path.stem for path in TWINS.glob("*.md")}
    stems = {path.stem for path in notebooks()}
    problems += [f"{stem}: no text twin in book/_md" for stem in sorted(stems - twins)]
    listed = (BOOK / "_toc.yml").read_text(encoding="utf-8")
    problems += [
        f"{stem}: not in book/_toc.yml"
        for stem in sorted(stems)
        if f"chapters/{stem}" not in listed
    ]
    problems += [f"{stem}: no notebook in book/chapters" for stem in sorted(twins - stems)]
    for path in notebooks():
        if path.stem in twins:
            problems += check_pair(path)
        problems += check_rules(path)
    return problems


def check_address() -> list[str]:
    """The addresses of repository and site stand in _config.yml; nothing may name another.

    The README, which a reader sees on GitHub, is held to the same two.
    """
    import yaml

    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    url, site = config["repository"]["url"], config["html"]["baseurl"]
    owner = url.rsplit("/", 2)[1]
    repository = re.compile(r"https://github\.com/[\w.-]+/[\w.-]*\w")
    copy = re.compile(r"https://colab\.research\.google\.com/github/[\w.-]+/[\w.-]*\w")
    page = re.compile(r"https://[\w-]+\.github\.io/[\w.-]*/?")
    right = {
        repository: url,
        copy: url.replace("https://github.com", "https://colab.research.google.com/github"),
        page: site,
    }
    problems = []
    sources = [*BOOK.rglob("*.md"), *CHAPTERS.glob("*.ipynb")]
    for path in [*sources, ROOT / "pyproject.toml", ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8")
        for form, wanted in right.items():
            for found in set(form.findall(text)):
                if owner in found and found.removesuffix(".git") != wanted:
                    problems.append(
                        f"{os.path.relpath(path, ROOT)}: {found}, but _config.yml says {wanted}"
                    )
    return problems


def cells_of(path: Path) -> list[tuple[str, str, Any]]:
    """(type, source, metadata that both forms keep) of every cell."""
    import jupytext

    book = jupytext.read(path)
    return [
        (
            cell.cell_type,
            cell.source.rstrip(),
            {k: cell.metadata.get(k) for k in ("tags", "mystnb")},
        )
        for cell in book.cells
    ]


def check_pair(path: Path) -> list[str]:
    """Where a notebook and its text twin differ."""
    twin = TWINS / f"{path.stem}.md"
    ours, theirs = cells_of(path), cells_of(twin)
    for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            what = next(
                name
                for name, a, b in zip(("type", "source", "metadata"), one, other, strict=True)
                if a != b
            )
            return [
                f"{path.stem}: cell {index} differs from its text twin in {what}: "
                "run `make notebooks`"
            ]
    if len(ours) != len(theirs):
        return [f"{path.stem}: {len(ours)} cells, its text twin has {len(theirs)}"]
    return []


def check_rules(path: Path) -> list[str]:
    """The house rules: short cells, stable outputs, words for every figure."""
    import nbformat

    problems = []
    if path.stat().st_size > MAX_BYTES:
        problems.append(f"is larger than {MAX_BYTES:,} bytes")
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    unsolved = set(EXERCISE.findall(prose)) - set(SOLUTION.findall(prose))
    problems += [f"exercise {label} has no folded solution" for label in sorted(unsolved)]
    for index, cell in enumerate(cells):
        rules = FORBIDDEN_CODE if cell.cell_type == "code" else FORBIDDEN_TEXT
        text = cell.source
        if cell.cell_type == "markdown":  # what is quoted as code is no markup
            text = re.sub(
                r"^```(python)?$.*?^```$|(?<!`)`[^`\n]+`(?!`)", "", text, flags=re.M | re.S
            )
        found = [why for rule, why in rules.items() if re.search(rule, text, re.MULTILINE)]
        if cell.cell_type == "code":
            found += check_code_cell(cell)
        problems += [f"cell {index} {why}" for why in found]
    return [f"{path.stem}: {problem}" for problem in problems]


def check_code_cell(cell: Any) -> list[str]:
    """What is wrong with one code cell and its outputs."""
    found = []
    lines = cell.source.count("\n") + 1
    if lines > MAX_LINES:
        found.append(f"has {lines} lines, more than {MAX_LINES}")
    wide = max(map(len, cell.source.splitlines()), default=0)
    if wide > MAX_WIDTH:
        found.append(f"has a line of {wide} characters, more than {MAX_WIDTH}")
    if cell.execution_count is None:
        found.append("was not run")
    is_compared = "nbval-ignore-output" not in cell.metadata.get("tags", [])
    figures = 0
    for output in cell.outputs:
        data = output.get("data", {})
        figures += any(kind.startswith("image/") for kind in data)
        if output.output_type == "error" and "raises-exception" not in cell.metadata.get(
            "tags", []
        ):
            found.append(f"failed: {output.ename}: {output.evalue}")
        if output.get("name") == "stderr":
            found.append("writes to stderr, which nbval compares")
        if is_compared and LONG_DECIMAL.search(output.get("text", "") + data.get("text/plain", "")):
            found.append("prints more than three decimals")
    options = cell.metadata.get("mystnb", {})
    if figures > 1:
        found.append("shows more than one figure")
    if figures and not (options.get("figure", {}).get("name") and options["figure"].get("caption")):
        found.append("shows a figure without a name and a caption")
    if figures and not options.get("image", {}).get("alt"):
        found.append("shows a figure without words for those who cannot see it (image: alt)")
    return found
