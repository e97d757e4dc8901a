"""Speed against a peer's formula and the lower bound; run with `python -m benchmarks`."""
