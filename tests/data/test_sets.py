"""Open, convert, verify: nothing is lost on the way, and every damaged file is named."""

import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.__main__ import main
from ekd_lite.data import (
    ImageFolder,
    PackedFaces,
    RecordIO,
    convert,
    load_splits,
    open_faces,
    open_packed,
    verify,
)
from ekd_lite.data.checksums import faults, read_sums, write_sums


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for person in range(12):
        for number in range(2):
            path = tmp_path / "faces" / f"p{person:02}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "faces"


def flip(path, position=-20):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.unlink()  # it may be mapped: never write into it
    path.write_bytes(data)


@pytest.mark.parametrize("to", ["packed", "rec"])
@pytest.mark.filterwarnings("ignore:.*eyes are not where aligned")
def test_converted_sets_are_the_same_set(root, tmp_path, to):
    faces = ImageFolder(root, image_size=16)
    convert(faces, tmp_path / "out", to=to)
    opened = open_faces(tmp_path / "out", image_size=16)
    assert isinstance(opened, PackedFaces if to == "packed" else RecordIO)
    assert torch.equal(opened.batch(range(24)), faces.batch(range(24)))
    assert opened.labels.tolist() == faces.labels.tolist()
    assert verify(tmp_path / "out") == (3 if to == "packed" else 24, [])
    sums = read_sums(tmp_path / "out")
    assert len(sums) == 3
    for name, expected in sums.items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == expected
    kinds = [load_splits(source, image_size=16, cache=tmp_path / "c") for source in
             (root, tmp_path / "out")]  # fmt: skip
    for a, b in ((kinds[0].train, kinds[1].train), (kinds[0].test, kinds[1].test)):
        assert torch.equal(a.batch(range(len(a))), b.batch(range(len(b))))
        assert torch.equal(a.labels, b.labels)


def test_a_rec_file_becomes_a_packed_set(root, tmp_path):
    convert(ImageFolder(root, image_size=16), tmp_path / "rec", to="rec")
    rec = open_faces(tmp_path / "rec" / "train.rec", image_size=16)
    assert isinstance(rec, RecordIO)
    convert(rec, tmp_path / "packed")
    packed = open_packed(tmp_path / "packed")
    assert torch.equal(packed.batch(range(24)), rec.batch(range(24)))
    with pytest.raises(ValueError, match="holds images of 16 pixels, asked for are 32"):
        open_faces(tmp_path / "packed", image_size=32)


@pytest.mark.parametrize("to", ["packed", "rec"])
def test_damage_after_the_conversion_is_named(root, tmp_path, to):
    out = tmp_path / "out"
    convert(ImageFolder(root, image_size=16), out, to=to)
    for name in read_sums(out):
        good = (out / name).read_bytes()
        flip(out / name)
        _, found = verify(out)
        assert any(line.startswith(f"{out / name}: damaged") for line in found), name
        if to == "packed":
            with pytest.raises(ValueError, match=f"{name}: damaged.*convert the set again"):
                open_packed(out)
        (out / name).unlink()
        _, found = verify(out)
        assert any(line.startswith(f"{out / name}: missing") for line in found), name
        (out / name).write_bytes(good)
    assert verify(out)[1] == []
    (out / "SHA256SUMS").unlink()
    if to == "packed":
        with pytest.raises(ValueError, match="its conversion did not finish"):
            open_packed(out)


