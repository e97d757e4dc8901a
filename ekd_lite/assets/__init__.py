"""Files that come with the package.

`DEMO_TEACHER` is the teacher of the default experiment, trained on procedural faces by

    ekd-lite train --recipe demo-teacher --device cpu --out runs/demo-teacher
    python scripts/ship_teacher.py runs/demo-teacher

and kept in half precision: its TPR on unseen identities is that of the original to a hundredth of a
point. It knows its people by name, the 1,000 that `SyntheticFaces(1000, 24)` draws, so that methods
on its prototypes refuse others. It holds no person's data.

`results` finds the tables of recorded experiments, those of data/results, which the chapters read.
"""

from pathlib import Path

_HERE = Path(__file__).parent
DEMO_TEACHER = _HERE / "demo_teacher.safetensors"


def results(name: str) -> Path:
    """The path of a table of recorded results, such as "demo.csv".

    The wheel brings the tables inside the package; in a checkout they are the files of
    data/results. What made each of them (command, commit, seeds, machine, date) is in its
    README.md.

    Args:
        name: The file's name.

    Raises:
        FileNotFoundError: There is no such table; the message lists those that exist.

    Example:
        >>> results("demo.csv").name
        'demo.csv'
    """
    inside = _HERE / "results"
    folder = inside if inside.is_dir() else _HERE.parents[1] / "data" / "results"
    path = folder / name
    if Path(name).name != name or not path.is_file():
        known = ", ".join(sorted(file.name for file in folder.glob("*.csv")))
        raise FileNotFoundError(f"no table {name!r} in {folder}; there are: {known}")
    return path
