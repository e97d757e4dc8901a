"""Lists of pairs: CSV and LFW's own form, and what is wrong with a line is named."""

import pytest
import torch
from PIL import Image

from ekd_lite.data import ImageFolder, read_pairs


@pytest.fixture
def faces(tmp_path):
    for person, count in (("Ann_Lee", 3), ("Bob", 2)):
        for number in range(1, count + 1):
            path = tmp_path / "faces" / person / f"{person}_{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (40 * number, 9 * count, 0)).save(path)
    return ImageFolder(tmp_path / "faces", image_size=16)


CSV = """left,right,is_genuine,fold
Ann_Lee/Ann_Lee_0001.png,Ann_Lee/Ann_Lee_0003.png,1,0
Bob/Bob_0002.png,Ann_Lee/Ann_Lee_0001.png,0,1
"""


def check(pairs, faces):
    assert len(pairs) == 2
    assert pairs.left.rows.tolist() == [0, 4]
    assert pairs.right.rows.tolist() == [2, 0]
    assert pairs.is_genuine.tolist() == [True, False]
    assert torch.equal(pairs.left.batch([0, 1]), faces.batch([0, 4]))
    assert pairs.left.labels.tolist() == [0, 1]
    assert (pairs.left.num_identities, pairs.left.image_size, len(pairs.left)) == (2, 16, 2)


@pytest.mark.parametrize("header", ["left,right", "file1,file2"])
def test_csv(faces, tmp_path, header):
    (tmp_path / "p.csv").write_text(CSV.replace("left,right", header))
    pairs = read_pairs(tmp_path / "p.csv", faces)
    check(pairs, faces)
    assert pairs.fold.tolist() == [0, 1]
    (tmp_path / "p.csv").write_text("\n".join(x.rsplit(",", 1)[0] for x in CSV.split()))
    assert read_pairs(tmp_path / "p.csv", faces).fold is None


def test_lfw(faces, tmp_path):
    text = "Ann_Lee\t1\t3\nBob\t2\tAnn_Lee\t1\n"
    (tmp_path / "pairs.txt").write_text("1\t1\n" + text)
    pairs = read_pairs(tmp_path / "pairs.txt", faces)
    check(pairs, faces)
    assert pairs.fold.tolist() == [0, 0]
    (tmp_path / "pairs.txt").write_text("2\t1\n" + text + text)
    assert read_pairs(tmp_path / "pairs.txt", faces).fold.tolist() == [0, 0, 1, 1]
    (tmp_path / "pairsDevTest.txt").write_text("1\n" + text)
    assert read_pairs(tmp_path / "pairsDevTest.txt", faces).fold is None


def test_missing_images_are_named_and_left_out_only_when_asked(faces, tmp_path):
    (tmp_path / "p.csv").write_text(CSV + "Bob/Bob_0001.png,Bob/Bob_0007.png,1,1\n")
    with pytest.raises(ValueError, match=r"names 1 images that .* lacks: Bob/Bob_0007.png; skip_"):
        read_pairs(tmp_path / "p.csv", faces)
    with pytest.warns(UserWarning, match="Bob/Bob_0007.png; 1 pairs left out"):
        check(read_pairs(tmp_path / "p.csv", faces, skip_missing=True), faces)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b,c\n", "has the columns a, b, c; expected left, right, is_genuine"),
        (CSV.replace(",1,0", ",yes,0"), "line 2: is_genuine is 'yes', expected 0 or 1"),
        (CSV.replace(",1,0", ",,0"), "line 2: is_genuine is '', expected 0 or 1"),
        (CSV.replace(",1,0", ",1,x"), "line 2: expected a whole number, got 'x'"),
        (CSV.replace(",1,0", ",1,0,0"), "line 2: 4 values expected"),
        (
            CSV.replace(",1,0", ",0,0"),
            "is_genuine = 0 of Ann_Lee/Ann_Lee_0001.png and .* otherwise",
        ),
        ("left,right,is_genuine\n", "holds no pair"),
        ("hello\n", "line 1: expected a whole number"),
        ("1 2 3\n", "line 1: expected CSV columns, or the counts"),
        ("1\nAnn_Lee 1\n", "line 2: expected 'name 1 4' or"),
        ("1\nAnn_Lee 1 x\n", "line 2: expected a whole number, got 'x'"),
    ],
)
def test_what_is_wrong_is_named(faces, tmp_path, text, message):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_pairs(tmp_path / "p.txt", faces)


def test_no_such_list(faces, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such list of pairs"):
        read_pairs(tmp_path / "p.csv", faces)
