"""A start that cannot be right ends before its first step, and leaves what is there alone."""

import shutil
from typing import Any

import pytest

from tests.fakes import ColourFaces
from tests.faults import jobs
from tests.processes import errors_in, start_ranks, wait_all

pytestmark = [pytest.mark.slow, pytest.mark.starts_process]


def test_wrong_teachers_and_checkpoints(tmp_path, count):
    """Through the command line's own end: exit code 2 and one line that says what is wrong."""
    teacher, student = (tmp_path / name / "model.safetensors" for name in ("teacher", "student"))
    for job, path in ((jobs.make_teacher, teacher), (jobs.train, student)):
        assert wait_all(start_ranks(job, str(path.parent), ranks=1, log=tmp_path / "log")) == [0]
    cases: dict[str, tuple[int, dict[str, Any], str]] = {
        "no such teacher": (1, {"method": "kd", "teacher": str(tmp_path / "x")}, "no model at"),
        "a teacher of people without names, other faces": (
            1,
            {"method": "kd", "teacher": str(teacher), "faces": ColourFaces(seed=1)},
            "it does not name its people",
        ),
        "a student as the teacher": (
            1,
            {"method": "kd", "teacher": str(student)},
            "probably a student's file",
        ),
        "another configuration": (1, {"learning_rate": 1e-4}, "learning_rate: 0.0001 here"),
        "another number of processes": (2, {}, "processes: 2 here, 1 there"),
    }  # fmt: skip
    good = 0
    for name, (ranks, options, message) in cases.items():
        out = tmp_path / name
        shutil.copytree(student.parent, out)
        before = {file.name: file.read_bytes() for file in out.iterdir()}
        running = start_ranks(
            jobs.train_as_the_command_line_would,
            str(out),
            ranks=ranks,
            log=tmp_path / f"log {name}",
            **options,
        )
        codes = wait_all(running)
        after = {file.name: file.read_bytes() for file in out.iterdir()}
        said = all(len(errors_in(one.output)) == 1 for one in running)
        named = any(message in one.output for one in running)
        assert codes == [2] * ranks, (name, [one.output for one in running])
        good += said and named and after == before
    count("wrong starts", f"{good}/{len(cases)} stop before step 1 with one message, files intact")
    assert good == len(cases)
