"""Look at every page of the built book: pictures, and a list of what does not look right.

    python book/tools/look.py [--site _build/html] [--out _build/look] [PAGE ...]

Opens each page in Chromium at two widths in light and in dark colours, saves a picture of each
(`OUT/PAGE-WIDTH-THEME.png`, high pages in parts) and prints what it finds: content wider than the
window, formulas, code and tables wider than their column, markup that was not understood, errors,
requests to the outside.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from browser import Browser, find_browser
from weigh import pages_of

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = (1280, 400)
THEMES = ("light", "dark")
# What sticks out of the window, and what has to scroll inside its column to be read.
FINDINGS = r"""(() => {
  const found = [], page = document.documentElement;
  const name = e => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '')
    + (e.classList.length ? '.' + [...e.classList].join('.') : '');
  const words = e => JSON.stringify(e.textContent.trim().replace(/\s+/g, ' ').slice(0, 50));
  const scrolls = e => ['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX);
  const article = document.querySelector('article') ?? document.body;
  if (page.scrollWidth > page.clientWidth)
    found.push(`page is ${page.scrollWidth} wide in a window of ${page.clientWidth}`);
  const out = [];
  for (const e of article.querySelectorAll('*')) {
    if (e.getBoundingClientRect().right <= page.clientWidth + 1) continue;
    let up = e; while (up !== article && !scrolls(up)) up = up.parentElement;
    if (up === article && (e.children.length === 0 || e.matches('table, img, svg, pre')))
      out.push(`${name(e)} ${words(e)}`);
  }
  if (out.length) found.push(`${out.length} stick out, first: ${out[0]}`);
  for (const e of article.querySelectorAll('mjx-container[display=true], pre'))
    if (e.scrollWidth > e.clientWidth + 1 && e.checkVisibility()
        && (page.clientWidth > 800 || !e.matches('pre')))  // code may scroll on a phone
      found.push(`scrolls in its column (${e.scrollWidth} in ${e.clientWidth}): `
        + `${e.matches('pre') ? 'code' : 'formula'} ${words(e)}`);
  for (const e of article.querySelectorAll('table'))
    if (page.clientWidth > 800 && e.checkVisibility()
        && e.getBoundingClientRect().width > e.parentElement.clientWidth + 1)
      found.push(`table of ${Math.round(e.getBoundingClientRect().width)} in a column of `
        + `${e.parentElement.clientWidth}: ${words(e)}`);
  for (const e of article.querySelectorAll('mjx-merror')) found.push(`formula fails: ${words(e)}`);
  for (const e of article.querySelectorAll('img'))
    if (e.checkVisibility() && e.complete && !e.naturalWidth)
      found.push(`no picture: ${e.src.slice(-60)}`);
  const copy = article.cloneNode(true);
  copy.querySelectorAll('pre, code, script, style, .sig, mjx-container').forEach(e => e.remove());
  const raw = /.{0,30}(\$\$|\\\(|\\\[|\\begin\{|:::|\{[a-z:]+\}`|\]\(http|\*\*|\^\[).{0,30}/g;
  for (const match of copy.textContent.matchAll(raw)) found.push(`raw markup: ${match[0]}`);
  return found;
})()"""


def look(browser: Browser, path: Path, width: int, theme: str, picture: Path) -> list[str]:
    """Open one page one way, take its picture, and list what was found."""
    browser.forget()
    browser.width(width)
    browser.open(path.as_uri())
    browser.run(f"localStorage.mode = localStorage.theme = '{theme}'")
    browser.open(path.as_uri())
    found: list[str] = browser.run(FINDINGS)
    found += [f"console: {error}" for error in dict.fromkeys(browser.errors)]
    outside = {one for one in browser.requests if not one.startswith(("file:", "data:", "blob:"))}
    found += [f"asks the outside: {one}" for one in sorted(outside)]
    browser.pictures(picture)
    return found


def main() -> int:
    """Look at the pages named, or at all but the listings of source code; 1 if any finding."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", help="such as chapters/02_measuring; else all")
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "look")
    options = parser.parse_args()
    program = find_browser()
    if program is None:
        sys.exit("no Chromium here: apt-get install chromium, or set CHROME")
    site = options.site.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    paths = [site / f"{page}.html" for page in options.pages] or pages_of(site)
    seen: dict[str, list[str]] = {}
    with Browser(program) as browser:
        for path in paths:
            page = path.relative_to(site).with_suffix("").as_posix()
            for width in WIDTHS:
                for theme in THEMES:
                    way = f"{width}-{theme}"
                    picture = options.out / f"{page.replace('/', '-')}-{way}.png"
                    for one in look(browser, path, width, theme, picture):
                        seen.setdefault(f"{page}: {one}", []).append(way)
    for finding, ways in seen.items():
        print(f"{finding}  [{', '.join(ways)}]")
    print(f"{len(paths)} pages, {len(seen)} findings; pictures in {options.out}")
    return int(bool(seen))


if __name__ == "__main__":
    sys.exit(main())
