"""The book's table of methods says what NOTES says, and every method has a note."""

from pathlib import Path

from ekd_lite.distill import DISTILLERS, NOTES

ROOT = Path(__file__).parents[2]


def test_the_table_in_the_book_is_up_to_date(run_tool):
    assert run_tool("methods_table.py", "--check") == 0


def test_every_method_has_a_line_in_both_tables():
    page = (ROOT / "book" / "api" / "methods.md").read_text(encoding="utf-8")
    assert list(NOTES) == list(DISTILLERS)
    for name, note in NOTES.items():
        assert page.count(f"| `{name}` |") == 2
        assert note.paper in page
        assert note.weight_source in page
