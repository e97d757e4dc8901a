"""Check of chapter 3: the similarity that aligns a face."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.data.align import similarity_transform, template_landmarks


def _similarity_transform(source: Tensor, target: Tensor) -> Tensor:
    return similarity_transform(source, target)


def _matrix(linear: Tensor, shift: Tensor) -> Tensor:
    return torch.cat([linear, shift[:, None]], dim=1)


def _inverse_direction(source: Tensor, target: Tensor) -> Tensor:
    """This takes the target to the source.

    The matrix must take source points to target points: target = M (x, y, 1) with (x, y) of the
    source. (The inverse is what a warp needs afterwards, to look up each pixel of the result.)
    """
    return similarity_transform(target, source)


def _rotation_the_wrong_way(source: Tensor, target: Tensor) -> Tensor:
    """The rotation turns the wrong way: the sign of the sine is flipped.

    The linear part is [[a, -b], [b, a]] with a = s cos(theta) and b = s sin(theta), acting on
    columns. Was a transposed matrix, meant for rows, used?
    """
    linear = similarity_transform(source, target)[:, :2].T
    return _matrix(linear, target.mean(0) - linear @ source.mean(0))


def _scale_left_out(source: Tensor, target: Tensor) -> Tensor:
    """The scale is missing: this is rotation and shift only.

    Faces come in all sizes. Divide by the sum of squared lengths of the centred source points.
    """
    linear = similarity_transform(source, target)[:, :2]
    linear = linear / linear.det().sqrt()
    return _matrix(linear, target.mean(0) - linear @ source.mean(0))


def _shift_without_the_rotation(source: Tensor, target: Tensor) -> Tensor:
    """The shift is the difference of the two means.

    Rotation and scale move the source's mean too: t = mean(target) - A mean(source).
    """
    return _matrix(similarity_transform(source, target)[:, :2], target.mean(0) - source.mean(0))


def _affine_instead_of_similarity(source: Tensor, target: Tensor) -> Tensor:
    """This is the least-squares affine map, with six free numbers.

    It may shear and stretch a face to fit its landmarks, and takes away what tells faces apart. A
    similarity has four: [[a, -b], [b, a]] and the shift.
    """
    full = torch.cat([source, torch.ones_like(source[:, :1])], dim=1)
    # By the pseudo-inverse, defined for points on a line too.
    matrix: Tensor = torch.linalg.pinv(full) @ target
    return matrix.T


def _points_not_centred(source: Tensor, target: Tensor) -> Tensor:
    """Rotation and scale were fitted to points that are not centred.

    The least-squares fit takes both sets about their means; only then is the shift free.
    """
    (px, py), (qx, qy) = source.T, target.T
    spread = (px * px + py * py).sum()
    a, b = (px * qx + py * qy).sum() / spread, (px * qy - py * qx).sum() / spread
    linear = torch.stack([torch.stack([a, -b]), torch.stack([b, a])])
    return _matrix(linear, target.mean(0) - linear @ source.mean(0))


def _only_the_first_two_points(source: Tensor, target: Tensor) -> Tensor:
    """Only the first two points were used.

    Two points fix a similarity exactly, errors included; all K share the error in the
    least-squares sense.
    """
    return similarity_transform(source[:2], target[:2])


def _mirror_allowed(source: Tensor, target: Tensor) -> Tensor:
    """A mirror image was allowed.

    The orthogonal matrix of the SVD may have determinant -1; a similarity does not mirror. Flip the
    sign that belongs to the smallest singular value.
    """
    p, q = source - source.mean(0), target - target.mean(0)
    u, values, vh = torch.linalg.svd(q.T @ p)
    linear = (values.sum() / p.square().sum()) * u @ vh
    return _matrix(linear, target.mean(0) - linear @ source.mean(0))


def _scale_from_the_ratio_of_sizes(source: Tensor, target: Tensor) -> Tensor:
    """The scale is the ratio of the two point sets' sizes.

    That is right only for points that fit exactly. The least-squares scale also shrinks with the
    misfit: a = sum(p . q) / sum(p . p).
    """
    linear = similarity_transform(source, target)[:, :2]
    sizes = [(x - x.mean(0)).norm() for x in (source, target)]
    linear = linear / linear.det().sqrt() * (sizes[1] / sizes[0])
    return _matrix(linear, target.mean(0) - linear @ source.mean(0))


def _transform_cases() -> list[Case]:
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


SIMILARITY_TRANSFORM = Exercise(
    "similarity_transform",
    _similarity_transform,
    _transform_cases,
    (
        _inverse_direction,
        _rotation_the_wrong_way,
        _scale_left_out,
        _shift_without_the_rotation,
        _affine_instead_of_similarity,
        _points_not_centred,
        _only_the_first_two_points,
        _mirror_allowed,
        _scale_from_the_ratio_of_sizes,
    ),
)


def check_similarity_transform(f: Function) -> Verdict:
    """Check a function for the least-squares similarity.

    Args:
        f: f(source (K, 2), target (K, 2)) -> (2, 3), the matrix M = [[a, -b, t_x], [b, a, t_y]]
            with the least sum of squares of M (x, y, 1) - target; no mirror images.
    """
    return judge(SIMILARITY_TRANSFORM, f)
