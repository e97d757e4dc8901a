"""What every test gets: one thread, nothing left running, a mark if it starts processes."""

import os
import runpy
import shutil
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

import hypothesis
import pytest
import torch

# CI sets HYPOTHESIS_PROFILE=nightly once a day: more examples, and others every night.
hypothesis.settings.register_profile("usual", max_examples=60)
hypothesis.settings.register_profile("nightly", max_examples=1000, derandomize=False)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))

torch.set_num_threads(1)  # xdist already uses every core

# Rendered faces go to a folder of this session, never to the user's own cache. It is made once: the
# processes of xdist and those that tests start inherit the variable.
_FOLDER = "EKD_LITE_CACHE"
_OURS = "EKD_LITE_CACHE_OF_TESTS"
if _OURS not in os.environ:
    os.environ[_OURS] = os.environ[_FOLDER] = tempfile.mkdtemp(prefix="ekd-lite-tests-")
    _MADE_HERE = os.environ[_FOLDER]
else:
    _MADE_HERE = None


def pytest_unconfigure():
    if _MADE_HERE is not None:
        shutil.rmtree(_MADE_HERE, ignore_errors=True)


started: list[str] = []  # processes, by the test that runs or a fixture made for it
_start = BaseProcess.start


def _note(event, arguments):
    # Python and browsers, not every program: matplotlib asks fc-list for fonts, once on a machine.
    is_python = event == "subprocess.Popen" and sys.executable in str(arguments[1])
    is_browser = event == "os.posix_spawn" and "--headless" in str(arguments[1])
    if is_python or is_browser or event in ("os.fork", "os.forkpty"):
        started.append(f"{event} {str(arguments)[:200]}")


def _noted_start(self):  # spawn and fork server are not among the events that Python reports
    started.append(f"{type(self).__name__} {self.name}")
    _start(self)


sys.addaudithook(_note)
BaseProcess.start = _noted_start


@pytest.fixture
def run_tool(monkeypatch):
    """Run a program of book/tools in this process, which need not import torch again: its code."""

    def run(name, *arguments):
        path = Path(__file__).parents[1] / "book" / "tools" / name
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        return ended.value.code

    return run


def pytest_collection_modifyitems(items):
    """Files that start processes take longest: begin with them, so that no worker ends with one."""
    long = {item.path for item in items if item.get_closest_marker("starts_process")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    started.clear()


@pytest.fixture(autouse=True)
def leave_nothing(request):
    """A test ends what it started, and `make quick` knows that it starts something."""
    yield
    torch.set_flush_denormal(False)  # a run of the demo or a study sets it, in its process
    if "tests.processes" in sys.modules:
        sys.modules["tests.processes"].end_all()
    if started and request.node.get_closest_marker("starts_process") is None:
        pytest.fail(f"mark this test `starts_process`, which `make quick` leaves out: {started[0]}")
