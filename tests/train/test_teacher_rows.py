"""Rows and prototypes that say whose they are: those of others are refused, with what differs."""

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ekd_lite.data.faceset import people_keys
from ekd_lite.evaluate import embed
from ekd_lite.train import Teacher, cache_teacher, teacher_cache
from ekd_lite.train.teacher_fit import class_means
from tests.fakes import ColourFaces
from tests.train.test_teacher import FACES, Flat, run, same_net

pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")


class Named(ColourFaces):
    """A set whose people have names."""

    def __init__(self, names="ABCDEFGHIJKL", seed=0):
        super().__init__(num_identities=len(names), seed=seed)
        self.identities = list(names)


def test_cached_rows_of_other_images_are_refused_by_what_differs(tmp_path):
    path = tmp_path / "cache.safetensors"
    cache_teacher(Teacher(Flat()), Named(), flip=False, path=path, progress=False)
    assert same_net(run(tmp_path, path, "a", Named()), run(tmp_path, Flat(), "b", Named()))
    for name, faces, differs in (
        ("images", Named(seed=1), r"faces: 72 images .* here, 72 images .* there\)"),
        ("people", Named("BACDEFGHIJKL"), r"people: 12 people .* here, 12 people"),
        ("fewer", Named("ABCDEFGHIJK"), "faces: 66 images .*labels: digest .*people: 11 people"),
    ):
        with pytest.raises(ValueError, match=f"embeddings of other images.*{differs}"):
            run(tmp_path, path, name, faces)
    regrouped = Named()
    regrouped.labels = regrouped.labels.roll(1)
    with pytest.raises(ValueError, match=r"other images \(labels: digest [^;]*\)$"):
        run(tmp_path, path, "labels", regrouped)


