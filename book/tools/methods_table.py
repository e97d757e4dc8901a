"""Write book/api/methods.md, the table of methods, from `ekd_lite.distill.NOTES`.

python book/tools/methods_table.py          write it
python book/tools/methods_table.py --check  exit 1 if it is not up to date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ekd_lite.distill import DISTILLERS, NOTES, Distiller  # noqa: E402

PAGE = ROOT / "book" / "api" / "methods.md"
HEADER = """# Table of methods

% Made by book/tools/methods_table.py from ekd_lite.distill.NOTES. Do not edit by hand.

Every name below works in `ekd-lite train --method NAME`, and names combine with weights:
`--method ekd+fitnet`, `--method ekd:2+fitnet:0.5`. The weight stands beside the identity loss, the
cross-entropy of the margin head, unless the table says that the method replaces it. N is the batch,
D the width of the embeddings, C the number of identities.

"""


def needs(method: Distiller) -> str:
    """What the loss takes besides the student's side, in words."""
    parts: list[str] = [method.needs]
    parts += ["labels"] if method.needs_labels else []
    parts += ["equal widths"] if method.needs_same_width else []
    same_people = method.by_person or method.needs == "logits"
    parts += ["the teacher's prototypes of these people"] if same_people else []
    parts += ["the teacher's prototypes, of any people"] if method.needs_prototypes else []
    parts += ["the gathered batch"] if method.compares_images else []
    return ", ".join(parts)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def page() -> str:
    """The whole page."""
    first = [
        [f"`{name}`", note.paper, note.transfers, needs(DISTILLERS[name]), f"`{note.cost}`"]
        for name, note in NOTES.items()
    ]
    second = [
        [
            f"`{name}`",
            f"{m.weight:g}" + (" (replaces the identity loss)" if m.replaces_identity_loss else ""),
            NOTES[name].weight_source,
            NOTES[name].differs,
        ]
        for name, m in DISTILLERS.items()
    ]
    return (
        HEADER
        + "## What each one transfers and costs\n\n"
        + table(["name", "paper", "transfers", "needs", "operations a batch"], first)
        + "\n## Default weights, and where we differ\n\n"
        + table(["name", "weight", "where the weight comes from", "where we differ"], second)
    )


def main() -> int:
    """Write the page, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    if check and (not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page()):
        print(f"{PAGE} is not up to date: run python book/tools/methods_table.py", file=sys.stderr)
        return 1
    if not check:
        PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
