"""A run of 40 steps that is stopped at any step and resumed in a new process ends bit-equal."""

import json
import os
import shutil
import signal

import pytest

from ekd_lite.train.checkpoint import load_checkpoint
from tests.faults import jobs
from tests.faults.compare import outcome
from tests.processes import start, start_ranks, wait_all

pytestmark = [pytest.mark.slow, pytest.mark.starts_process, pytest.mark.timeout(3000)]
# Every k; the variable, "[first, end, stride]", is for looking closer.
STEPS = range(*json.loads(os.environ.get("EKD_FAULTS_STEPS", "[1, 40]")))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    assert start(jobs.make_teacher, str(folder / "run"), log=folder / "log").wait() == 0
    return str(folder / "run" / "model.safetensors")


def run(folder, ranks, *, log, **options):
    return wait_all(start_ranks(jobs.train, str(folder), log=log, ranks=ranks, **options))


def stop_and_resume(tmp_path, ranks, options, step, number):
    """Exit codes of the stopped start, step of its checkpoint, and what the resumed run left."""
    folder = tmp_path / "parts"
    shutil.rmtree(folder, ignore_errors=True)
    log = tmp_path / f"log.{step}.{number}"
    stop = jobs.SignalAt(step, number, rank=step % ranks)
    codes = run(folder, ranks, log=log, on_step=stop, **options)
    saved = load_checkpoint(folder / "checkpoint.pt")
    assert run(folder, ranks, log=log.with_suffix(".again"), **options) == [0] * ranks
    return codes, 0 if saved is None else saved["step"], outcome(folder)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_stop_changes_nothing(tmp_path, teacher, count, ranks, workers):
    """SIGTERM at step k finishes and saves it; SIGKILL at k loses what no checkpoint holds.

    They take turns, so that every step meets both in the four runs.
    """
    options = {"method": "ekd+fitnet", "teacher": teacher, "flip": True, "workers": workers}
    assert run(tmp_path / "whole", ranks, log=tmp_path / "log", **options) == [0] * ranks
    whole = outcome(tmp_path / "whole")
    assert whole["state"]["distillers"]["ekd.num_updates"][2] != bytes(8 * 6)
    equal = 0
    for step in STEPS:
        number = (signal.SIGTERM, signal.SIGKILL)[(step + ranks + workers // 2) % 2]
        codes, saved, parts = stop_and_resume(tmp_path, ranks, options, step, number)
        if number == signal.SIGTERM:
            assert codes == [143] * ranks
            assert saved == step
        else:
            assert codes[step % ranks] == -signal.SIGKILL
            assert all(codes)
            assert saved == (step - 1) // 5 * 5
        equal += parts == whole
    count(
        f"exact resume, {ranks} rank(s), {workers} workers",
        f"{equal}/{len(STEPS)} bit-equal after a stop at every step",
    )
    assert equal == len(STEPS)


@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        (2, {"partial_fc": 0.5}),
        (2, {"partial_fc": 1.0, "optimizer": "sgd", "sync_batch_norm": True}),
        (1, {"precision": "bf16", "accumulate": 2, "clip_norm": 1.0}),
        (2, {"precision": "fp16", "accumulate": 2}),
        (1, {"head": "curricularface"}),
        (2, {"head": "adaface"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else str(value),
)
def test_stops_of_other_runs_change_nothing(tmp_path, teacher, count, ranks, options):
    steps = (1, 5, 6, 14, 27, 39)
    options = {"method": "ekd", "teacher": teacher, "flip": True, **options}
    assert run(tmp_path / "whole", ranks, log=tmp_path / "log", **options) == [0] * ranks
    whole = outcome(tmp_path / "whole")
    equal = sum(
        stop_and_resume(tmp_path, ranks, options, step, signal.SIGTERM)[2] == whole
        for step in steps
    )
    shown = ", ".join(f"{key} {value}" for key, value in list(options.items())[3:])
    count(f"exact resume, {ranks} rank(s), {shown}", f"{equal}/{len(steps)} bit-equal")
    assert equal == len(steps)


def test_the_same_configuration_gives_the_same_run(tmp_path, teacher, count):
    """Ten new processes, then five pairs of them."""
    options = {"method": "ekd+fitnet", "teacher": teacher, "flip": True}
    for ranks, times in ((1, 10), (2, 5)):
        results = []
        for number in range(times + 1):
            folder = tmp_path / f"{ranks}.{number}"
            assert set(run(folder, ranks, log=tmp_path / "log", **options)) == {0}
            results.append(outcome(folder))
        equal = sum(result == results[0] for result in results[1:])
        count(f"same configuration twice, {ranks} rank(s)", f"{equal}/{times} bit-equal")
        assert equal == times
    assert outcome(tmp_path / "1.0") != outcome(tmp_path / "2.0")
