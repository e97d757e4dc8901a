"""Damaged images and containers in numbers: each is named or read, none is guessed at.

`EKD_FAULTS=full` runs the full counts, 1,000 images of 6 kinds and 10,000 mutated files; without
it a tenth of the images and a fortieth of the files. The seed is fixed.
"""

import io
import pickle
import random
import time
import tracemalloc
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ekd_lite.data import ImageFolder, RecordIO, read_verification_bin, verify
from ekd_lite.data.decode import decode_image
from ekd_lite.data.record_format import read_record, unpack_image
from ekd_lite.data.record_index import scan
from ekd_lite.data.record_writer import RecordWriter
from ekd_lite.data.sets import write_checksums
from tests.faults.damage import mutate
from tests.faults.scale import cases
from tests.memory import peak_mb

IMAGES = cases(102, 1000)
FILES = cases(240, 10_000)
KINDS = ("truncated", "bit flipped", "zeroed", "random bytes", "empty", "tail of another")
MAX_SECONDS = 2  # for one file, on a machine that others use too


def face(rng, size=112):
    """A smooth JPEG, as photographs are."""
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "jpeg", quality=90)
    return file.getvalue()


def damage_image(data, kind, rng):
    if kind == "truncated":
        return data[: rng.randrange(1, len(data))]
    if kind == "empty":
        return b""
    if kind == "random bytes":
        return rng.randbytes(len(data))
    changed = bytearray(data)
    if kind == "bit flipped":
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "zeroed":
        start = rng.randrange(len(data) - 512)
        if not any(changed[start : start + 512]):
            return data[:-1]
        changed[start : start + 512] = bytes(512)
    else:
        start = rng.randrange(len(data))
        changed[start:] = rng.randbytes(len(data) - start)
    return bytes(changed)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Folder of checksummed faces, every one damaged afterwards; the kinds, and the originals."""
    root = tmp_path_factory.mktemp("damaged")
    numbers = np.random.default_rng(0)
    for person in range(IMAGES // 6 + 1):
        (root / f"p{person:03}").mkdir()
    files = [root / f"p{i // 6:03}" / f"{i % 6}.jpg" for i in range(IMAGES)]
    originals = {file: face(numbers) for file in files}
    for file, data in originals.items():
        file.write_bytes(data)
    for folder in root.iterdir():
        if not any(folder.iterdir()):
            folder.rmdir()
    assert write_checksums(root) == IMAGES
    rng = random.Random(1)  # noqa: S311
    kinds = {}
    for number, file in enumerate(files):
        kinds[file] = KINDS[number % 6]
        file.write_bytes(damage_image(originals[file], kinds[file], rng))
        assert file.read_bytes() != originals[file]
    return root, kinds, originals


def test_every_damaged_image_is_named_or_is_what_its_own_bytes_say(damaged, count):
    """No crash, no hang, and no image that stands in for another."""
    root, kinds, _ = damaged
    faces = ImageFolder(root, image_size=112)
    outcome = Counter()
    for index, file in enumerate(faces.files):
        start = time.perf_counter()
        try:
            batch = faces.batch([index])
        except ValueError as error:
            assert str(file) in str(error)  # noqa: PT017
            outcome["named", kinds[file]] += 1
        else:
            # It decodes: then to exactly what another decoder call makes of these very bytes.
            with Image.open(io.BytesIO(file.read_bytes())) as image:
                pixels = np.asarray(image.convert("RGB").resize((112, 112)))
            assert batch.shape == (1, 3, 112, 112)
            if pixels.shape == (112, 112, 3) and decode_image(file, name="x").shape[1:] == (
                112,
                112,
            ):
                assert np.array_equal(((batch[0] + 1) * 127.5).round().permute(1, 2, 0), pixels)
            outcome["decodes", kinds[file]] += 1
        assert time.perf_counter() - start < MAX_SECONDS
    named = sum(number for (what, _), number in outcome.items() if what == "named")
    count(
        "damaged images",
        f"{IMAGES} of 6 kinds, {named} named on reading, {IMAGES - named} decode to what their "
        "bytes say, 0 crashes",
    )
    assert sum(outcome.values()) == IMAGES
    for kind in ("truncated", "random bytes", "empty"):
        assert outcome["decodes", kind] == 0, kind
    # STYLE B10: some damage decodes; the next test is what guards against it.
    assert sum(count for (what, _), count in outcome.items() if what == "decodes") > 0


def test_verify_names_every_single_one(damaged, count):
    root, kinds, _ = damaged
    _, faults = verify(root)
    assert len(faults) == IMAGES
    named = {line.split(": ")[0] for line in faults}
    assert named == {str(file) for file in kinds}
    count("data verify", f"{len(named)}/{IMAGES} damaged images found")


def test_bad_images_are_counted_and_left_out_or_stop_everything(damaged):
    root, _, _ = damaged
    with pytest.raises(ValueError, match=rf"of {IMAGES} images cannot be decoded, more than"):
        ImageFolder(root, max_bad_fraction=0.001)
    with pytest.warns(UserWarning, match="cannot be decoded and are left out"):
        faces = ImageFolder(root, max_bad_fraction=1)
    assert len(faces) + len(faces.bad) == IMAGES
    faces.batch(range(len(faces)))  # what is left can all be read


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """An undamaged .rec with .idx, and a .bin, of small images."""
    folder = tmp_path_factory.mktemp("good")
    numbers = np.random.default_rng(0)
    images = [face(numbers, 16) for _ in range(8)]
    with RecordWriter(folder / "train.rec") as writer:
        writer.write(0, [9.0, 13.0])
        for key, image in enumerate(images, 1):
            writer.write(key, [float((key - 1) // 2), 0.0], image)
        for identity in range(4):
            writer.write(9 + identity, [2.0 * identity + 1, 2.0 * identity + 3])
    flags = [True, False, True, False]
    content = pickle.dumps((images, np.array(flags)), 2)
    (folder / "lfw.bin").write_bytes(content)
    return folder


def pristine_pairs(folder):
    """Image and identity of every record, found without an index."""
    data = (folder / "train.rec").read_bytes()
    pairs = []
    for offset in scan(data, name="x").tolist():
        record = unpack_image(read_record(data, offset, name="x")[0], name="x")
        pairs += [(record.image, int(record.labels[0]))] if record.image else []
    return sorted(pairs)


def read_all(kind, path):
    """Open a set and read every image in it."""
    if kind == "bin":
        pairs = read_verification_bin(path, image_size=16)
        sides: list[Any] = [pairs.left, pairs.right]
    else:
        sides = [RecordIO(path.with_suffix(".rec"), image_size=16)]
    if kind == "idx":  # the images are whole: what is read must be they, with their own labels
        faces = sides[0]
        read = [(faces.source(i), faces.identities[faces.labels[i]]) for i in range(len(faces))]
        # A record taken for an image by a wrong key is empty, and named below.
        assert sorted(pair for pair in read if pair[0]) == pristine_pairs(path.parent)
    for side in sides:
        for index in range(len(side)):
            try:
                assert side.batch([index]).shape == (1, 3, 16, 16)
            except ValueError as error:
                assert str(path.parent) in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", ["rec", "rec without idx", "idx", "bin"])
def test_mutated_files_are_read_or_named(good, tmp_path, kind, count):
    rng = random.Random(2)  # noqa: S311
    outcome = Counter()
    name = {"idx": "train.idx", "bin": "lfw.bin"}.get(kind, "train.rec")
    pristine = (good / name).read_bytes()
    for file in good.iterdir():
        if not (kind == "rec without idx" and file.suffix == ".idx"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / name
    peak = slowest = 0.0
    tracemalloc.start()
    try:
        for _ in range(FILES // 4):
            path.unlink()  # an earlier map of it must not change
            path.write_bytes(mutate(pristine, rng))
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*announces .* images in record 0")
                warnings.filterwarnings("ignore", message=".*not square")
                warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
                try:
                    read_all(kind.split(" ", maxsplit=1)[0], path)
                    outcome["read"] += 1
                except ValueError as error:
                    assert str(tmp_path) in str(error)  # noqa: PT017
                    outcome["named"] += 1
            slowest = max(slowest, time.perf_counter() - start)
            peak = max(peak, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    count(
        f"mutated files, {kind}",
        f"{FILES // 4} files, {outcome['named']} named, {outcome['read']} read, slowest "
        f"{slowest:.3f} s, peak {peak / 1e6:.2f} MB, process at most {peak_mb():.0f} MB",
    )
    assert sum(outcome.values()) == FILES // 4
    assert outcome["named"] > 0
    assert slowest < MAX_SECONDS
    assert peak < 5e6  # of files of 5 kB; one unchecked length would ask for hundreds of MB
