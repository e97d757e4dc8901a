"""A run knows its faces, its people and its teacher, and takes no others for them."""

import dataclasses
import warnings
from functools import partial
from typing import Any

import pytest
import torch

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import PackedFaces, SyntheticFaces
from ekd_lite.data.faceset import people_of
from ekd_lite.distill import DISTILLERS
from ekd_lite.train import TrainConfig, cache_teacher, fit, load_model, save_model
from ekd_lite.train.checkpoint import load_checkpoint, save_checkpoint
from ekd_lite.train.origin import differences, faces_origin
from ekd_lite.train.teacher import Teacher
from ekd_lite.train.teacher_fit import choose_people, load_teacher
from tests.fakes import ColourFaces

SMALL: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 16,
    "general": 8,
    "identities": 4,
    "images_per_identity": 3,
    "steps": 4,
    "checkpoint_every": 2,
    "device": "cpu",
}
BY_LABEL = {"kd", "margin", "arcdistill", "dkd", "gkd", "lskd"}
PEOPLE = [f"person {chr(97 + i)}" for i in range(12)]
pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")


class Named(ColourFaces):
    """Some of twelve people with names, in any order."""

    def __init__(self, people=range(12), names=PEOPLE, **options):
        super().__init__(**options)
        rows = torch.cat([(self.labels == i).nonzero().flatten() for i in people])
        self.images, self.num_identities = self.images[rows], len(people)
        self.labels = torch.arange(len(people)).repeat_interleave(6)
        self.identities = [names[i] for i in people]


def changed(faces=None, **changes):
    faces = faces or ColourFaces()
    vars(faces).update(changes)
    return faces


def another_image():
    faces = ColourFaces()
    faces.images[41, 2, 15, 15] += 1 / 255
    return faces


def other_labels():
    return changed(labels=ColourFaces().labels.flip(0))


OTHERS = {
    "faces": lambda: ColourFaces(seed=1),
    "one pixel": another_image,
    "labels": other_labels,
    "fewer people": lambda: ColourFaces(num_identities=11),
    "more people": lambda: ColourFaces(num_identities=13),
    "more images": lambda: ColourFaces(images_per_identity=7),
    "names": lambda: Named(names=PEOPLE[::-1]),
}


@pytest.fixture(scope="module")
def named_teacher(tmp_path_factory):
    config = TrainConfig(backbone="tiny_teacher", **SMALL)
    return fit(config, Named(), tmp_path_factory.mktemp("named"), progress=False)


@pytest.fixture(scope="module")
def nameless_teacher(tmp_path_factory):
    config = TrainConfig(backbone="tiny_teacher", **SMALL)
    return fit(config, ColourFaces(), tmp_path_factory.mktemp("nameless"), progress=False)


class Killed(Exception):
    pass


def stop(state, metrics):
    if state.step == 3:
        raise Killed


@pytest.mark.parametrize("what", OTHERS)
def test_neither_a_broken_off_nor_a_finished_run_goes_on_with_others(tmp_path, what):
    config, make = TrainConfig(**SMALL), Named if what == "names" else ColourFaces
    with pytest.raises(Killed):
        fit(config, make(), tmp_path, progress=False, on_step=stop)
    for _ in range(2):
        with pytest.raises(ValueError, match="other faces") as caught:
            fit(config, OTHERS[what](), tmp_path, progress=False)
        named = {"faces": "faces:", "one pixel": "faces:", "labels": "labels:",
                 "more images": "faces: 84 images"}.get(what, "people: 1")  # fmt: skip
        assert named in str(caught.value)
        assert " here, " in str(caught.value)
        assert fit(config, make(), tmp_path, progress=False).exists()  # its own, to the end


