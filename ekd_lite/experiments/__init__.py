"""Whole comparisons: a plan of runs, the processes that train them, tables, reports and figures."""
