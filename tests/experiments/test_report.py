"""What the table says of a difference is what the interval says."""

import math

import pytest
import torch

from ekd_lite.evaluate import BootstrapResult
from ekd_lite.experiments import level, markdown_table, mean_and_spread, over_seeds
from ekd_lite.experiments.report import comparisons
from ekd_lite.experiments.tables import difference_cell


@pytest.mark.parametrize(
    ("low", "high", "is_bold"), [(0.1, 2.0, True), (-2.0, -0.1, True), (-0.1, 2.0, False)]
)
def test_bold_means_that_the_interval_excludes_zero(low, high, is_bold):
    text = difference_cell((low + high) / 2, low, high)
    assert text.startswith("**") == is_bold
    assert f"[{low:+.1f}, {high:+.1f}]" in text
    assert difference_cell(math.nan, low, high) == "not measurable"
    assert difference_cell(1.0, math.nan, math.nan) == "+1.0 (no interval)"


def test_spread_is_shown_where_there_is_one():
    assert mean_and_spread([1.0, 3.0]) == "2.0 ± 1.4"
    assert mean_and_spread([2.5], decimals=2) == "2.50"
    assert mean_and_spread([1.0, math.nan]) == "not measurable"


def test_tables_are_aligned_as_plain_text():
    lines = markdown_table(["a", "method"], [["long name", "x"], ["±", "yy"]])
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| --------- | ------ |"
    assert lines[2] == "| long name | x      |"


def test_every_student_against_the_one_alone_and_combinations_against_their_parts():
    methods = ["teacher", "student alone", "ekd", "fitnet", "ekd+fitnet"]
    assert comparisons(dict.fromkeys(methods, ())) == [
        ("ekd", "student alone", "student alone"),
        ("fitnet", "student alone", "student alone"),
        ("ekd+fitnet", "student alone", "student alone"),
        ("ekd+fitnet", "ekd", "part of it"),
        ("ekd+fitnet", "fitnet", "part of it"),
    ]
    without = comparisons(dict.fromkeys(["teacher", "ekd:2", "ekd:2+kd"], ()))
    assert without == [("ekd:2+kd", "ekd:2", "part of it")]
    assert comparisons({"teacher": (), "kd": ()}) == []


def test_seeds_are_averaged_within_every_resample():
    """The spread that two seeds share stays; what cancels between them widens nothing."""
    shared = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    seeds = [
        BootstrapResult(
            (0.1,), shared.mean(0), shared[0], shared[-1], shared + sign * shared.flip(0)
        )
        for sign in (1, -1)
    ]
    mean = over_seeds(seeds)
    torch.testing.assert_close(mean.samples, shared)
    assert mean.low.item() == pytest.approx(0.025)
    assert mean.high.item() == pytest.approx(0.975)


def test_levels_are_written_as_people_write_them():
    assert [level(fpr) for fpr in (1e-2, 1e-5, 3e-4)] == ["1e-2", "1e-5", "3e-4"]
