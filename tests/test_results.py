"""The paper's tables, as copied into data/results, are what the paper prints."""

import csv
from pathlib import Path

import pytest

from ekd_lite.distill import DISTILLERS

RESULTS = Path(__file__).parent.parent / "data" / "results"
# Sums of the columns of the transcription in our notes; one wrong digit moves one.
SUMS = {
    2: {"LFW": 1194.65, "CFP-FP": 1111.95, "CPLFW": 1063.18, "AgeDB": 1154.19, "CALFW": 1142.38},
    3: {"IJB-C 1e-4": 1064.33, "IJB-C 1e-5": 965.55, "IJB-B 1e-4": 1037.46, "IJB-B 1e-5": 890.51},
    4: {"Id (R)": 1095.20, "Ver (R)": 1113.00, "Id": 909.82, "Ver": 1096.10},
}
SPOTS = [
    (2, "EKD", "CFP-FP", "94.33"),
    (2, "MarginDistillation", "LFW", "99.61"),
    (3, "EKD", "IJB-C 1e-4", "90.48"),
    (3, "FitNet", "IJB-C 1e-5", "73.71"),
    (3, "MobileFaceNet", "IJB-B 1e-5", "74.63"),
    (4, "TripletDistillation", "Id (R)", "86.52"),
    (4, "EKD", "Ver", "91.42"),
]


def table(number):
    """The rows of a table of the paper by the paper's names."""
    with (RESULTS / f"paper_table{number}.csv").open(encoding="utf-8", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("number", [2, 3, 4])
def test_every_number_stands_where_it_should(number):
    rows = table(number)
    assert len(rows) == 12
    for column, total in SUMS[number].items():
        assert sum(float(row[column]) for row in rows.values()) == pytest.approx(total, abs=1e-3)
    known = {row["key"] for row in rows.values()} - {"teacher", "student alone"}
    assert len(known) == 10
    assert known <= set(DISTILLERS)


@pytest.mark.parametrize(("number", "method", "column", "printed"), SPOTS)
def test_single_values_digit_for_digit(number, method, column, printed):
    assert table(number)[method][column] == printed
