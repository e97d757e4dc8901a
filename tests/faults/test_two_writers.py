"""Two starts into one folder: one goes on, the other says so in a line and changes nothing."""

import random
import time
from collections import Counter

import pytest

from tests.faults import data_jobs, jobs
from tests.faults.compare import outcome
from tests.faults.data_jobs import Gate
from tests.faults.scale import cases
from tests.processes import start, wait_all, wait_until

pytestmark = [pytest.mark.starts_process, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a run leaves that nobody disturbs."""
    folder = tmp_path_factory.mktemp("alone")
    assert start(jobs.train, str(folder / "run"), log=folder / "log").wait() == 0
    return outcome(folder / "run")


def race(first, second, gate, offset):
    """Start two; once one of them has ended let the other go on: their codes, sorted."""
    both = [first()]
    time.sleep(offset)
    both.append(second())
    ended = wait_until(lambda: not all(one.is_alive() for one in both))
    gate.touch()
    assert ended, "both of them work in one folder"
    return sorted(wait_all(both))


def test_two_runs_into_one_folder(tmp_path, alone, count):
    rng = random.Random(0)  # noqa: S311
    found, total = Counter(), cases(1, 30)
    for turn in range(total):
        folder = tmp_path / str(turn)
        gate = Gate(folder / "gate", folder / "numbers")

        def run(name, folder=folder, gate=gate):
            out, log = str(folder / "run"), folder / name
            return lambda: start(data_jobs.train_at_the_gate, out, gate, log=log)

        codes = race(run("a"), run("b"), folder / "gate", rng.uniform(0, 0.1))
        said = [(folder / name).read_text() for name in "ab"]
        lines = [line for text in said for line in text.splitlines() if line]
        found["one"] += codes == [0, 2] and jobs.Numbers(folder / "numbers")[0] == 1
        found["line"] += len(lines) == 1 and "another process is writing to" in lines[0]
        found["equal"] += outcome(folder / "run") == alone
        found["left"] += any(file.name.startswith(".") for file in (folder / "run").iterdir())
    count(
        "two runs into one folder",
        f"{total} pairs, {found['one']} with one that goes on, {found['line']} with one line, "
        f"{found['equal']} bit-equal to a run alone, {found['left']} with left-overs",
    )
    assert found == Counter({"one": total, "line": total, "equal": total, "left": 0})


def test_a_killed_holder_does_not_block_the_next(tmp_path, alone, count):
    """The gate is closed for the first, at step 2, and open for the one after it."""
    good, total = 0, cases(1, 12)
    for turn in range(total):
        folder = tmp_path / str(turn)
        gate = Gate(folder / "gate", folder / "numbers")
        options = {"workers": 2 * (turn % 2)}  # readers live a little longer than their run
        job = (data_jobs.train_at_the_gate, str(folder / "run"))
        holder = start(*job, gate, log=folder / "log", **options)
        numbers = jobs.Numbers(folder / "numbers")
        assert wait_until(lambda n=numbers: n[0] == 1), holder.output
        holder.process.kill()
        assert holder.wait() == -9
        after = start(*job, log=folder / "after", **options)
        assert after.wait() == 0, after.output
        hidden = [file.name for file in (folder / "run").iterdir() if file.name.startswith(".")]
        state = outcome(folder / "run")
        same = [state["model"] == alone["model"], state["files"][:2] == alone["files"][:2]]
        good += all(same) and not hidden
    count("killed holder of a folder", f"{good}/{total} next starts go on to the same model")
    assert good == total


@pytest.mark.parametrize("command", [["demo"], ["compare", "--recipe", "study"]], ids=" ".join)
def test_two_experiments_in_one_folder(tmp_path, command, count):
    """The real command with its real lock, around work that only waits."""
    rng = random.Random(1)  # noqa: S311
    good, total = 0, cases(1, 10)
    for turn in range(total):
        folder = tmp_path / str(turn)
        out, gate = folder / "out", Gate(folder / "gate", folder / "numbers")
        job = data_jobs.experiment_at_a_gate, [*command, "--out", str(out)], gate

        def run(name, folder=folder, job=job):
            return lambda: start(*job, log=folder / name)

        codes = race(run("a"), run("b"), folder / "gate", rng.uniform(0, 0.1))
        said = "".join((folder / name).read_text() for name in "ab")
        once = said.count("another process is writing to") == 1 and "Traceback" not in said
        files = [file.name for file in out.iterdir()]
        good += codes == [0, 2] and once and files == ["table"]
    count(
        f"two starts of {' '.join(command)} into one folder",
        f"{good}/{total} with one that goes on",
    )
    assert good == total
