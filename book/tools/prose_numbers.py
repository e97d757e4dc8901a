"""Tie every number of the prose that stands before "%" or "points" to where it comes from.

    python book/tools/prose_numbers.py              how many tie, chapter by chapter
    python book/tools/prose_numbers.py 12 13        the ones that do not, with their sentences
    python book/tools/prose_numbers.py --csv 12     as lines for tests/book/quoted_numbers.csv

A number ties if it is a rounded form, or that of the hundredfold, of a number that a cell of the
chapter printed (near: within a dozen cells), that is in a table of data/results which the chapter
names, or that its code sets. All others have to be in tests/book/quoted_numbers.csv, with their
source. A small whole number ties easily by chance: the tool finds what nobody can have computed,
it does not prove the rest.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rules import ROOT, notebooks

QUOTED = ROOT / "tests" / "book" / "quoted_numbers.csv"
RESULTS = ROOT / "data" / "results"
WORDS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)
BEFORE, AFTER = 12, 6  # cells around a sentence whose outputs it is most likely about
NUMBER = rf"(?:[+−-]?\d[\d,]*(?:\.\d+)?|\b(?:{'|'.join(WORDS)})\b)"
# "3.5 to 4 %", "[+0.2, +1.1] points", "two more points"; at most one word in between.
PHRASE = re.compile(
    rf"(?P<numbers>{NUMBER}(?:\s*(?:to|and|or|/|,|;|±|–|\.\.)\s*{NUMBER})*)\]?"
    r"(?:[\s~$]|\\[ ,;])*(?:(?:more|percentage|whole|full|TPR|good)\s+)?"
    r"(?:\\?%|per\s?cent\b|points?\b)",
    re.IGNORECASE,
)
PLAIN = re.compile(r"[+−-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
CODE = re.compile(r"^(`{3,}|:{3,}\{(?:code|raw|figure)).*?^(`{3,}|:{3,})\s*$", re.M | re.S)
INLINE = re.compile(r"`[^`\n]+`")


@dataclass(frozen=True)
class Found:
    """A number of the prose.

    Attributes:
        chapter: stem of its notebook.
        text: as it is written.
        context: the words around it.
    """

    chapter: str
    text: str
    context: str

    @property
    def value(self) -> float:
        """Its size; the sign is left to the sentence."""
        word = self.text.lower()
        if word in WORDS:
            return float(WORDS.index(word) + 1)
        return float(word.lstrip("+−-").replace(",", ""))

    @property
    def step(self) -> float:
        """One unit of its last digit."""
        _, _, decimals = self.text.partition(".")
        return float(10.0 ** -len(decimals))


def in_prose(chapter: str, markdown: str) -> Iterator[Found]:
    """All numbers before "%" or "points", whatever is code left out."""
    text = INLINE.sub(lambda m: " " * len(m[0]), CODE.sub(" ", markdown))
    for phrase in PHRASE.finditer(text):
        around = text[max(0, phrase.start() - 60) : phrase.end() + 20]
        for number in re.findall(NUMBER, phrase["numbers"], re.IGNORECASE):
            yield Found(chapter, number, " ".join(around.split()))


def numbers_of(text: str) -> set[float]:
    """Sizes of all numbers of a text."""
    found = set()
    for one in PLAIN.findall(text):
        try:
            found.add(abs(float(one.replace(",", "").replace("−", "-"))))
        except ValueError:  # "1e" or a lone sign
            continue
    return found


def printed(cells: list[Any]) -> list[set[float]]:
    """The numbers in the outputs of each cell; of text none."""
    return [
        numbers_of(
            "\n".join(
                output.get("text", "") + "\n" + as_text(output.get("data", {}))
                for output in cell.get("outputs", [])
            )
        )
        for cell in cells
    ]


def recorded(cells: list[Any]) -> set[float]:
    """The numbers of the tables that a chapter names."""
    names = set(re.findall(r"[\w.]+\.csv", "\n".join(cell.source for cell in cells)))
    tables = [table for table in RESULTS.glob("*.csv") if table.name in names]
    return numbers_of("\n".join(table.read_text(encoding="utf-8") for table in tables))


def as_text(data: dict[str, Any]) -> str:
    """The text of an output; tables of pandas have all columns in their HTML alone."""
    html = re.sub(r"<style.*?</style>|<[^>]+>", " ", data.get("text/html", ""), flags=re.S)
    return f"{data.get('text/plain', '')}\n{html}"


def ties(found: Found, known: Iterable[float]) -> bool:
    """Whether a known number, or a hundred times it, rounds to the one found."""
    half = 0.5 * found.step * (1 + 1e-9)
    return any(
        abs(scale * number - found.value) <= half for number in known for scale in (1.0, 100.0)
    )


def quoted() -> dict[tuple[str, str], str]:
    """Sources of the quoted numbers, by chapter and number."""
    with QUOTED.open(encoding="utf-8", newline="") as file:
        return {(row["chapter"], row["number"]): row["source"] for row in csv.DictReader(file)}


def examine(path: Path) -> tuple[dict[str, int], list[Found]]:
    """How many numbers of a chapter tie to what, and those that tie to nothing."""
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    outputs, tables, listed = printed(cells), recorded(cells), quoted()
    code = numbers_of("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    counts = dict.fromkeys(("near", "printed", "recorded", "set", "quoted"), 0)
    loose = []
    for index, cell in enumerate(cells):
        if cell.cell_type != "markdown":
            continue
        near = outputs[max(0, index - BEFORE) : index + AFTER]
        known = {
            "near": set().union(*near),
            "printed": set().union(*outputs),
            "recorded": tables,
            "set": code,
        }
        for found in in_prose(path.stem, cell.source):
            kind = next((kind for kind, numbers in known.items() if ties(found, numbers)), None)
            if (found.chapter, found.text) in listed:
                kind = kind or "quoted"
            if kind is None:
                loose.append(found)
            else:
                counts[kind] += 1
    return counts, loose


def main() -> int:
    """Read the command line and print the table or the numbers that do not tie."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="*", help="show what does not tie in these, such as 12")
    parser.add_argument(
        "--csv", action="store_true", help="as lines for tests/book/quoted_numbers.csv"
    )
    options = parser.parse_args()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for path in notebooks():
        counts, loose = examine(path)
        if not options.chapters:
            tied = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            print(f"{path.stem:16} {tied}, {len(loose)} loose")
        elif path.stem.startswith(tuple(options.chapters)):
            for found in loose:
                if options.csv:
                    writer.writerow([found.chapter, found.text, found.context, ""])
                else:
                    print(f"{found.text:>8}  {found.context}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
