"""What the tests of the studies of real faces share: the programs, and a made-up LFW."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

STUDIES = Path(__file__).parents[2] / "studies"


def module(name):
    sys.path.insert(0, str(STUDIES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(STUDIES))


@pytest.fixture
def people():
    """How many; a module that needs others has a fixture of this name."""
    return 40


@pytest.fixture
def data(people, tmp_path):
    """Some people, the k-th with as many images as k says; the index is not in order."""
    rows = []
    for k in range(people):
        for i in range(1 + (k % 4)):
            file = tmp_path / "lfw112" / f"p{k:02}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (112, 112), (6 * k % 256, 40 * i, 0)).save(file)
            points = (30 + i, 40, 70, 40 + k, 50 + k / 8, 60)
            split = "test" if k % 3 == 0 else "train"
            rows.append((f"p{k:02}", f"p{k:02}/{i}.png", split, 0.9 - k / 100, *points))
    rows.reverse()
    with (tmp_path / "lfw_index.csv").open("w", newline="") as file:
        names = ("identity", "file", "dev_split", "detector_score")
        csv.writer(file).writerows([(*names, "x1", "y1", "x2", "y2", "x3", "y3"), *rows])
    embeddings = np.zeros((len(rows), 128), np.float16)
    embeddings[:, 0] = [float(row[0][1:]) for row in rows]  # says who it is
    embeddings[:, 1] = [9 * np.cos(n) for n in range(len(rows))]
    embeddings[:, 2] = 3
    np.save(tmp_path / "lfw_sface_embeddings.npy", embeddings)
    return tmp_path
