"""Alignment against scipy: an SVD for the similarity, spline interpolation for the warp."""

import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage, optimize

from ekd_lite.data import align, load_splits
from ekd_lite.data.align import (
    align_face,
    eye_contrast,
    five_of_68,
    similarity_transform,
    template_landmarks,
    warp_image,
)
from ekd_lite.data.detect import LandmarkDetector

TEMPLATE = template_landmarks(112)


def umeyama(source, target):
    """The least-squares similarity by an SVD, as Umeyama's paper has it (equations 34 to 42)."""
    mean, goal = source.mean(0), target.mean(0)
    cov = (target - goal).T @ (source - mean) / len(source)
    u, d, vt = np.linalg.svd(cov)
    s = np.ones(2)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        s[1] = -1
    rotation = u @ np.diag(s) @ vt
    scale = (d * s).sum() / ((source - mean) ** 2).sum(1).mean()
    return np.c_[scale * rotation, goal - scale * rotation @ mean]


points = st.lists(
    st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=5, max_size=5
).filter(lambda p: np.array(p).std(0).sum() > 1)


@given(points)
@settings(deadline=None)
def test_the_similarity_is_umeyamas(landmarks):
    source = np.array(landmarks)
    mine = similarity_transform(torch.tensor(source), TEMPLATE).numpy()
    theirs = umeyama(source, TEMPLATE.numpy())
    # Where two similarities are equally good (as with a mirrored face), the distance is what counts
    to = [m[:, :2] @ source.T + m[:, 2:] for m in (mine, theirs)]
    errors = [((t.T - TEMPLATE.numpy()) ** 2).sum() for t in to]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6, abs=1e-6)


def test_no_similarity_is_better_and_batches_agree():
    rng = np.random.default_rng(0)
    many = torch.tensor(TEMPLATE.numpy() * 2 + rng.normal(0, 5, (4, 5, 2)))
    batch = similarity_transform(many, TEMPLATE)
    for landmarks, matrix in zip(many, batch, strict=True):
        assert torch.allclose(matrix, similarity_transform(landmarks, TEMPLATE), atol=1e-12)
        assert np.allclose(matrix, umeyama(landmarks.numpy(), TEMPLATE.numpy()), atol=1e-9)

        def distance(v, landmarks=landmarks):
            p = landmarks.numpy()
            m = np.array([[v[0], -v[1], v[2]], [v[1], v[0], v[3]]])
            return ((p @ m[:, :2].T + m[:, 2] - TEMPLATE.numpy()) ** 2).sum()

        start = np.array([matrix[0, 0], matrix[1, 0], matrix[0, 2], matrix[1, 2]])
        assert distance(start) <= optimize.minimize(distance, start + 0.1).fun + 1e-6


def test_a_known_similarity_is_found_and_a_mirrored_face_is_not_mirrored():
    angle, scale = 0.3, 1.7
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    matrix = torch.tensor([[c, -s, 20], [s, c, -7]], dtype=torch.float64)
    moved = TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
    assert torch.allclose(similarity_transform(TEMPLATE, moved), matrix, atol=1e-10)
    mirrored = TEMPLATE * torch.tensor([-1.0, 1.0])
    assert torch.linalg.det(similarity_transform(mirrored, TEMPLATE)[:, :2]) > 0


def test_templates():
    assert TEMPLATE[0].tolist() == [38.2946, 51.6963]
    assert torch.allclose(template_landmarks(224), 2 * TEMPLATE)
    # 112 x 96 and a margin of 8 pixels on either side of 96: insightface's rule for 128
    assert torch.allclose(template_landmarks(128), TEMPLATE + torch.tensor([8.0, 0.0]))
    assert torch.allclose(template_landmarks(256), 2 * template_landmarks(128))
    for size in (0, -112, 96, 100):
        with pytest.raises(ValueError, match="multiple of 112 or 128"):
            template_landmarks(size)


