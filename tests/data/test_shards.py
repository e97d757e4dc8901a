"""WebDataset shards: the same set as a folder, from any place in them; and nothing hostile."""

import io
import json
import multiprocessing
import os
import pickle
import random
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ekd_lite.__main__ import main
from ekd_lite.data import (
    ImageFolder,
    RecordIO,
    Shards,
    cache_faces,
    convert,
    load_splits,
    open_faces,
    shards,
    tar_walk,
    verify,
)
from ekd_lite.data.faceset import images_digest

SIZE = 16
RNG = np.random.default_rng(0)


def encoded(kind="png"):
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


IMAGES = [encoded() for _ in range(24)]
LABELS = [i // 2 for i in range(24)]


def entry(name, data=b"", kind=tarfile.REGTYPE, **more):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar(path, entries, format=tarfile.PAX_FORMAT):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return path


def cls(rows=range(24), names=None):
    """The entries of a shard with .cls files."""
    for row in rows:
        yield entry(f"{row:06}.cls", str(LABELS[row] if names is None else names[row]).encode())
        yield entry(f"{row:06}.png", IMAGES[row])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EKD_LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


@pytest.fixture
def folder(tmp_path):
    """The same set as a folder of people: the oracle."""
    for row, data in enumerate(IMAGES):
        path = tmp_path / "folder" / str(LABELS[row]) / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return ImageFolder(tmp_path / "folder", image_size=SIZE)


FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.mark.parametrize("form", FORMATS)
def test_a_shard_is_the_same_set_as_a_folder(tmp_path, folder, form):
    path = tar(tmp_path / "x.tar", [entry("README", b"text"), *cls()], FORMATS[form])
    faces = Shards(path, image_size=SIZE)
    assert torch.equal(faces.labels, folder.labels)
    assert faces.identities == list(range(12))
    order = RNG.permutation(24)
    assert torch.equal(faces.batch(order), folder.batch(order))
    assert [faces.source(row) for row in range(24)] == IMAGES
    assert faces.sizes().tolist() == [len(data) for data in IMAGES]
    assert faces.name(5) == f"{path}: 000005"
    assert images_digest(faces) == images_digest(folder)
    with pytest.raises(IndexError, match="out of range for a set of 24"):
        faces.batch([24])


def several(tmp_path):
    for number in range(3):
        tar(tmp_path / "set" / f"s-{number + 9:02}.tar", cls(range(8 * number, 8 * number + 8)))
    return tmp_path / "set"


@pytest.mark.parametrize("how", ["folder", "range", "list", "files"])
def test_several_shards(tmp_path, folder, how):
    path = several(tmp_path)
    (path / "._s-09.tar").write_bytes(b"macOS")
    given = {
        "folder": path, "range": path / "s-{09..11}.tar", "list": str(path / "s-{09,10,11}.tar"),
        "files": [path / f"s-{number:02}.tar" for number in (9, 10, 11)],
    }[how]  # fmt: skip
    faces = Shards(given, image_size=SIZE)
    assert torch.equal(faces.labels, folder.labels)
    assert torch.equal(faces.batch(range(24)), folder.batch(range(24)))
    if how != "files":
        assert isinstance(open_faces(given, image_size=SIZE), Shards)


def json_entries(values, others=()):
    for row, value in enumerate(values):
        yield entry(f"a/{row}.png", IMAGES[row])
        yield entry(f"a/{row}.json", json.dumps(value).encode())
        yield from others


LABEL_FORMS = {
    "label": ([{"label": i // 2} for i in range(8)], None, [0, 1, 2, 3]),
    "float": ([{"cls": i // 2 + 5.0} for i in range(8)], None, [5, 6, 7, 8]),
    "named": ([{"person": f"p{i // 2}", "label": 3} for i in range(8)], "person",
              ["p0", "p1", "p2", "p3"]),
    "text": ([{"identity": str(9 + i // 2), "x": None} for i in range(8)], None, [9, 10, 11, 12]),
    "alike": ([{"label": i // 2, "id": i // 2} for i in range(8)], None, [0, 1, 2, 3]),
}  # fmt: skip


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_labels_in_json(tmp_path, form):
    values, label, identities = LABEL_FORMS[form]
    faces = Shards(tar(tmp_path / "x.tar", json_entries(values)), label=label, image_size=SIZE)
    assert faces.identities == identities
    assert faces.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_names_are_people_in_the_order_of_a_person(tmp_path):
    names = [f"p{(row * 7) % 12}" for row in range(24)]
    faces = Shards(tar(tmp_path / "x.tar", cls(names=names)), image_size=SIZE)
    assert faces.identities == [f"p{number}" for number in range(12)]
    assert [faces.identities[label] for label in faces.labels.tolist()] == names
    padded = [f"{int(name[1:]):03}" for name in names]  # no numbers: 007 is somebody's name
    faces = Shards(tar(tmp_path / "y.tar", cls(names=padded)), image_size=SIZE)
    assert faces.identities == [f"{number:03}" for number in range(12)]


def test_long_names_folders_and_members_of_other_kinds(tmp_path):
    long = "d" * 90 + "/" + "é" * 120
    entries = [
        entry("a", kind=tarfile.DIRTYPE), entry(f"{long}.JPG", encoded("jpeg")),
        entry(f"{long}.cls", b"3"), entry(f"{long}.txt", b"a face"), entry("a/._x.jpg", b"macOS"),
        entry("meta.json", b'{"made": "today"}'),
    ]  # fmt: skip
    for form in ("gnu", "pax"):
        faces = Shards(tar(tmp_path / f"{form}.tar", entries, FORMATS[form]), image_size=SIZE)
        assert (len(faces), faces.name(0)) == (1, f"{tmp_path / form}.tar: {long}")


def test_a_key_need_not_be_in_one_place(tmp_path):
    ordered = list(cls())
    random.Random(0).shuffle(ordered)  # noqa: S311
    faces = Shards(tar(tmp_path / "x.tar", ordered), image_size=SIZE)
    rows = [int(faces.name(index).rpartition(" ")[2]) for index in range(24)]
    placed = [info.name for info, _ in ordered if info.name.endswith("png")]
    assert [f"{row:06}.png" for row in rows] == placed
    assert faces.labels.tolist() == [LABELS[row] for row in rows]
    assert [faces.source(index) for index in range(24)] == [IMAGES[row] for row in rows]


def change(path, position, data):
    content = bytearray(path.read_bytes())
    content[position : position + len(data)] = data
    path.write_bytes(content)


def test_the_index_is_made_once_and_follows_the_file(tmp_path, cache, monkeypatch):
    path = tar(tmp_path / "x.tar", cls())
    first = Shards(path, image_size=SIZE)
    (index,) = cache.iterdir()
    walks: list[str] = []
    walk = tar_walk.walk_tar
    monkeypatch.setattr(
        "ekd_lite.data.shard_index.walk_tar",
        lambda file, path: walks.append(path) or walk(file, path),
    )
    again = Shards(path, image_size=SIZE)
    assert not walks
    assert torch.equal(again.batch(range(24)), first.batch(range(24)))
    assert torch.equal(again.labels, first.labels)
    assert [again.name(row) for row in range(24)] == [first.name(row) for row in range(24)]
    change(index, 200, b"x")  # damaged: made anew
    assert torch.equal(Shards(path, image_size=SIZE).labels, first.labels)
    os.utime(path, ns=(1, 1))
    Shards(path, image_size=SIZE)
    assert len(walks) == 2
    index.write_bytes(b"")
    index.chmod(0)
    index.parent.chmod(0o500)  # a cache that cannot be written (root can all the same)
    assert len(Shards(path, image_size=SIZE)) == 24
    index.parent.chmod(0o700)


def test_a_shard_that_changes_while_it_is_open_is_seen(tmp_path):
    path = tar(tmp_path / "x.tar", cls())
    faces = Shards(path, image_size=SIZE)
    tar(path, cls(range(12)))
    with pytest.raises(ValueError, match=r"x\.tar was changed after the set had been opened"):
        faces.batch([0])
    faces = Shards(path, image_size=SIZE)
    faces.batch([0])
    os.truncate(path, 5000)
    with pytest.raises(ValueError, match=r"x\.tar: 000011 is cut off after 0 of"):
        faces.batch([11])


def first_image(path):
    with tarfile.open(path) as archive:
        return next(member for member in archive if member.name.endswith("png"))


BAD = {
    "empty": ([], "holds no image"),
    "no labels": ([entry("a/1.png", IMAGES[0])], r"x\.tar: a/1 has no label: expected a/1\.cls, or "
                  r"a/1\.json with one of label, cls, class, identity, id; there is png"),
    "one without": ([*cls(range(2)), entry("z.png", IMAGES[0])], "z has no label"),
    "one without image": ([*cls(range(2)), entry("z.cls", b"1")], "z has a label and no image"),
    "two images": (
        [*cls(range(1)), entry("000000.jpg", encoded("jpeg"))], r"000000\.jpg is a second image of "
        r"its key, beside 000000\.png"
    ),
    "dots": ([entry("Ann.1.png", IMAGES[0]), entry("Ann.2.png", IMAGES[1])], "up to its first dot"),
    "twice": ([*cls(range(1)), *cls(range(1))], r"000000\.cls is in it twice"),
    "no text": ([entry("1.cls", b"\xff\xfe"), entry("1.png", IMAGES[0])], r"1\.cls is no label"),
    "empty label": ([entry("1.cls", b" \n"), entry("1.png", IMAGES[0])], r"1\.cls is no label"),
    "negative": (cls(range(2), names=[0, -1]), "have the label -1: expected numbers of at least 0"),
    "no json": ([entry("1.json", b"{"), entry("1.png", IMAGES[0])], r"1\.json is no JSON: "),
    "deep json": ([entry("1.json", b"[" * 99999), entry("1.png", IMAGES[0])], "is no JSON: "),
    "list": ([entry("1.json", b"[3]"), entry("1.png", IMAGES[0])], "is no JSON object with a"),
    "label null": (json_entries([{"label": None}]), "'label' is None: expected the number or the"),
    "label list": (json_entries([{"label": [3]}]), r"'label' is \[3\]: expected"),
    "label bool": (json_entries([{"label": True}]), "'label' is True: expected"),
    "label half": (json_entries([{"label": 0.5}]), "'label' is 0.5: expected"),
    "two labels": (json_entries([{"label": 1, "identity": 2}]), "has several labels.*say which"),
    "large label": ([entry("1.cls", bytes(2 << 20)), entry("1.png", IMAGES[0])], "too many for"),
    "parent": ([entry("../1.png", IMAGES[0]), *cls()], "'../1.png' leads out of the archive"),
    "absolute": ([entry("/1.png", IMAGES[0]), *cls()], "leads out of the archive"),
    "symlink": ([entry("1.png", kind=tarfile.SYMTYPE, linkname="/etc/passwd"), *cls()], "a link"),
    "hard link": ([*cls(), entry("z.png", kind=tarfile.LNKTYPE, linkname="000001.png")], "a link"),
    "pipe": ([entry("1.png", kind=tarfile.FIFOTYPE), *cls()], "is a link or a device"),
    "device": ([entry("1.png", kind=tarfile.CHRTYPE), *cls()], "is a link or a device"),
    "holes": ([entry("1.png", bytes(512), tarfile.GNUTYPE_SPARSE), *cls()], "is a file with holes"),
    "holes in a header": (
        [entry("1.png", IMAGES[0], pax_headers={"GNU.sparse.size": "9", "GNU.sparse.map": "0,8"})],
        "is a file with holes|is no tar file",
    ),
    "a long header": (
        [entry("1.png", IMAGES[0], pax_headers={"comment": "0" * 100_000})], "a header of 100,"
    ),
    "large image": ([entry("1.png", bytes(50_000_001))], "50,000,001 bytes, more than 50,000,000"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_shards_are_refused_in_one_line(tmp_path, cache, case):
    entries, message = BAD[case]
    path = tar(tmp_path / "x.tar", entries)
    with pytest.raises(ValueError, match=message) as caught:
        Shards(path, image_size=SIZE)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith((str(path), "the shards have"))


def test_cut_and_damaged_shards_are_named(tmp_path):
    whole = tar(tmp_path / "x.tar", cls()).read_bytes()
    path, end = tmp_path / "y.tar", len(whole.rstrip(b"\0"))
    third = whole.index(b"000003.png")
    cases = {
        "inside an image": (
            whole[: third + 600],
            r"y\.tar is cut off: '000003.png' would end at by",
        ),
        "between two": (
            whole[:third],
            f"cut off at byte {third:,}: the empty block that ends a tar",
        ),
        "inside a header": (whole[: third + 100], f"cut off at byte {third:,}"),
        "a damaged header": (
            whole[:third] + b"X" + whole[third + 1 :],
            f"no header at byte {third:,}",
        ),
        "zeros": (whole[:third] + bytes(512) + whole[third + 512 :], "goes on behind its end"),
        "two in one": (whole + whole, "two tars in one file"),
        "text": (b"hello" * 300, "is no tar file, or damaged"),
        "nothing": (b"", "is no tar file, or damaged"),
    }
    for content, message in cases.values():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            Shards(path, image_size=SIZE)
    path.write_bytes(whole[: end + 512 + -end % 512])  # one empty block ends it, as Go writes it
    assert len(Shards(path, image_size=SIZE)) == 24


def test_no_damage_hangs_or_raises_anything_else(tmp_path):
    """Headers of random bytes: an error of one line, or the set as it was."""
    rng = random.Random(1)  # noqa: S311
    entries = [
        *cls(range(3)),
        entry("p" * 150 + ".png", IMAGES[3]),
        entry("p" * 150 + ".cls", b"1"),
    ]
    good = tar(tmp_path / "x.tar", entries, tarfile.GNU_FORMAT).read_bytes()
    starts = [
        place for place in range(0, len(good), 512) if good[place + 257 : place + 262] == b"ustar"
    ]
    path, outcomes = tmp_path / "y.tar", set()
    for _ in range(150):
        data = bytearray(good)
        start = rng.choice(starts)
        for _ in range(rng.randrange(1, 4)):
            data[start + rng.choice([rng.randrange(512), rng.randrange(124, 136), 156])] = (
                rng.choice([rng.randrange(256), 0, 0x80, 0xFF, *b"0-7xgLKS"])
            )
        block = bytes(data[start : start + 512])
        if rng.random() < 0.8:  # with a checksum that agrees
            total = sum(block[:148]) + sum(block[156:]) + 8 * 32
            data[start + 148 : start + 156] = b"%06o\0 " % total
        path.write_bytes(data)
        try:
            outcomes.add(len(Shards(path, image_size=SIZE)))
        except ValueError as error:
            assert str(error).startswith((str(path), "the shards"))  # noqa: PT017
            outcomes.add(0)
    assert {0, 4} <= outcomes


def negative(path):
    """A header that says that its member has -1024 bytes, which would send a reader back."""
    header = bytearray(tarfile.TarInfo("1.png").tobuf())
    header[124:136] = (256**12 - 1024).to_bytes(12, "big")
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    path.write_bytes(bytes(tarfile.TarInfo("0.txt").tobuf()) + bytes(header) + bytes(1024))
    return path


def test_a_negative_size_is_no_circle(tmp_path):
    with pytest.raises(ValueError, match=r"header of '1\.png' is damaged"):
        Shards(negative(tmp_path / "x.tar"))


def test_what_names_no_shards(tmp_path, folder):
    path = several(tmp_path)
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("a.tar.gz", "b.tgz"):
        (packed / name).write_bytes(b"\x1f\x8b" + bytes(600))
    cases = [
        (path / "s-{09..12}.tar", FileNotFoundError, r"s-12\.tar \(1 of 4\)"),
        (path / "no.tar", FileNotFoundError, r"no such shard: .*no\.tar"),
        ([], FileNotFoundError, r"no shard in \[\]"),
        ([path / "s-09.tar"] * 2, ValueError, r"s-09\.tar is named twice"),
        (path / "s-{9..1}.tar", ValueError, "is no range"),
        (path / "{0..999}{0..999}.tar", ValueError, "names 1,000,000 shards"),
        (
            packed,
            ValueError,
            r"2 compressed archives such as a\.tar\.gz: .* unpack each to a \.tar",
        ),
        (packed / "a.tar.gz", ValueError, r"is compressed, so that .*: `gunzip a\.tar\.gz` once"),
    ]
    for given, error, message in cases:
        with pytest.raises(error, match=message):
            Shards(given)
    for given in (packed, packed / "a.tar.gz"):
        with pytest.raises(ValueError, match="compressed"):
            open_faces(given)
    with pytest.raises(ValueError, match="no folder of images: `nested` is for those"):
        open_faces(path, nested="first")
    with pytest.raises(ValueError, match=r"holds no shards \(\.tar\): `label` is for those"):
        open_faces(folder.root, label="cls")
    tar(folder.root / "folder.tar", cls())  # the archive it came in, beside its people
    assert isinstance(open_faces(folder.root, image_size=SIZE), ImageFolder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    for opened in (Shards, open_faces):
        with pytest.raises(ValueError, match=r"x\.tar is no regular file, but a pipe"):
            opened(tmp_path / "x.tar")


def test_undecodable_images_are_named_or_left_out(tmp_path):
    entries = [entry("z.png", b"no image"), entry("z.cls", b"77"), *cls(range(22))]
    path = tar(tmp_path / "x.tar", entries)
    with pytest.raises(ValueError, match=r"cannot read .*x\.tar: z as an image"):
        Shards(path, image_size=SIZE).batch(range(23))
    with pytest.warns(UserWarning, match=r"1 of 23 images .* left out: .*x\.tar: z"):
        faces = Shards(path, image_size=SIZE, max_bad_fraction=0.1)
    assert (faces.bad, len(faces), faces.num_identities) == ([f"{path}: z"], 22, 11)
    assert faces.identities == list(range(11))
    assert faces.labels.tolist() == LABELS[:22]
    assert faces.name(21) == f"{path}: 000021"
    assert len(faces.sizes()) == 22
    assert verify(path) == (23, [f"cannot read {path}: z as an image: cannot identify image file"])


@pytest.mark.filterwarnings("ignore:.*eyes are not where aligned")
def test_shards_are_converted_split_and_cached_as_other_sets(tmp_path, folder):
    path = several(tmp_path)
    faces = Shards(path, image_size=SIZE)
    convert(faces, tmp_path / "rec", to="rec")
    record = open_faces(tmp_path / "rec", image_size=SIZE)
    assert isinstance(record, RecordIO)
    assert [record.source(row) for row in range(24)] == IMAGES
    assert torch.equal(record.labels, faces.labels)
    assert torch.equal(cache_faces(faces).batch(range(24)), folder.batch(range(24)))
    one, other = (load_splits(source, image_size=SIZE) for source in (path, folder.root))
    assert torch.equal(
        one.train.batch(range(len(one.train))), other.train.batch(range(len(one.train)))
    )
    before = faces.parameters()
    assert Shards(path, image_size=SIZE).parameters() == before
    tar(path / "s-09.tar", cls([1, 0, *range(2, 8)]))
    assert Shards(path, image_size=SIZE).parameters() != before


def test_verify_walks_again(tmp_path):
    path = tar(tmp_path / "x.tar", cls())
    assert verify(path) == (24, [])
    status = path.stat()
    member = first_image(path)
    change(path, member.offset, b"Y")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(Shards(path, image_size=SIZE)) == 24  # as it was
    with pytest.raises(ValueError, match="is damaged: there is no header at byte"):
        verify(path)


def test_the_commands_take_shards(tmp_path, capsys):
    names = [f"p{label}" for label in LABELS]
    values = [{"who": name, "label": 0} for name in names]
    tar(tmp_path / "set" / "x.tar", json_entries(values))
    path, label = str(tmp_path / "set"), ["--label", "who"]
    assert main(["data", "info", path, *label]) == 0
    assert "24 readable images of 12 identities" in capsys.readouterr().out
    assert main(["data", "verify", path, *label]) == 0
    assert "24 checked in" in capsys.readouterr().out
    out = ["--out", str(tmp_path / "out"), "--image-size", "16"]
    assert main(["data", "convert", "--faces", path, *out, *label]) == 0
    assert open_faces(tmp_path / "out", image_size=16).identities == [f"p{i}" for i in range(12)]
    assert main(["data", "info", path]) == 0  # one person by `label`
    assert main(["data", "verify", path, "--label", "nobody"]) == 2
    assert "x.tar: a/0 has no label: expected a/0.nobody, or" in capsys.readouterr().err


class Batches(Dataset):
    def __init__(self, faces):
        self.faces = faces

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.faces.batch(range(index, 24, 6))  # all readers in all shards


@pytest.mark.starts_process
def test_large_shards_are_looked_through_by_several_processes(tmp_path, monkeypatch):
    path = several(tmp_path)
    (path / "s-12.tar").write_bytes((path / "s-09.tar").read_bytes()[:3000])
    monkeypatch.setattr("ekd_lite.data.shard_index._BYTES_A_WORKER", 1)
    monkeypatch.setattr("ekd_lite.data.shard_index.cores", lambda: 2)
    with pytest.raises(ValueError, match=r"s-12\.tar is cut off"):
        Shards(path)
    (path / "s-12.tar").unlink()
    monkeypatch.setattr("ekd_lite.data.shard_index.index_shard", None)  # all three are kept
    assert Shards(path).labels.tolist() == LABELS


@pytest.mark.starts_process
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_forked_readers_do_not_disturb_each_other(tmp_path, folder):
    faces = Shards(several(tmp_path), image_size=SIZE)
    faces.batch(range(24))  # all files are open when the readers start
    loader = DataLoader(
        Batches(faces), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    for _ in range(3):
        for number, images in enumerate(loader):
            assert torch.equal(images, folder.batch(range(number, 24, 6)))
    # Which would be chance if they shared a position in the file: none of them moves it.
    handles = faces._opened.values()
    assert {os.lseek(handle._number, 0, os.SEEK_CUR) for handle in handles} == {0}


def test_a_copy_opens_its_own_files_and_few_stay_open(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(shards, "_OPEN", 2)
    faces = Shards(several(tmp_path), image_size=SIZE)
    for _ in range(2):
        assert torch.equal(faces.batch(range(24)), folder.batch(range(24)))
    assert len(faces._opened) == 2
    copied = pickle.loads(pickle.dumps(faces))  # noqa: S301
    assert torch.equal(copied.batch(range(24)), folder.batch(range(24)))
    monkeypatch.delattr(os, "pread")  # as on Windows
    assert torch.equal(copied.batch(range(24)), folder.batch(range(24)))
