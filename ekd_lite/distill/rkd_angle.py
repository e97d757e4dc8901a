r"""The angle term of RKD and its gradient, over all N^3 angles, in the memory of a few N^2.

At corner i the rays to j and k enclose the angle with cosine

    c_ijk = (x_j - x_i) . (x_k - x_i) / (d_ij d_ik) = (G_jk - G_ij - G_ik + G_ii) / (d_ij d_ik)

with the Gram matrix G = X X^T: no N x N x D tensor is needed. The corners are taken a block at a
time, and the gradient of a block is added up while the block is there; nothing of it is kept.

G loses a distance that is small beside the lengths of the vectors: near duplicates, as where a
sampler fills up a small identity. Corners that have such a neighbour are computed from the
differences themselves, one at a time. A ray of length zero has no direction: its cosines are 0, and
so is their gradient (TFace's is of the order of 1e12).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ekd_lite.ops import is_free_to_fetch

STRIPS = 4  # of the pairs of rays at a corner: 5/8 of them are computed, with 8 it were 9/16


class Cloud(NamedTuple):
    """What RKD needs to know of N points.

    Attributes:
        points: (N, D), float64, from their mean, which no distance or angle sees but which a common
            offset would swamp.
        gram: (N, N), float64.
        distances: (N, N), float64, right also between near duplicates.
        inverse: 1 / distances, 0 where they are 0.
        is_close: (N,), which points have a near duplicate.
    """

    points: Tensor
    gram: Tensor
    distances: Tensor
    inverse: Tensor
    is_close: Tensor


def make_cloud(points: Tensor) -> Cloud:
    """Distances from the Gram matrix, and from differences where that loses them: (N, D) -> Cloud.

    Close is a hundredth of the mean length: below, cosines from a float32 G have lost more than
    half of their digits.
    """
    points = points.double()
    points = points - points.mean(0)
    gram = points @ points.T
    lengths = gram.diagonal()
    squared = lengths[:, None] + lengths - 2 * gram
    is_close = (squared <= 1e-4 * lengths.mean()).fill_diagonal_(False).any(1)
    distances = squared.clamp_(min=0).sqrt_().fill_diagonal_(0)
    by_difference = "donot_use_mm_for_euclid_dist"
    if not is_free_to_fetch(points):  # all of them cost less than the question which
        exact = torch.cdist(points, points, compute_mode=by_difference)
        distances = torch.where(is_close[:, None], exact, distances)
    elif len(rows := is_close.nonzero().flatten()):
        distances[rows] = torch.cdist(points[rows], points, compute_mode=by_difference)
    inverse = torch.where(distances > 0, 1 / distances, 0.0)
    return Cloud(points, gram, distances, inverse, is_close)


def angle_gap(
    student: Cloud, teacher: Cloud, *, dtype: torch.dtype, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean Huber distance of the N^3 angle cosines of two sets of points, and its gradient.

    Args:
        student: N points.
        teacher: N points.
        dtype: of the N^3 cosines.
        block: how many of them to hold at a time.

    Returns:
        The value, 0-dim in float64; its gradient with respect to the student's Gram matrix (N, N),
        in which G_jk stands for G_kj too; and what must be added to the gradient of the points
        (N, D), from corners without G.
    """
    is_close, rows = student.is_close | teacher.is_close, len(student.points)
    nets = [(net.gram.to(dtype), net.inverse.to(dtype)) for net in (student, teacher)]
    total = student.gram.new_zeros(())
    grad_gram = torch.zeros_like(nets[0][0])
    grad = torch.zeros_like(student.points, dtype=dtype)
    height = -(-rows // STRIPS)
    close = [corner for corner, is_one in enumerate(is_close.tolist()) if is_one]  # a GPU must say
    far = is_close.to(torch.int8).argsort(stable=True)[: rows - len(close)]
    for corners in torch.split(far, max(block // (height * rows), 1)):
        total += add_corners(grad_gram, nets, corners, height)
    for corner in close:
        rays, inverse = unit_rays(student, corner, dtype)
        other, _ = unit_rays(teacher, corner, dtype)
        slope, value = huber(rays @ rays.T, other @ other.T)
        total += value
        # Through e = r / |r|: the part along e is lost, the rest divided by the length.
        along = 2 * slope @ rays
        along = (along - (along * rays).sum(1, keepdim=True) * rays) * inverse
        grad += along
        grad[corner] -= along.sum(0)
    return total / rows**3, grad_gram / rows**3, grad / rows**3


def add_corners(
    grad_gram: Tensor, nets: list[tuple[Tensor, Tensor]], corners: Tensor, height: int
) -> Tensor:
    """The sum of Huber distances at some corners, 0-dim; its gradient is added to `grad_gram`.

    An angle has two rays, and c_ijk = c_ikj: of the pairs of rays a strip of rows meets only those
    from its own first one on, and what is right of its square counts twice.

    Args:
        grad_gram: by the student's Gram matrix, (N, N).
        nets: the Gram matrix and 1 / distances of student and teacher, each (N, N).
        corners: which, (c,).
        height: rows of a strip.
    """
    # G_jk - (G_ij - G_ii / 2) - (G_ik - G_ii / 2)
    sides = [
        (gram, gram[corners] - gram.diagonal()[corners, None] / 2, inverse[corners])
        for gram, inverse in nets
    ]
    inverse = sides[0][2]
    total = grad_gram.new_zeros((), dtype=torch.float64)
    by_ray, by_length = torch.zeros_like(inverse), torch.zeros_like(inverse)  # (c, N)
    for start in range(0, len(grad_gram), height):
        up, right = slice(start, start + height), slice(start, None)
        cosine, other = (gram_cosines(*side, up, right) for side in sides)
        slope, half_gap = huber_slope(cosine, other)
        slope[:, :, height:] *= 2
        total += torch.dot(slope.flatten(), half_gap.flatten())
        _add_by_ray(by_length, cosine.mul_(slope), up, right)
        slope *= inverse[:, up, None]
        slope *= inverse[:, None, right]
        _add_by_ray(by_ray, slope, up, right)
        grad_gram[up, right] += slope.sum(0)
    # Through the lengths: d c_ijk / d (d_ij^2) = -c_ijk / (2 d_ij^2), and the same for d_ik.
    by_length *= inverse.square().mul_(-0.5)
    # G_ij takes part in both rays' numerators, and in d_ij^2 = G_ii + G_jj - 2 G_ij.
    grad_gram[corners] -= by_ray + 2 * by_length
    diagonal = grad_gram.diagonal()
    diagonal += by_length.sum(0)
    diagonal[corners] += by_ray.sum(1) / 2 + by_length.sum(1)
    return total


def _add_by_ray(sums: Tensor, values: Tensor, first: slice, second: slice) -> None:
    """Add what pairs of rays say, (c, h, w), to both of their rays, (c, N)."""
    sums[:, first] += values.sum(2)
    sums[:, second] += values.sum(1)


def gram_cosines(
    gram: Tensor, shift: Tensor, inverse: Tensor, first: slice, second: slice
) -> Tensor:
    """Angle cosines at c corners between rays of two ranges, (c, h, w).

    Args:
        gram: G, (N, N).
        shift: G_ij - G_ii / 2 of the corners, (c, N).
        inverse: 1 / d_ij of the corners, (c, N).
        first: the rays j.
        second: the rays k.
    """
    cosine = gram[first, second] - shift[:, first, None]
    cosine -= shift[:, None, second]
    cosine *= inverse[:, first, None]
    cosine *= inverse[:, None, second]
    return cosine


def huber(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Slope of the Huber distance, elementwise, and its sum; overwrites `teacher`."""
    slope, half_gap = huber_slope(student, teacher)
    return slope, torch.dot(slope.flatten(), half_gap.flatten())


def huber_slope(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Slope of the Huber distance, and what times the slope is the distance; over `teacher`."""
    gap = torch.sub(student, teacher, out=teacher)
    slope = gap.clamp(-1, 1)
    # g^2 / 2 within -1..1 and |g| - 1/2 outside are both slope * (g - slope / 2).
    return slope, gap.sub_(slope, alpha=0.5)


def unit_rays(cloud: Cloud, corner: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Unit vectors from one corner to all points, (N, D), and 1 / length, (N, 1); 0 for itself."""
    inverse = cloud.inverse[corner, :, None]
    rays = (cloud.points - cloud.points[corner]) * inverse
    return rays.to(dtype), inverse.to(dtype)