def test_five_of_68():
    landmarks = torch.arange(136, dtype=torch.float64).reshape(68, 2) ** 1.5
    five = five_of_68(landmarks)
    assert torch.equal(five[0], (landmarks[36] + landmarks[39]) / 2)
    assert torch.equal(five[1], (landmarks[42] + landmarks[45]) / 2)
    assert torch.equal(five[2:], landmarks[[30, 48, 54]])
    with pytest.raises(ValueError, match="68, 2"):
        five_of_68(landmarks[:67])


@pytest.mark.parametrize("shift", [(0, 0), (-30, 12), (90, 90)])
def test_the_warp_is_bilinear_with_black_around(shift):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (3, 70, 90), dtype=np.uint8)
    matrix = np.array([[1.1, -0.4, 5.0 + shift[0]], [0.4, 1.1, 3.0 + shift[1]]])
    mine = warp_image(torch.tensor(image), torch.tensor(matrix), 112).numpy()
    inverse = np.linalg.inv(np.r_[matrix, [[0, 0, 1]]])
    y, x = np.mgrid[:112, :112]
    sx, sy, _ = np.tensordot(inverse, np.stack([x, y, np.ones_like(x)]), 1)
    padded = np.pad(image.astype(float), ((0, 0), (2, 2), (2, 2)))  # black begins at once
    for channel in range(3):
        theirs = ndimage.map_coordinates(padded[channel], [sy + 2, sx + 2], order=1)
        assert np.abs(mine[channel] - theirs).max() <= 0.5 + 1e-6
    assert (mine == 0).any()


def test_identity_and_whole_shifts_copy_pixels():
    image = torch.randint(1, 256, (3, 112, 112), dtype=torch.uint8)
    assert torch.equal(align_face(image, TEMPLATE), image)
    moved = align_face(image, TEMPLATE - torch.tensor([3.0, 2.0]))  # the face is up and left
    assert torch.equal(moved[:, 2:, 3:], image[:, :-2, :-3])
    assert (moved[:, :2] == 0).all() and (moved[:, :, :3] == 0).all()
    sixty_eight = torch.zeros(68, 2, dtype=torch.float64)
    for indices, point in zip(((36, 39), (42, 45), (30,), (48,), (54,)), TEMPLATE):  # noqa: B905
        sixty_eight[list(indices)] = point
    assert torch.equal(align_face(image, sixty_eight), image)
    assert align_face(image, TEMPLATE, image_size=256).shape == (3, 256, 256)


@pytest.mark.parametrize(
    ("image", "landmarks", "message"),
    [
        (torch.zeros(3, 9, 9), TEMPLATE, "image must be uint8"),
        (torch.zeros(9, 9, dtype=torch.uint8), TEMPLATE, "image must be uint8"),
        (torch.zeros(9, 7, 3, dtype=torch.uint8), TEMPLATE, r"permute\(2, 0, 1\) gives that"),
        (torch.zeros(1, 9, 9, dtype=torch.uint8), TEMPLATE, r"image must be uint8 \(3, H, W\)"),
        (
            torch.zeros(3, 9, 9, dtype=torch.uint8),
            TEMPLATE[:4],
            r"shape \(..., K, 2\)",
        ),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), torch.zeros(5, 2), "coincide"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), TEMPLATE * float("nan"), "finite"),
    ],
)
def test_what_cannot_be_aligned(image, landmarks, message):
    with pytest.raises(ValueError, match=message):
        align_face(image, landmarks)


PICTURE, STAY = torch.zeros(3, 9, 9, dtype=torch.uint8), torch.eye(3)[:2]


@pytest.mark.parametrize(
    ("image", "matrix", "size", "message"),
    [
        (PICTURE, torch.eye(3).numpy(), 112, r"matrix must be \(2, 3\) .* got \(3, 3\)"),
        (PICTURE, STAY * float("nan"), 112, "finite"),
        (PICTURE, STAY * 0, 112, "cannot be undone"),
        (PICTURE, STAY, "112", "a side >= 1, got .* '112'"),
        (PICTURE, STAY, 0, "a side >= 1"),
        (PICTURE[:, :0], STAY, 112, r"image with pixels .* got \(3, 0, 9\)"),
    ],
)
def test_what_cannot_be_warped(image, matrix, size, message):
    with pytest.raises(ValueError, match=message):
        warp_image(image, matrix, size)


