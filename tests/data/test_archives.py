"""Archives: images come out as bytes, and nothing hostile comes out at all."""

import io
import random
import tarfile
import zipfile

import pytest
from PIL import Image

from ekd_lite.data import ImageFolder
from ekd_lite.data.archives import read_images, unpack_faces
from ekd_lite.files import write_atomically


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "png")
    return file.getvalue()


IMAGES = {"lfw/ann/1.png": png("red"), "lfw/ann/2.png": png("green"), "lfw/bob/1.png": png("blue")}


def entry(name, kind=tarfile.REGTYPE, data=b"", **more):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar(path, entries, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return path


def make(path, contents):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        return path
    mode = {".tgz": "w:gz", ".tar": "w", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix]
    return tar(path, [entry(n, data=d) for n, d in contents.items()], mode)


@pytest.mark.parametrize("suffix", ["tgz", "tar", "bz2", "xz", "zip"])
def test_images_are_read_and_unpacked(tmp_path, suffix):
    path = make(tmp_path / f"x.{suffix}", {"lfw/README": b"text", **IMAGES})
    assert dict(read_images(path)) == IMAGES
    assert unpack_faces(path, tmp_path / "out") == 3
    faces = ImageFolder(tmp_path / "out", image_size=16)
    assert faces.identities == ["ann", "bob"]
    assert [file.read_bytes() for file in faces.files] == list(IMAGES.values())
    with pytest.raises(ValueError, match="is there already"):
        unpack_faces(path, tmp_path / "out")


HOSTILE = {
    "parent": entry("../../evil.png", data=png("red")),
    "inner parent": entry("a/../../evil.png", data=png("red")),
    "absolute": entry("/tmp/evil.png", data=png("red")),  # noqa: S108
    "windows": entry("..\\evil.png", data=png("red")),
    "drive": entry("c:evil.png", data=png("red")),
    "symlink": entry("a/x.png", tarfile.SYMTYPE, linkname="/etc/passwd"),
    "symlink folder": entry("a", tarfile.SYMTYPE, linkname="/tmp"),  # noqa: S108
    "hard link": entry("a/x.png", tarfile.LNKTYPE, linkname="/etc/passwd"),
    "device": entry("a/x.png", tarfile.CHRTYPE),
    "pipe": entry("a/x.png", tarfile.FIFOTYPE),
    "bomb": entry("a/x.png", data=bytes(40_000_000)),
    "bomb of another kind": entry("a/x.txt", data=bytes(40_000_000)),
    "bomb in a header": entry("a/x.png", data=b"", pax_headers={"comment": "0" * 20_000_000}),
    "holes": entry("a/x.png", tarfile.GNUTYPE_SPARSE, bytes(512)),
    "holes in a header": entry(
        "a/x.png",
        data=png("red"),
        pax_headers={"GNU.sparse.size": "40000000", "GNU.sparse.map": "0,8"},
    ),
    "holes of another kind": entry("a/x.txt", tarfile.GNUTYPE_SPARSE, bytes(512)),
    "no image": entry("a/x.png", data=b"hello"),
    "loose": entry("x.png", data=png("red")),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_tars_write_nothing(tmp_path, kind):
    path = tar(tmp_path / "x.tgz", [HOSTILE[kind]])
    with pytest.raises(ValueError, match=r"x\.tgz"):
        unpack_faces(path, tmp_path / "deep" / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["x.tgz"]


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png"])
def test_hostile_zips_write_nothing(tmp_path, name):
    path = make(tmp_path / "x.zip", {name: png("red")})
    with pytest.raises(ValueError, match="leads out of the archive"):
        unpack_faces(path, tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["x.zip"]


def test_links_and_bombs_in_zips(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        link = zipfile.ZipInfo("a/x.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link or a device"):
        list(read_images(tmp_path / "x.zip"))
    with zipfile.ZipFile(tmp_path / "y.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x.png", bytes(40_000_000))
    with pytest.raises(ValueError, match="unpacks to more than 20 times its size"):
        list(read_images(tmp_path / "y.zip"))


@pytest.mark.parametrize("suffix", ["tgz", "tar", "bz2", "xz", "zip"])
def test_damaged_archives_are_named(tmp_path, suffix):
    rng = random.Random(0)  # noqa: S311
    good = make(tmp_path / f"x.{suffix}", IMAGES).read_bytes()
    for _ in range(60):
        data = bytearray(good)
        if rng.random() < 0.5:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.randrange(1, 5)):
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "y").write_bytes(data)
        try:
            for name, _ in read_images(tmp_path / "y"):
                assert not name.startswith(("/", ".."))
        except ValueError as error:
            assert str(tmp_path / "y") in str(error)  # noqa: PT017


def test_no_such_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such archive"):
        list(read_images(tmp_path / "x.tgz"))


@pytest.mark.parametrize("suffix", ["tgz", "zip"])
def test_what_macos_adds_is_not_read(tmp_path, suffix):
    foreign = {
        "__MACOSX/lfw/ann/._1.png": b"\0\5\x16\7", "lfw/ann/._1.png": b"\0\5\x16\7",
        "lfw/.ipynb_checkpoints/1.png": png("red"), "lfw/ann/.hidden.png": png("red"),
    }  # fmt: skip
    path = make(tmp_path / f"x.{suffix}", {**foreign, **IMAGES})
    assert dict(read_images(path)) == IMAGES
    assert unpack_faces(path, tmp_path / "out") == 3


def test_after_an_error_nothing_is_there(tmp_path):
    path = tar(tmp_path / "x.tgz", [entry(n, data=d) for n, d in IMAGES.items()] + [
        entry("lfw/ann/3.png", data=b"no image")])  # fmt: skip
    write_atomically(tmp_path / "out" / "ann" / "old.png", png("red"))
    with pytest.raises(ValueError, match=r"3\.png as an image"):
        unpack_faces(path, tmp_path / "out")
    assert [p.name for p in sorted((tmp_path / "out").rglob("*"))] == ["ann", "old.png"]


def test_an_unpacking_that_was_killed_is_completed(tmp_path, monkeypatch):
    path, out = make(tmp_path / "x.tgz", IMAGES), tmp_path / "out"

    def write(target, data, real=write_atomically):
        if target.parent.name == "bob":
            with pytest.raises(ValueError, match="another process is writing into it"):
                unpack_faces(path, out)
            raise KeyboardInterrupt  # after which nothing is tidied up, as after SIGKILL
        real(target, data)

    with monkeypatch.context() as patch:
        patch.setattr("ekd_lite.data.archives.write_atomically", write)
        with pytest.raises(KeyboardInterrupt):
            unpack_faces(path, out)
    (out / "ann" / ".3.png.1.0badcafe.tmp").write_bytes(b"half of a file")
    with pytest.raises(ValueError, match="is not finished"):
        ImageFolder(out)
    other = make(tmp_path / "y.tgz", {"lfw/ann/1.png": png("white")})
    with (
        pytest.warns(UserWarning, match="holds half of an archive"),
        pytest.raises(ValueError, match=r"1\.png is there already"),
    ):
        unpack_faces(other, out)  # another picture of this name is not replaced
    with pytest.warns(UserWarning, match="holds half of an archive, whose unpacking was"):
        assert unpack_faces(path, out) == 3
    assert sorted(p.name for p in out.rglob("*")) == ["1.png", "1.png", "2.png", "ann", "bob"]
    with pytest.raises(ValueError, match="is there already"):
        unpack_faces(path, out)
    assert len(ImageFolder(out, image_size=16)) == 3  # which is none the worse for it
