"""Write a trained net into the package in half precision, and say what that costs.

ekd-lite train --recipe demo-teacher --device cpu --out runs/demo-teacher
python scripts/ship_teacher.py runs/demo-teacher
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import load_splits
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.train import load_model
from ekd_lite.train.model_file import save_model

FPRS = (1e-2, 1e-3, 1e-4, 1e-5)


def main() -> None:
    """Read the run, halve it, measure both on the test identities."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of the teacher")
    parser.add_argument("--out", type=Path, default=DEMO_TEACHER)
    options = parser.parse_args()
    model = load_model(options.run)
    model.backbone.half()
    model.head.half()
    save_model(options.out, model)
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.2f} MiB")
    test = load_splits().test
    for path in (options.run, options.out):
        rows = embed(load_model(path).backbone, test)
        tpr = all_pairs_tpr_at_fpr(rows, test.labels, FPRS)
        print(path, *(f"{100 * value:.2f}" for value in tpr.tolist()))


if __name__ == "__main__":
    main()
