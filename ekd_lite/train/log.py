"""The log of a run: two files always, a table on a terminal, TensorBoard if it is asked for.

The files hold only what the configuration and the faces decide: equal runs leave equal bytes,
stopped and resumed or not. What the clock decides goes to the terminal and to TensorBoard.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from tqdm import tqdm

from ekd_lite.files import write_atomically
from ekd_lite.train.log_table import TerminalTable


class RunLog:
    """Write the records of a run to log.jsonl and log.csv, and show them as they come.

    log.jsonl has one JSON object a record; log.csv is the same as a table, whose columns stand in
    the order in which they first came. A number that is not finite is null in the one and an empty
    cell in the other, since JSON has no NaN. On opening, records after the resumed step are
    dropped: a killed run may have logged more than its checkpoint holds. If stderr is a terminal, a
    table of the records grows above a bar there; if it is none, nothing is shown.

    Args:
        out: the run's folder.
        total: steps of the run.
        step: steps done.
        enabled: False for every process but the first: no file is touched, nothing shown.
        progress: show the table and the bar.
        batch_size: images a step, of all processes; gives images/s instead of steps/s.
        tensorboard: write event files to `out`/tensorboard.
        opening: a record of step 0 that says how the run begins; log.jsonl alone has it.

    Raises:
        ValueError: the log that is there is damaged; TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        out: Path,
        *,
        total: int,
        step: int = 0,
        enabled: bool = True,
        progress: bool = True,
        batch_size: int | None = None,
        tensorboard: bool = False,
        opening: Mapping[str, Any] | None = None,
    ) -> None:
        self._unit, self._per_step = (
            ("steps/s", 1) if batch_size is None else ("images/s", batch_size)
        )
        self._sinks: list[_Sink] = []
        if enabled and tensorboard:
            self._sinks.append(_TensorBoard(out / "tensorboard", step))
        if enabled:
            self._sinks.append(_Files(out, step, opening))
        self._bar: Any = tqdm(
            total=total,
            initial=step,
            desc=out.name,
            disable=None if enabled and progress else True,
        )
        if not self._bar.disable:
            self._sinks.append(TerminalTable(self._bar))
        self._last = (step, time.perf_counter())

    def advance(self, step: int) -> None:
        """Move the bar to `step` steps done; after every step, if you like."""
        self._bar.update(step - self._bar.n)

    def write(
        self, record: Mapping[str, float], *, live: Mapping[str, float] | None = None
    ) -> None:
        """Add a record.

        Args:
            record: numbers by name, with a rising "step" among them.
            live: what the clock or the machine decides, such as memory; not written to the files.
        """
        step, now = int(record["step"]), time.perf_counter()
        speed = self._per_step * (step - self._last[0]) / max(now - self._last[1], 1e-9)
        self._last = (step, now)
        for sink in self._sinks:
            sink.write(record, {**(live or {}), self._unit: speed})
        self.advance(step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as stack:  # each is closed, even if another cannot be
            stack.callback(self._bar.close)
            for sink in self._sinks:
                stack.callback(sink.close)


class _Sink(Protocol):
    def write(self, record: Mapping[str, float], live: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class _Files:
    """log.jsonl, and log.csv made from it."""

    def __init__(self, out: Path, step: int, opening: Mapping[str, Any] | None) -> None:
        self._path, self._table = out / "log.jsonl", out / "log.csv"
        before = read_json_lines(self._path) if self._path.exists() else []
        self._columns: dict[str, None] = {}
        records = [r for r in before if r["step"] <= step and (r["step"] or step)]
        if opening is not None and not step:
            records.insert(0, dict(opening))
        kept = "".join(map(_json_line, records))
        write_atomically(self._path, kept.encode())
        self._lines = self._path.open("a", encoding="utf-8", newline="")
        self._open_table()

    def _open_table(self) -> None:
        """Write log.csv anew from log.jsonl, with the columns that it has by now."""
        records = [r for r in read_json_lines(self._path) if r["step"]]
        self._columns = dict.fromkeys(["step", *(name for r in records for name in r)])
        header = {name: name for name in self._columns}
        write_atomically(self._table, "".join(map(self._row, [header, *records])).encode())
        self._rows = self._table.open("a", encoding="utf-8", newline="")

    def _row(self, record: Mapping[str, Any]) -> str:
        buffer = io.StringIO()
        row = [_finite(record.get(name)) for name in self._columns]
        csv.writer(buffer, lineterminator="\n").writerow(row)
        return buffer.getvalue()

    def write(self, record: Mapping[str, float], live: Mapping[str, float]) -> None:
        self._lines.write(_json_line(record))
        self._lines.flush()
        os.fsync(self._lines.fileno())  # before the checkpoint that counts on it
        if record.keys() <= self._columns.keys():
            self._rows.write(self._row(record))
            self._rows.flush()
        else:
            self._rows.close()
            self._open_table()

    def close(self) -> None:
        self._lines.close()
        self._rows.close()


class _TensorBoard:
    """Event files; those of steps that are done again are hidden."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer = tensorboard_writer()(folder, purge_step=step + 1)

    def write(self, record: Mapping[str, float], live: Mapping[str, float]) -> None:
        for name, value in {**record, **live}.items():
            if name != "step":
                self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def tensorboard_writer() -> Any:
    """Import torch's SummaryWriter; a ValueError says what to install if TensorBoard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "TensorBoard is not installed: pip install 'ekd-lite[tensorboard]', or train without it"
        ) from error
    return SummaryWriter


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read log.jsonl; a last line that a kill cut short is left out.

    Raises:
        ValueError: another line is no record; names the file and the line.
    """
    *lines, last = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate([*lines, last] if last else lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                raise ValueError("not a JSON object with a whole-numbered step")
        except ValueError as error:
            if number > len(lines):
                break
            raise ValueError(
                f"{path} is damaged at line {number}: {error}; mend it, or delete the file: only "
                "the log is lost"
            ) from error
        records.append(record)
    return records


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json_line(record: Mapping[str, float]) -> str:
    finite = {name: _finite(value) for name, value in record.items()}
    return json.dumps(finite, allow_nan=False) + "\n"