def test_a_finished_model_without_its_checkpoint_is_kept(tmp_path):
    config = TrainConfig(**SMALL)
    model = fit(config, Named(), tmp_path, progress=False)
    before = model.read_bytes()
    for name in ("checkpoint.pt", "checkpoint.previous"):
        (tmp_path / name).unlink()
    others = [
        (config, another_image(), "faces: 72 images .* here"),
        (config, Named(names=[f"{name}!" for name in PEOPLE]), "people: 12 people"),
        (dataclasses.replace(config, seed=1), Named(), "seed: 1 here, 0 there"),
    ]
    for changes, faces, message in others:
        with pytest.raises(ValueError, match=rf"is a finished model(.|\n)*{message}"):
            fit(changes, faces, tmp_path, progress=False)
    assert fit(config, Named(), tmp_path, progress=False) == model  # its own run finds it done
    assert model.read_bytes() == before


def test_nor_under_another_teacher_or_other_rows(tmp_path, nameless_teacher):
    own = tmp_path / "teacher.safetensors"
    own.write_bytes(nameless_teacher.read_bytes())
    config = TrainConfig(method="fitnet", teacher=str(own), **SMALL)
    rows = cache_teacher(load_model(own), ColourFaces(), flip=False, progress=False)
    for name, given in (("net", None), ("rows", rows)):
        out = tmp_path / name
        with pytest.raises(Killed):
            fit(
                config, ColourFaces(), out,
                teacher_embeddings=given, progress=False, on_step=stop,
            )  # fmt: skip
        other = [rows[0].clone()]
        other[0][5] *= 1.001
        with pytest.raises(ValueError, match=r"teacher_embeddings: digest .* here, .* there"):
            fit(config, ColourFaces(), out, teacher_embeddings=other, progress=False)
    model = load_model(own)
    with torch.no_grad():
        model.head.prototypes[3] *= 1.01
    save_model(own, model)
    with pytest.raises(ValueError, match=r"teacher: tiny_teacher \(digest .* here, tiny_teacher"):
        fit(config, ColourFaces(), tmp_path / "net", progress=False)


def test_a_checkpoint_of_an_earlier_version_goes_on_with_a_warning(tmp_path):
    with pytest.raises(Killed):
        fit(TrainConfig(**SMALL), ColourFaces(), tmp_path, progress=False, on_step=stop)
    path = tmp_path / "checkpoint.pt"
    old = load_checkpoint(path)
    assert old is not None
    assert set(old.pop("origin")) == {"faces", "labels", "people"}
    save_checkpoint(old, path)
    with pytest.warns(UserWarning, match="does not say which faces and which teacher"):
        fit(TrainConfig(**SMALL), ColourFaces(seed=1), tmp_path, progress=False)


def test_a_set_that_gives_others_at_every_reading_can_be_resumed(tmp_path):
    class Augmented(ColourFaces):
        def batch(self, indices):
            return super().batch(indices) + 0.01 * torch.rand(())

    with pytest.raises(Killed):
        fit(TrainConfig(**SMALL), Augmented(), tmp_path, progress=False, on_step=stop)
    fit(TrainConfig(**SMALL), Augmented(), tmp_path, progress=False)
    with pytest.raises(ValueError, match="labels: digest"):
        fit(
            TrainConfig(**SMALL),
            changed(Augmented(), labels=ColourFaces().labels.flip(0)),
            tmp_path,
            progress=False,
        )


def test_the_model_file_says_what_it_was_trained_on(named_teacher):
    model = load_model(named_teacher)
    assert model.origin == faces_origin(Named())
    assert model.people.tolist() == people_of(Named()).tolist()
    assert b"person a" not in named_teacher.read_bytes()  # names are personal data


@pytest.mark.parametrize("method", ["kd", "margin", "fitnet+kd"])
def test_people_are_compared_by_name(tmp_path, named_teacher, method):
    config = TrainConfig(method=method, teacher=str(named_teacher), **SMALL)
    strangers = [*PEOPLE[:10], "Ada", "Bob"]
    for faces in (Named(names=strangers), Named(range(5, 12), names=strangers, seed=2)):
        with pytest.raises(ValueError, match=r"people it does not know 2, among them 'Ada', 'Bob'"):
            fit(config, faces, tmp_path / "s", progress=False)
    with pytest.raises(ValueError, match="the set does not name its people"):
        fit(config, ColourFaces(seed=1), tmp_path / "s", progress=False)
    assert not (tmp_path / "s").exists()
    # The same images under the same labels are the teacher's own, with names or without.
    fit(config, ColourFaces(), tmp_path / "own", progress=False)


