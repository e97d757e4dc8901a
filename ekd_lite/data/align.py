r"""Alignment: five landmarks to fixed places, by the similarity that fits best.

Public face sets and pretrained nets share one template: eyes, nose and corners of the mouth of a
112 x 112 crop (insightface, `face_align.py`). A face is warped by the similarity (scale, rotation,
shift, no mirror) with the least squared distance to it. In the plane that has a closed form
(Umeyama 1991 without an SVD): with landmarks p and places q as complex numbers about their means,

$$s e^{i\theta} = \frac{\sum \bar p\,q}{\sum |p|^2}.$$

Pixel centres have whole coordinates, as in OpenCV: (0, 0) is the middle of the first pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ekd_lite.data.faceset import FaceSet
from ekd_lite.data.indexing import tensor_of
from ekd_lite.ops import are_numbers

# x, y of: eye on the left of the image, eye on the right, nose, corner of the mouth left, right.
TEMPLATE_112 = (
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
    (70.7299, 92.2041),
)  # fmt: skip
# Means of 64 faces of LFW, 12 draws at 112, 48 and 32 pixels: aligned 0.33 to 0.44; the same faces
# scaled and shifted at random, or as small as in the uncropped pictures, -0.11 to 0.05.
MIN_EYE_CONTRAST = 0.15


def template_landmarks(image_size: int = 112) -> Tensor:
    """The five places in a crop of a size, (5, 2) float64.

    Multiples of 112 scale the template; multiples of 128 scale it too and add a margin of
    8/128 at the left and the right.

    Raises:
        ValueError: a size that is neither.
    """
    places = torch.tensor(TEMPLATE_112, dtype=torch.float64)
    if image_size > 0 and image_size % 112 == 0:
        return places * (image_size / 112)
    if image_size > 0 and image_size % 128 == 0:
        ratio = image_size / 128
        return places * ratio + torch.tensor([8.0 * ratio, 0.0], dtype=torch.float64)
    raise ValueError(f"image_size must be a multiple of 112 or 128, got {image_size}")


def five_of_68(landmarks: Tensor | Any) -> Tensor:
    """The five points among the 68 of the iBUG scheme, (..., 68, 2) -> (..., 5, 2).

    An eye is the middle of its two corners.
    """
    landmarks = tensor_of(landmarks, "landmarks")
    if landmarks.shape[-2:] != (68, 2):
        raise ValueError(f"landmarks must have shape (..., 68, 2), got {tuple(landmarks.shape)}")
    corners = landmarks[..., [36, 42], :], landmarks[..., [39, 45], :]
    return torch.cat([(corners[0] + corners[1]) / 2, landmarks[..., [30, 48, 54], :]], dim=-2)


def similarity_transform(landmarks: Tensor | Any, places: Tensor | Any) -> Tensor:
    """The similarity that takes landmarks nearest to their places, in the least-squares sense.

    Args:
        landmarks: x, y in the image, pixels, (..., K, 2), K >= 2.
        places: where they shall go, (K, 2) or (..., K, 2).

    Returns:
        Matrices M with place = M (x, y, 1), (..., 2, 3) float64.

    Raises:
        ValueError: other shapes, values that are not finite, or landmarks that all coincide.
    """
    landmarks, places = tensor_of(landmarks, "landmarks"), tensor_of(places, "places")
    if (
        landmarks.shape[-1:] != (2,)
        or landmarks.ndim < 2
        or places.shape[-2:] != (landmarks.shape[-2:])
    ):
        raise ValueError(
            f"landmarks and places must have shape (..., K, 2), got {tuple(landmarks.shape)} and "
            f"{tuple(places.shape)}"
        )
    source, target = landmarks.double(), places.double()
    if not (source.isfinite().all() and target.isfinite().all()):
        raise ValueError("landmarks must be finite")
    mean, goal = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    (px, py), (qx, qy) = (source - mean).unbind(-1), (target - goal).unbind(-1)
    spread = (px * px + py * py).sum(-1)
    if bool((spread < 1e-6).any()):
        raise ValueError("all landmarks of a face coincide: no scale can be told from them")
    a = (px * qx + py * qy).sum(-1) / spread  # s cos(theta)
    b = (px * qy - py * qx).sum(-1) / spread  # s sin(theta)
    linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -2)
    shift = goal.squeeze(-2) - (linear @ mean.squeeze(-2).unsqueeze(-1)).squeeze(-1)
    return torch.cat([linear, shift.unsqueeze(-1)], dim=-1)


def warp_image(image: Tensor | Any, matrix: Tensor | Any, image_size: int) -> Tensor:
    """Draw an image through a similarity, bilinearly; outside of it there is black.

    Args:
        image: uint8 (3, H, W).
        matrix: from pixels of the image to pixels of the result, (2, 3).
        image_size: side of the result.

    Returns:
        uint8 (3, image_size, image_size).

    Raises:
        ValueError: other shapes or types, or a matrix without an inverse.
    """
    image, matrix = tensor_of(image, "image"), tensor_of(matrix, "matrix")
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        hint = "; image.permute(2, 0, 1) gives that" if image.shape[2:] == (3,) else ""
        raise ValueError(
            f"image must be uint8 (3, H, W), got {image.dtype} {tuple(image.shape)}{hint}"
        )
    if image.numel() == 0 or not are_numbers(image_size, whole=True) or image_size < 1:
        raise ValueError(
            f"expected an image with pixels and a side >= 1, got {tuple(image.shape)} and "
            f"{image_size!r}"
        )
    if matrix.shape != (2, 3) or not matrix.double().isfinite().all():
        raise ValueError(
            f"matrix must be (2, 3) and finite, as similarity_transform gives it, got "
            f"{tuple(matrix.shape)}"
        )
    if not matrix[:, :2].double().det():
        raise ValueError("matrix cannot be undone: it takes the whole image to one line or point")
    full = torch.cat([matrix.double(), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)])
    inverse = torch.linalg.inv(full)[:2]
    line = torch.arange(image_size, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    where = torch.stack([x, y, torch.ones_like(x)], -1) @ inverse.T  # (S, S, 2), pixels
    size = torch.tensor([image.shape[2], image.shape[1]], dtype=torch.float64)
    grid = (2 * where + 1) / size - 1  # grid_sample's units: -1 and 1 are the edges of the image
    drawn = torch.nn.functional.grid_sample(
        image[None].double(), grid[None], mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return drawn[0].round().clamp(0, 255).to(torch.uint8)


def align_face(image: Tensor | Any, landmarks: Tensor | Any, *, image_size: int = 112) -> Tensor:
    """Cut one face out of a picture, aligned to the template.

    Args:
        image: uint8 (3, H, W).
        landmarks: x, y of the five points in the order of the template (5, 2), or 68 (68, 2).
        image_size: side of the crop, a multiple of 112 or 128.

    Returns:
        uint8 (3, image_size, image_size).

    Raises:
        ValueError: other shapes or types, or an impossible size.
    """
    landmarks = tensor_of(landmarks, "landmarks")
    points = five_of_68(landmarks) if landmarks.shape[-2:] == (68, 2) else landmarks
    return warp_image(
        image, similarity_transform(points, template_landmarks(image_size)), image_size
    )


def eye_contrast(faces: FaceSet, indices: Sequence[int] | Tensor | None = None) -> float:
    """How much darker the mean face is at the template's eyes than on the cheeks below them.

    A cheap check of alignment. In the mean of many aligned faces the eyes are two dark spots in
    their places; in the mean of faces that stand anywhere they are blurred away.

    Args:
        faces: the set.
        indices: images to look at; by default 64 evenly spread ones.

    Returns:
        Difference of mean brightness, in units of the range [-1, 1]. Photographs below
        `MIN_EYE_CONTRAST` are most likely not aligned; drawn faces, the procedural ones among them,
        may be below it although they are.
    """
    if indices is None:
        indices = torch.linspace(0, len(faces) - 1, min(64, len(faces))).long()
    mean = faces.batch(indices).mean(dim=(0, 1))
    scale = faces.image_size / 112
    places = torch.tensor(TEMPLATE_112[:2])
    eyes = torch.stack([_spot(mean, x, y, scale) for x, y in places.tolist()]).mean()
    cheeks = torch.stack([_spot(mean, x, y + 20, scale) for x, y in places.tolist()]).mean()
    return float(cheeks - eyes)


def alignment_note(faces: FaceSet) -> str | None:
    """What to tell the owner of photographs that seem not to be aligned; None if they do."""
    contrast = eye_contrast(faces)
    if contrast >= MIN_EYE_CONTRAST:
        return None
    return (
        "in the mean of 64 faces the eyes are not where aligned faces have them "
        f"(contrast {contrast:.2f}, aligned photographs have over {MIN_EYE_CONTRAST}); "
        "nets expect crops aligned to the 112x112 template, see ekd_lite.data.align"
    )


def _spot(image: Tensor, x: float, y: float, scale: float) -> Tensor:
    half = 5 * scale
    rows = slice(int(y * scale - half), int(y * scale + half) + 1)
    columns = slice(int(x * scale - half), int(x * scale + half) + 1)
    return image[rows, columns].mean()
