"""Write book/api/coursework.md, the checks and the mistakes they know, from `EXERCISES`.

python book/tools/coursework_table.py          write it
python book/tools/coursework_table.py --check  exit 1 if it is not up to date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ekd_lite.coursework import EXERCISES  # noqa: E402
from ekd_lite.coursework.exercise import Exercise  # noqa: E402

PAGE = ROOT / "book" / "api" / "coursework.md"
HEADER = """# Checks for exercises

% Made by book/tools/coursework_table.py from ekd_lite.coursework.EXERCISES. Do not edit by hand.

Hand your own function to a check and it answers with what is wrong:

```python
from ekd_lite.coursework import check_arcface

check_arcface(my_arcface)
```

The feedback shows itself as text; it is true if everything is right, and its `score` is the share
of the parts that are, for partial credit. A check calls the function on a few small seeded inputs
and compares the results with the reference so loosely that an answer in float32 is right, too. It
looks for a known mistake that gives the same wrong numbers. It also notices wrong shapes, NaN,
arguments that are changed in place, exceptions (shown with their line), a missing gradient, a
constant factor, half precision, and answers that depend on chance. Some cases try what is easily
forgotten, such as a batch without genuine pairs. A check never raises.

"""


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def known(exercise: Exercise) -> list[str]:
    """Names of all mistakes that a check tells by name."""
    names = [*exercise.mistakes]
    names += ["no gradient"] if exercise.gradient else []
    return names + (["missing detach"] if exercise.detached else [])


def page() -> str:
    """The whole page."""
    rows = [[f"`check_{e.name}`", f"`{e.interface}`", "; ".join(known(e))] for e in EXERCISES]
    count = sum(len(known(exercise)) for exercise in EXERCISES)
    return (
        f"{HEADER}## The {len(EXERCISES)} checks and the {count} mistakes they know by name\n\n"
        + table(["check", "calls your function as", "mistakes it explains"], rows)
        + "\n## Reference\n\n```{eval-rst}\n.. automodule:: ekd_lite.coursework\n```\n"
    )


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print(f"{PAGE}: run python book/tools/coursework_table.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
