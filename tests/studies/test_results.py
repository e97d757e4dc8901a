"""The tables of data/results: the paper's are what it prints, ours agree with themselves."""

import csv
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from ekd_lite.data import SyntheticFaces
from ekd_lite.data.renderer.parameters import identity_names
from ekd_lite.distill import DISTILLERS, parse_method

RESULTS = Path(__file__).parents[2] / "data" / "results"
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


# The table of later methods; its second and third part show seven columns only.
AFTER_SUMS = {
    "comparison": {
        **{"LFW": 1891.46, "CFP-FP": 1772.87, "AgeDB": 1830.47, "CALFW": 1428.91},
        **{"CPLFW": 1333.69, "IJB-C 1e-4": 1709.92, "IJB-C 1e-5": 1569.46},
        **{"IJB-B 1e-4": 1309.73, "IJB-B 1e-5": 1137.04, "MR-all": 1018.23},
        **{"Children": 550.77, "Mask": 577.64, "Id (R)": 1556.61, "Ver (R)": 1581.70},
        **{"Id": 986.28, "Ver": 1188.29},
    },
    "ablation": {
        **{"LFW": 1095.43, "CFP-FP": 1040.39, "AgeDB": 1063.91, "CALFW": 1050.70},
        **{"CPLFW": 988.01, "IJB-C 1e-4": 1019.04, "IJB-C 1e-5": 963.08},
    },
    "teachers": {"IJB-C 1e-4": 370.93, "IJB-C 1e-5": 352.88},
}
AFTER_SPOTS = [
    ("comparison", "AdaArcDistill", "IJB-C 1e-5", "89.32"),
    ("comparison", "QUD", "IJB-C 1e-5", "81.60"),
    ("comparison", "ReFO+", "MR-all", "59.17"),
    ("ablation", "feature MSE", "IJB-C 1e-4", "91.29"),
    ("ablation", "ResNet50 (QUD and AdaDistill)", "IJB-C 1e-4", "96.05"),
    ("teachers", "AdaArcDistill, teacher ResNet100", "IJB-C 1e-5", "87.48"),
]


def after(part):
    """The rows of one part of the table of later methods, by name."""
    with (RESULTS / "paper_table_after.csv").open(encoding="utf-8", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file) if row["part"] == part}


@pytest.mark.parametrize("part", AFTER_SUMS)
def test_every_later_number_stands_where_it_should(part):
    rows = after(part)
    assert len(rows) == {"comparison": 19, "ablation": 11, "teachers": 4}[part]
    for column in AFTER_SUMS["comparison"]:
        values = [float(row[column]) for row in rows.values() if row[column]]
        assert sum(values) == pytest.approx(AFTER_SUMS[part].get(column, 0), abs=1e-3)


@pytest.mark.parametrize(("part", "method", "column", "printed"), AFTER_SPOTS)
def test_single_later_values_digit_for_digit(part, method, column, printed):
    assert after(part)[method][column] == printed


@pytest.mark.parametrize("number", [2, 3, 4])
def test_rows_that_later_papers_copied_are_the_papers(number):
    """Two transcriptions of different pictures: each digit of EKD's rows is in both."""
    later = {row["key"]: row for row in after("comparison").values() if row["row_of"] == "EKD"}
    assert len(later) == 12
    for row in table(number).values():
        shared = row.keys() - {"method", "key"}
        assert {name: later[row["key"]][name] for name in shared} == {n: row[n] for n in shared}


