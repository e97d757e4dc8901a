"""A wrong command line gets one line, in the user's words; rates are read in any form."""

import pytest

from ekd_lite import __main__ as command
from ekd_lite import __version__
from ekd_lite.commands.compare import Compare
from ekd_lite.commands.data import Verify
from ekd_lite.commands.demo import Demo
from ekd_lite.commands.export import Export
from ekd_lite.commands.nets import Evaluate
from ekd_lite.commands.rates import parse_rates
from ekd_lite.commands.train import Train


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch):
    for kind in (Evaluate, Compare, Train, Demo, Export, Verify):
        monkeypatch.setattr(kind, "run", lambda self: pytest.fail("it ran"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --bogus", "unknown option --bogus; `ekd-lite train --help` lists them"),
        ("train --step 5", "unknown option --step; did you mean --steps? `ekd-lite train --help`"),
        ("train --learnin-rate=1", "unknown option --learnin-rate; did you mean --learning-rate?"),
        ("train demo", "'demo' is one argument too many: `ekd-lite train --help`"),
        ("data verify d d", "'d' is one argument too many: `ekd-lite data verify --help`"),
        ("evalute x", "unknown command 'evalute'; did you mean 'evaluate'? known: demo, data"),
        ("data verfy d", "unknown command 'verfy'; did you mean 'verify'? known: preview, info"),
        ("hlep", "unknown command 'hlep'; did you mean `ekd-lite --help`? known: demo, data"),
        ("Help", "unknown command 'Help'; did you mean `ekd-lite --help`?"),
        ("data hepl", "unknown command 'hepl'; did you mean `ekd-lite data --help`? known: "),
        ("hel", "unknown command 'hel'; did you mean `ekd-lite --help`?"),
        ("", "name a command, one of demo, data, train, embed"),
        ("data", "name a command, one of preview, info, convert"),
        ("evaluate", "missing from ekd-lite evaluate: --model PATH or --source PATH; `ekd-"),
        (
            "embed",
            "missing from ekd-lite embed: --model PATH, --faces PATH; `ekd-lite embed --help`",
        ),
        (
            "export x",
            "missing from ekd-lite export: --out PATH; `ekd-lite export --help` tells more",
        ),
        ("data convert", "missing from ekd-lite data convert: --faces PATH, --out PATH; `ekd-lite"),
        ("train --steps 1e3", "--steps: expected a whole number, got '1e3'"),
        ("train --margin x", "--margin: expected a number, got 'x'"),
        ("train --recipe", "--recipe needs a value"),
        ("train --pixel-range 1", "--pixel-range: expected FLOAT FLOAT, got '1'"),
        ("demo --seeds x", "--seeds cannot be read from 'x'"),
        ("export m --out x --to y", "--to is one of 'safetensors', 'onnx',"),
        ("evaluate --source x --fprs", "--fprs takes rates above 0 and up to 1, such as 1e-3; got"),
        ("evaluate --source x --fprs=0.1 --fprs=0.2", "--fprs stands twice: give it once; of an"),
        ("evaluate --model x --source y", "--model and --source are one option, which stands twi"),
        ("train --flip --no-flip", "--flip and --no-flip are one option, which stands twice"),
        ("evaluate --source x --colour y", "--colour is one of '"),
        ("train --mean 1 --mean=2", "--mean stands twice"),
        ("train --image-size 32 --image_size 16", "--image-size stands twice"),
        ("compare x --fprs 0,1", "--fprs takes rates above 0 and up to 1, such as 1e-3; got 0"),
    ],
)
def test_a_wrong_command_line_is_one_line(line, message, capsys):
    assert command.main(line.split()) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err.startswith(f"ekd-lite: {message}")
    assert text.err.count("\n") == 1
    assert not any(letter in text.err for letter in "╭│─") and "---" not in text.err
    assert "None" not in text.err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["train", "--steps", "1", "--out", ""], "--out"),
        (["train", "--out", " "], "--out"),
        (["train", "--out="], "--out"),
        (["compare", ""], "an argument"),
        (["demo", "--faces", ""], "--faces"),
    ],
)
def test_an_empty_value_is_refused(arguments, name, capsys, monkeypatch, tmp_path):
    """Of a variable that is not set; as a folder it would be the one where somebody stands."""
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 2
    assert capsys.readouterr().err == (
        f"ekd-lite: {name} has an empty value; is a variable of the shell not set?\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_options_of_a_teacher_need_one(capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr("ekd_lite.commands.train.load_splits", lambda *_, **__: pytest.fail("ran"))
    assert command.main(["train", "--pixel-range", "0", "255", "--colour", "bgr"]) == 2
    assert "--colour, --pixel-range: there is no teacher" in capsys.readouterr().err
    assert command.main(["train", "--teacher", "x"]) == 2
    assert "--teacher: there is no teacher, since the method is none" in capsys.readouterr().err
    assert command.main(["train", "--method", "ekd"]) == 2
    assert capsys.readouterr().err == (
        "ekd-lite: --method ekd needs a teacher: name its file with --teacher\n"
    )


def test_help_and_version_are_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["evaluate", "--help"])
    assert stop.value.code in (0, None)
    assert "--fprs" in capsys.readouterr().out
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ekd-lite {__version__}\n"


@pytest.mark.parametrize(
    ("texts", "rates"),
    [
        (["1e-1", "1e-2"], (0.1, 0.01)),
        (["1e-1,1e-2"], (0.1, 0.01)),
        (["1e-1, 1e-2;1e-3"], (0.1, 0.01, 0.001)),
        (["[0.1,", "0.01]"], (0.1, 0.01)),
        (["10%", "0.1%", "1/100", "1"], (0.1, 0.001, 0.01, 1.0)),
        (["1E-1", "+.5"], (0.1, 0.5)),
    ],
)
def test_rates_in_any_form(texts, rates):
    assert parse_rates(texts) == rates


@pytest.mark.parametrize("text", ["", "0", "-1", "2", "nan", "inf", "1e-400", "1/0", "101%", "x"])
def test_what_is_no_rate(text):
    with pytest.raises(ValueError, match="takes rates above 0 and up to 1"):
        parse_rates([text])


def test_rates_reach_the_command(monkeypatch):
    seen = []
    monkeypatch.setattr(Evaluate, "run", lambda self: seen.append(self.fprs))
    for given in (["--fprs", "0.1,0.01"], ["--fprs=10%,1/100"], ["--fprs", "1e-1", "1e-2"]):
        assert command.main(["evaluate", "--source", "x", *given]) == 0
    assert seen == [(0.1, 0.01)] * 3
