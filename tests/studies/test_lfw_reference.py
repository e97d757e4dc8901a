"""The script that makes the table of real faces, as far as it can go without them."""

import csv
from pathlib import Path

import pytest
import torch

from tests.programs import load

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def script():
    return load(ROOT / "studies" / "lfw_reference.py")


def test_says_what_is_missing(script, tmp_path, capsys):
    out = tmp_path / "table.csv"
    assert script.main(["--data", str(tmp_path), "--out", str(out)]) == 2
    assert "lacks lfw_index.csv, lfw_sface_embeddings.npy" in capsys.readouterr().err
    assert not out.exists()


def test_pairs_of_missing_images_are_left_out_and_counted(script, tmp_path):
    path = tmp_path / "pairs.csv"
    lines = [f"a{k}.jpg,{'a' if k % 2 else 'b'}{k}.jpg,{k % 2},{k // 4}" for k in range(40)]
    path.write_text("\n".join(["file1,file2,is_genuine,fold", *lines, "x.jpg,a1.jpg,0,1"]))
    names = [f"{side}{k}.jpg" for side in "ab" for k in range(40)]
    number = {name: i for i, name in enumerate(names)}
    embeddings = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
    result, left_out, kept = script.on_pairs(path, number, embeddings, None)
    assert (left_out, kept, result.accuracy) == (1, 40, 1.0)


def test_the_table_holds_the_reference_figures():
    """Those of an independent script: cosine, no flip."""
    with (ROOT / "data" / "results" / "lfw_sface.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["value"], rows[0]["std_over_folds"]) == ("0.9943", "0.0038")
    assert [row["value"] for row in rows[4:]] == ["0.9956", "0.9924", "0.9847", "0.9659"]
    for row in rows[4:]:
        assert float(row["low_95"]) < float(row["value"]) < float(row["high_95"])
