"""Imported by the server that `tests.processes` forks from, and by nothing else."""

from tests.processes import die_with_parent

# Every job holds the pipe whose end would tell the server that the tests are gone, and every job
# waits for the server's end: without this line neither would ever end.
die_with_parent()
