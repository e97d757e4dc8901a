"""A folder of faces, good and bad."""

import gc
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ekd_lite.data import ImageFolder, convert, open_faces, pixels
from ekd_lite.data.names import FileNames, natural, printable


def write(path, colour, size=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), colour, dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "bob" / "1.png", (255, 0, 0))
    write(tmp_path / "bob" / "2.png", (0, 255, 0))
    write(tmp_path / "ann" / "x.PNG", (0, 0, 255))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("not a face")
    return tmp_path


def test_identities_in_order_and_pixels_in_range(root):
    faces = ImageFolder(root, image_size=32)
    assert faces.identities == ["ann", "bob"]
    assert faces.labels.tolist() == [0, 1, 1]
    assert len(faces) == 3
    assert faces.num_identities == 2
    image, label = faces[1]
    assert label == 1
    assert image.shape == (3, 32, 32)
    assert image.flatten(1).mean(1).tolist() == [1, -1, -1]
    assert torch.equal(faces.batch([1]), image[None])


def test_grey_and_transparent_images_become_rgb(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (32, 32), 128).save(tmp_path / "a" / "grey.png")
    Image.new("RGBA", (32, 32), (255, 255, 255, 0)).save(tmp_path / "a" / "clear.png")
    assert ImageFolder(tmp_path, image_size=32).batch([0, 1]).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("together", [1, 3, 32])
def test_a_batch_is_what_pillow_decodes_whatever_the_mode(tmp_path, monkeypatch, together):
    monkeypatch.setattr(pixels, "TOGETHER", together)
    rng = np.random.default_rng(0)
    kinds = ["RGB.jpg", "L.jpg", "CMYK.jpg", "RGB.png", "RGBA.png", "P.png", "1.png"]
    (tmp_path / "a").mkdir()
    for name in [*kinds, "RGB.webp", "RGBA.webp", "RGB.bmp", "L.bmp"]:
        noise = rng.integers(0, 256, (32, 32, 4), dtype=np.uint8)
        image = Image.fromarray(noise)
        mode, _, kind = name.rpartition(".")
        if image.mode != mode:
            image = image.convert("RGB").convert(mode)
        image.save(tmp_path / "a" / f"{mode[0]}{len(mode)}.{kind}")
    faces = ImageFolder(tmp_path, image_size=32)
    order = rng.permutation(np.repeat(np.arange(len(faces)), 2))
    expected = []
    for i in order:
        with Image.open(faces.files[i]) as image:
            colours = torch.from_numpy(np.array(image.convert("RGB")))
        expected.append(colours.permute(2, 0, 1).float() / 127.5 - 1)
    batch = faces.batch(order.tolist())
    assert batch.is_contiguous()
    assert torch.equal(batch, torch.stack(expected))


