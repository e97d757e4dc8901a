"""Warnings of the package are one line of a command; whoever listens for them still hears them."""

import warnings

import pytest
from PIL import Image

from ekd_lite import __main__ as command
from ekd_lite.commands import bench
from ekd_lite.commands.bench import Bench
from tests.faults import jobs
from tests.processes import start


def test_the_form_is_the_commands_alone(monkeypatch):
    seen, before = [], warnings.formatwarning
    text = "two\n  lines"

    def run(self):
        for file in (bench.__file__, "/elsewhere/torch/utils.py"):
            seen.append(warnings.formatwarning(text, UserWarning, file, 3, "a line of code"))

    monkeypatch.setattr(Bench, "run", run)
    assert command.main(["bench"]) == 0
    plain = "/elsewhere/torch/utils.py:3: UserWarning: two\n  lines\n  a line of code\n"
    assert seen == ["ekd-lite: note: two lines\n", plain]
    monkeypatch.setattr(Bench, "run", lambda self: [][0])
    with pytest.raises(IndexError):
        command.main(["bench"])
    assert warnings.formatwarning is before


def test_filters_and_recorders_see_warnings_as_before(monkeypatch):
    monkeypatch.setattr(Bench, "run", lambda self: warnings.warn("mind this", stacklevel=2))
    with pytest.warns(UserWarning, match="mind this"):
        assert command.main(["bench"]) == 0
    with pytest.raises(UserWarning, match="mind this"):  # pytest's filter is "error"
        command.main(["bench"])


@pytest.mark.starts_process
def test_a_command_prints_one_line(tmp_path):
    folder = tmp_path / "faces" / "Ann"
    folder.mkdir(parents=True)
    for name in ("1.png", "2.png"):
        Image.new("RGB", (32, 32)).save(folder / name)
    (folder / "old.gif").touch()
    process = start(jobs.command, ["data", "info", str(tmp_path / "faces")], log=tmp_path / "log")
    assert process.wait() == 0
    lines = [line for line in process.output.splitlines() if ".gif" in line]
    assert len(lines) == 1 and lines[0].startswith(f"ekd-lite: note: {tmp_path / 'faces'}: passed")
    assert "UserWarning" not in process.output and "warnings.warn" not in process.output
