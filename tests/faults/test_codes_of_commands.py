"""What a supervisor sees of the command: 1 for a full disk, 2 for a mistake, 130 and 143."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ekd_lite.train.checkpoint import load_checkpoint
from tests.fakes import ColourFaces
from tests.faults import data_jobs, jobs
from tests.faults.scale import FULL, cases
from tests.processes import die_with_parent, errors_in, session_members, start, wait_until

pytestmark = [pytest.mark.starts_process, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder of 20 people with 6 images each."""
    root, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    for number in range(120):
        path = root / f"p{number // 6:02}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    options = {"image_size": 32, "faces": ColourFaces(image_size=32)}
    assert start(jobs.train, str(folder / "run"), log=folder / "log", **options).wait() == 0
    return folder / "run"


def training(out, faces, **changes):
    """Arguments of a run that does not end by itself."""
    options = {**jobs.SMALL, "image_size": 32, "steps": 100_000, "checkpoint_every": 100_000}
    named = [f"--{key.replace('_', '-')}={value}" for key, value in {**options, **changes}.items()]
    return ["train", "--out", str(out), "--faces", str(faces), *named]


class Command:
    """The command line: in a forked process, or in full as a user starts it."""

    def __init__(self, arguments, log):
        self.log = log
        if FULL:
            with log.open("wb") as output:
                self._program = subprocess.Popen(
                    [sys.executable, "-m", "ekd_lite", *arguments],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            self.pid = self._program.pid
        else:
            self._forked = start(jobs.command, arguments, log=log)
            self.pid = self._forked.pid

    def code(self):
        """As a shell shows it: 128 and its number for a signal."""
        code = self._program.wait(60) if FULL else self._forked.wait()
        return 128 - code if code < 0 else code

    def said(self):
        """Its lines of error, and whether there was a trace."""
        output = self.log.read_text()
        return errors_in(output), "Traceback" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_signals_to_a_training(tmp_path, faces, number, count):
    """At a random moment after the first step."""
    rng, found, total = random.Random(number), Counter(), cases(1, 6)  # noqa: S311
    for turn in range(total):
        out = tmp_path / str(turn)
        command = Command(training(out, faces), tmp_path / f"log{turn}")
        assert wait_until((out / "log.jsonl").exists), command.log.read_text()
        time.sleep(rng.uniform(0, 0.5))
        os.kill(command.pid, number)
        found["code"] += command.code() == 128 + number
        saved = load_checkpoint(out / "checkpoint.pt")
        found["saved"] += saved is not None and saved["step"] > 0
        found["trace"] += command.said()[1]
        found["left"] += any(file.name.startswith(".") for file in out.iterdir())
        assert wait_until(lambda p=command.pid: not session_members(p), 10)
    count(f"{number.name} to `ekd-lite train`", f"{found['code']}/{total} exit with "
          f"{128 + number}, {found['saved']} saved, {found['trace']} traces")  # fmt: skip
    assert found == Counter({"code": total, "saved": total, "trace": 0, "left": 0})


def wrong(tmp_path, faces, run):
    """Command lines that another command line would mend."""
    nothing = str(tmp_path / "nothing")
    return {
        "an unknown method": ["train", "--method", "edk"],
        "an image size": training(tmp_path / "a", faces, image_size=33),
        "no faces": training(tmp_path / "b", nothing),
        "no teacher": training(tmp_path / "c", faces, method="kd", teacher=nothing),
        "no model": ["evaluate", "--model", nothing],
        "over its input": ["export", str(run), "--out", str(run / "model.safetensors")],
        "a full folder": ["data", "convert", "--faces", str(faces), "--out", str(faces)],
        "another configuration": training(run, faces, learning_rate=3.0),
    }


def test_mistakes(tmp_path, faces, run, count):
    """Code 2 and one line, and the folders are as before."""
    before = data_jobs.tree(run), data_jobs.tree(faces)
    unknown = Command(["train", "--foo", "3"], tmp_path / "log")
    assert unknown.code() == 2, unknown.log.read_text()  # in the parser's own words
    good, everything = 0, wrong(tmp_path, faces, run)
    some = dict(list(everything.items())[:: cases(2, 1)])
    for name, arguments in some.items():
        command = Command(arguments, tmp_path / f"log {name}")
        code = command.code()
        lines, has_trace = command.said()
        assert (code, len(lines), has_trace) == (2, 1, False), (name, command.log.read_text())
        good += (data_jobs.tree(run), data_jobs.tree(faces)) == before
    count("mistakes on the command line", f"{good}/{len(some)} exit with 2 and one line")
    assert good == len(some)


def writers(tmp_path, faces, run):
    """Commands that write at least 4 kB, and where."""
    size = ["--image-size", "32"]
    return {
        "train": (training(tmp_path / "train", faces, steps=10), tmp_path / "train"),
        "convert": (["data", "convert", "--faces", str(faces), *size, "--out",
                     str(tmp_path / "packed")], tmp_path / "packed"),
        "convert to rec": (["data", "convert", "--faces", str(faces), *size, "--to", "rec", "--out",
                            str(tmp_path / "rec")], tmp_path / "rec"),
        "export": (["export", str(run), "--out", str(tmp_path / "export" / "net.onnx")],
                   tmp_path / "export"),
        "embed": (["embed", "--model", str(run), "--faces", str(faces), "--out",
                   str(tmp_path / "embed" / "rows.safetensors")], tmp_path / "embed"),
    }  # fmt: skip


def test_no_space(tmp_path, faces, run, count):
    """No file may grow beyond some bytes, which the commands meet as they meet a full disk."""
    rng, good, total = random.Random(0), 0, 0  # noqa: S311
    for turn in range(cases(1, 5)):
        for name, (arguments, folder) in writers(tmp_path / str(turn), faces, run).items():
            limit, log = rng.randrange(500, 4000), tmp_path / f"log {turn} {name}"
            process = start(jobs.command_with_little_space, arguments, limit, log=log)
            code = process.wait()
            lines = errors_in(process.output)
            assert code == 1, (name, process.output)
            assert len(lines) == 1 and "File too large" in lines[0], process.output
            assert "Traceback" not in process.output
            left = data_jobs.tree(folder)
            hidden = [path for path in left if path.rpartition("/")[2].startswith(".")]
            assert not hidden, (name, hidden)
            total += 1
            again = start(jobs.command, arguments, log=log)
            good += again.wait() == 0
    count("no space for what a command writes", f"{total} exit with 1 and one line, 0 left-overs, "
          f"{good} go on with room")  # fmt: skip
    assert good == total