def test_a_bad_image_stops_a_conversion_or_is_left_out_by_name(root, tmp_path):
    (root / "p03" / "1.png").write_bytes(b"no image")
    for to in ("packed", "rec"):
        with pytest.raises(ValueError, match=r"cannot read .*p03/1\.png as an image"):
            convert(ImageFolder(root, image_size=16), tmp_path / to, to=to)
        assert not (tmp_path / to / "SHA256SUMS").exists()
    with pytest.raises(ValueError, match=r"1 of 24 images .* more than max_bad_fraction = 0.01"):
        ImageFolder(root, image_size=16, max_bad_fraction=0.01)
    with pytest.warns(
        UserWarning, match=r"1 of 24 images cannot be decoded and are left out: .*p03"
    ):
        faces = ImageFolder(root, image_size=16, max_bad_fraction=0.05)
    assert len(faces) == 23
    assert faces.bad == [str(root / "p03" / "1.png")]
    convert(faces, tmp_path / "out")
    assert len(open_packed(tmp_path / "out")) == 23
    assert '"left_out": [\n' in (tmp_path / "out" / "faces.json").read_text()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_impossible_fractions(root, fraction):
    with pytest.raises(ValueError, match="max_bad_fraction must be 0 to 1"):
        ImageFolder(root, image_size=16, max_bad_fraction=fraction)