class Spots:
    """Grey pictures with two dark spots, in the template's places or somewhere else."""

    def __init__(self, shift):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.zeros(64, dtype=torch.int64)
        self.image_size, self.num_identities = 112, 1
        self.images = torch.full((64, 3, 112, 112), 0.2)
        for image in self.images:
            move = shift * (torch.rand(2, generator=generator) - 0.5)
            for x, y in (TEMPLATE[:2] + move).int().tolist():
                image[:, y - 4 : y + 5, x - 4 : x + 5] = -0.6

    def __len__(self):
        return 64

    def batch(self, indices):
        return self.images[torch.as_tensor(indices)]


def test_eyes_in_their_places_are_seen_and_eyes_anywhere_are_not():
    assert eye_contrast(Spots(0)) > 0.4
    assert eye_contrast(Spots(4)) > align.MIN_EYE_CONTRAST
    assert eye_contrast(Spots(70)) < align.MIN_EYE_CONTRAST


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ekd-lite\[align\]'"):
        LandmarkDetector()


def test_the_detector_asks_for_bgr_and_takes_the_largest_face(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "face_detection_yunet_2023mar_int8bq.onnx").write_bytes(b"")
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    seen = {}

    class Net:
        rows = None

        def setInputSize(self, size):
            seen["size"] = size

        def detect(self, bgr):
            seen["bgr"] = bgr
            return 1, self.rows

    cv2 = types.SimpleNamespace(FaceDetectorYN=types.SimpleNamespace(create=lambda *a: Net()))
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    detector = LandmarkDetector()
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    image[0] = 255
    assert detector(image) is None
    assert seen["size"] == (30, 20)
    assert seen["bgr"][0, 0].tolist() == [0, 0, 255]
    small = [0, 0, 5, 5, *range(10), 0.99]
    large = [0, 0, 9, 9, *range(10, 20), 0.7]
    Net.rows = np.array([small, large], np.float32)
    assert detector(image).tolist() == np.arange(10, 20).reshape(5, 2).tolist()
    with pytest.raises(ValueError, match="image must be uint8"):
        detector(image.float())


def test_splits_of_unaligned_photographs_are_warned_about(tmp_path):
    """Uniform grey has no eyes anywhere; a face set with dark spots at the template's eyes does."""
    for kind in ("blank", "aligned"):
        for identity in range(12):
            folder = tmp_path / kind / f"{identity:02}"
            folder.mkdir(parents=True)
            image = Image.new("RGB", (112, 112), (150, 150, 150))
            if kind == "aligned":
                for x, y in ((38, 52), (74, 52)):
                    ImageDraw.Draw(image).ellipse((x - 8, y - 8, x + 8, y + 8), fill=(20, 20, 20))
            image.save(folder / "0.png")
    with pytest.warns(UserWarning, match="blank: .* eyes are not where aligned faces have them"):
        load_splits(tmp_path / "blank", image_size=112, cache=tmp_path / "cache", workers=1)
    load_splits(tmp_path / "aligned", image_size=112, cache=tmp_path / "cache", workers=1)


def test_arrays_and_lists_are_taken_too():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 120, 130), dtype=np.uint8)
    points = (TEMPLATE.numpy() + rng.normal(0, 3, (5, 2))).tolist()
    expected = align_face(torch.from_numpy(image), torch.tensor(points, dtype=torch.float64))
    for landmarks in (points, np.array(points)):
        assert torch.equal(align_face(image, landmarks), expected)
        assert torch.equal(
            similarity_transform(landmarks, TEMPLATE.tolist()),
            similarity_transform(torch.tensor(points, dtype=torch.float64), TEMPLATE),
        )
    assert five_of_68(rng.normal(size=(68, 2))).shape == (5, 2)
    with pytest.raises(ValueError, match="landmarks must be a tensor, an array or a list"):
        align_face(image, "five points")
    with pytest.raises(ValueError, match="image must be a tensor, an array or a list"):
        align_face("face.jpg", points)
