"""scripts/test.py: every step runs, every failure shows, and the exit code is right."""

import sys
from pathlib import Path

import pytest

from tests.programs import load

ROOT = Path(__file__).parents[1]
steps = load(ROOT / "scripts" / "test.py")


def program(text, code=0):
    source = (
        f"import sys; print({text!r}); print('and an error', file=sys.stderr); sys.exit({code})"
    )
    return [sys.executable, "-c", source]


@pytest.mark.starts_process
@pytest.mark.parametrize("bad", ["", "one", "two", "three", "two three"])
def test_a_failed_step_fails_the_whole_and_the_others_still_run(monkeypatch, capfd, bad):
    monkeypatch.setattr(steps, "ROWS", {"": [["one"], ["two", "three"]]})
    names = ("one", "two", "three")
    made = {name: program(f"this is {name}", 3 if name in bad.split() else 0) for name in names}
    monkeypatch.setattr(steps, "STEPS", made)
    assert steps.main("") == bool(bad)
    output, _ = capfd.readouterr()
    for name in names:
        assert f"\nthis is {name}\n" in output
        assert f"== {name}: {'FAILED, exit code 3' if name in bad.split() else 'ok'}, " in output
    assert output.count("\nand an error\n") == 3
    last = output.splitlines()[-1]
    if bad:
        assert set(last.removeprefix("failed: ").split(", ")) == set(bad.split())
    else:
        assert last.startswith("== all: ")


def test_every_row_is_of_steps_and_the_last_selection_runs_them_all():
    for rows in steps.ROWS.values():
        assert all(name in steps.STEPS for row in rows for name in row)
    everything = {name for row in steps.ROWS[""] for name in row}
    assert everything == steps.STEPS.keys() - {"quick tests"}


def test_no_chapter_is_left_out_or_run_twice():
    on_disk = [f"book/chapters/{path.name}" for path in (ROOT / "book/chapters").glob("*.ipynb")]
    assert sorted(steps.chapters()) == sorted(on_disk)
    numbers = [Path(path).name[:2] for path in steps.chapters()]
    assert numbers[: len(steps.LONGEST)] == list(steps.LONGEST)
