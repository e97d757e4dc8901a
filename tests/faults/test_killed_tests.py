"""What the tests have started ends with them, also if they are killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import PYTHONPATH, ROOT, marked, wait_until

pytestmark = [pytest.mark.starts_process, pytest.mark.slow, pytest.mark.timeout(600)]
MARK = "EKD_TESTS_THAT_ARE_KILLED"
TESTS = """
import sys, time
from pathlib import Path
from tests.faults import jobs
from tests.processes import start, torchrun
folder, mark = Path(sys.argv[1]), sys.argv[2]
start(time.sleep, 3600, log=folder / "log")
options = '{"tell": ["%s", 3600]}' % (folder / "numbers")
torchrun(str(folder / "run"), options, log=folder / "torchrun", marker=mark + "=yes")
print("started", flush=True)
time.sleep(3600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no other system ends them")
def test_nothing_outlives_killed_tests(tmp_path, count):
    tests = subprocess.Popen(
        [sys.executable, "-c", TESTS, str(tmp_path), MARK],
        env={
            "PYTHONPATH": PYTHONPATH,
            MARK: "yes",
            "OMP_NUM_THREADS": "1",
            "PATH": "/usr/bin:/bin",
        },
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with tests:
        assert tests.stdout.readline() == "started\n"
        log = Path(tmp_path / "numbers")
        assert wait_until(log.exists, 200), (tmp_path / "torchrun").read_text()  # the ranks train
        begun = len(marked(f"{MARK}=yes"))
        tests.send_signal(signal.SIGKILL)
        tests.wait()
        time.sleep(0.1)
        assert wait_until(lambda: not marked(f"{MARK}=yes"), 60), marked(f"{MARK}=yes")
    count("killed tests", f"{begun} processes at work, 0 of them a minute later")
    assert begun >= 5  # the tests, their server, its job, torchrun and its ranks
