"""The built site that the tests of pages look at."""

import functools
import os
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(os.environ.get("EKD_SITE") or ROOT / "_build" / "html").resolve()


def pages_of(pattern: str) -> list[Path]:
    """The site's pages of a pattern; without any, a test fails after a build, else is skipped."""
    found = sorted(path for path in SITE.glob(pattern) if "_static" not in path.parts)
    if not found:
        message = f"no {pattern} in {SITE}; build the book with: make book"
        if os.environ.get("EKD_SITE"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@functools.cache
def article(path: Path) -> Any:
    """The article of a page, without what stands around it on every page."""
    text = path.read_text(encoding="utf-8")
    end = "</article>"
    text = text[text.index("<article") : text.rindex(end) + len(end)]
    return BeautifulSoup(text, "html.parser").article