def groups():
    """The rows of groups.csv by (row, training, method, seed, level, part)."""
    with (RESULTS / "groups.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ("row", "training", "method", "seed", "level", "part")
    table = {tuple(row[key] for key in keys): row for row in rows}
    assert len(table) == len(rows), "a row stands twice"
    return table


def test_groups_has_every_seed_and_part_and_intervals_around_estimates():
    table = groups()
    nets = {key[1:4] for key in table if key[0] == "run"}
    pairs = {net[:2] for net in nets} - {("its own", "teacher")}
    assert len(pairs) == 7
    assert nets == {(*pair, seed) for pair in pairs for seed in "012"} | {
        ("its own", "teacher", "")
    }
    assert len(table) == 12 * (len(nets) + 8 + 5)
    for key, row in table.items():
        for rate in ("fpr", "tpr", "tpr_own"):
            low, value, high = (row[f"{rate}{end}"] for end in ("_low", "", "_high"))
            assert bool(value) == (rate == "fpr" or key[-1] != "across")
            assert bool(low) == bool(high) == (bool(value) and key[0] != "run")
            if low:
                assert float(low) <= float(value) <= float(high)


def test_groups_rates_mix_to_the_level_of_the_threshold():
    drawn = SyntheticFaces(450, 10, first_identity=6000)
    who, _ = drawn.tables(torch.arange(0, len(drawn), 10))
    tone = who[:, identity_names().index("skin_tone")]
    people = [((tone >= k / 3) & (tone < (k + 1) / 3)).sum().item() for k in range(3)]
    own = {part: n * (n - 1) for part, n in zip(("light", "medium", "dark"), people, strict=True)}
    shares = {**own, "across": 450 * 449 - sum(own.values())}
    mixed = defaultdict(float)
    for key, row in groups().items():
        if key[0] == "run":
            mixed[key[:-1]] += shares[key[-1]] * float(row["fpr"]) / (450 * 449)
    assert len(mixed) == 22 * 3
    for key, level in mixed.items():
        assert level == pytest.approx(float(key[-1]), rel=1e-3)


def test_groups_means_and_changes_follow_from_the_runs():
    table = groups()
    for (kind, training, method, _, level, part), row in table.items():
        for rate in ("fpr", "tpr", "tpr_own"):
            if not row[rate] or kind == "run":
                continue
            if kind == "mean":
                seeds = [""] if method == "teacher" else "012"
                runs = [table["run", training, method, seed, level, part] for seed in seeds]
                expected = sum(float(run[rate]) for run in runs) / len(runs)
            else:
                base = "fitnet" if method in ("fitnet", "kd") else "none"
                here, there = (
                    float(table["mean", people, loss, "", level, part][rate])
                    for people, loss in ((training, method), ("balanced", base))
                )
                expected = here / there if rate == "fpr" else here - there
            assert float(row[rate]) == pytest.approx(expected, rel=2e-3, abs=2e-4)


def rows_of(name):
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


FIRST_STUDY = rows_of("study_weights.csv")


@pytest.mark.parametrize(("name", "beside"), [("ekd_fine", "ekd_fine+fitnet"), ("ekd_memory", "")])
def test_the_weights_of_our_forms_are_those_that_validation_chose(name, beside):
    chosen = {r["method"]: r["setting"] for r in FIRST_STUDY if r["chosen"] == "yes"}
    assert DISTILLERS[name].weight == parse_method(chosen[beside or name])[name]


def test_the_weights_of_later_methods_are_those_that_validation_chose():
    rows = rows_of("successor_weights.csv")
    tried = {row["method"] for row in rows}
    assert tried >= {"dkd", "gkd", "lskd", "qud", "seed", "thkd"}
    for name in tried - {r["method"] for r in FIRST_STUDY}:
        mine = [row for row in rows if row["method"] == name]
        (best,) = (row for row in mine if row["chosen"] == "yes")
        assert float(best["score"]) == max(float(row["score"]) for row in mine)
        assert DISTILLERS[name].weight == parse_method(best["setting"])[name]


def test_differences_of_two_rows_are_those_of_their_means():
    means = {(row["regime"], row["row"]): row for row in rows_of("decisive.csv")}
    pairs = rows_of("decisive_pairs.csv")
    keys = [(r["regime"], r["row"], r["minus_regime"], r["minus"]) for r in pairs]
    assert len(set(keys)) == len(keys) > 90
    for pair, key in zip(pairs, keys, strict=True):
        for level in ("1e-3", "1e-4"):
            first, second = (float(means[k][f"tpr@{level}"]) for k in (key[:2], key[2:]))
            low, gain, high = (float(pair[f"gain@{level}{end}"]) for end in ("_low", "", "_high"))
            assert gain == pytest.approx(first - second, abs=0.011)
            assert low < gain < high