@pytest.mark.parametrize("people", [range(12), [3, 1, 2], [*range(11, -1, -1)]])
def test_fewer_and_reordered_people_are_mapped(named_teacher, people):
    """The prototypes that a student sees are those of its own people, in its own order."""
    config = TrainConfig(method="kd+margin", teacher=str(named_teacher), **SMALL)
    whole = load_model(named_teacher)
    found = load_teacher(config, Named(people, seed=4), device=torch.device("cpu"))
    assert torch.equal(found.head.prototypes, whole.head.prototypes[list(people)])
    assert found.people.tolist() == whole.people[list(people)].tolist()
    assert not found.head.prototypes.requires_grad


def test_a_student_of_fewer_people_trains(tmp_path, named_teacher):
    for method in ("kd", "margin"):
        config = TrainConfig(method=method, teacher=str(named_teacher), **SMALL)
        fit(config, Named([7, 2, 5, 0, 11, 4, 9]), tmp_path / method, progress=False)


def test_methods_that_ask_no_prototype_take_any_people(tmp_path, named_teacher):
    others = Named(names=[f"stranger {i}" for i in range(12)], seed=3)
    for method in set(DISTILLERS) - BY_LABEL:
        config = TrainConfig(method=method, teacher=str(named_teacher), **SMALL)
        found = load_teacher(config, others, device=torch.device("cpu"))
        assert len(found.head.prototypes) == 12
    for method in BY_LABEL:
        config = TrainConfig(method=method, teacher=str(named_teacher), **SMALL)
        with pytest.raises(ValueError, match=f"12 people it does not know 12, .*'{method}' comp"):
            load_teacher(config, others, device=torch.device("cpu"))


def test_centres_are_the_students_people_and_a_teachers_prototypes_its_own(tmp_path, named_teacher):
    """Fewer strangers than the teacher has people, and more."""
    for count in (7, 15):
        names = [f"stranger {i}" for i in range(count)]
        others = Named(range(count), names, num_identities=count, seed=3)
        config = TrainConfig(method="adadistill+thkd", teacher=str(named_teacher), **SMALL)
        fit(config, others, tmp_path / str(count), progress=False, on_step=partial(seen, count))


def seen(count, state, metrics):
    assert len(state.distillers["adadistill"].centres) == count
    assert len(state.distillers["thkd"].prototypes) == 12


@pytest.mark.parametrize("what", ["faces", "labels", "one pixel", "names"])
def test_people_without_names_must_come_with_their_own_images(tmp_path, nameless_teacher, what):
    config = TrainConfig(method="kd", teacher=str(nameless_teacher), **SMALL)
    if what == "names":  # the same images: the set's names say nothing against it
        fit(config, OTHERS[what](), tmp_path, progress=False)
        return
    with pytest.raises(ValueError, match="it does not name its people, and the set is not the one"):
        fit(config, OTHERS[what](), tmp_path / "s", progress=False)


def test_a_teachers_file_of_an_earlier_version_is_believed_with_a_warning(
    tmp_path, nameless_teacher
):
    old = tmp_path / "old.safetensors"
    save_model(old, dataclasses.replace(load_model(nameless_teacher), origin={}))
    config = TrainConfig(method="kd", teacher=str(old), **SMALL)
    with pytest.warns(UserWarning, match="does not say who its 12 people are"):
        fit(config, ColourFaces(), tmp_path / "s", progress=False)
    with pytest.raises(ValueError, match="knows 12 identities, the set has 11"):
        fit(config, ColourFaces(num_identities=11), tmp_path / "t", progress=False)


