"""What papers do around a loss: no labels, a bent teacher, several teachers, faces on demand."""

import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from ekd_lite.data.latents import NUM_LATENTS, faces_from_latents
from ekd_lite.distill import DISTILLERS
from ekd_lite.evaluate import all_pairs_tpr_at_fpr
from ekd_lite.models import build_backbone
from ekd_lite.ops import generator_for
from ekd_lite.train import (
    Batch,
    Teacher,
    TrainConfig,
    build_state,
    fit,
    load_model,
    save_model,
    train_step,
)
from ekd_lite.train.log import read_json_lines
from ekd_lite.train.procedures import bend_teacher, distil_fresh_faces, fuse_teachers
from ekd_lite.train.teacher_fit import asks_for_people
from tests.fakes import ColourFaces

SMALL: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 16,
    "general": 20,
    "identities": 0,
    "device": "cpu",
}
WITHOUT_LABELS = [
    name for name, m in DISTILLERS.items() if not (m.needs_labels or asks_for_people(m))
]


def rows_of(faces, width=16):
    """A teacher that is a table: some linear map of the pixels."""
    generator = torch.Generator().manual_seed(4)
    return faces.images.flatten(1) @ torch.randn(
        faces.images[0].numel(), width, generator=generator
    )


class OneByOne(ColourFaces):
    """A folder of pictures of which nobody knows who they show."""

    def __init__(self, *, one_person):
        super().__init__()
        count = len(self.labels)
        self.labels = torch.zeros(count).long() if one_person else torch.arange(count)
        self.num_identities = 1 if one_person else count


@pytest.mark.parametrize("method", WITHOUT_LABELS)
def test_distillation_without_labels_does_not_look_at_them(tmp_path, method):
    """One label for all, or a label for each, or the truth: the same weights to the bit."""
    nets = []
    unsorted = OneByOne(one_person=WITHOUT_LABELS.index(method) % 2 == 0)
    for k, faces in enumerate((ColourFaces(), unsorted)):
        # A threshold that is not given is measured on labels.
        decided: dict[str, Any] = {"teacher_threshold": 0.3}
        needed = decided if DISTILLERS[method].needs_threshold else {}
        config = TrainConfig(steps=2, method=method, identity_weight=0, **needed, **SMALL)
        # Prototypes of seven others: those that a teacher lacks are class means, from labels.
        others = rows_of(faces)[:7] if DISTILLERS[method].needs_prototypes else None
        teacher = Teacher.from_rows(rows_of(faces), prototypes=others)
        path = fit(config, faces, tmp_path / str(k), teacher=teacher, progress=False)
        nets.append(load_model(path).backbone.state_dict())
    start = build_state(config, 12, None, "cpu").backbone.state_dict()
    for name, value in nets[0].items():
        assert torch.equal(value, nets[1][name]), name
    assert any(not torch.equal(value, nets[0][name]) for name, value in start.items())


def test_the_usual_methods_need_no_labels():
    assert {"fitnet", "shrinkteanet", "sp", "cckd", "rkd", "darkrank", "pwr"} <= {*WITHOUT_LABELS}
    assert not {"kd", "margin", "triplet", "ekd", "ekd_fine"} & {*WITHOUT_LABELS}


@pytest.mark.parametrize(("method", "weight"), [("fitnet", 1.0), ("ekd", 0.0)])
def test_one_person_is_too_few_for_a_loss_that_compares_people(tmp_path, method, weight):
    faces = OneByOne(one_person=True)
    config = TrainConfig(steps=3, method=method, identity_weight=weight, **SMALL)
    with pytest.raises(ValueError, match="telling faces apart takes two or more"):
        fit(config, faces, tmp_path, teacher=rows_of(faces), progress=False)


