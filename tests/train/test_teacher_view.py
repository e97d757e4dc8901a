"""A teacher of larger images sees real ones; what it reaches is said before step 1."""

import pickle
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ekd_lite.data import (
    FaceDataset,
    ImageFolder,
    PackedFaces,
    SyntheticFaces,
    cache_faces,
    load_splits,
)
from ekd_lite.data.faceset import at_size
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.models import build_backbone
from ekd_lite.train import Teacher, TrainConfig, cache_teacher, fit, load_model, save_backbone
from ekd_lite.train.pixels import seen_by
from ekd_lite.train.teacher_view import report_teacher, suspect_input
from tests.fakes import ColourFaces
from tests.train.test_teacher import SMALL, Flat

pytestmark = [
    pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs"),
    pytest.mark.filterwarnings("ignore:.*eyes are not where aligned"),
    pytest.mark.filterwarnings("ignore:list has no `targets` or `labels`"),
]


def write_folder(root, *, people=12, side=48):
    """People with detail: stripes one pixel wide, which a small image cannot show."""
    rng = np.random.default_rng(0)
    for person in range(people):
        (root / f"p{person:02}").mkdir(parents=True)
        pattern = rng.integers(40, 215, (side, side, 3))
        for image in range(3):
            pixels = (pattern + rng.normal(0, 15, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"p{person:02}" / f"{image}.png")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("view") / "faces")


def large():
    return Teacher(Flat(size=48), input_size=48)