def test_the_demo_s_teacher_knows_the_procedural_people(tmp_path):
    teacher, cpu = load_model(DEMO_TEACHER), torch.device("cpu")
    config = TrainConfig(method="kd", teacher=str(DEMO_TEACHER), device="cpu")
    for faces in (SyntheticFaces(1000, 24), SyntheticFaces(1000, 8, nuisance_strength=0.2)):
        assert people_of(faces).tolist() == teacher.people.tolist()
        assert load_teacher(config, faces, device=cpu).head.prototypes.shape == (1000, 128)
    few = load_teacher(config, SyntheticFaces(40, 2, first_identity=300), device=cpu)
    assert torch.equal(few.head.prototypes, teacher.head.prototypes[300:340])
    for others in (
        SyntheticFaces(1000, 2, first_identity=1),
        SyntheticFaces(1000, 2, seed=1),
        SyntheticFaces(1000, 2, identity_spread=1.4),
        SyntheticFaces(1001, 2),
        PackedFaces(torch.zeros(1000, 3, 32, 32, dtype=torch.uint8), torch.arange(1000)),
    ):
        with pytest.raises(ValueError, match=r"does not know|does not name"):
            load_teacher(config, others, device=cpu)


def test_choosing_all_people_changes_nothing(named_teacher):
    teacher = Teacher.from_file(named_teacher)
    assert choose_people(teacher, torch.arange(12)) is teacher


@pytest.mark.parametrize("what", [name for name in OTHERS if name != "names"])
def test_a_cache_of_rows_is_of_one_set_of_images_and_labels(tmp_path, nameless_teacher, what):
    model, path = load_model(nameless_teacher), tmp_path / "cache.safetensors"
    rows = cache_teacher(model, ColourFaces(), flip=False, path=path, progress=False)
    again = cache_teacher(model, ColourFaces(), flip=False, path=path, progress=False)
    assert torch.equal(rows[0], again[0])
    with pytest.raises(ValueError, match=r"another teacher, other faces, .* here, .* there"):
        cache_teacher(model, OTHERS[what](), flip=False, path=path, progress=False)


def test_a_cache_of_rows_is_of_one_set_of_people(tmp_path, named_teacher):
    model, path = load_model(named_teacher), tmp_path / "cache.safetensors"
    cache_teacher(model, Named(), flip=False, path=path, progress=False)
    with pytest.raises(ValueError, match=r"people: 12 people \(digest"):
        cache_teacher(model, OTHERS["names"](), flip=False, path=path, progress=False)


def test_every_image_of_a_cached_set_counts_however_many_they_are(tmp_path, monkeypatch):
    """Runs look at a sample of a very large set, a cache at all of it."""
    monkeypatch.setattr("ekd_lite.data.faceset.SAMPLE", 8)
    monkeypatch.setattr("ekd_lite.data.packed._MOST_HASHED", 100)
    pixels = torch.randint(0, 256, (72, 3, 16, 16), dtype=torch.uint8)
    for make in (lambda: ColourFaces(), lambda: PackedFaces(pixels, ColourFaces().labels)):
        whole = faces_origin(make(), whole=True)["faces"]
        for image in range(72):
            faces = make()
            store = faces.images if isinstance(faces, ColourFaces) else faces._rows.clone()
            store.view(72, -1)[image, 7] += 1
            if isinstance(faces, PackedFaces):
                faces._rows = store
            assert faces_origin(faces, whole=True)["faces"] != whole


def test_names_are_one_for_every_label():
    for names, message in ((PEOPLE[:11], "12 identities and 11 names"), (["x"] * 12, "name 'x'")):
        with pytest.raises(ValueError, match=message):
            faces_origin(changed(identities=names))
    nameless = faces_origin(ColourFaces())
    for names in (None, 12, [str(i) for i in range(12)], list(range(12)), lambda: PEOPLE):
        assert faces_origin(changed(identities=names)) == nameless
    composed, decomposed = ([name, *PEOPLE[1:]] for name in ("Zo\u00eb", "Zoe\u0308"))
    assert faces_origin(changed(identities=composed)) == faces_origin(
        changed(identities=decomposed)
    )
    assert not differences(nameless, faces_origin(ColourFaces()))


def test_no_warning_where_everything_is_known(tmp_path, named_teacher):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = TrainConfig(method="kd", teacher=str(named_teacher), **SMALL)
        fit(config, Named(), tmp_path, progress=False)