@pytest.mark.parametrize("pull", ["fitnet:500", "margin"])
def test_a_teacher_is_bent_towards_the_small_net_and_then_teaches(tmp_path, pull):
    faces = ColourFaces()
    common: dict[str, Any] = {**SMALL, "log_every": 1}
    student = TrainConfig(steps=40, method="fitnet", identity_weight=0, **common)
    teacher = TrainConfig(backbone="tiny_teacher", steps=8, method="ekd", **common)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # above all none that the teacher is too small
        path = bend_teacher(teacher, student, faces, tmp_path, pull=pull, progress=False)
    assert path == tmp_path / "student/model.safetensors"
    told = {p.parent.name: json.loads(p.read_text()) for p in tmp_path.glob("*/config.json")}
    logs = {name: read_json_lines(tmp_path / name / "log.jsonl") for name in told}
    losses = {name: {*log[-1]} - {"step", "loss", "time"} for name, log in logs.items()}
    assert {"identity"} == losses["small"] & {"identity", "fitnet", "margin"}
    alone = (tmp_path / "small/model.safetensors", tmp_path / "teacher/model.safetensors")
    assert [told[name]["teacher"] for name in ("teacher", "student")] == [*map(str, alone)]
    # MarginDistillation on the small net's frozen prototypes takes the identity loss's place.
    name = pull.partition(":")[0]
    want = {"identity", "fitnet"} if name == "fitnet" else {"margin"}
    assert losses["teacher"] & {"identity", "fitnet", "margin"} == want
    assert logs["teacher"][-1][name] < 0.95 * logs["teacher"][0][name]  # it comes nearer
    assert losses["student"] & {"identity", "fitnet", "margin"} == {"fitnet"}
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("model.safetensors")}
    again = str(tmp_path)  # a folder may be text, as everywhere
    assert bend_teacher(teacher, student, faces, again, pull=pull, progress=False) == path
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("model.safetensors")}


def test_what_bending_refuses(tmp_path):
    config = TrainConfig(steps=2, **SMALL)
    with pytest.raises(ValueError, match="the student's method is 'none'"):
        bend_teacher(config, config, ColourFaces(), tmp_path)
    student = TrainConfig(steps=2, method="fitnet", **SMALL)
    with pytest.raises(ValueError, match="unknown method 'fitnett'"):
        bend_teacher(config, student, ColourFaces(), tmp_path, pull="fitnett")
    assert not list(tmp_path.iterdir())