def sets(root, cache):
    """Sets of 16 or 32 pixels, and the same of 48."""
    folder = ImageFolder(root, image_size=16)
    packed = cache_faces(folder, cache, progress=False)
    yield folder, ImageFolder(root, image_size=48)
    yield packed, ImageFolder(root, image_size=48)
    parts = [load_splits(root, image_size=n, cache=cache, progress=False) for n in (16, 48)]
    yield parts[0].train, parts[1].train
    yield parts[0].test, parts[1].test
    pictures = [(Image.open(file).copy(), i // 3) for i, file in enumerate(folder.files)]
    yield FaceDataset(pictures, image_size=16), FaceDataset(pictures, image_size=48)
    yield SyntheticFaces(3, 2, image_size=32), SyntheticFaces(3, 2, image_size=48)


def test_rows_are_those_of_images_at_the_teachers_own_size(root, tmp_path):
    for faces, larger in sets(root, tmp_path / "cache"):
        rows = cache_teacher(large(), faces, flip=True, progress=False)
        for view, mirrored in zip(rows, (False, True), strict=True):
            expected = embed(large(), larger, mirrored=mirrored)
            torch.testing.assert_close(view, expected, rtol=1e-5, atol=1e-5)
        enlarged = embed(large(), faces)
        assert (rows[0] - enlarged).abs().max() > 0.1  # what was shown to it before
        assert torch.equal(seen_by(large(), faces).labels, faces.labels)


def test_sizes_that_need_nothing_or_cannot_be_had(root):
    faces = ImageFolder(root, image_size=16)
    for size in (None, 8, 16):
        assert seen_by(Teacher(Flat(), input_size=size), faces) is faces
    # No set is read at 40 pixels: the next size, and the teacher does the rest.
    assert seen_by(Teacher(Flat(), input_size=40), faces).image_size == 48
    assert seen_by(Teacher(Flat(), input_size=400), SyntheticFaces(2, 2)).image_size == 32
    assert seen_by(large(), ColourFaces()).image_size == 16
    assert at_size(ColourFaces(), 48) is None
    for picture in (np.zeros((20, 20, 3), np.uint8), torch.zeros(3, 20, 20, dtype=torch.uint8)):
        dataset = FaceDataset([(picture, 0), (picture, 1)], image_size=16)
        assert at_size(dataset, 48) is None  # it holds nothing as large
    with pytest.raises(ValueError, match="multiple of 16"):
        faces.at_size(50)
    packed = PackedFaces(np.zeros((4, 3, 16, 16), np.uint8), [0, 0, 1, 1])
    assert packed.at_size(48) is None and packed.at_size(16) is packed


def test_processes_get_no_second_copy_of_a_set(root, tmp_path):
    packed = cache_faces(ImageFolder(root, image_size=16), tmp_path, progress=False)
    assert packed.at_size(48) is not None
    copied = pickle.loads(pickle.dumps(packed))  # noqa: S301
    assert copied.at_size(48) is None


def test_enlarging_is_said(root, tmp_path):
    small = write_folder(tmp_path / "small", people=3, side=20)
    cases = (
        (ColourFaces(), r"images of 16 are enlarged for it"),
        (ImageFolder(small, image_size=48), "files are 20 pixels wide: they are enlarged"),
        (ImageFolder(root, image_size=48), None),
    )
    for faces, message in cases:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            suspect_input(large(), faces)
        found = [str(w.message) for w in said if "enlarged" in str(w.message)]
        assert len(found) == (message is not None)
        assert not found or re.search(str(message), found[0])


def run(out, teacher, faces=None, **changes):
    config = TrainConfig(**{**SMALL, "method": "fitnet", **changes})
    return fit(config, faces or ColourFaces(), out, teacher=teacher)


def test_a_run_learns_from_the_larger_images(root, tmp_path):
    faces = ImageFolder(root, image_size=16)
    by_net = run(tmp_path / "net", large(), faces)
    by_rows = run(tmp_path / "rows", embed(large(), ImageFolder(root, image_size=48)), faces)
    one, other = (load_model(path).backbone.state_dict() for path in (by_net, by_rows))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_model(by_net).origin["teacher's images"] == "read at 48 pixels"


class Sized(ColourFaces):
    """The same set, which can be had larger."""

    def at_size(self, image_size):
        return ColourFaces(image_size=image_size)


@pytest.mark.filterwarnings("ignore:.*are enlarged for it")
def test_neither_a_cache_nor_a_run_mixes_sizes(tmp_path):
    plain, sized = ColourFaces(), Sized()
    path = tmp_path / "cache.safetensors"
    cache_teacher(large(), plain, flip=False, path=path, progress=False)
    with pytest.raises(ValueError, match="teacher's images: read at 48 pixels here, none there"):
        cache_teacher(large(), sized, flip=False, path=path, progress=False)
    run(tmp_path / "run", large(), plain)
    with pytest.raises(ValueError, match="teacher's images: read at 48 pixels here, none there"):
        run(tmp_path / "run", large(), sized)


def forms(folder):
    """A teacher in every form."""
    torch.manual_seed(0)
    backbone = build_backbone("tiny_teacher", embedding_dim=16, image_size=16).eval()
    info = {"backbone": "tiny_teacher", "embedding_dim": 16, "image_size": 16}
    save_backbone(folder / "ours.safetensors", backbone, info)
    rows = embed(backbone, ColourFaces())
    np.save(folder / "rows.npy", rows.numpy())
    made: dict[str, Any] = {"a module": backbone, "rows": rows}
    made |= {name: folder / name for name in ("ours.safetensors", "rows.npy")}
    try:
        import onnx  # noqa: F401
    except ImportError:
        return made, rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(2, 3, 16, 16),)
        axes = {"x": {0: "n"}}
        torch.onnx.export(
            backbone, example, str(folder / "net.onnx"), input_names=["x"], dynamic_axes=axes,
            dynamo=False,
        )  # fmt: skip
    return made | {"net.onnx": folder / "net.onnx"}, rows


def test_every_teacher_is_measured_before_step_1(tmp_path, capsys):
    """The number is that of four images each of all people, by the exact count."""
    made, rows = forms(tmp_path)
    faces = ColourFaces()
    some = torch.arange(72).view(12, 6)[:, :4].flatten()
    tpr = all_pairs_tpr_at_fpr(rows[some], faces.labels[some], [0.1, 0.01])
    expected = f"TPR on 48 training images {100 * tpr[0]:.1f} % at FPR 1e-01, {100 * tpr[1]:.1f} %"
    for name, teacher in made.items():
        for cached in (True, False):
            seen: list[str] = []

            def on_step(state, metrics, seen=seen):
                seen.append(capsys.readouterr().out)

            config = TrainConfig(**SMALL, method="fitnet", cache_teacher=cached)
            out = tmp_path / f"{name} {cached}"
            fit(config, faces, out, teacher=teacher, on_step=on_step)
            assert expected in seen[0], (name, cached)
            size = "sees images of 16 pixels, the student of 16"
            assert (size in seen[0]) == ("rows" not in name)


def test_what_cannot_be_measured_is_said_too():
    faces = ColourFaces(num_identities=3, images_per_identity=2)
    text = report_teacher(Teacher(Flat()), faces, faces, None)
    assert text.endswith("the training images have too few pairs to measure it")
    singles = ColourFaces(num_identities=40, images_per_identity=1)
    text = report_teacher(Teacher.from_rows(torch.randn(40, 8)), singles, singles, None)
    assert text == "teacher rows: the training images have too few pairs to measure it"
