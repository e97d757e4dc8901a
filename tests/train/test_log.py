"""The log: the same bytes after stops as without, valid JSON, and a table only on a terminal."""

import csv
import json
import math
import os
import re
import select
import struct
import sys
from pathlib import Path

import pytest

from ekd_lite.train.log import RunLog, read_json_lines
from tests.processes import start

STEPS = range(3, 31, 3)


def record(step):
    """What a run might log; the share of critical pairs comes late, and once it is not finite."""
    late = {"ekd_critical_share": math.nan if step == 21 else 1 / step} if step > 12 else {}
    return {"step": step, "identity": 10 / 3 / step, "loss": 1e-5 * step, **late}


def log_until(out, last, *, resumed=0, **options):
    with RunLog(out, total=30, step=resumed, **options) as log:
        for step in STEPS:
            if resumed < step <= last:
                log.write(record(step), live={"gigabytes": 1.5})


def files(out):
    return {name: (out / name).read_bytes() for name in ("log.jsonl", "log.csv")}


def table(out):
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_stops_change_no_byte(tmp_path):
    log_until(tmp_path / "whole", 30)
    last = 0
    for stop, checkpoint in ((6, 5), (15, 10), (18, 18), (27, 11), (30, 30)):
        log_until(tmp_path / "parts", stop, resumed=last)
        last = checkpoint
    log_until(tmp_path / "parts", 30, resumed=30)  # nothing left to do
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert [r["step"] for r in read_json_lines(tmp_path / "parts" / "log.jsonl")] == list(STEPS)


def test_what_the_clock_decides_is_not_in_the_files(tmp_path):
    for name in "ab":
        log_until(tmp_path / name, 30, batch_size=96)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for data in files(tmp_path / "a").values():
        assert not re.search(rb"gigabytes|images|steps/s", data)


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_a_line_that_a_kill_cut_short_is_written_again(tmp_path, name):
    log_until(tmp_path / "whole", 30)
    log_until(tmp_path / "cut", 18)
    path = tmp_path / "cut" / name
    path.write_bytes(path.read_bytes()[:-9])
    if name == "log.jsonl":
        assert [r["step"] for r in read_json_lines(path)] == [3, 6, 9, 12, 15]
    log_until(tmp_path / "cut", 30, resumed=15)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_the_log_can_be_read_while_the_run_goes_on(tmp_path):
    with RunLog(tmp_path, total=30) as log:
        assert table(tmp_path) == []
        for count, step in enumerate(STEPS, start=1):
            log.write(record(step))
            assert len(read_json_lines(tmp_path / "log.jsonl")) == len(table(tmp_path)) == count


def test_columns_that_come_later_are_empty_before(tmp_path):
    log_until(tmp_path, 30)
    rows = table(tmp_path)
    assert list(rows[0]) == ["step", "identity", "loss", "ekd_critical_share"]
    for row, step in zip(rows, STEPS, strict=True):
        share = row.pop("ekd_critical_share")
        assert share == ("" if step <= 12 or step == 21 else repr(1 / step))
        assert {n: float(v) for n, v in row.items()} == {n: record(step)[n] for n in row}


def test_names_with_commas_and_new_lines_stay_one_column(tmp_path):
    names = {"a,b": 1.0, 'c"d\ne': 2.0}
    with RunLog(tmp_path, total=2) as log:
        log.write({"step": 1, **names})
        log.write({"step": 2, **names})
    assert table(tmp_path) == [{"step": s, "a,b": "1.0", 'c"d\ne': "2.0"} for s in "12"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path, value):
    with RunLog(tmp_path, total=1) as log:
        log.write({"step": 1, "loss": value})

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    line = (tmp_path / "log.jsonl").read_text()
    assert json.loads(line, parse_constant=refuse) == {"step": 1, "loss": None}
    assert (tmp_path / "log.csv").read_text() == "step,loss\n1,\n"


@pytest.mark.parametrize("bad", ['{"step": 6, "lo', "[6]", '{"loss": 1.0}', '{"step": "6"}', "\0"])
def test_damage_inside_is_named(tmp_path, bad):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 3}}\n{bad}\n{{"step": 9}}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl is damaged at line 2"):
        read_json_lines(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="damaged at line 2"):
        RunLog(tmp_path, total=30)
    assert path.read_bytes() == before


