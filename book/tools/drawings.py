"""Draw the figures of pages that run no code, into book/figures.

python book/tools/drawings.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
FIGURES = ROOT / "book" / "figures"


def main() -> None:
    """Write distillation.svg, the same bytes every time."""
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "ekd_lite"
    import matplotlib.pyplot as plt

    from ekd_lite.plots import plot_distillation

    plot_distillation()
    plt.savefig(FIGURES / "distillation.svg", transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()