def test_parameters_change_when_a_file_changes(root):
    before = ImageFolder(root, image_size=32).parameters()
    write(root / "bob" / "2.png", (1, 2, 3), size=64)
    assert ImageFolder(root, image_size=32).parameters() != before


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder of faces"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="one sub-folder per identity"):
        ImageFolder(tmp_path)
    write(tmp_path / "loose.png", (0, 0, 0))
    with pytest.raises(ValueError, match="1 images lie directly in it"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("damage", ["text", "truncated", "empty"])
def test_an_image_that_is_none_is_named(root, damage):
    good = (root / "bob" / "1.png").read_bytes()
    bad = {"text": b"hello", "truncated": good[: len(good) // 2], "empty": b""}[damage]
    (root / "bob" / "1.png").write_bytes(bad)
    faces = ImageFolder(root, image_size=32)
    with pytest.raises(ValueError, match=r"cannot read .*1\.png as an image"):
        faces.batch([1])


def test_sizes_are_checked(root):
    with pytest.raises(ValueError, match="multiple of 16"):
        ImageFolder(root, image_size=33)


def numbered(root, names):
    for name in names:
        write(root / name / "a.png", (0, 0, 0), size=16)
    return ImageFolder(root, image_size=16)


def test_people_and_images_are_ordered_as_a_person_would(tmp_path):
    names = ["1", "2", "10", "p1", "p2", "p10", "007", "x-1", "x1"]
    faces = numbered(tmp_path, names)
    assert faces.identities == ["1", "2", "007", "10", "p1", "p2", "p10", "x-1", "x1"]
    for number in (1, 2, 10):
        write(tmp_path / "1" / f"{number}.png", (0, 0, 0), size=16)
    files = ImageFolder(tmp_path, image_size=16).files
    assert [file.name for file in files[:4]] == ["1.png", "2.png", "10.png", "a.png"]


@given(st.lists(st.text("aB_-.é ", min_size=1, max_size=6), max_size=8))
def test_names_without_digits_and_padded_ones_keep_their_order(names):
    assert sorted(names, key=natural) == sorted(names)
    padded = [f"{name}_{number:04d}" for name in names for number in (1, 9, 10, 123)]
    assert sorted(padded, key=natural) == sorted(padded)


@given(st.lists(st.integers(0, 10**30), unique=True))
def test_numbers_are_ordered_by_size(numbers):
    names = [f"id{number}.jpg" for number in numbers]
    assert sorted(names, key=natural) == [f"id{number}.jpg" for number in sorted(numbers)]


def test_a_converted_set_has_the_same_labels(tmp_path):
    faces = numbered(tmp_path / "faces", ["10", "9", "1", "100"])
    assert faces.identities == ["1", "9", "10", "100"]
    convert(faces, tmp_path / "rec", to="rec")
    opened = open_faces(tmp_path / "rec", image_size=16)
    assert opened.labels.tolist() == faces.labels.tolist()
    assert [opened.source(i) for i in range(4)] == [file.read_bytes() for file in faces.files]


FOREIGN = ["._1.png", ".hidden.png", "Thumbs.db", ".DS_Store", "desktop.ini", "notes.txt"]


def test_what_systems_leave_behind_is_not_looked_at(root):
    for name in FOREIGN:
        (root / "bob" / name).write_bytes(b"no image")
    for folder in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "lost+found"):
        write(root / folder / "1-checkpoint.png", (0, 0, 0))
        write(root / "bob" / folder / "1.png", (0, 0, 0))
    faces = ImageFolder(root, image_size=32)  # a warning would be an error here
    assert faces.identities == ["ann", "bob"]
    assert len(faces) == 3


def test_what_is_passed_over_is_counted_once(root):
    write(root / "bob" / "more" / "deep" / "1.png", (0, 0, 0))
    write(root / "bob" / "more" / "2.jpg", (0, 0, 0))
    write(root / "loose.png", (0, 0, 0))
    Image.new("RGB", (16, 16)).save(root / "bob" / "x.tiff")
    (root / "bob" / "y").write_bytes(b"")
    (root / "cid").mkdir()
    Image.new("RGB", (16, 16)).save(root / "cid" / "1.gif")
    with pytest.warns(UserWarning, match="passed over") as caught:
        faces = ImageFolder(root, image_size=32)
    assert faces.identities == ["ann", "bob"]
    assert len(caught) == 1
    for part in (
        "1 images lie directly in it", "2 images in 1 deeper folders, which nested reads",
        "3 files of other kinds (1 .gif, 1 .tiff, 1 no suffix)", "1 folders that hold nothing else",
    ):  # fmt: skip
        assert part in str(caught[0].message)


def test_only_deeper_images_are_no_set_and_the_message_says_where_they_are(tmp_path):
    write(tmp_path / "train" / "ann" / "1.png", (0, 0, 0))
    with pytest.raises(ValueError, match=r"no face found in .*1 images in 1 deeper folders"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JPEG"])
def test_all_names_of_jpegs_are_read(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "a" / f"1.{suffix}", "JPEG")
    assert len(ImageFolder(tmp_path, image_size=16)) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_a_pipe_does_not_hang(root):
    os.mkfifo(root / "bob" / "3.jpg")
    with pytest.raises(ValueError, match=r"3\.jpg has the name of an image and is no regular file"):
        ImageFolder(root)
    (root / "bob" / "3.jpg").unlink()
    (root / "bob" / "3.jpg").symlink_to(root / "nowhere")
    faces = ImageFolder(root, image_size=32)  # a link to nothing is an image that cannot be read
    with pytest.raises(FileNotFoundError):
        faces.batch([3])
    with pytest.warns(UserWarning, match="left out"):
        assert len(ImageFolder(root, image_size=32, max_bad_fraction=0.5)) == 3


def test_an_unfinished_folder_is_not_opened(root):
    (root / ".unfinished").touch()
    with pytest.raises(ValueError, match="is not finished: what wrote it was killed"):
        ImageFolder(root)


def test_files_are_paths_in_one_block(tmp_path):
    names = ["a/1.jpg", "a/b c.jpg", "é/ü.png", os.fsdecode(b"x/\xff.jpg"), "n/l\nf.jpg"]
    files = FileNames(tmp_path, names)
    paths = [tmp_path / name for name in names]
    assert list(files) == paths
    assert files == paths
    assert files != paths[:-1]
    assert files[-1] == paths[-1]
    assert files[1:3] == paths[1:3]
    assert [files.path(i) for i in range(5)] == [str(path) for path in paths]
    with pytest.raises(IndexError):
        files[5]
    assert printable(names[3]) == "x/\\udcff.jpg"
    assert printable(names[4]) == "n/l\\nf.jpg"
    assert printable("a b/é\x1b[31m") == "a b/é\\x1b[31m"
    assert len(FileNames(tmp_path, [])) == 0
    many = FileNames(tmp_path, [f"{i // 70:06d}/{i:08d}.jpg" for i in range(20_000)])
    assert len(pickle.dumps(many)) < 30 * 20_000  # 19 bytes a name, 8 for where it ends
    assert len(gc.get_referents(many.__dict__)) < 10


@pytest.mark.starts_process
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux")
def test_a_reader_does_not_copy_the_names(tmp_path):
    """Every string that a forked reader looks at would be written to, and copied with its page."""
    files = FileNames(tmp_path, [f"{i // 70:06d}/{i:08d}.jpg" for i in range(100_000)])

    def private():
        with open("/proc/self/smaps_rollup", encoding="utf-8") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Private"))

    read, write_end = os.pipe()
    child = os.fork()
    if not child:
        before = private()
        for i in range(100_000):
            files.path(i)
        os.write(write_end, str(private() - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    with os.fdopen(read) as pipe:
        assert int(pipe.read()) < 2000  # kB; a list of strings costs 15,000


TREE = [
    "ann/v1/a.png",
    "ann/v1/b.png",
    "ann/v10/c.png",
    "ann/v2/d.png",
    "bob/e.png",
    "cid/x/y/f.png",
]
FIRST = {"ann": "abdc", "bob": "e", "cid": "f"}
LAST = {"ann/v1": "ab", "ann/v2": "d", "ann/v10": "c", "bob": "e", "cid/x/y": "f"}


@pytest.mark.parametrize(("nested", "people"), [("first", FIRST), ("last", LAST)])
def test_both_conventions_of_nested_folders(tmp_path, nested, people):
    for number, name in enumerate(TREE):
        write(tmp_path / name, (number, 0, 0))
    (tmp_path / "ann" / "v1" / ".hidden").mkdir()
    write(tmp_path / "ann" / "v1" / ".hidden" / "z.png", (0, 0, 0))
    faces = ImageFolder(tmp_path, image_size=16, nested=nested)  # a warning would be an error here
    assert faces.identities == list(people)
    assert [file.stem for file in faces.files] == list("".join(people.values()))
    assert faces.labels.tolist() == [i for i, own in enumerate(people.values()) for _ in own]
    red = ((faces.batch(range(6))[:, 0, 0, 0] + 1) * 127.5).round().tolist()
    assert red == ["abcdef".index(file.stem) for file in faces.files]
    convert(faces, tmp_path / "out", to="rec")
    assert open_faces(tmp_path / "out", image_size=16).labels.tolist() == faces.labels.tolist()


def test_a_flat_folder_is_the_same_set_by_every_convention(root):
    flat = ImageFolder(root, image_size=16)
    for nested in ("first", "last"):
        faces = ImageFolder(root, image_size=16, nested=nested)
        assert (faces.files, faces.identities) == (flat.files, flat.identities)
        assert torch.equal(faces.labels, flat.labels)


def test_nested_folders_whose_people_are_not_plain_are_refused(root):
    write(root / "bob" / "old" / "3.png", (0, 0, 0))
    with pytest.raises(ValueError, match=r"bob holds 2 images and 1 in folders below it, so that"):
        ImageFolder(root, nested="last")
    assert ImageFolder(root, image_size=16, nested="first").labels.tolist() == [0, 1, 1, 1]
    with pytest.raises(ValueError, match=r"nested must be None, 'first' .* got True"):
        ImageFolder(root, nested=True)  # type: ignore[arg-type]
    (root / "bob" / "old" / "back").symlink_to(root / "bob")
    with pytest.raises(ValueError, match=r"old/back leads back to a folder that it lies in"):
        ImageFolder(root, nested="first")
    (root / "bob" / "old" / "back").unlink()
    (root / "bob" / "old" / "x.gif").touch()
    with pytest.warns(
        UserWarning, match=r"1 \.gif\)\. Images are read from root/identity/\.\.\./\*"
    ):
        ImageFolder(root, nested="first")


def test_nested_is_for_folders_of_images(root, tmp_path):
    for to in ("rec", "packed"):
        convert(ImageFolder(root, image_size=16), tmp_path / to / "x", to=to)
        with pytest.raises(ValueError, match="no folder of images: `nested` is for those"):
            open_faces(tmp_path / to / "x", image_size=16, nested="first")


def test_a_person_whose_link_leads_nowhere_is_counted(root):
    (root / "cem").symlink_to(root / "a disk that is not there")
    with pytest.warns(UserWarning, match="passed over: 1 links that lead nowhere"):
        assert ImageFolder(root, image_size=16).identities == ["ann", "bob"]


@pytest.mark.parametrize("size", ["32", 32.0, None])
def test_a_size_is_a_whole_number(root, size):
    with pytest.raises(ValueError, match="image_size must be a multiple of 16"):
        ImageFolder(root, image_size=size)


def test_a_link_to_itself_leads_nowhere(root):
    (root / "ann" / "9.png").symlink_to(root / "ann" / "9.png")
    with pytest.warns(UserWarning, match="1 of 4 images cannot be decoded"):
        assert len(ImageFolder(root, image_size=16, max_bad_fraction=0.5)) == 3
    (root / "ann" / "9.png").unlink()
    (root / "cem").symlink_to(root / "cem")
    with pytest.warns(UserWarning, match="1 links that lead nowhere"):
        assert ImageFolder(root, image_size=16).identities == ["ann", "bob"]


@pytest.mark.parametrize("share", ["0.1", None, float("nan"), 2])
def test_a_share_of_bad_images_is_a_share(root, share):
    with pytest.raises(ValueError, match="max_bad_fraction must be 0 to 1"):
        ImageFolder(root, image_size=16, max_bad_fraction=share)