def test_processes_but_the_first_do_nothing(tmp_path, capfd):
    log_until(tmp_path / "other", 30, enabled=False, tensorboard=True)
    assert not (tmp_path / "other").exists()
    assert capfd.readouterr() == ("", "")


def log_in_a_process(out, how, terminal=None):
    """What a program that logs does; stderr is the terminal, if there is one."""
    if terminal is not None:
        os.dup2(os.open(terminal, os.O_RDWR | os.O_NOCTTY), 2)
    log_until(
        Path(out), 30, batch_size=96, progress=how != "hidden", enabled=how != "other process"
    )


def on_terminal(tmp_path, *, columns, progress="shown"):
    """What a terminal of so many columns receives on stderr."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    process = start(
        log_in_a_process, str(tmp_path / "run"), progress, os.ttyname(theirs), log=tmp_path / "out"
    )
    received = b""
    try:
        while True:
            ended = not process.is_alive()
            while select.select([ours], [], [], 0.02)[0]:
                received += os.read(ours, 4096)
            if ended:
                break
        assert process.wait() == 0, process.output
    finally:
        os.close(ours)
        os.close(theirs)
    return received.decode()


def rows_of(text):
    """The lines of the table, without what tqdm draws and wipes out."""
    lines = [re.sub("\x1b.*?m|\x1b\\[A", "", line) for line in re.split("[\r\n]+", text)]
    return [line for line in lines if line.split() and not re.search(r"\|.*\||^run:", line)]


@pytest.mark.starts_process
def test_table_on_a_terminal(tmp_path):
    text = on_terminal(tmp_path, columns=120)
    rows = rows_of(text)
    headers = [row.split() for row in rows if "step" in row]
    early = ["step", "identity", "loss", "gigabytes", "images/s", "left"]
    late = [*early[:3], "ekd_critical_share", *early[3:]]
    assert headers == [early, late]  # a new header where a column comes, none in between
    numbers = [row.split() for row in rows if "step" not in row]
    assert [int(row[0]) for row in numbers] == list(STEPS)
    assert float(numbers[0][1]) == pytest.approx(10 / 9, rel=1e-3)
    assert numbers[-1][-1] == "00:00"
    assert "nan" in next(row for row in numbers if row[0] == "21")
    for row, header in ((rows[1], rows[0]), (rows[-1], rows[5])):
        assert len(row) == len(header)  # aligned to the right, column by column
        assert [m.end() for m in re.finditer(r"\S+", row)] == [
            m.end() for m in re.finditer(r"\S+", header)
        ]
    assert "100%" in text


@pytest.mark.starts_process
@pytest.mark.parametrize("columns", [86, 72])
def test_narrow_terminals_get_fewer_columns(tmp_path, columns):
    rows = rows_of(on_terminal(tmp_path, columns=columns))
    assert max(map(len, rows)) <= columns
    last = [row.split() for row in rows if "step" in row][-1]
    assert last[0] == "step"
    assert last[-2:] == ["images/s", "left"]
    assert ("ekd_critical_share" in last) == (columns == 86)


@pytest.mark.starts_process
def test_nothing_is_shown_off_a_terminal_or_where_it_is_not_wanted(tmp_path):
    process = start(log_in_a_process, str(tmp_path / "run"), "shown", log=tmp_path / "out")
    assert process.wait() == 0
    assert process.output == ""
    assert (tmp_path / "run" / "log.jsonl").stat().st_size
    for progress in ("hidden", "other process"):
        assert on_terminal(tmp_path, columns=120, progress=progress) == ""


def test_missing_tensorboard_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'ekd-lite\[tensorboard\]'"):
        RunLog(tmp_path / "run", total=3, tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_tensorboard_hides_the_steps_that_are_done_again(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_until(tmp_path, 24, tensorboard=True)
    log_until(tmp_path, 30, resumed=15, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    names = {"identity", "loss", "ekd_critical_share", "gigabytes", "steps/s"}
    assert set(events.Tags()["scalars"]) == names
    losses = [(e.step, e.value) for e in events.Scalars("loss")]
    assert losses == [(s, pytest.approx(1e-5 * s)) for s in STEPS]
