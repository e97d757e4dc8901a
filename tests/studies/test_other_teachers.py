"""The study under other teachers: its rows are the study's choices, and its tables agree."""

import csv

import pytest

from ekd_lite.assets import results
from ekd_lite.experiments.study_search import students_left
from tests.studies.conftest import module

others = module("other_teachers")


def lines(name):
    with results(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


CHOSEN = {(line["regime"], line["setting"]): line for line in lines("decisive.csv")}
FIRST = {
    (line["regime"], line["row"]): line
    for line in lines("decisive_teachers.csv")
    if line["teacher"] == "0" and line["regime"]
}


@pytest.mark.parametrize("key", [(name, row) for name, rows in others.ROWS.items() for row in rows])
def test_weights_are_those_that_the_study_chose_and_its_numbers_stand_in_both_tables(key):
    for level in ("1e-3", "1e-4"):
        for end in ("", "_low", "_high"):
            first, study = (float(x[f"tpr@{level}{end}"]) for x in (FIRST[key], CHOSEN[key]))
            assert first == pytest.approx(study, abs=0.011)


def test_teachers_differ_in_their_seed_alone_and_nothing_is_searched():
    one, two = (others.plan_of(seed) for seed in (1, 2))
    assert one.teacher.differences(two.teacher) == ["seed: 1 here, 2 there"]
    assert one.sets == two.sets
    assert {count for _, count in students_left(one, []).values()} == {len(one.final_seeds)}


def test_all_teachers_and_both_regimes_are_in_the_table_of_gains():
    found = {(line["teacher"], line["regime"]) for line in lines("decisive_teachers_gains.csv")}
    assert found == {(who, where) for who in ("0", "1", "2", "all") for where in others.ROWS}
