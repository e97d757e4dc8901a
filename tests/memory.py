"""The most memory that this process has held so far."""

import sys

import pytest

needs_peak = pytest.mark.skipif(
    sys.platform == "win32", reason="the standard library does not tell it on Windows"
)


def peak_mb():
    """In MB (10^6 bytes); nan on Windows."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return told * (1 if sys.platform == "darwin" else 1024) / 1e6  # macOS counts bytes
