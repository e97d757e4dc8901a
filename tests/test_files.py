"""Files are replaced whole: after any failure the old content is there and nothing beside it."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ekd_lite.commands.outputs import check_output
from ekd_lite.data import open_faces
from ekd_lite.data.pair_forms import list_text
from ekd_lite.data.record_index import read_index
from ekd_lite.evaluate.ijb_files import (
    read_face_landmarks,
    read_template_media,
    read_template_pairs,
    read_template_subjects,
)
from ekd_lite.experiments.study_plan import load_study
from ekd_lite.files import (
    locked,
    locked_folder,
    remove_leftovers,
    remove_lock,
    replacing,
    unfinished,
    user_cache,
    write_atomically,
)
from ekd_lite.train import Teacher
from ekd_lite.train.config import read_config


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_new_and_replaced(tmp_path):
    path = tmp_path / "new" / "x.bin"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["x.bin"]


def test_old_content_until_the_block_ends(tmp_path):
    path = tmp_path / "x.bin"
    write_atomically(path, b"one")
    with replacing(path) as file:
        file.write(b"two")
        file.seek(0)
        file.write(b"T")  # a header may be filled in afterwards
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"Two"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "x.bin"
    write_atomically(path, b"one")

    def write():
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["x.bin"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of posix")
def test_others_may_read_what_the_umask_allows(tmp_path):
    old = os.umask(0o022)
    try:
        write_atomically(tmp_path / "x", b"1")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644


def test_leftovers_of_a_killed_process_go(tmp_path):
    write_atomically(tmp_path / "x", b"1")
    (tmp_path / ".x.123.abcd0123.tmp").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["x"]


def test_an_error_while_writing_names_the_file(tmp_path):
    """The system's "No space left on device" says not where."""
    with (
        pytest.raises(OSError, match=r"No space left.*model\.bin"),
        replacing(tmp_path / "model.bin"),
    ):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_left_overs_that_somebody_holds_and_foreign_files_stay(tmp_path):
    (tmp_path / "mine.tmp").write_bytes(b"a user's own")
    (tmp_path / ".x.123.0badcafe.tmp").write_bytes(b"half, of a killed process")
    (tmp_path / ".x.lock").touch()
    (tmp_path / "checkpoint.previous.123.tmp").touch()
    with replacing(tmp_path / "y") as file, locked(tmp_path / "z"):
        remove_leftovers(tmp_path)
        assert len(names(tmp_path)) == 3
        assert {".z.lock", "mine.tmp"} < set(names(tmp_path))
        file.write(b"whole")
    assert names(tmp_path) == ["mine.tmp", "y"]


def test_who_writes_a_file_removes_what_is_left_of_earlier_ones(tmp_path):
    """Export and embed write into the user's folders, where nothing else is touched."""
    kept = [
        ".y+.123.0badcafe.tmp",
        ".yy.123.0badcafe.tmp",
        ".y.tmp",
        ".y.lock",
        ".y.1.tmp",
        "y.1.tmp",
    ]
    for name in [*kept, ".y+y.123.0badcafe.tmp", ".y+y.4.00000000.tmp"]:
        (tmp_path / name).touch()
    write_atomically(tmp_path / "y+y", b"whole")
    assert names(tmp_path) == sorted([*kept, "y+y"])
    with replacing(tmp_path / "y+y") as first:  # of one that still writes nothing is taken away
        first.write(b"first")
        write_atomically(tmp_path / "y+y", b"second")
    assert (tmp_path / "y+y").read_bytes() == b"first"


