"""Lists of pairs: CSV and LFW's own form, and what is wrong with a line is named."""

import unicodedata
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.data import ImageFolder, VerificationSet, pair_forms, read_pairs
from ekd_lite.data.pair_lists import Subset


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
    (tmp_path / "pairs.txt").write_bytes(b"2\t1\r\n" + 2 * text.encode().replace(b"\n", b"\r\n"))
    assert read_pairs(tmp_path / "pairs.txt", faces).fold.tolist() == [0, 0, 1, 1]
    (tmp_path / "pairsDevTest.txt").write_text("1\n" + text)
    assert read_pairs(tmp_path / "pairsDevTest.txt", faces).fold is None


FLAGGED = """Ann_Lee/Ann_Lee_0001.png Ann_Lee/Ann_Lee_0003.png 1
Bob/Bob_0002.png Ann_Lee/Ann_Lee_0001.png 0
"""


@pytest.mark.parametrize(
    "text",
    [
        FLAGGED,
        "".join(f"{line[-1]} {line[:-2]}\n" for line in FLAGGED.splitlines()),
        "\ufeff\n" + FLAGGED.replace(" ", "\t").replace("\n", "\r\n\r\n"),
        FLAGGED.replace("/", "\\").replace(" 1\n", " 1.0\n").replace(" 0\n", " false\n"),
    ],
)
def test_two_files_and_a_flag(faces, tmp_path, text):
    (tmp_path / "agedb_30.txt").write_text(text, newline="")
    pairs = read_pairs(tmp_path / "agedb_30.txt", faces)
    check(pairs, faces)
    assert pairs.fold is None


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
        (FLAGGED.replace("3.png 1", "3.png 2"), "line 1: expected 'a.jpg b.jpg 1', got"),
        (FLAGGED + "\n1 Bob/Bob_0001.png Bob/Bob_0002.png", "line 4: expected 'a.jpg b.jpg 1'"),
        (FLAGGED + "Bob/Bob_0001.png 1", "line 3: expected 'a.jpg b.jpg 1', got 'Bob/"),
        ("0 Bob/Bob_0001.png Bob/Bob_0002.png 1", "line 1: expected CSV columns"),
        (f"1 a.png b.png\n{FLAGGED}", "line 2: expected '1 a.jpg b.jpg'"),
        (FLAGGED.replace("3.png 1", "3.png 0"), "is_genuine = 0 of Ann_Lee/.* otherwise"),
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


def excel(text, **changes):
    """The same list as other programs write it."""
    for old, new in changes.get("replace", []):
        text = text.replace(old, new)
    return text.encode(changes.get("encoding", "utf-8"))


@pytest.mark.parametrize(
    "changes",
    [
        {"encoding": "utf-8-sig"},
        {"encoding": "utf-8-sig", "replace": [("left,", "\ufeffleft,")]},
        {"encoding": "utf-16"},
        {"encoding": "utf-8-sig", "replace": [(",", ";"), ("\n", "\r\n")]},
        {"replace": [(",", ";"), ("left;", "sep=;\nleft;")]},
        {"replace": [(",", "\t")]},
        {"replace": [("\n", "\r")]},
        {"replace": [("/", "\\")]},
        {"replace": [("Ann_Lee/", "./Ann_Lee//"), ("Bob/", ".\\Bob\\")]},
        {"replace": [(",1,0", ",1.0,0.0"), (",0,1", ",0.0,1.00")]},
        {"replace": [(",1,0", ",TRUE,0"), (",0,1", ",FALSE,1")]},
        {"replace": [(",1,0", ";1,0;0"), (",0,1", ";0,0;1"), ("png,", "png;"), ("t,", "t;"),
                     ("e,", "e;")]},
        {"replace": [("left,right", " Left , RIGHT"), ("\n", ",,\n\n,,,,,\n")]},
        {"replace": [("Ann_Lee/", '"Ann_Lee/'), (".png", '.png"'), ("Bob/", '"Bob/')]},
    ],
)  # fmt: skip
def test_csv_as_excel_and_windows_write_it(faces, tmp_path, changes):
    (tmp_path / "p.csv").write_bytes(excel(CSV, **changes))
    pairs = read_pairs(tmp_path / "p.csv", faces)
    check(pairs, faces)
    assert pairs.fold.tolist() == [0, 1]


