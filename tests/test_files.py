"""Files are replaced whole: after any failure the old content is there and nothing beside it."""

import os
import stat

import pytest

from ekd_lite.files import remove_leftovers, replacing, write_atomically


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
    (tmp_path / ".x.123.abcd.tmp").write_bytes(b"half")
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
