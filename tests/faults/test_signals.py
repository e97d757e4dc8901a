"""Ctrl-C and SIGTERM: the step is finished and saved, and no process stays behind."""

import json
import os
import random
import signal
import time
from collections import Counter

import pytest

from ekd_lite.train.checkpoint import load_checkpoint
from tests.faults import jobs
from tests.processes import (
    marked,
    session_members,
    start,
    start_ranks,
    torchrun,
    wait_all,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.starts_process, pytest.mark.timeout(3000)]
ENDLESS = {"steps": 100_000, "checkpoint_every": 100_000}
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def last_step(out, numbers):
    """Whether the checkpoint holds all steps that were done, by the run's own account."""
    saved = load_checkpoint(out / "checkpoint.pt")
    return saved is not None and saved["step"] == numbers[0] > 0


def test_signals_at_random_moments(tmp_path, count):
    """50 signals, half of them to the whole process group as a terminal sends Ctrl-C."""
    rng = random.Random(0)  # noqa: S311
    numbers, outcome = jobs.Numbers(tmp_path / "numbers"), Counter()
    tell = jobs.Tell(str(tmp_path / "numbers"))
    for turn in range(50):
        number = (signal.SIGINT, signal.SIGTERM)[turn % 2]
        numbers[0], out = 0, tmp_path / str(turn)
        step = rng.randrange(1, 15)
        process = start(
            jobs.train, str(out), log=tmp_path / f"log{turn}", on_step=tell, workers=2, **ENDLESS
        )
        pid = process.pid
        assert wait_until(lambda k=step: numbers[0] >= k), process.output
        time.sleep(rng.uniform(0, 0.05))
        assert len(session_members(pid)) == 3
        (os.killpg if turn % 4 < 2 else os.kill)(pid, number)
        outcome["code"] += process.wait() == CODES[number]
        outcome["saved"] += last_step(out, numbers)
        outcome["clean"] += wait_until(lambda p=pid: not session_members(p), 10)
    count(
        "SIGINT/SIGTERM at random moments, 2 workers",
        f"50 signals, {outcome['saved']} final checkpoints, {outcome['code']} exit codes 130/143, "
        f"{50 - outcome['clean']} with orphans after 10 s",
    )
    assert outcome == Counter({"code": 50, "saved": 50, "clean": 50})


def test_a_second_signal_stops_at_once(tmp_path, count):
    """In a step that takes a minute; the command line's exit code."""
    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM):
        out = tmp_path / str(number)
        process = start(jobs.train_slowly, str(out), str(tmp_path / "numbers"),
                        log=tmp_path / "log")  # fmt: skip
        numbers = jobs.Numbers(tmp_path / "numbers")
        assert wait_until(lambda n=numbers: n[0] == 1), process.output
        os.kill(process.pid, number)
        time.sleep(1)
        assert process.process.exitcode is None  # it would finish the step
        os.kill(process.pid, number)
        start_of_end = time.monotonic()
        code = process.wait()
        stopped.append(time.monotonic() - start_of_end)
        assert code == (130 if number == signal.SIGINT else -signal.SIGTERM)
        numbers[0] = 0
    count("second signal", f"2/2 stop at once (at most {max(stopped):.1f} s)")
    assert max(stopped) < 10


def test_a_signal_to_one_rank_stops_all_in_the_same_step(tmp_path, count):
    rng = random.Random(1)  # noqa: S311
    numbers, good = jobs.Numbers(tmp_path / "numbers"), 0
    tell = jobs.Tell(str(tmp_path / "numbers"))
    for turn in range(20):
        number = (signal.SIGINT, signal.SIGTERM)[turn % 2]
        numbers[0], numbers[1], out = 0, 0, tmp_path / str(turn)
        ranks = start_ranks(
            jobs.train, str(out), log=tmp_path / f"log{turn}", on_step=tell, workers=2, **ENDLESS
        )
        pids, step = [one.pid for one in ranks], rng.randrange(1, 10)
        assert wait_until(lambda k=step: numbers[0] >= k), [one.output for one in ranks]
        time.sleep(rng.uniform(0, 0.05))
        os.kill(pids[turn // 2 % 2], number)
        codes = wait_all(ranks)
        is_clean = wait_until(lambda p=pids: not any(map(session_members, p)), 10)
        in_step = last_step(out, numbers) and numbers[0] == numbers[1]
        good += codes == [CODES[number]] * 2 and in_step and is_clean
    count("signal to one of 2 ranks", f"{good}/20 stop all in one step, saved, no orphans")
    assert good == 20


@pytest.mark.parametrize("number", CODES)
def test_a_signal_to_torchrun(tmp_path, count, number):
    """It hands the signal on; one checkpoint, and everything ends. The exit code is its own."""
    rng = random.Random(number)  # noqa: S311
    good, seconds = 0, []
    for turn in range(3):
        marker = f"EKD_FAULTS_RUN={os.getpid()}.{number}.{turn}"
        numbers, out = jobs.Numbers(tmp_path / f"numbers{turn}"), tmp_path / str(turn)
        options = {"workers": 2, **ENDLESS, "tell": [str(tmp_path / f"numbers{turn}"), 0.01]}
        process = torchrun(
            str(out), json.dumps(options), log=tmp_path / f"log{turn}", marker=marker
        )
        step = rng.randrange(1, 10)
        assert wait_until(lambda n=numbers, k=step: min(n[0], n[1]) >= k, 180)
        process.send_signal(number)
        begin = time.monotonic()
        code = process.wait(timeout=60)
        seconds.append(time.monotonic() - begin)
        is_clean = wait_until(lambda m=marker: not marked(m), 10, poll=0.2)
        good += code != 0 and is_clean and last_step(out, numbers) and numbers[0] == numbers[1]
    name = signal.Signals(number).name
    count(f"{name} to torchrun, 2 ranks x 2 workers", f"{good}/3 saved, no orphans, "
          f"at most {max(seconds):.0f} s")  # fmt: skip
    assert good == 3
