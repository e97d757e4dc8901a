"""Exit codes that a supervisor can use: 2 for the command line, 1 for the work, 130 for Ctrl-C."""

import errno

import pytest

from ekd_lite import __main__ as command
from ekd_lite.commands.bench import Bench
from ekd_lite.files import locked_folder
from ekd_lite.train.batches import LoaderError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("a wrong option"), 2),
        (FileNotFoundError("no such folder"), 2),
        (NotADirectoryError("a file"), 2),
        (PermissionError("read-only"), 2),
        (ModuleNotFoundError("an extra"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (ConnectionError("another process has ended"), 1),
        (TimeoutError("no answer"), 1),
        (LoaderError("image 3 cannot be read"), 1),
        (FloatingPointError("step 3 is not finite"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_failure_has_the_code_of_its_kind(error, code, monkeypatch, capsys):
    def fail(self):
        raise error

    monkeypatch.setattr(Bench, "run", fail)
    assert command.main(["bench"]) == code
    text = capsys.readouterr().err
    assert text.startswith("ekd-lite: ")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--margin", "30"], "30 degrees are 0.524"),
        (["train", "--image-size", "33"], "multiple of 16"),
        (["train", "--method", "edk"], "did you mean 'ekd'"),
        (["demo", "--seeds", "1", "1"], "stands twice"),
        (["demo", "--methods", "edk"], "did you mean 'ekd'"),
        (["demo", "--faces", "nowhere"], "no such folder of faces: nowhere"),
        (["compare", "runs", "--fprs", "2"], "rates above 0 and up to 1"),
        (["compare", "--only", "ekd"], "belong to a study"),
        (["compare", "--recipe", "study", "--student-module", "a:b"], "a study has its own runs"),
        (["train", "--nested", "first", "--label", "cls"], "--nested, --label: the procedural fac"),
        (["train", "--faces", "x", "--people", "50"], "--people is for the procedural faces"),
        (["export", "x", "--out", "y", "--faces", "z"], "--faces: not looked at for onnx"),
        (["export", "x", "--out", "y", "--calibration", "99"], "--calibration: not looked at"),
        (["export", "x", "--out", "y", "--reduce-range"], "--reduce-range: not looked at for onnx"),
        (["data", "verify", "x", "--write-checksums", "--label", "cls"], "--label for shards"),
        (["evaluate", "--model", "x", "--fprs", "nan"], "such as 1e-3; got nan"),
    ],
)
def test_mistakes_are_told_in_the_users_words(arguments, message, capsys):
    assert command.main(arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("ekd-lite: ")
    assert message in text
    assert "tyro" not in text and "╭" not in text


def test_two_demos_do_not_share_a_folder(tmp_path, capsys):
    with locked_folder(tmp_path):
        assert command.main(["demo", "--out", str(tmp_path)]) == 2
    assert "another process is writing to" in capsys.readouterr().err
