"""A process of several dies or hangs: the others end with one line, and a new start goes on."""

import json
import os
import random
import re
import signal
import time

import pytest

from ekd_lite.train.checkpoint import load_checkpoint
from tests.faults import jobs
from tests.faults.compare import outcome
from tests.processes import errors_in, marked, start_ranks, torchrun, wait_all, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.starts_process, pytest.mark.timeout(3000)]
RUNS = int(os.environ.get("EKD_FAULTS_KILLS", "20"))


def supervise(tmp_path, name, options):
    """Start torchrun until it ends well: number of starts, longest time from a death to the end."""
    marker, log = f"EKD_FAULTS_RUN={os.getpid()}.{name}", tmp_path / f"log.{name}"
    slowest = 0.0
    for launch in range(1, 6):
        process = torchrun(str(tmp_path / name), json.dumps(options), log=log, marker=marker)
        code = process.wait(timeout=600)
        ended = time.time()
        assert wait_until(lambda: not marked(marker), 10, poll=0.2)
        if code == 0:
            return launch, slowest
        killed = [float(t) for t in re.findall(r"killed ([0-9.]+)", log.read_text())]
        slowest = max(slowest, ended - killed[-1])
    raise AssertionError(log.read_text())


def test_a_rank_dies_and_the_supervisor_starts_again(tmp_path, count):
    """SIGKILL at a random step and moment of it, saves every five steps, the real torchrun."""
    rng = random.Random(0)  # noqa: S311
    options = {"rank_timeout": 30.0}
    assert supervise(tmp_path, "whole", options) == (1, 0.0)
    whole, equal, starts, slowest = outcome(tmp_path / "whole"), 0, 0, 0.0
    for number in range(RUNS):
        kill = [number % 2, rng.randrange(1, 40), rng.uniform(0, 0.03)]
        launches, seconds = supervise(tmp_path, str(number), {**options, "kill": kill})
        starts += launches
        slowest = max(slowest, seconds)
        equal += outcome(tmp_path / str(number)) == whole
    count(
        "a rank dies under torchrun",
        f"{RUNS} kills, {equal} bit-equal after {starts} starts, 0 hangs (at most {slowest:.0f} s "
        "from the kill to the end of all; rank_timeout 30 s)",
    )
    assert equal == RUNS
    assert slowest < 2 * options["rank_timeout"]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])  # which Windows lacks
def test_the_survivor_says_so_in_one_line(tmp_path, count, name):
    """Killed, and stopped: a process that does not answer is given up after the timeout."""
    good, slowest = 0, 0.0
    for turn in range(4):
        victim, out = turn % 2, tmp_path / str(turn)
        numbers = jobs.Numbers(tmp_path / f"numbers{turn}")
        ranks = start_ranks(
            jobs.train_as_the_command_line_would,
            str(out),
            log=tmp_path / f"log{turn}",
            steps=100_000,
            rank_timeout=5.0,
            on_step=jobs.Tell(str(tmp_path / f"numbers{turn}")),
        )
        assert wait_until(lambda n=numbers: min(n[0], n[1]) > 10)
        os.kill(ranks[victim].pid, getattr(signal, name))
        begin = time.monotonic()
        survivor = ranks[1 - victim]
        code = survivor.wait(30)
        slowest = max(slowest, time.monotonic() - begin)
        ranks[victim].kill_session()
        ranks[victim].wait()
        lines = errors_in(survivor.output)
        is_clear = len(lines) == 1 and f"process {1 - victim} lost another process" in lines[0]
        saved = load_checkpoint(out / "checkpoint.pt")["step"]
        is_good = code == 1 and is_clear and "Traceback" not in survivor.output and saved % 5 == 0
        good += is_good
        if not is_good:
            print(f"turn {turn}: exit code {code}, saved {saved}, {survivor.output}")
    count(f"{name} to one of 2 ranks", f"{good}/4 survivors end with one line, "
          f"after at most {slowest:.1f} s (rank_timeout 5 s)")  # fmt: skip
    assert good == 4
    assert slowest < 10 + 5


def test_a_rank_with_bad_images_names_them_and_ends_the_others(tmp_path, count):
    """The pixels of one image are not finite; one rank reads it, the other waits for that rank."""
    ranks = start_ranks(
        jobs.train_as_the_command_line_would,
        str(tmp_path / "run"),
        log=tmp_path / "log",
        faces=jobs.BadLater(7),
    )
    # What the set holds is wrong (2); the other lost a process of its run (1).
    assert sorted(wait_all(ranks)) == [1, 2]
    named = [one for one in ranks if "image 7 of the set holds NaN" in one.output]
    lost = [one for one in ranks if "lost another process" in one.output]
    assert len(named) == len(lost) == 1
    assert all(len(errors_in(one.output)) == 1 for one in ranks)
    count("bad pixels at one of 2 ranks", "1/1 named by one rank, the other ends")
