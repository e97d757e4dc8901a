"""What the table says of a difference is what the interval says."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ekd_lite.data import SyntheticFaces
from ekd_lite.evaluate import BootstrapResult
from ekd_lite.experiments import Run, level, markdown_table, mean_and_spread, over_seeds, report
from ekd_lite.experiments.report import Method, comparisons
from ekd_lite.experiments.tables import FPRS, difference_cell
from ekd_lite.models import Profile
from tests.oracles.seeds import draws_over_seeds


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
    assert comparisons(methods) == [
        ("ekd", "student alone", "student alone"),
        ("fitnet", "student alone", "student alone"),
        ("ekd+fitnet", "student alone", "student alone"),
        ("ekd+fitnet", "ekd", "part of it"),
        ("ekd+fitnet", "fitnet", "part of it"),
    ]
    without = comparisons(["teacher", "ekd:2", "ekd:2+kd"])
    assert without == [("ekd:2+kd", "ekd:2", "part of it")]
    assert comparisons(["teacher", "kd"]) == []


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


@pytest.fixture(scope="module")
def results():
    """Test results of two seeds of three methods, and the people they were measured on."""
    test = SyntheticFaces(30, 4)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(30, 8, generator=generator)[test.labels]

    def net(noise):
        rows = centres + noise * torch.randn(120, 8, generator=generator)
        return report.measure(rows, test.labels, FPRS, 50)

    noises = {
        "student alone": (1.0, 1.1),
        "sp": (0.7, 0.6),
        "ekd": (0.4, 0.5),
        "ekd+sp": (0.4, 0.3),
    }
    return {name: [net(noise) for noise in pair] for name, pair in noises.items()}, test


def by_hand(results, place=0):
    """Mean over seeds in percent, its spread over them, the ends of its interval."""
    estimates = 100 * np.array([r.estimate[place] for r in results])
    draws = drawn(results, place)
    return [estimates.mean(), estimates.std(ddof=1), *np.percentile(draws, [2.5, 97.5])]


def drawn(results, place=0):
    estimates = [100 * float(r.estimate[place]) for r in results]
    return draws_over_seeds(estimates, [100 * r.samples[:, place].numpy() for r in results])


def difference_by_hand(first, second):
    ends = np.percentile(drawn(first) - drawn(second), [2.5, 97.5])
    return [by_hand(first)[0] - by_hand(second)[0], *ends]


def test_differences_say_interval_and_spread_over_seeds(results):
    seeds, _ = results
    row = report._difference("ekd", "student alone", "student alone", seeds)
    each = [
        100 * float(a.estimate[0] - b.estimate[0])
        for a, b in zip(seeds["ekd"], seeds["student alone"], strict=True)
    ]
    assert row["seed_std@1e-2"] == pytest.approx(np.std(each, ddof=1), abs=0.01)
    found = [row[f"difference@1e-2{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx(
        difference_by_hand(seeds["ekd"], seeds["student alone"]), abs=0.01
    )
    assert row["difference@1e-2_low"] < row["difference@1e-2"] < row["difference@1e-2_high"]
    one = report._difference("ekd", "sp", "", {name: runs[:1] for name, runs in seeds.items()})
    assert one["difference@1e-2_high"] - one["difference@1e-2_low"] < found[2] - found[1]  # people


def test_all_nets_meet_the_same_draws_of_people(results):
    _, test = results
    rows = torch.randn(120, 8, generator=torch.Generator().manual_seed(1))
    one, other = (report.measure(by * rows, test.labels, FPRS, 7) for by in (1, 4))
    assert one.samples.shape == (7, 4)
    assert torch.equal(one.samples[:, 0], other.samples[:, 0])


def test_the_page_says_what_its_results_are(results):
    seeds, test = results
    info = {"backbone": "tiny", "train_seconds": 1.5}
    net = Run("", Path(), None, info, [], Profile(1234, 5678, 0.5))
    methods = {"teacher": Method([net], seeds["ekd+sp"][:1])}
    methods |= {name: Method([net, net], found) for name, found in seeds.items()}
    pairs = [("ekd", "student alone", "student alone"), ("sp", "ekd", "part of it")]
    text = "\n".join(report._page(methods, pairs, test.labels))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    table = {row[0]: row for row in rows if len(row) == 6}
    assert table["teacher"][1] == "1"
    for name, found in seeds.items():
        mean, spread, low, high = by_hand(found)
        assert table[name][1:3] == ["2", f"{mean:.1f} ± {spread:.1f} [{low:.1f}, {high:.1f}]"]
    differences = {tuple(row[:3]): row[3] for row in rows if len(row) == 7}
    for first, second, role in pairs:
        value, low, high = difference_by_hand(seeds[first], seeds[second])
        cell = differences[first, second, role]
        assert f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" in cell
        assert cell.startswith("**") == (low > 0 or high < 0)
    assert "30 identities: 180 genuine and 6,960 impostor pairs" in text
    assert ["tiny", "1,234", "5,678", "0.50"] in rows
    assert text.endswith("training: 14 seconds on one core in all.")
    for sentence in ("standard deviation over seeds", "95 % interval of paired draws", "**Bold**"):
        assert text.count(sentence) == 1