def test_what_cannot_be_opened_or_converted(root, tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(ValueError, match=r"x\.txt: expected a folder of identity/image\.jpg, a"):
        open_faces(tmp_path / "x.txt")
    with pytest.raises(FileNotFoundError, match="no such folder of faces"):
        open_faces(tmp_path / "nowhere")
    faces = ImageFolder(root, image_size=16)
    with pytest.raises(ValueError, match="to must be 'packed' or 'rec', got 'zip'"):
        convert(faces, tmp_path / "out", to="zip")
    with pytest.raises(ValueError, match="is there already"):
        convert(faces, root)
    with pytest.raises(FileNotFoundError, match="no such packed set"):
        open_packed(tmp_path / "nowhere")


def test_an_image_that_is_not_square_is_spoken_of(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (250, 200)).save(tmp_path / "a" / "x.jpg")
    with pytest.warns(UserWarning, match=r"x\.jpg is 250 x 200 pixels, not square.*aligned crops"):
        ImageFolder(tmp_path, image_size=16).batch([0])


def test_checksum_files_are_coreutils_and_stay_inside(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    write_sums(tmp_path, [tmp_path / "a"])
    assert (tmp_path / "SHA256SUMS").read_text() == hashlib.sha256(b"1").hexdigest() + "  a\n"
    assert faults(tmp_path) == []
    for line, message in {
        f"{'0' * 64}  ../a": "not inside the folder",
        f"{'0' * 64}  /etc/passwd": "not inside the folder",
        "hello": "line 1: expected a hash and a name",
        "": "is empty",
    }.items():
        (tmp_path / "SHA256SUMS").write_text(line)
        with pytest.raises(ValueError, match=message):
            faults(tmp_path)


def test_the_commands(root, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["data", "convert", "--faces", str(root), "--out", out, "--image-size", "16"]) == 0
    assert "24 images of 12 identities" in capsys.readouterr().out
    assert main(["data", "verify", "--faces", out]) == 0
    assert "3 checked" in capsys.readouterr().out
    assert main(["data", "verify", out]) == 0
    assert "3 checked" in capsys.readouterr().out
    assert main(["data", "verify"]) == 2
    assert "name the set: ekd-lite data verify PATH" in capsys.readouterr().err
    assert main(["data", "verify", out, "--faces", out]) == 2
    assert "name the set once" in capsys.readouterr().err
    assert main(["data", "info", out]) == 0
    assert "24 readable images of 12 identities, 2 to 2 each" in capsys.readouterr().out
    flip(tmp_path / "out" / "images.npy")
    assert main(["data", "verify", "--faces", out]) == 2
    printed = capsys.readouterr()
    assert "images.npy: damaged" in printed.out
    assert "1 damaged of 3" in printed.err
    assert main(["data", "convert", "--faces", out, "--out", out + "2"]) == 2


def test_checksums_of_a_folder_find_every_flipped_bit(root, capsys):
    """Of flips in a JPEG most decode in silence; beside SHA256SUMS none gets through."""
    rng = random.Random(0)  # noqa: S311
    faces = ImageFolder(root, image_size=16)
    for file in faces.files:
        Image.open(file).resize((112, 112)).save(file.with_suffix(".jpg"))
        file.unlink()
    assert main(["data", "verify", "--faces", str(root), "--write-checksums"]) == 0
    for file in root.glob("*/*.jpg"):
        flip(file, rng.randrange(600, file.stat().st_size))
    unseen = 24 - len([f for f in root.glob("*/*.jpg") if _decodes(f) is False])
    assert unseen > 0  # otherwise this test shows nothing
    capsys.readouterr()
    assert main(["data", "verify", "--faces", str(root)]) == 2
    assert capsys.readouterr().out.count("damaged (its checksum differs") == 24


def _decodes(path):
    try:
        with Image.open(path) as image:
            image.convert("RGB")
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["faces_webface.rec", "TRAIN.REC", "train.rec"])
def test_a_folder_with_one_rec_file_of_any_name(root, tmp_path, name):
    convert(ImageFolder(root, image_size=16), tmp_path / "out", to="rec")
    expected = open_faces(tmp_path / "out", image_size=16).batch(range(24))
    folder = tmp_path / "other"
    folder.mkdir()
    (tmp_path / "out" / "train.rec").rename(folder / name)
    index = Path(name).with_suffix(".IDX" if name.isupper() else ".idx")
    (tmp_path / "out" / "train.idx").rename(folder / index)
    (folder / "._x.rec").write_bytes(b"macOS")
    for path in (folder, folder / name):
        faces = open_faces(path, image_size=16)
        assert torch.equal(faces.batch(range(24)), expected)
        assert faces.index == folder / index
    assert verify(folder) == (24, [])
    (folder / "b.rec").write_bytes((folder / name).read_bytes())
    if name != "train.rec":
        with pytest.raises(ValueError, match=rf"holds 2 \.rec files: name one of {name}, b\.rec|b"):
            open_faces(folder)


@pytest.mark.parametrize(
    ("to", "when"),
    [
        ("packed", "cache._render_part"),
        ("rec", "record_writer.RecordWriter.write"),
        ("rec", "checksums.write_sums"),
    ],
)
def test_a_conversion_that_was_killed_starts_again(root, tmp_path, to, when, monkeypatch):
    out, faces = tmp_path / "out", ImageFolder(root, image_size=16)

    def killed(*_, **__):
        with pytest.raises(ValueError, match="another process is writing into it"):
            convert(faces, out, to=to)
        raise KeyboardInterrupt  # after which nothing is tidied up, as after SIGKILL

    with monkeypatch.context() as patch:
        patch.setattr(f"ekd_lite.data.{when}", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(faces, out, to=to)
    (out / ".images.npy.1.0badcafe.tmp").write_bytes(b"half of a file")
    with pytest.raises(ValueError, match="is not finished: what wrote it was killed"):
        open_faces(out, image_size=16)
    (out / "precious.txt").write_text("somebody's")
    with pytest.raises(ValueError, match=r"holds half a conversion and files of others \(precious"):
        convert(faces, out, to=to)
    (out / "precious.txt").unlink()
    with pytest.warns(UserWarning, match="holds half a conversion, which was killed: starting ag"):
        convert(faces, out, to=to)
    assert torch.equal(open_faces(out, image_size=16).batch(range(24)), faces.batch(range(24)))
    assert verify(out)[1] == []
    written = {"images.npy", "labels.npy"} if to == "packed" else {"train.rec", "train.idx"}
    assert {file.name for file in out.iterdir()} == written | {"faces.json", "SHA256SUMS"}


def test_a_set_of_others_is_never_taken_for_half_a_conversion(root, tmp_path):
    convert(ImageFolder(root, image_size=16), tmp_path / "out", to="rec")
    (tmp_path / "out" / "SHA256SUMS").unlink()
    (tmp_path / "out" / "faces.json").unlink()  # as insightface's sets are
    with pytest.raises(ValueError, match="is there already"):
        convert(ImageFolder(root, image_size=16), tmp_path / "out", to="rec")
    assert len(open_faces(tmp_path / "out", image_size=16)) == 24


ODD = ["new\nline.png", "stroke\\.png", "cr\r.png", "u\u2028.png", "a: b.png", "  two.png", "é.png"]


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="coreutils is the oracle")
def test_names_of_every_kind_are_written_and_verified(root, capsys):
    files = sorted(root.glob("*/*.png"))
    for name, file in zip([*ODD, os.fsdecode(b"\xff.png")], files, strict=False):
        file.rename(file.with_name(name))
    assert main(["data", "verify", str(root), "--write-checksums"]) == 0
    assert main(["data", "verify", str(root)]) == 0
    assert len(read_sums(root)) == 24
    check = ["sha256sum", "-c", "--quiet", "SHA256SUMS"]
    done = subprocess.run(check, cwd=root, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    capsys.readouterr()
    bad = [file for file in root.glob("*/*") if file.name in ("new\nline.png", "a: b.png")]
    for file in bad:
        file.write_bytes(b"damaged")
    assert main(["data", "verify", str(root)]) == 2
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2  # each named once, on one line
    assert "new\\nline.png: damaged" in printed.out
    assert "2 damaged of 24" in printed.err


def test_splits_are_cached_where_the_user_says(root, tmp_path, monkeypatch):
    monkeypatch.setenv("EKD_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="eyes are not where aligned"):
        load_splits(root, image_size=16, workers=1)
    assert {file.suffix for file in (tmp_path / "cache" / "faces").iterdir()} == {".npy", ".json"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "faces"]


def test_a_split_checks_its_indices(root):
    with pytest.warns(UserWarning, match="eyes are not where aligned"):
        train: Any = load_splits(root, image_size=16, workers=1).train
    assert torch.equal(train.batch(np.array([1])), train.batch([1]))
    assert torch.equal(train[-1][0], train.batch([len(train) - 1])[0])
    for wrong in ([len(train)], [-1], [0.5], ["x"]):
        with pytest.raises(IndexError):
            train.batch(wrong)


def test_too_many_workers_are_capped(root, monkeypatch):
    monkeypatch.setattr("ekd_lite.data.processes.cores", lambda: 1)
    with (
        pytest.warns(UserWarning, match="eyes are not where aligned"),
        pytest.warns(UserWarning, match="workers = 1000 is more than 4 processes for each"),
    ):
        load_splits(root, image_size=16, workers=1000)


def test_nested_folders_on_the_command_line(root, tmp_path, capsys):
    for person in sorted(root.iterdir()):
        (person / "video").mkdir()
        (person / "0.png").rename(person / "video" / "0.png")
    nested = ["--nested", "first"]
    assert main(["data", "info", str(root), *nested]) == 0
    assert "24 readable images of 12 identities, 2 to 2 each" in capsys.readouterr().out
    assert main(["data", "verify", str(root), *nested, "--write-checksums"]) == 0
    assert main(["data", "verify", str(root), *nested]) == 0
    convert = ["data", "convert", "--faces", str(root), "--out", str(tmp_path / "out")]
    assert main([*convert, "--nested", "last"]) == 2
    assert "so that it is not plain whose they are" in capsys.readouterr().err
    assert main([*convert, *nested, "--image-size", "16"]) == 0
    assert open_packed(tmp_path / "out").identities == [f"p{person:02}" for person in range(12)]
    capsys.readouterr()
    for command in ("info", "verify"):  # the packed set has no folders any more
        assert main(["data", command, str(tmp_path / "out"), *nested]) == 2
        assert "for folders" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_a_damaged_array_of_a_packed_set_is_one_message(name, root, tmp_path):
    out = tmp_path / "out"
    convert(ImageFolder(root, image_size=32), out)
    plain = "{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999, 99), }"
    for header in ("{" * 4000, plain):
        data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        (out / name).write_bytes(data)
        with pytest.raises(ValueError, match=r"out is damaged: "):
            open_packed(out, check=False)