def test_paths_from_the_root_on(faces, tmp_path):
    (tmp_path / "p.csv").write_text(CSV.replace("Ann_Lee/", f"{faces.root}/Ann_Lee/"))
    check(read_pairs(tmp_path / "p.csv", faces), faces)


PAIR = "Ann_Lee 1 3\n", "Bob 2 Ann_Lee 1\n"


@pytest.mark.parametrize(
    "text",
    [
        "10 300\n" + PAIR[0] + PAIR[1],
        "1 2\n" + PAIR[0] + PAIR[1],
        "2 1\n" + PAIR[0] + PAIR[1],
        "2\n" + PAIR[0] + PAIR[1],
        "1 1\n" + (PAIR[0] + PAIR[1]) * 2,
        "1\n" + (PAIR[0] + PAIR[1]) * 2,
        "1 1\n" + PAIR[0] * 2,
        "1\n" + PAIR[0] + PAIR[1] * 2,
        "1 1\n" + PAIR[0],
    ],
)
def test_more_or_fewer_pairs_than_announced_are_refused(faces, tmp_path, text):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(ValueError, match=r"announces .* genuine and as many impostor pairs"):
        read_pairs(tmp_path / "pairs.txt", faces)


CPLFW = "Ann_Lee_1.jpg 1\nAnn_Lee_3.jpg 1\nBob_2.jpg 0\nAnn_Lee_1.jpg 0\n"


@pytest.mark.parametrize(
    "text",
    [
        CPLFW,
        CPLFW.replace(" 1\n", " 10\n"),  # CALFW names the fold of a genuine pair
        CPLFW.replace("_1", "_0001").replace("_2", "_0002").replace("_3", "_0003"),
        CPLFW.replace(".jpg", ".png").replace("\n", "\r\n\r\n"),
        CPLFW.replace("Bob_2.jpg", "Bob/Bob_0002.png"),
    ],
)
def test_calfw_and_cplfw(faces, tmp_path, text):
    (tmp_path / "pairs_CPLFW.txt").write_bytes(text.encode("utf-8-sig"))
    pairs = read_pairs(tmp_path / "pairs_CPLFW.txt", faces)
    check(pairs, faces)
    assert pairs.fold is None


def test_calfw_and_cplfw_with_all_images_in_one_folder(faces, tmp_path):
    flat = tmp_path / "flat" / "aligned images"
    flat.mkdir(parents=True)
    for file in faces.files:
        file.rename(flat / file.name)
    (tmp_path / "p.txt").write_text(CPLFW)
    pairs = read_pairs(tmp_path / "p.txt", ImageFolder(tmp_path / "flat", image_size=16))
    assert pairs.is_genuine.tolist() == [True, False]
    assert isinstance(pairs.left, Subset)
    assert pairs.left.rows.tolist() == [0, 4]
    assert pairs.left.labels.tolist() == [0, 1]
    assert pairs.right.labels.tolist() == [0, 0]
    (tmp_path / "p.txt").write_text(CPLFW.replace(" 0", " 1"))
    with pytest.raises(ValueError, match=r"says is_genuine = 1 of Bob_2\.jpg and Ann_Lee_1"):
        read_pairs(tmp_path / "p.txt", ImageFolder(tmp_path / "flat", image_size=16))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CPLFW + "Bob_1.jpg 0\n", "has 5 lines, and a pair has two"),
        (CPLFW.replace("3.jpg 1", "3.jpg 0"), "line 2: the two lines of a pair say 1 and 0"),
        (CPLFW.replace("Bob_2.jpg 0", "Bob_2.jpg"), "line 3: expected 'name_1.jpg 1'"),
        (CPLFW.replace("Bob_2", "Bob_7"), "lacks or has twice: Bob_7.jpg"),
        (
            CPLFW.replace("Bob_2.jpg", "Bob_2.txt"),
            "line 3: expected 'name_1.jpg 1', got 'Bob_2.txt",
        ),
    ],
)
def test_what_is_wrong_with_two_lines_is_named(faces, tmp_path, text, message):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_pairs(tmp_path / "p.txt", faces)