HOLD = """
import sys, time
from pathlib import Path
from ekd_lite.files import locked, unfinished
kind, path = sys.argv[1:]
with {"locked": locked, "unfinished": unfinished}[kind](Path(path)):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder():
    """Starts another process that holds a path until a line comes, or until it is killed."""
    started = []

    def start(kind, path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, kind, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):  # a test may have closed one
            pipe.close()


@pytest.mark.starts_process
@pytest.mark.parametrize(("patience", "message"), [(0.1, "waiting for another process"), (20, "")])
def test_a_lock_is_waited_for_and_leaves_nothing(
    tmp_path, holder, capfd, monkeypatch, patience, message
):
    monkeypatch.setattr("ekd_lite.files._PATIENCE", patience)
    process = holder("locked", tmp_path / "x")
    timer = threading.Timer(0.3, lambda: process.communicate("go\n"))
    timer.start()
    with locked(tmp_path / "x"):
        process.wait(5)  # it has ended, or we would not be here
    timer.join()  # or it reads from a pipe that the fixture closes
    told = capfd.readouterr().err
    assert message in told and bool(told) == bool(message)
    assert names(tmp_path) == []


@pytest.mark.starts_process
def test_a_lock_is_removed_unless_somebody_holds_it(tmp_path, holder):
    process = holder("locked", tmp_path / "x")
    remove_lock(tmp_path / "x")
    assert names(tmp_path) == [".x.lock"]
    process.kill()
    process.wait()
    remove_lock(tmp_path / "x")
    assert names(tmp_path) == []
    remove_lock(tmp_path / "x")


@pytest.mark.starts_process
def test_the_lock_of_a_killed_process_keeps_nobody_out(tmp_path, holder):
    process = holder("locked", tmp_path / "x")
    process.kill()
    process.wait()
    assert names(tmp_path) == [".x.lock"]
    with locked(tmp_path / "x"):
        pass
    assert names(tmp_path) == []


@pytest.mark.starts_process
def test_a_folder_is_marked_until_its_block_has_ended_well(tmp_path, holder):
    with unfinished(tmp_path) as earlier:
        assert not earlier
    assert names(tmp_path) == []
    with pytest.raises(KeyError), unfinished(tmp_path):
        raise KeyError
    assert names(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), unfinished(tmp_path):
        raise KeyboardInterrupt
    assert names(tmp_path) == [".unfinished"]
    process = holder("unfinished", tmp_path)
    with (
        pytest.raises(ValueError, match="another process is writing into it"),
        unfinished(tmp_path),
    ):
        pass
    process.kill()
    process.wait()
    with unfinished(tmp_path) as earlier:
        assert earlier
    assert names(tmp_path) == []


def test_the_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("EKD_LITE_CACHE", str(tmp_path))
    assert user_cache() == tmp_path
    monkeypatch.setenv("EKD_LITE_CACHE", "~/there")
    assert user_cache() == Path.home() / "there"
    monkeypatch.delenv("EKD_LITE_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: f"/somewhere/{name}")
    assert user_cache() == Path("/somewhere/ekd_lite")


HOLD_FOLDER = """
import os, pathlib, sys, time
from ekd_lite.files import locked_folder
with locked_folder(pathlib.Path(sys.argv[1])):
    if os.fork() == 0:  # the child tells: by now it has let go of the lock
        print("locked", flush=True)
        time.sleep(20)
        os._exit(0)
    time.sleep(60)
"""


def test_a_folder_is_locked_for_others_and_left_as_it_was(tmp_path):
    out = tmp_path / "a" / "run"
    with locked_folder(out):
        for path in (out, tmp_path / "a" / ".." / "a" / "run"):
            with (
                pytest.raises(ValueError, match=r"another process is writing to .*run: wait"),
                locked_folder(path),
            ):
                pass
        (out / "x").touch()
    assert names(out) == ["x"]
    with locked_folder(out):
        pass
    assert names(out) == ["x"]
    with pytest.raises(KeyError), locked_folder(tmp_path / "new"):
        raise KeyError
    assert not (tmp_path / "new").exists()  # nothing came of it
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="a file is in its place"),
        locked_folder(tmp_path / "file"),
    ):
        pass


@pytest.mark.starts_process
def test_the_lock_of_a_killed_process_does_not_block_though_its_readers_live_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_FOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match="another process"), locked_folder(tmp_path):
            pass
        process.kill()
        process.wait()
        assert names(tmp_path) == [".lock"]
        with locked_folder(tmp_path):
            pass
        assert names(tmp_path) == []
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_no_output_takes_the_place_of_what_is_read(tmp_path):
    """Also of what lies in a folder that is read, but for what commands write there themselves."""
    run, faces = tmp_path / "run", tmp_path / "faces"
    for path in (run / "model.safetensors", run / "checkpoint.pt", faces / "a" / "1.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with pytest.raises(ValueError, match="is what is read here, and would be lost"):
            check_output(path, run, faces)
    for name in ("net.onnx", "embeddings.safetensors"):
        (run / name).touch()
        check_output(run / name, run, faces)
    check_output(run / "new.txt", run, faces)
    with pytest.raises(ValueError, match="a file is in its place"):
        check_output(faces / "a" / "1.jpg" / "x.onnx", run)


@pytest.mark.starts_process
def test_a_fork_does_not_hold_what_its_parent_holds(tmp_path):
    """Readers are forked, and may outlive the process that locked a folder."""
    read, write = os.pipe()
    with locked_folder(tmp_path), locked(tmp_path / "x"):
        child = os.fork()
        if not child:
            os.read(read, 1)
            os._exit(0)
    try:
        with locked_folder(tmp_path), locked(tmp_path / "x"):
            pass
    finally:
        os.write(write, b".")
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)
    assert names(tmp_path) == []


READERS = {
    "teacher.npy": Teacher.from_file,
    "teacher.pth": Teacher.from_file,
    "teacher.safetensors": Teacher.from_file,
    "landmarks.txt": read_face_landmarks,
    "media.txt": read_template_media,
    "pairs.txt": read_template_pairs,
    "subjects.csv": read_template_subjects,
    "config.json": read_config,
    "study.json": lambda path: load_study(str(path)),
    "list.csv": list_text,
    "faces.rec": open_faces,
    "faces.idx": lambda path: read_index(path, 100),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_a_pipe(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is no regular file, but a pipe or a device"):
        READERS[name](tmp_path / name)
