"""The files that come with the package."""

import pytest
import torch

from ekd_lite.assets import DEMO_TEACHER, results
from ekd_lite.data import SyntheticFaces
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.train import load_model
from ekd_lite.train.recipes import load_recipe


def test_the_teacher_is_the_recipe_s_and_is_good():
    config = load_recipe("demo-teacher").config
    teacher = load_model(DEMO_TEACHER)
    for name in ("backbone", "embedding_dim", "image_size", "head", "scale", "steps", "seed"):
        assert teacher.info[name] == getattr(config, name)
    assert teacher.head.prototypes.shape == (1000, 128)
    assert all(p.dtype == torch.float32 for p in teacher.backbone.parameters())
    assert DEMO_TEACHER.stat().st_size < 2**21

    faces = SyntheticFaces(60, 6, first_identity=3000)
    tpr = all_pairs_tpr_at_fpr(embed(teacher.backbone, faces), faces.labels, [1e-2, 1e-3])
    assert tpr[0] > 0.97 and tpr[1] > 0.9


def test_recorded_results_are_found_by_their_names():
    path = results("demo.csv")
    assert path.read_text(encoding="utf-8").startswith("method,")
    with pytest.raises(FileNotFoundError, match=r"no table 'none.csv' .* demo.csv"):
        results("none.csv")
    with pytest.raises(FileNotFoundError, match="no table"):
        results("../README.md")
