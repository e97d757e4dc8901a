"""Counts of the fault tests, printed as a table at the end."""

from collections import Counter

import pytest


@pytest.fixture
def count(record_property):
    """Add a line to the table: what was done, and what came of it."""

    def add(fault, result):
        record_property("fault", f"{fault}: {result}")

    return add


def pytest_terminal_summary(terminalreporter):
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])]
    lines = sorted(
        (f"{line}, FAILED" if report.failed else line)
        for report in reports
        for name, line in report.user_properties
        if name == "fault"
    )
    others = Counter(
        report.nodeid.partition("::")[0]
        for report in reports
        if report.when == "call" and report.passed and "/faults/" not in report.nodeid
    )
    if lines:
        lines += [f"{file}: {number} tests passed" for file, number in sorted(others.items())]
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.line(line)
