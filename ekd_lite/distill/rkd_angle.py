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

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class AngleGap(torch.autograd.Function):
    """Mean Huber distance of the N^3 angle cosines of two sets of points."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, block: int) -> Tensor:
        """Points (N, D) and (N, D') -> 0-dim; `block` is how many angles to hold at a time."""
        student_parts, teacher_parts = gram_and_inverse(student), gram_and_inverse(teacher)
        is_close = student_parts[2] | teacher_parts[2]
        rows = len(student)
        total = student.new_zeros((), dtype=torch.float64)
        grad = torch.zeros_like(student)
        grad_gram = student.new_zeros((rows, rows))
        for corners in torch.split((~is_close).nonzero().flatten(), max(block // rows**2, 1)):
            cosine = gram_cosines(*student_parts[:2], corners)
            slope, value = huber(cosine, gram_cosines(*teacher_parts[:2], corners))
            total += value
            add_gram_slopes(grad_gram, student_parts[1], corners, slope, cosine)
        for corner in is_close.nonzero().flatten():
            rays, inverse = unit_rays(student, corner)
            other, _ = unit_rays(teacher, corner)
            slope, value = huber(rays @ rays.T, other @ other.T)
            total += value
            # Through e = r / |r|: the part along e is lost, the rest divided by the length.
            along = 2 * slope @ rays
            along = (along - (along * rays).sum(1, keepdim=True) * rays) * inverse
            grad += along
            grad[corner] -= along.sum(0)
        grad += (grad_gram + grad_gram.T) @ (student - student.mean(0))
        ctx.save_for_backward(grad / rows**3)
        return (total / rows**3).to(student.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        """The gradient was computed with the value."""
        (grad,) = ctx.saved_tensors
        return grad_output * grad, None, None


def gram_and_inverse(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gram matrix (N, N), 1 / d_ij (0 on the diagonal), and which corners have a close neighbour.

    From the mean of the points, which no angle sees but which a common offset would swamp. Close is
    a hundredth of the mean length: below, G has lost more than half of float32's digits.
    """
    centred = points.double() - points.double().mean(0)
    exact = centred @ centred.T
    lengths = exact.diagonal()
    squared = lengths[:, None] + lengths - 2 * exact
    is_close = squared <= 1e-4 * lengths.mean()
    is_close.fill_diagonal_(False)
    squared.fill_diagonal_(torch.inf)
    # Entries of close pairs are not used; the clamp only keeps NaN out of them.
    inverse = squared.clamp(min=torch.finfo(torch.float64).tiny).rsqrt()
    return exact.to(points.dtype), inverse.to(points.dtype), is_close.any(1)


def gram_cosines(gram: Tensor, inverse: Tensor, corners: Tensor) -> Tensor:
    """Angle cosines at some corners, (c, N, N)."""
    # G_jk - (G_ij - G_ii / 2) - (G_ik - G_ii / 2)
    shift = gram[corners] - gram.diagonal()[corners, None] / 2
    cosine = gram - shift[:, :, None]
    cosine -= shift[:, None, :]
    cosine *= inverse[corners, :, None]
    cosine *= inverse[corners, None, :]
    return cosine


def huber(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Slope of the Huber distance, elementwise, and its sum; overwrites `teacher`."""
    gap = torch.sub(student, teacher, out=teacher)
    slope = gap.clamp(-1, 1)
    # g^2 / 2 within -1..1 and |g| - 1/2 outside are both slope * (g - slope / 2).
    gap.sub_(slope, alpha=0.5)
    return slope, torch.dot(slope.flatten(), gap.flatten())


def add_gram_slopes(
    grad_gram: Tensor, inverse: Tensor, corners: Tensor, slope: Tensor, cosine: Tensor
) -> None:
    """Add d loss / d G of a block to `grad_gram`; overwrites slope and cosine."""
    # Through the lengths: d c_ijk / d (d_ij^2) = -c_ijk / (2 d_ij^2), and the same for d_ik.
    by_length = -cosine.mul_(slope).sum(2) * inverse[corners] ** 2  # (c, N)
    slope *= inverse[corners, :, None]
    slope *= inverse[corners, None, :]
    grad_gram += slope.sum(0)
    # G_ij takes part in both rays' numerators, and in d_ij^2 = G_ii + G_jj - 2 G_ij.
    by_ray = slope.sum(2)
    grad_gram[corners] -= 2 * (by_ray + by_length)
    diagonal = grad_gram.diagonal()
    diagonal += by_length.sum(0)
    diagonal[corners] += by_ray.sum(1) + by_length.sum(1)


def unit_rays(points: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors from one corner to all points, (N, D), and 1 / length, (N, 1); 0 for itself."""
    rays = points - points[corner]
    length = rays.norm(dim=1, keepdim=True)
    inverse = torch.where(length > 0, 1 / length, 0.0)
    return rays * inverse, inverse