def test_rows_of_the_same_images_at_another_size(tmp_path):
    """Embedded at 16 pixels for a student of 32: told from others where the set can be read so."""

    class Large(Named):
        def __init__(self, seed=0):
            super().__init__(seed=seed)
            self.small, self.image_size = Named(seed=seed), 32
            self.images = self.images.repeat_interleave(2, 2).repeat_interleave(2, 3)

    class Sized(Large):
        def at_size(self, image_size):
            return self.small if image_size == 16 else None

    path = tmp_path / "cache.safetensors"
    cache_teacher(Teacher(Flat()), Named(), flip=False, path=path, progress=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*cannot be compared")
        run(tmp_path, path, "sized", Sized(), image_size=32)
        with pytest.raises(ValueError, match="it holds the embeddings of other images"):
            run(tmp_path, path, "others", Sized(seed=1), image_size=32)
    with pytest.warns(UserWarning, match="images of 16 pixels, and the set's of 32 cannot be comp"):
        run(tmp_path, path, "large", Large(), image_size=32)


def test_labels_beside_rows_group_the_images_as_the_set_does(tmp_path):
    rows, labels = embed(Flat(), FACES), FACES.labels
    save_file({"embeddings": rows, "labels": (labels + 3) % 12 * 7}, tmp_path / "a.safetensors")
    assert same_net(run(tmp_path, tmp_path / "a.safetensors", "a"), run(tmp_path, rows, "b"))
    save_file({"embeddings": rows, "labels": labels.roll(1)}, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="its labels group the images into other people"):
        run(tmp_path, tmp_path / "c.safetensors", "c")


def test_prototypes_by_name_come_in_any_order_and_with_others(tmp_path):
    faces, rows = Named(), embed(Flat(), FACES)
    means = class_means(rows, FACES.labels, 12)
    named = dict(zip(faces.identities, means, strict=True))
    expected = run(tmp_path, Teacher.from_rows(rows, prototypes=means), "a", faces, method="kd")
    shuffled = {"Zoe": torch.ones(16), **dict(reversed(named.items()))}
    for i, teacher in enumerate(
        (Teacher.from_rows(rows, prototypes=shuffled), Teacher(Flat(), prototypes=shuffled))
    ):
        assert same_net(expected, run(tmp_path, teacher, f"b{i}", faces, method="kd"))
    tables = {"embeddings": rows, "prototypes": torch.stack(list(shuffled.values()))}
    tables["people"] = people_keys(list(shuffled))
    save_file(tables, tmp_path / "t.safetensors")
    assert same_net(expected, run(tmp_path, tmp_path / "t.safetensors", "c", faces, method="kd"))
    del shuffled["C"]
    teacher = Teacher.from_rows(rows, prototypes=shuffled)
    with pytest.raises(ValueError, match=r"of the set's 12 people it does not know 1, among.*'C'"):
        run(tmp_path, teacher, "d", faces, method="kd")
    with pytest.raises(ValueError, match="its prototypes have names, the set's people have none"):
        run(tmp_path, teacher, "e", FACES, method="kd")
    with pytest.raises(ValueError, match="prototypes by name must be rows of one width"):
        Teacher.from_rows(rows, prototypes={"a": torch.ones(2), "b": torch.ones(3)})
    save_file({**tables, "people": torch.arange(3)}, tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match=r"expected one int64 a prototype, got \(3,\)"):
        Teacher.from_file(tmp_path / "t.safetensors")


class Bent(Flat):
    """The same weights in another net."""

    def __init__(self, bend):
        super().__init__()
        self.bend = bend

    def forward(self, images):
        return self.bend(super().forward(images))


class Session(torch.nn.Module):
    """A net of another program, whose weights torch does not see."""

    def __init__(self, seed):
        super().__init__()
        self.weight = np.random.default_rng(seed).standard_normal((3 * 16 * 16, 16))

    def forward(self, images):
        return torch.from_numpy(images.flatten(1).numpy() @ self.weight).float()


def test_cached_rows_are_not_those_of_a_net_with_equal_weights(tmp_path):
    path = tmp_path / "cache.safetensors"
    teacher = Teacher(Bent(torch.tanh))
    made = cache_teacher(teacher, FACES, flip=False, path=path)
    assert torch.equal(made[0], cache_teacher(teacher, FACES, flip=False, path=path)[0])
    for bend in (torch.relu, lambda rows: 1.1 * torch.tanh(rows)):
        with pytest.raises(ValueError, match=r"was made for another teacher: its weights are the"):
            cache_teacher(Teacher(Bent(bend)), FACES, flip=False, path=path)
    near = Bent(lambda rows: torch.tanh(rows) * (1 + 1e-3))  # as other hardware rounds
    assert torch.equal(made[0], cache_teacher(Teacher(near), FACES, flip=False, path=path)[0])


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 17])
def test_shares_of_several_processes_become_one_table(monkeypatch, ranks, count):
    """Every W-th image is one process's, and the last one fills up what is missing."""
    rows = torch.randn(count, 5)
    each = -(-count // ranks)
    shares = [
        rows[torch.arange(rank, each * ranks, ranks).clamp(max=count - 1)] for rank in range(ranks)
    ]
    monkeypatch.setattr(teacher_cache, "world_size", lambda: ranks)
    monkeypatch.setattr(teacher_cache, "gather_batch", lambda own: torch.cat(shares))
    assert torch.equal(teacher_cache._gather_rows(shares[0], count), rows)


def test_nets_without_tensors_are_known_by_what_they_answer(tmp_path):
    path = tmp_path / "cache.safetensors"
    made = cache_teacher(Teacher(Session(0)), FACES, flip=False, path=path)
    assert torch.equal(made[0], cache_teacher(Teacher(Session(0)), FACES, flip=False, path=path)[0])
    with pytest.raises(ValueError, match=r"teacher's answers: digest .* here, digest .* there"):
        cache_teacher(Teacher(Session(1)), FACES, flip=False, path=path)
    model = run(tmp_path, Session(0), "run")
    before = model.read_bytes()
    assert run(tmp_path, Session(0), "run").read_bytes() == before  # it was finished
    with pytest.raises(ValueError, match=r"teacher's answers: digest .* here, digest .* there"):
        run(tmp_path, Session(1), "run")
