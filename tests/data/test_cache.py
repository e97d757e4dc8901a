"""The cache of rendered faces: exact, keyed by everything, and never trusted when damaged."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ekd_lite.data import cache
from ekd_lite.data.cache import cache_faces, cache_key
from ekd_lite.data.synthetic import SyntheticFaces


@pytest.fixture
def faces():
    return SyntheticFaces(4, 3, seed=2)


def _files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_first_and_second_opening_are_bit_equal_to_rendering(faces, tmp_path, monkeypatch):
    rendered = faces.batch(range(12))
    first = cache_faces(faces, tmp_path / "new" / "folder")

    def fail(*_):
        raise AssertionError("rendered again")

    monkeypatch.setattr(cache, "_render_part", fail)
    second = cache_faces(faces, tmp_path / "new" / "folder")
    for cached in (first, second):
        assert torch.equal(cached.batch(range(12)), rendered)
        assert torch.equal(cached.batch(torch.tensor([5, 0, 5])), rendered[[5, 0, 5]])
        assert torch.equal(cached.labels, faces.labels)
        assert (len(cached), cached.image_size, cached.num_identities) == (12, 32, 4)
        image, label = cached[-1]
        assert torch.equal(image, rendered[11])
        assert label == 3
    key = cache_key(faces.parameters())
    assert _files(tmp_path / "new" / "folder") == [f"{key}.json", f"{key}.npy"]


@pytest.mark.parametrize(
    "change",
    [
        {"num_identities": 5}, {"images_per_identity": 4}, {"image_size": 48}, {"seed": 3},
        {"first_identity": 1}, {"first_image": 1}, {"identity_spread": 1.4},
        {"nuisance_strength": 0.5}, {"family_share": 0.2}, {"family_likeness": 0.5},
    ],
)  # fmt: skip
def test_every_parameter_changes_the_key(faces, change):
    base = {"num_identities": 4, "images_per_identity": 3, "seed": 2}
    other = SyntheticFaces(**(base | change))
    assert cache_key(other.parameters()) != cache_key(faces.parameters())
    assert set(change) <= set(faces.parameters())


def test_renderer_version_is_part_of_the_key(faces, monkeypatch):
    key = cache_key(faces.parameters())
    monkeypatch.setattr("ekd_lite.data.synthetic.RENDERER_VERSION", -1)
    assert cache_key(faces.parameters()) != key
    assert cache_key({"a": 1, "b": 2}) == cache_key({"b": 2, "a": 1})


@pytest.mark.parametrize(
    "damage", ["flip", "truncate", "empty", "note", "note_type", "deep", "swapped"]
)
def test_damaged_files_are_rendered_again_with_one_warning(faces, tmp_path, damage):
    rendered = cache_faces(faces, tmp_path).batch(range(12))
    path = tmp_path / f"{cache_key(faces.parameters())}.npy"
    note = path.with_suffix(".json")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "truncate":
        data = data[:-10]
    elif damage == "empty":
        data = bytearray()
    elif damage == "note":
        note.write_bytes(note.read_bytes()[:-20])
    elif damage == "note_type":
        note.write_text("[1]")
    elif damage == "deep":
        note.write_text("[" * 200_000)
    else:
        content = json.loads(note.read_text())
        content["parameters"]["seed"] += 1
        note.write_text(json.dumps(content))
    path.unlink()  # it may be mapped: never write into it
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match=path.name) as caught:
        again = cache_faces(faces, tmp_path)
    assert len(caught) == 1
    assert "rendering the faces again" in str(caught[0].message)
    assert torch.equal(again.batch(range(12)), rendered)
    assert torch.equal(cache_faces(faces, tmp_path).batch(range(12)), rendered)  # no warning now


def test_full_disk_leaves_nothing(faces, tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self._file, self._left = file, 5000

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, data):
            self._left -= len(data)
            if self._left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._file.write(data)

    real = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *a: Full(real(*a)))
    with pytest.raises(OSError, match=r"no space left for .* of rendered faces") as caught:
        cache_faces(faces, tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert _files(tmp_path) == []


def test_a_failure_while_rendering_leaves_nothing(faces, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "_render_part", fail)
    with pytest.raises(KeyboardInterrupt):
        cache_faces(faces, tmp_path)
    assert _files(tmp_path) == []


@pytest.mark.starts_process
@pytest.mark.skipif(os.name != "posix", reason="kills a process by a signal")
def test_killed_half_way_is_not_taken_for_good(faces, tmp_path):
    code = (
        "import sys, time; from ekd_lite.data import cache;"
        "from ekd_lite.data.synthetic import SyntheticFaces\n"
        "real, cache._IMAGES_PER_TASK = cache._render_part, 4\n"
        "def slow(faces, start, stop):\n"
        "    if start: print('half', flush=True); time.sleep(60)\n"
        "    return real(faces, start, stop)\n"
        "cache._render_part = slow\n"
        f"cache.cache_faces(SyntheticFaces(4, 3, seed=2), {str(tmp_path)!r}, workers=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "half\n"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    time.sleep(0.01)
    left = _files(tmp_path)
    assert sorted(name.rsplit(".")[-1] for name in left) == ["lock", "tmp"]
    cache_faces(SyntheticFaces(2, 2), tmp_path)  # another set: what was left goes all the same
    assert all(not name.startswith(".") for name in _files(tmp_path))
    assert torch.equal(cache_faces(faces, tmp_path).batch(range(12)), faces.batch(range(12)))


def test_a_lock_that_was_left_when_all_was_written_goes(faces, tmp_path):
    cache_faces(faces, tmp_path)
    good = _files(tmp_path)
    (tmp_path / f".{cache_key(faces.parameters())}.npy.lock").touch()
    cache_faces(faces, tmp_path)
    assert _files(tmp_path) == good


def test_the_note_alone_or_the_pixels_alone_are_not_enough(faces, tmp_path):
    rendered = cache_faces(faces, tmp_path).batch(range(12))
    for suffix in ("json", "npy"):
        (tmp_path / f"{cache_key(faces.parameters())}.{suffix}").unlink()
        assert torch.equal(cache_faces(faces, tmp_path).batch(range(12)), rendered)


def test_pickled_objects_are_refused(faces, tmp_path):
    cache_faces(faces, tmp_path)
    path = tmp_path / f"{cache_key(faces.parameters())}.npy"
    path.unlink()
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects"):
        cache._open(path, faces)


def test_a_non_writable_map_warns_nobody(faces, tmp_path):
    cached = cache_faces(faces, tmp_path)
    batch = cached.batch([0])
    batch.zero_()  # a copy: the file stays as it is
    assert torch.equal(cached.batch([0]), faces.batch([0]))


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_bad_workers(faces, tmp_path, workers):
    with pytest.raises(ValueError, match="workers must be None or at least 1"):
        cache_faces(faces, tmp_path, workers=workers)


class Plain:
    """Faces of a user's own class."""

    image_size, num_identities = 16, 2
    labels = torch.tensor([0, 0, 1])

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return 3

    def batch(self, indices):
        return self.images[torch.as_tensor(list(indices))]

    def parameters(self):
        return {"sum": str(self.images.sum())}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 3, 16, 16) * 255, "image 0 of the set has pixels from .* expected -1 to 1"),
        (torch.full((3, 3, 16, 16), float("nan")), "pixels from nan to nan"),
        (torch.zeros(3, 16, 16, 3), "images of shape .* expected"),
    ],
)
def test_pixels_that_bytes_cannot_hold_are_named(tmp_path, images, message):
    with pytest.raises(ValueError, match=message):
        cache_faces(Plain(images), tmp_path)
    assert _files(tmp_path) == []


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from ekd_lite.data import SyntheticFaces, cache, cache_faces
cache._IMAGES_PER_TASK = 5
print("hello")
print(len(cache_faces(SyntheticFaces(4, 3, seed=2), workers=2)))
"""


@pytest.mark.starts_process
def test_a_plain_script_without_a_guard_is_run_once(faces, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=os.getcwd()))
    (tmp_path / "pickle.py").write_text("raise SystemExit('the wrong pickle')")
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", str(script)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "EKD_LITE_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n12\n", "")
    cache_faces(faces, tmp_path / "here", workers=1)
    key = cache_key(faces.parameters())
    there = tmp_path / "cache" / "faces"
    assert _files(there) == _files(tmp_path / "here") == [f"{key}.json", f"{key}.npy"]
    for name in _files(there):  # in three tasks, the last one shorter, or in one
        assert (there / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_of_several_that_want_a_set_one_renders_it(faces, tmp_path, monkeypatch):
    calls = []

    def noted(*arguments, real=cache._render_part):
        calls.append(arguments)
        time.sleep(0.3)
        return real(*arguments)

    monkeypatch.setattr(cache, "_render_part", noted)
    with ThreadPoolExecutor(2) as pool:  # a lock is of an open file: threads wait as processes do
        sets = list(pool.map(lambda _: cache_faces(faces, tmp_path, progress=False), range(2)))
    assert len(calls) == 1
    assert torch.equal(sets[0].batch(range(12)), sets[1].batch(range(12)))


def test_a_cache_that_cannot_be_written_says_what_to_do(faces, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(cache, "write_pixels", refuse)
    with pytest.raises(PermissionError, match="name another folder, or set EKD_LITE_CACHE"):
        cache_faces(faces, tmp_path)
