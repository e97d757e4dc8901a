"""Somebody else's torch dataset as a set of faces: its pixels, its labels, what is refused."""

import multiprocessing
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from ekd_lite.data import FaceDataset, ImageFolder, cache_faces
from ekd_lite.data.faceset import identity_names, images_digest
from ekd_lite.evaluate import embed
from ekd_lite.train import TrainConfig, fit
from ekd_lite.train.origin import faces_origin

RNG = np.random.default_rng(0)
SIZE = 16
PIXELS = RNG.integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8)
LABELS = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


class Listed(Dataset):
    """A dataset as people write them: a list of images and a list of labels."""

    def __init__(self, images, kept=(), **more):
        self.images = images
        self.kept = kept
        self.reads: list[int] = []
        self.__dict__.update(more)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads.append(index)
        return self.images[index], self.kept[index]


def listed(images=PIXELS, labels=None, **more: Any):
    labels = LABELS[: len(images)] if labels is None else labels
    return Listed(images, labels, targets=labels, **more)


def chw(pixels=PIXELS):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


FORMS = {
    "PIL": [Image.fromarray(image) for image in PIXELS],
    "bytes, channels last": PIXELS,
    "bytes, channels first": chw(),
    "floats": chw().float() / 127.5 - 1,
    "doubles": chw().double() / 127.5 - 1,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_gives_the_same_pixels(form):
    faces = FaceDataset(listed(FORMS[form]), image_size=SIZE)
    expected = chw().float() / 127.5 - 1
    assert torch.equal(faces.batch(range(12)), expected)
    assert torch.equal(faces.batch(np.array([7, 2])), expected[[7, 2]])
    assert faces.batch([]).shape == (0, 3, SIZE, SIZE)
    image, label = faces[-1]
    assert (torch.equal(image, expected[11]), label) == (True, 3)
    with pytest.raises(IndexError, match="out of range for a set of 12"):
        faces.batch([12])


def test_grey_images_are_made_red_green_and_blue():
    grey = PIXELS[..., 0]
    expected = (torch.from_numpy(grey).float() / 127.5 - 1)[:, None].expand(-1, 3, -1, -1)
    forms = [
        [Image.fromarray(image) for image in grey], grey, grey[..., None],
        torch.from_numpy(grey)[:, None],
        [Image.fromarray(image.astype(np.uint16) * 257) for image in grey],  # 16 bits
    ]  # fmt: skip
    for images in forms:
        assert torch.equal(FaceDataset(listed(images), image_size=SIZE).batch(range(12)), expected)


@pytest.mark.parametrize("form", FORMS)
def test_other_sizes_are_scaled_as_a_folder_does(tmp_path, form):
    for number, image in enumerate(PIXELS):
        path = tmp_path / str(LABELS[number]) / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    folder = ImageFolder(tmp_path, image_size=48)
    faces = FaceDataset(listed(FORMS[form]), image_size=48)
    assert torch.equal(faces.batch(range(12)), folder.batch(range(12)))


def test_a_pil_image_is_turned_upright_as_from_a_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    Image.fromarray(PIXELS[0]).save(tmp_path / "a" / "1.png", exif=exif)
    opened = Image.open(tmp_path / "a" / "1.png").convert("RGB")
    faces = FaceDataset(listed([opened, opened], [0, 1]), image_size=SIZE)
    assert torch.equal(faces.batch([0]), ImageFolder(tmp_path, image_size=SIZE).batch([0]))
    assert torch.equal(
        faces.batch([0])[0], chw(np.rot90(PIXELS[:1], -1, (1, 2)).copy())[0] / 127.5 - 1
    )


KINDS = {
    "list": LABELS, "array": np.array(LABELS), "tensor": torch.tensor(LABELS),
    "int32": torch.tensor(LABELS, dtype=torch.int32),
}  # fmt: skip


@pytest.mark.parametrize("name", ["targets", "labels"])
@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_taken_from_where_they_cost_nothing(name, kind):
    dataset = Listed(PIXELS, KINDS[kind], **{name: KINDS[kind]})
    faces = FaceDataset(dataset, image_size=SIZE)
    assert faces.labels.tolist() == LABELS
    assert faces.labels.dtype == torch.int64
    assert faces.num_identities == 4
    assert len(dataset.reads) == 12  # those that are looked at

    many = listed(np.zeros((1000, SIZE, SIZE, 3), np.uint8), [i // 10 for i in range(1000)])
    assert len(FaceDataset(many, image_size=SIZE)) == 1000
    assert len(many.reads) == 16


def test_subsets_and_joined_sets_are_followed():
    first, second = listed(), listed(PIXELS[::-1].copy(), [label + 10 for label in LABELS])
    joined = ConcatDataset([Subset(first, [5, 0, 11]), second])
    faces = FaceDataset(Subset(joined, range(2, 9)), image_size=SIZE)
    assert [faces.identities[label] for label in faces.labels.tolist()] == [
        3,
        *(10,) * 3,
        *(11,) * 3,
    ]
    assert faces.labels.tolist() == [0, 1, 1, 1, 2, 2, 2]
    order = [11, *range(11, 5, -1)]
    assert torch.equal(faces.batch(range(7)), chw()[order].float() / 127.5 - 1)
    assert len(first.reads) == 2  # 1 at the beginning, 1 for the batch: nothing was read for labels
    tensors = TensorDataset(chw(), torch.tensor(LABELS))
    assert FaceDataset(tensors, image_size=SIZE).labels.tolist() == LABELS


@pytest.mark.parametrize("why", ["none", "other numbers", "other length", "names", "pairs"])
def test_without_labels_to_trust_every_sample_is_read_once_and_that_is_said(why):
    wrong = {
        "none": None, "other numbers": [9] * 12, "other length": LABELS[:5], "names": ["a"] * 12,
        "pairs": [[0, 1]] * 12,
    }  # fmt: skip
    images = np.repeat(PIXELS, 3, 0)
    kept = np.repeat(LABELS, 3)
    dataset = Listed(images, kept, targets=wrong[why] and wrong[why] * 3)
    with pytest.warns(UserWarning, match="Listed has no `targets` or `labels` that agree.*all 36"):
        faces = FaceDataset(dataset, image_size=SIZE)
    assert faces.labels.tolist() == kept.tolist()
    assert len(dataset.reads) == 16 + 36


def test_people_have_names():
    dataset = listed(labels=[7, 7, 7, 3, 3, 3, 5, 5, 5, 9, 9, 9])
    assert FaceDataset(dataset, image_size=SIZE).identities == [3, 5, 7, 9]
    names = [f"p{i}" for i in range(10)]
    faces = FaceDataset(dataset, image_size=SIZE, identities=names)
    assert identity_names(faces) == ["p3", "p5", "p7", "p9"]
    assert faces.labels.tolist() == [2, 2, 2, 0, 0, 0, 1, 1, 1, 3, 3, 3]
    with pytest.raises(ValueError, match="label 9 and there are 9 names of identities"):
        FaceDataset(dataset, image_size=SIZE, identities=names[:9])
    assert identity_names(FaceDataset(listed(), image_size=SIZE)) is None  # numbers only
    dataset.classes = names
    assert FaceDataset(Subset(dataset, [0, 3]), image_size=SIZE).identities == ["p3", "p7"]
    other = listed(labels=[0] * 12, classes=["zoe"])
    with pytest.raises(ValueError, match="number their people each for itself"):
        FaceDataset(ConcatDataset([dataset, other]), image_size=SIZE)
    alike = listed(labels=[0] * 12, classes=["p0"])
    assert "p0" in FaceDataset(ConcatDataset([dataset, alike]), image_size=SIZE).identities


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(zip(PIXELS, LABELS, strict=True))


class Endless(Dataset):
    def __getitem__(self, index):
        return PIXELS[0], 0


class One(Listed):
    """Gives whatever it was told to."""

    def __getitem__(self, index):
        return self.images[index]


def with_label(label):
    return One([(PIXELS[0], label)])


BAD = {
    "streamed": (Streamed(), "Streamed is no map-style dataset"),
    "loader": (DataLoader(listed()), "DataLoader is no map-style dataset"),
    "endless": (Endless(), "Endless has no length"),
    "empty": (listed([]), "Listed holds no image"),
    "image alone": (One([PIXELS[0]]), r"sample 0 of the dataset is a ndarray: expected \(image, l"),
    "three": (One([(PIXELS[0], 0, "path")]), "is a tuple of 3: expected"),
    "dict": (One([{"image": PIXELS[0], "label": 0}]), "is a dict with 'image', 'label': expected"),
    "label text": (with_label("ann"), "the label of sample 0 is a str 'ann': expected the number"),
    "label float": (with_label(1.0), "is a float 1.0: expected"),
    "label bool": (with_label(True), "is a bool True: expected"),
    "label None": (with_label(None), "is a NoneType None: expected"),
    "one-hot": (with_label(torch.eye(3)[0]), r"is a Tensor of shape \(3,\): expected"),
    "float tensor": (with_label(torch.tensor(1.0)), "is a Tensor 1.0: expected"),
    "negative": (with_label(-1), "label of sample 0 is -1: expected a number of at least 0"),
    "negative later": (
        listed(PIXELS.repeat(20, 0), [0] * 101 + [-1] + [0] * 138), "label of sample 101 is -1"
    ),
    "0 to 255": (listed(chw().float()), r"has pixels from 0 to 255: expected floats in \[-1, 1\]"),
    "0 to 1": (listed(chw() / 255), r"no pixel of the 12 images .* seem to lie in \[0, 1\]"),
    "nan": (listed([chw()[0] * torch.nan]), "has pixels from nan to nan"),
    "mean and deviation": (listed((chw() / 255 - 0.45) / 0.22), "another mean and dev"),
    "int64": (listed(chw().long()), "image 0 of the dataset is a tensor of torch.int64: exp"),
    "float array": (listed(PIXELS / 255), "is an array of float64: expected bytes"),
    "array, channels first": (listed(chw().numpy()), r"array of shape \(3, 16, 16\): exp"),
    "tensor, channels last": (
        listed(torch.from_numpy(PIXELS)), r"tensor of shape \(16, 16, 3\): expected \(3, height, w"
    ),
    "four channels": (listed(np.dstack([PIXELS[0], PIXELS[0]])[None, ..., :4]), r"\(16, 16, 4\)"),
    "no pixels": (listed([torch.zeros(3, 0, 16)]), r"tensor of shape \(3, 0, 16\)"),
    "path": (listed(["a.jpg"]), "is a str: expected a PIL image, an array of bytes"),
    "no dataset": (None, "NoneType is no map-style dataset"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_datasets_are_refused_in_one_line(case):
    dataset, message = BAD[case]
    with pytest.raises(ValueError, match=message) as caught:
        FaceDataset(dataset, image_size=SIZE)
    assert "\n" not in str(caught.value)


def test_a_bad_image_that_was_not_looked_at_is_named_when_it_is_read():
    images = list(chw(np.repeat(PIXELS, 10, 0)).float() / 127.5 - 1)
    images[3] = images[3] * 127.5
    faces = FaceDataset(listed(images, [0] * 120), image_size=SIZE)
    with pytest.raises(ValueError, match="image 3 of the dataset has pixels from"):
        faces.batch([2, 3])


class Noisy(Listed):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image[..., ::-1].copy() if RNG.random() < 0.5 else image, label


def test_its_digest_and_its_cache_follow_its_pixels(tmp_path):
    faces = FaceDataset(listed(), image_size=SIZE)
    origin = faces_origin(faces)
    assert origin == faces_origin(FaceDataset(listed(chw()), image_size=SIZE))
    packed = cache_faces(faces, tmp_path)
    assert torch.equal(packed.batch(range(12)), faces.batch(range(12)))
    assert (packed.labels.tolist(), packed.identities) == (LABELS, [0, 1, 2, 3])
    changed = PIXELS.copy()
    changed[5, 3, 3, 1] ^= 1
    other = FaceDataset(listed(changed), image_size=SIZE)
    assert faces_origin(other)["faces"] != origin["faces"]
    assert not torch.equal(cache_faces(other, tmp_path).batch([5]), packed.batch([5]))
    assert len(list(tmp_path.glob("*.npy"))) == 2
    noisy = FaceDataset(Noisy(PIXELS, LABELS, targets=LABELS), image_size=SIZE)
    assert images_digest(noisy) is None
    with pytest.raises(ValueError, match="other images at every reading: leave the augmentation"):
        cache_faces(noisy, tmp_path)


def test_it_trains_and_embeds(tmp_path):
    dataset = listed(np.repeat(PIXELS, 2, 0), [label for label in LABELS for _ in (0, 1)])
    faces = FaceDataset(dataset, image_size=SIZE)
    config = TrainConfig(
        backbone="tiny_student", image_size=SIZE, steps=2, general=4, identities=2, embedding_dim=8,
        images_per_identity=2, warmup=0,
    )  # fmt: skip
    assert fit(config, faces, tmp_path / "run").is_file()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 8))
    assert embed(net, faces).shape == (24, 8)


class Batches(Dataset):
    """The batches of a set."""

    def __init__(self, faces):
        self.faces = faces

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.faces.batch(range(4 * index, 4 * index + 4))


@pytest.mark.starts_process
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_forked_readers():
    faces = FaceDataset(listed(), image_size=SIZE)
    loader = DataLoader(
        Batches(faces), batch_size=None, num_workers=1, multiprocessing_context="fork"
    )
    assert torch.equal(torch.cat(list(loader)), faces.batch(range(12)))


@pytest.mark.starts_process
def test_processes_that_begin_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("ekd_lite.data.cache._IMAGES_PER_TASK", 6)
    faces = FaceDataset(TensorDataset(chw(), torch.tensor(LABELS)), image_size=SIZE)
    expected = faces.batch(range(12))
    assert torch.equal(cache_faces(faces, tmp_path, workers=2).batch(range(12)), expected)
    copied = pickle.loads(pickle.dumps(FaceDataset(listed(), image_size=SIZE)))  # noqa: S301
    assert torch.equal(copied.batch(range(12)), expected)
