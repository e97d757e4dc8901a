"""How much is done: `make faults` sets `EKD_FAULTS=full`, and `make test` has to be quick."""

import os

FULL = os.environ.get("EKD_FAULTS") == "full"


def cases(quick, full):
    """So many, or in full so many."""
    return full if FULL else quick
