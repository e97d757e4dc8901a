"""Weigh the pages of the built book: the bytes of every file that a browser loads for each.

    python book/tools/weigh.py [--site _build/html] [PAGE ...]

Opens each page in Chromium and adds up the sizes on disk of all files that it asks for, each
counted once: what a first visitor loads. A server compresses text to about a quarter. The last
column is the page's height in pixels on a laptop, 1280 pixels wide, with everything folded that the
page folds.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

from browser import Browser, find_browser

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 1280  # of a laptop's window
KINDS = {
    "page": {".html"},
    "scripts": {".js"},
    "styles": {".css"},
    "fonts": {".woff", ".woff2", ".ttf"},
    "pictures": {".png", ".jpg", ".jpeg", ".svg", ".gif", ".ico", ".webp"},
}


def pages_of(site: Path) -> list[Path]:
    """Every page but the listings of source code and the page for printing."""
    return [
        path
        for path in sorted(site.rglob("*.html"))
        if not {"_static", "_modules"} & set(path.relative_to(site).parts)
        and path.name != "print.html"
    ]


def loaded(requests: list[str]) -> set[Path]:
    """The files behind the addresses a page asked for; what stands inside the page counts there."""
    addresses = [urlsplit(one) for one in requests]
    return {Path(unquote(one.path)) for one in addresses if one.scheme == "file"}


def weigh(browser: Browser, path: Path) -> Counter[str]:
    """Bytes by kind of file that the browser loads for one page."""
    browser.forget()
    browser.open(path.resolve().as_uri())
    weight: Counter[str] = Counter()
    for file in loaded(browser.requests):
        kind = next((kind for kind, ends in KINDS.items() if file.suffix in ends), "other")
        weight[kind] += file.stat().st_size
    return weight


def height(browser: Browser) -> int:
    """Pixels from the top to the bottom of the page that is open."""
    return int(browser.run("document.documentElement.scrollHeight"))


def main() -> int:
    """Print a line for each page, the heaviest last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", help="such as chapters/02_measuring; else all")
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    options = parser.parse_args()
    program = find_browser()
    if program is None:
        sys.exit("no Chromium here: apt-get install chromium, or set CHROME")
    site = options.site.resolve()
    paths = [site / f"{page}.html" for page in options.pages] or pages_of(site)
    columns = ["all", *KINDS, "other"]
    print(f"{'KB':32}" + "".join(f"{column:>10}" for column in columns) + f"{'high':>10}")
    weights: dict[str, Counter[str]] = {}
    heights: dict[str, int] = {}
    with Browser(program) as browser:
        browser.width(WIDTH)
        for path in paths:
            page = path.relative_to(site).with_suffix("").as_posix()
            weights[page] = weigh(browser, path)
            heights[page] = height(browser)
    for page, weight in sorted(weights.items(), key=lambda item: item[1].total()):
        sizes = [weight.total(), *(weight[column] for column in columns[1:])]
        print(
            f"{page:32}" + "".join(f"{size / 1000:10.0f}" for size in sizes) + f"{heights[page]:10}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
