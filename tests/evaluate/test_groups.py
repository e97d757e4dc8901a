"""Rates by group against a loop over all pairs."""

from typing import Any

import pytest
import torch

from ekd_lite.evaluate import (
    UndefinedMetricWarning,
    all_pairs_tpr_at_fpr,
    group_rates,
    read_attributes,
    tiles,
)
from ekd_lite.ops import unit_rows


def draw_world(num_people, per, seed=0, *, by_image=False):
    """People of three groups; those of "b" look alike among themselves."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(3, (num_people,), generator=generator)
    if by_image:
        kind = torch.randint(3, (num_people * per,), generator=generator)
    else:
        kind = kind.repeat_interleave(per)
    centres = torch.randn(num_people, 16, generator=generator).repeat_interleave(per, 0)
    centres += 1.2 * torch.eye(16)[0] * (kind == 1)[:, None]
    rows = centres + torch.randn(num_people * per, 16, generator=generator)
    shuffle = torch.randperm(len(rows), generator=generator)
    labels = torch.arange(num_people).repeat_interleave(per)
    return rows[shuffle], labels[shuffle], ["abc"[k] for k in kind[shuffle].tolist()]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.filterwarnings("ignore:too few impostor pairs")
def test_a_threshold_divides_cosines_as_it_divided_the_scores(seed):
    rows, labels, groups = draw_world(40, 4, seed)
    found = group_rates(rows, labels, groups, [0.1, 0.01, 0.003])
    unit = unit_rows(rows.double())
    i, j = torch.triu_indices(len(rows), len(rows), 1)
    cosines = (unit[i] * unit[j]).sum(1)[labels[i] != labels[j]]
    passed = [int((cosines > t).sum()) for t in found.thresholds.tolist()]
    assert passed == [int(level * len(cosines) + 1e-9) for level in (0.1, 0.01, 0.003)]


@pytest.mark.parametrize("by_image", [False, True])
@pytest.mark.filterwarnings("ignore:too few impostor pairs")
def test_every_cell_equals_a_loop_over_pairs(monkeypatch, by_image):
    monkeypatch.setattr(tiles, "TILE", 29)
    rows, labels, groups = draw_world(30, 4, by_image=by_image)
    levels = [0.1, 0.01, 1.0]
    result = group_rates(rows.double(), labels, groups, levels)
    unit = unit_rows(rows.double())
    found = [
        ((groups[i], groups[j]), bool(labels[i] == labels[j]), float(unit[i] @ unit[j]))
        for i in range(120)
        for j in range(i)
    ]
    impostor = sorted((s for _, genuine, s in found if not genuine), reverse=True)
    for m, level in enumerate(levels):
        k = int(level * len(impostor))
        threshold = impostor[k] if k < len(impostor) else -2.0
        for g, first in enumerate("abc"):
            for h, second in enumerate("abc"):
                for genuine, count, rate in (
                    (True, result.num_genuine, result.tpr),
                    (False, result.num_impostor, result.fpr),
                ):
                    here = [s for x, y, s in found if set(x) == {first, second} and y == genuine]
                    assert len(here) == count[g, h]
                    if here:
                        expected = sum(s > threshold + 1e-12 for s in here) / len(here)
                        assert float(rate[m, g, h]) == pytest.approx(expected, abs=1e-12)
                    else:
                        assert rate[m, g, h].isnan()


def test_cells_add_up_to_the_global_rates_and_the_alike_group_pays():
    rows, labels, groups = draw_world(90, 5, seed=1)
    result = group_rates(rows, labels, groups, [0.01])
    upper = torch.ones(3, 3).triu().double()
    accepted = (result.fpr[0] * result.num_impostor * upper).sum()
    assert float(accepted) == pytest.approx(int(0.01 * (result.num_impostor * upper).sum()))
    true = (result.tpr[0].nan_to_num() * result.num_genuine * upper).sum() / (90 * 10)
    assert float(true) == pytest.approx(float(all_pairs_tpr_at_fpr(rows, labels, [0.01])))
    own = result.fpr[0].diagonal()
    assert result.groups[int(own.argmax())] == "b"
    assert float(result.fpr_ratio) == float(own.max() / own.min()) > 1.5
    own = 1 - result.tpr[0].diagonal()
    assert float(result.fnr_ratio) == float(own.max() / own.min())


def test_a_group_too_small_for_the_level_stays_out_of_the_ratio():
    rows, labels, groups = draw_world(60, 4, seed=2)
    groups = ["d" if label < 2 else g for g, label in zip(groups, labels.tolist(), strict=True)]
    with pytest.warns(UndefinedMetricWarning, match=r"within \['d'\]"):
        result = group_rates(rows, labels, groups, [0.1])
    own = result.fpr[0].diagonal()[:3]
    assert float(result.fpr_ratio) == float(own.max() / own.min())


def test_bad_input_is_named():
    rows, labels, groups = draw_world(10, 2)
    with pytest.raises(ValueError, match="expected 20 groups"):
        group_rates(rows, labels, groups[1:], [0.1])
    with pytest.raises(ValueError, match="cannot show the levels"):
        group_rates(rows, labels, groups, [1e-5])


def test_attributes_by_file_and_by_person(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("file,age,who\nx.jpg,old,Ann\ny.jpg, young ,Bob\nz.jpg,old,Ann\n")
    assert read_attributes(path, ["y.jpg", "x.jpg"], attribute="age") == ["young", "old"]
    got = read_attributes(path, ["Ann", "Bob", "Ann"], attribute="age", key="who")
    assert got == ["old", "young", "old"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,who\nx,Ann\n", "no column 'age'; it has file, who"),
        ("", "no column 'file'"),
        ("file,age\nx,old\ny\n", "line 3: expected 2 values"),
        ("file,age\nx,old,5\n", "line 2: expected 2 values"),
        ("file,age\nx,\n", "line 2: expected 2 values"),
        ("file,age\nx,old\nx,young\n", "line 3: x is 'young' here and 'old' before"),
        ("file,age\ny,old\n", "says nothing of 'x'"),
        ('file,age\nx,"old\n', "line 2: unexpected end"),
    ],
)
def test_a_bad_attribute_line_is_named(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_attributes(path, ["x"], attribute="age")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_attributes_as_excel_and_windows_write_them(tmp_path, encoding, delimiter, end):
    path = tmp_path / "a.csv"
    lines = ["file,age", "Zoë\\1.jpg, old", "./Ann/2.jpg,young ", "", ""]
    path.write_bytes(end.join(lines).replace(",", delimiter).encode(encoding))
    names = ["Ann/2.jpg", "Zoë/1.jpg"]
    assert read_attributes(path, names, attribute="age") == ["young", "old"]


def test_attributes_of_numbered_people_and_of_two_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("identity,age\n1,old\n2,young\n")
    people: Any = [2, 1]
    assert read_attributes(path, people, attribute="age", key="identity") == ["young", "old"]
    path.write_text("file,age,age\nx,old,young\n")
    with pytest.raises(ValueError, match="has the column 'age' twice"):
        read_attributes(path, ["x"], attribute="age")
