"""Work in several processes: in order, each sent the set once, errors as they were."""

import io
import os
import pickle
import time
from types import SimpleNamespace

import pytest

from ekd_lite.data import processes
from ekd_lite.data.processes import _answer, _Worker, capped_workers, map_in_processes


class Counted:
    """Says how often it was unpickled in its process."""

    arrivals = 0

    def __init__(self):
        self.state = 1

    def __setstate__(self, state):
        Counted.arrivals += 1


class Odd(Exception):
    def __init__(self, one, two):  # cannot be unpickled from its one argument
        super().__init__(f"{one} and {two}")


def work(shared, number, kind="square"):
    print("a set may print what it likes")
    if kind == "raise":
        raise ValueError(f"part {number} is bad")
    if kind == "odd":
        raise Odd(number, "more")
    time.sleep(0.01 * (number % 3))
    return number**2, Counted.arrivals, os.getpid()


@pytest.mark.starts_process
def test_results_come_in_order_and_the_set_is_sent_once_to_each():
    results = list(map_in_processes(work, Counted(), [(n,) for n in range(24)], workers=2))
    assert [square for square, _, _ in results] == [n**2 for n in range(24)]
    assert {arrivals for _, arrivals, _ in results} == {1}
    assert os.getpid() not in {process for _, _, process in results}
    assert len({process for _, _, process in results}) == 2


@pytest.mark.starts_process
def test_a_worker_that_dies_is_spoken_of(monkeypatch):
    monkeypatch.setattr(processes, "_START", "raise SystemExit(7)")
    with pytest.raises(RuntimeError, match=r"a worker process died \(exit status 7\)"):
        list(map_in_processes(work, None, [(n,) for n in range(8)], workers=2))


def test_errors_arrive_as_they_were_or_as_text():
    error = pickle.loads(_answer(work, None, (3, "raise")))  # noqa: S301
    assert (type(error), str(error)) == (ValueError, "part 3 is bad")
    error = pickle.loads(_answer(work, None, (3, "odd")))  # noqa: S301
    assert (type(error), str(error)) == (RuntimeError, "Odd: 3 and more")
    worker = _Worker(b"")
    worker._send = lambda _: None
    worker._process = SimpleNamespace(stdout=io.BytesIO(_answer(work, None, (3, "raise"))))
    with pytest.raises(ValueError, match=r"^part 3 is bad$"):
        worker.ask((3,))


def test_what_cannot_be_sent_is_done_here(monkeypatch):
    shared = lambda: None  # noqa: E731
    with pytest.warns(UserWarning, match="function cannot be sent to other processes .* this one"):
        results = list(map_in_processes(work, shared, [(1,), (2,)], workers=2))
    assert {process for _, _, process in results} == {os.getpid()}
    monkeypatch.setattr(Counted, "__module__", "__main__")
    monkeypatch.setattr("__main__.Counted", Counted, raising=False)
    with pytest.warns(UserWarning, match="defined in the script that runs"):
        list(map_in_processes(work, Counted(), [(1,), (2,)], workers=2))


def test_a_number_of_workers_that_the_machine_cannot_carry_is_capped(monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 2)
    assert [capped_workers(n) for n in (1, 8)] == [1, 8]
    assert capped_workers(0, least=0) == 0
    with pytest.warns(UserWarning, match="workers = 1000 is more than 4 processes .* 2 cores: 8"):
        assert capped_workers(1000) == 8
    with pytest.raises(ValueError, match="workers must be at least 0, got -1"):
        capped_workers(-1, least=0)