def test_a_name_that_two_images_have_is_none(faces, tmp_path):
    Image.new("RGB", (16, 16)).save(faces.root / "Bob" / "Ann_Lee_1.png")
    again = ImageFolder(faces.root, image_size=16)
    (tmp_path / "p.txt").write_text(CPLFW)
    with pytest.raises(ValueError, match=r"lacks or has twice: Ann_Lee_1\.jpg"):
        read_pairs(tmp_path / "p.txt", again)
    (tmp_path / "p.csv").write_text("left,right,is_genuine\nAnn_Lee_0003.png,Bob/Bob_0002.png,0\n")
    with pytest.raises(ValueError, match=r"Ann_Lee_0003\.png"):  # CSV gives whole paths
        read_pairs(tmp_path / "p.csv", again)


def test_text_of_another_kind_and_broken_quotes_are_named(faces, tmp_path):
    (tmp_path / "p.csv").write_bytes(CSV.replace("Bob", "B\xf6b").encode("latin-1"))
    with pytest.raises(ValueError, match=r"is no text in UTF-8 .* save it as 'CSV UTF-8'"):
        read_pairs(tmp_path / "p.csv", faces)
    (tmp_path / "p.csv").write_text('left,right,is_genuine\n"a,b,1\n')
    with pytest.raises(ValueError, match=r"is no CSV|values expected|is_genuine is ''"):
        read_pairs(tmp_path / "p.csv", faces)


def test_sets_of_pairs_take_arrays_and_lists_and_check_them(faces):
    left, right = Subset(faces, [0, 4]), Subset(faces, np.array([2, 0]))
    make: Any = VerificationSet  # whose fields are tensors, whatever it is made from
    pairs = make(left, right, [True, False], fold=np.array([0, 1], np.int32))
    check(pairs, faces)
    assert pairs.fold.dtype == torch.int64
    with pytest.raises(ValueError, match="2 left and 2 right images for 3 pairs"):
        make(left, right, [True, False, True])
    with pytest.raises(ValueError, match="is_genuine must be one truth value a pair"):
        make(left, right, [1, 2])
    with pytest.raises(ValueError, match="is_genuine must be a tensor, an array or a list"):
        make(left, right, ["yes", "no"])


def test_names_with_spaces_between_tabs(tmp_path):
    for number in (1, 2):
        for name in ("Ann Lee", "Bob"):
            path = tmp_path / "faces" / name / f"{name}_{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16)).save(path)
    (tmp_path / "pairs.txt").write_text("1\t1\nAnn Lee\t1\t2\n\nAnn Lee\t1\tBob\t2\n")
    pairs: Any = read_pairs(tmp_path / "pairs.txt", ImageFolder(tmp_path / "faces", image_size=16))
    assert (pairs.left.rows.tolist(), pairs.right.rows.tolist()) == ([0, 0], [1, 3])
    assert pairs.is_genuine.tolist() == [True, False]


def test_names_in_either_form_of_unicode(tmp_path):
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "Zoé")
        (tmp_path / form / name).mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (16, 16)).save(tmp_path / form / name / f"{number}.png")
        faces = ImageFolder(tmp_path / form, image_size=16)
        for other in ("NFC", "NFD"):
            text = unicodedata.normalize(other, "left,right,is_genuine\nZoé/1.png,Zoé/2.png,1\n")
            (tmp_path / "p.csv").write_text(text, encoding="utf-8")
            pairs: Any = read_pairs(tmp_path / "p.csv", faces)
            assert (pairs.left.rows.tolist(), pairs.right.rows.tolist()) == ([0], [1])


def test_a_person_is_found_behind_either_slash():
    for name in ("a/Ann_Lee_0002.jpg", "a\\Ann_Lee_2.png"):
        assert pair_forms.person(name) == "Ann_Lee"


def test_an_image_compared_with_itself_is_told(faces, tmp_path):
    (tmp_path / "p.csv").write_text(CSV.replace("Lee_0003", "Lee_0001"))
    with pytest.warns(UserWarning, match="1 images with themselves, the first of them Ann_Lee/"):
        assert len(read_pairs(tmp_path / "p.csv", faces)) == 2
