"""Check of chapter 3: the similarity that aligns a face."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import instead
from ekd_lite.data.align import similarity_transform, template_landmarks


def _similarity_transform(source: Tensor, target: Tensor) -> Tensor:
    return similarity_transform(source, target)


def _matrix(linear: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The linear part, and the shift that takes the source's mean to the target's."""
    shift = target.mean(0) - linear @ source.mean(0)
    return torch.cat([linear, shift[:, None]], dim=1)


def _other_linear(change: Function) -> Function:
    """The map with linear part change(right linear part, source, target)."""

    def transform(source: Tensor, target: Tensor) -> Tensor:
        linear = similarity_transform(source, target)[:, :2]
        return _matrix(change(linear, source, target), source, target)

    return transform


def _shift_of_the_means(source: Tensor, target: Tensor) -> Tensor:
    shift = target.mean(0) - source.mean(0)
    return torch.cat([similarity_transform(source, target)[:, :2], shift[:, None]], dim=1)


def _affine(source: Tensor, target: Tensor) -> Tensor:
    full = torch.cat([source, torch.ones_like(source[:, :1])], dim=1)
    # By the pseudo-inverse, defined for points on a line too.
    matrix: Tensor = torch.linalg.pinv(full) @ target
    return matrix.T


def _not_centred(linear: Tensor, source: Tensor, target: Tensor) -> Tensor:
    (px, py), (qx, qy) = source.T, target.T
    a, b = (px * qx + py * qy).sum(), (px * qy - py * qx).sum()
    return torch.stack([a, -b, b, a]).reshape(2, 2) / source.square().sum()


def _with_mirror(linear: Tensor, source: Tensor, target: Tensor) -> Tensor:
    p, q = source - source.mean(0), target - target.mean(0)
    u, values, vh = torch.linalg.svd(q.T @ p)
    mirrored: Tensor = (values.sum() / p.square().sum()) * u @ vh
    return mirrored


def _size(points: Tensor) -> Tensor:
    length: Tensor = (points - points.mean(0)).norm()
    return length


MISTAKES = {
    "inverse direction": Mistake(
        "This takes the target to the source. The matrix must take source points to target points: "
        "target = M (x, y, 1) with (x, y) of the source. (The inverse is what a warp needs "
        "afterwards, to look up each pixel of the result.)",
        lambda source, target: similarity_transform(target, source),
    ),
    "rotation the wrong way": Mistake(
        "The rotation turns the wrong way: the sign of the sine is flipped. The linear part is "
        "[[a, -b], [b, a]] with a = s cos(theta) and b = s sin(theta), acting on columns. Was a "
        "transposed matrix, meant for rows, used?",
        _other_linear(lambda linear, source, target: linear.T),
    ),
    "scale left out": Mistake(
        "The scale is missing: this is rotation and shift only. Faces come in all sizes. Divide by "
        "the sum of squared lengths of the centred source points.",
        _other_linear(lambda linear, source, target: linear / linear.det().sqrt()),
    ),
    "shift without the rotation": Mistake(
        "The shift is the difference of the two means. Rotation and scale move the source's mean "
        "too: t = mean(target) - A mean(source).",
        _shift_of_the_means,
    ),
    "affine instead of similarity": Mistake(
        "This is the least-squares affine map, with six free numbers. It may shear and stretch a "
        "face to fit its landmarks, and takes away what tells faces apart. A similarity has four: "
        "[[a, -b], [b, a]] and the shift.",
        _affine,
    ),
    "points not centred": Mistake(
        "Rotation and scale were fitted to points that are not centred. The least-squares fit "
        "takes both sets about their means; only then is the shift free.",
        _other_linear(_not_centred),
    ),
    "only the first two points": Mistake(
        "Only the first two points were used. Two points fix a similarity exactly, errors "
        "included; all K share the error in the least-squares sense.",
        instead(
            _similarity_transform, source=lambda a: a.source[:2], target=lambda a: a.target[:2]
        ),
    ),
    "mirror allowed": Mistake(
        "A mirror image was allowed. The orthogonal matrix of the SVD may have determinant -1; a "
        "similarity does not mirror. Flip the sign that belongs to the smallest singular value.",
        _other_linear(_with_mirror),
    ),
    "scale from the ratio of sizes": Mistake(
        "The scale is the ratio of the two point sets' sizes. That is right only for points that "
        "fit exactly. The least-squares scale also shrinks with the misfit: "
        "a = sum(p . q) / sum(p . p).",
        _other_linear(
            lambda linear, source, target: (
                linear / linear.det().sqrt() * _size(target) / _size(source)
            )
        ),
    ),
}


def _cases() -> list[Case]:
    square = real([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    turned = real([[3.0, 1.0], [3.0, 3.0], [1.0, 1.0]])  # a quarter turn, twice as large, shifted
    places = template_landmarks(112)
    found = places @ real([[0.8, 0.6], [-0.6, 0.8]]) * 1.7 + real([40.0, -25.0])
    mirrored = found * real([-1.0, 1.0]) + real([200.0, 0.0])
    return [
        Case("a quarter turn", (square, turned)),
        Case("five landmarks, exact", (found, places)),
        Case("five landmarks, noisy", (found + 4 * normal(21, 5, 2), places)),
        Case("landmarks of a mirror image", (mirrored, places)),
    ]


SIMILARITY_TRANSFORM = Exercise("similarity_transform", _similarity_transform, _cases, MISTAKES)


def check_similarity_transform(f: Function) -> Feedback:
    """Check a function for the least-squares similarity.

    Args:
        f: f(source (K, 2), target (K, 2)) -> (2, 3), the matrix M = [[a, -b, t_x], [b, a, t_y]]
            with the least sum of squares of M (x, y, 1) - target; no mirror images.
    """
    return judge(SIMILARITY_TRANSFORM, f)
