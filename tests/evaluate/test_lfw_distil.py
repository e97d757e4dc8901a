"""The script that distils on real faces, as far as it can go without them."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.data import PackedFaces
from ekd_lite.data.splits import Selection
from ekd_lite.evaluate.embed import embed
from ekd_lite.train import load_model

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPTS))
    try:
        import lfw_distil
    finally:
        sys.path.remove(str(SCRIPTS))
    return lfw_distil


@pytest.fixture
def data(tmp_path):
    """Forty people, the k-th with as many images as k says; the index is not in order."""
    rows = []
    for k in range(40):
        for i in range(1 + (k % 4)):
            file = tmp_path / "lfw112" / f"p{k:02}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (112, 112), (6 * k, 40 * i, 0)).save(file)
            rows.append((f"p{k:02}", f"p{k:02}/{i}.png", "test" if k % 3 == 0 else "train"))
    rows.reverse()
    with (tmp_path / "lfw_index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("identity", "file", "dev_split"), *rows])
    embeddings = np.zeros((len(rows), 128), np.float16)
    embeddings[:, 0] = [float(row[0][1:]) for row in rows]  # says who it is
    np.save(tmp_path / "lfw_sface_embeddings.npy", embeddings)
    return tmp_path


def test_people_are_in_one_part_and_rows_find_their_image(script, data, tmp_path):
    parts = script.split_people(script.read_index(data))
    people = [name for part in parts.values() for name in part]
    assert len(people) == len(set(people)) == 40
    assert {len(parts["validation"]), len(parts["test"])} == {2, 14}
    for part, names in parts.items():
        faces = script.read_faces(data, tmp_path / "work", part)
        who = [names[label] for label in faces.images.labels.tolist()]
        assert who == [file.split("/")[0] for file in faces.files]
        says = faces.teacher[:, 0] / faces.teacher[:, 0].max()
        true = torch.tensor([float(name[1:]) for name in who])
        assert torch.allclose(says, true / true.max())
        assert (faces.images.batch([0])[0, 0] - (6 * true[0] / 127.5 - 1)).abs().max() < 0.02
    half = script.read_faces(data, tmp_path / "work", "train", 0.5, 1)
    assert half.images.num_identities == 12
    assert half.images.labels.unique().tolist() == list(range(12))


def test_the_stand_in_holds_means_and_cannot_be_asked(script, tmp_path):
    images = torch.zeros(4, 3, script.SIZE, script.SIZE, dtype=torch.uint8)
    packed = PackedFaces(images, torch.tensor([0, 0, 1, 1]))
    teacher = torch.zeros(4, script.DIM)
    teacher[[0, 1, 2, 3], [0, 1, 2, 2]] = torch.tensor([5.0, 1.0, 2.0, 3.0])
    faces = script.Faces(Selection(packed, torch.tensor([0, 1])), teacher, list("abcd"))
    model = load_model(script.write_stand_in(tmp_path / "teacher.safetensors", faces))
    expected = torch.zeros(2, script.DIM)
    expected[0, :2], expected[1, 2] = 0.5**0.5, 1.0  # lengths do not count
    assert torch.allclose(model.head.prototypes, expected)
    with pytest.raises(ValueError, match="not finite"):
        embed(model.backbone, packed)


def test_says_what_is_missing(script, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", "--data", str(tmp_path), "--work", str(tmp_path)])
    with pytest.raises(SystemExit, match="lacks lfw112"):
        script.main()