def two_teachers(people=30, images=6):
    """Each knows half of what tells people apart, under noise that is larger than that."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(people).repeat_interleave(images)
    knowledge = torch.randn(people, 8, generator=generator)[labels]
    tables = []
    for part in knowledge.split(4, dim=1):
        noise = 2 * torch.randn(len(labels), 4, generator=generator)
        small = 0.2 * torch.randn(len(labels), 4, generator=generator)
        turn = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
        tables.append(5 * torch.cat([part + small, noise], 1) @ turn)
    return tables, labels


def test_fusing_without_training_is_pca_and_at_full_width_the_concatenation():
    tables, _ = two_teachers()
    joined = torch.cat([normalize(t, dim=1) for t in tables], 1)
    whole = fuse_teachers(tables, dim=20, steps=0)
    assert whole.shape == (180, 20) and torch.allclose(whole.norm(dim=1), torch.ones(180))
    unit = normalize(joined, dim=1)
    assert torch.allclose(whole @ whole.T, unit @ unit.T, atol=1e-5)
    left, size, _ = np.linalg.svd(joined.numpy(), full_matrices=False)
    want = normalize(torch.from_numpy(left[:, :5] * size[:5]), dim=1)
    fused = fuse_teachers(tables, dim=5, steps=0)
    assert torch.allclose(fused @ fused.T, want @ want.T, atol=1e-4)


def test_a_trained_map_leaves_out_what_does_not_tell_people_apart():
    tables, labels = two_teachers()
    common = {"dim": 8, "seed": 3}
    trained = fuse_teachers(tables, labels, steps=60, learning_rate=0.05, **common)
    short = [fuse_teachers(tables, labels, steps=2, dim=8, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(short[0], short[1]) and not torch.equal(short[0], short[2])
    found = [
        all_pairs_tpr_at_fpr(table, labels, [1e-2]).item()
        for table in (*tables, fuse_teachers(tables, dim=8, steps=0), trained)
    ]
    assert found[3] > max(found[:3]) + 0.3


def test_fused_rows_teach(tmp_path):
    faces = ColourFaces()
    fused = fuse_teachers([rows_of(faces), rows_of(faces, 8)], dim=16, steps=0)
    config = TrainConfig(steps=2, method="fitnet", identity_weight=0, **SMALL)
    fit(config, faces, tmp_path, teacher=Teacher.from_rows(fused), progress=False)


def test_what_fusing_refuses():
    tables, labels = two_teachers()
    for bad, message in (
        ([], "no table"),
        ([tables[0], tables[1][1:]], "of the same images"),
        ([tables[0], torch.full((180, 2), torch.nan)], "table 1 holds NaN"),
        ([tables[0].numpy()], "must be a torch Tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            fuse_teachers(bad, labels, dim=4)
    with pytest.raises(ValueError, match="needs labels; steps=0 is PCA"):
        fuse_teachers(tables, dim=4)
    with pytest.raises(ValueError, match="expected dim >= 1"):
        fuse_teachers(tables, dim=0)


FRESH: dict[str, Any] = {
    "image_size": 32,
    "embedding_dim": 16,
    "general": 6,
    "identities": 0,
    "device": "cpu",
    "identity_weight": 0,
    "method": "fitnet",
    "steps": 4,
}


@pytest.fixture(scope="module")
def large():
    torch.manual_seed(1)
    return build_backbone("tiny_teacher", embedding_dim=16, image_size=32).eval()


def by_hand(config, teacher, reach):
    """The procedure as plain steps on pictures drawn here; the weights at its end."""
    state = build_state(config, 1, Teacher.from_rows(torch.eye(16)), "cpu")  # for its width
    for step in range(0, config.steps, 2):
        drawn = generator_for(config.seed, 3, step).standard_normal((2, 6, NUM_LATENTS))
        people, noise = torch.from_numpy(drawn)
        for k in range(2):
            images = faces_from_latents(people, step + k)
            with torch.no_grad():
                rows = teacher(images)
            train_step(state, Batch(images, torch.zeros(6).long(), rows))
            with torch.no_grad():
                cosine = cosine_similarity(state.backbone.eval()(images), rows)
            state.backbone.train()
            a = (reach * (cosine + 1) / 2).double()[:, None]
            people = (1 - a**2) ** 0.5 * people + a * noise
    return state.backbone.state_dict()


@pytest.mark.parametrize("reach", [0.0, 1.0])
def test_fresh_faces_are_plain_distillation_on_people_drawn_for_it(large, reach):
    config = TrainConfig(**FRESH)
    model = distil_fresh_faces(config, large, reach=reach)
    for name, value in by_hand(config, large, reach).items():
        # AdamW makes steps of last bits; an error of 1 % in `reach` moves weights by 5e-3.
        assert torch.allclose(value, model.backbone.state_dict()[name], 1e-3, 1e-3), name
    assert not model.backbone.training


def test_reach_zero_sees_the_same_people_twice_and_reach_one_others(large, monkeypatch, tmp_path):
    seen = []

    def look(people, seed, **options):
        seen.append(people)
        return faces_from_latents(people, seed, **options)

    monkeypatch.setattr("ekd_lite.train.procedures.faces_from_latents", look)
    for reach in (0.0, 1.0):
        seen.clear()
        model = distil_fresh_faces(TrainConfig(**FRESH), large, reach=reach)
        moved = torch.stack([(seen[k] - seen[k + 1]).abs().mean() for k in (0, 2)])
        assert (moved == 0).all() if reach == 0 else (moved > 0.2).all()
        assert (seen[0] - seen[2]).abs().mean() > 0.5
        assert torch.stack(seen).std() == pytest.approx(1, abs=0.1)  # still as likely people
    save_model(tmp_path / "model.safetensors", model)
    assert load_model(tmp_path / "model.safetensors").info["method"] == "fitnet"


def test_what_fresh_faces_refuse(large):
    def run(teacher=large, reach=1.0, **changes):
        distil_fresh_faces(TrainConfig(**(FRESH | changes)), teacher, reach=reach)

    for changes in (
        {"identity_weight": 1.0},
        {"method": "ekd"},
        {"method": "kd"},
        {"method": "fitnet+margin"},
        {"method": "none", "identity_weight": 1.0},
        {"method": "thkd"},  # this net has no prototypes
        {"method": "ekd_decisions"},  # its threshold would be measured on labels
    ):
        with pytest.raises(ValueError, match="fresh faces have no labels"):
            run(**changes)
    with pytest.raises(ValueError, match=r"reach must lie in 0\.\.1"):
        run(reach=1.5)
    with pytest.raises(ValueError, match="a table of rows"):
        run(torch.randn(5, 16))
    with pytest.raises(ValueError, match="expected embedding_dim 16"):
        run(embedding_dim=8)
