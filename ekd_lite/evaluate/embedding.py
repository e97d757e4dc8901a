"""Embeddings of a whole face set, in order."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ekd_lite.data import FaceSet
from ekd_lite.ops import check_embeddings


def embed(
    backbone: nn.Module,
    faces: FaceSet,
    *,
    mirrored: bool = False,
    batch_size: int = 256,
    progress: str | None = None,
) -> Tensor:
    """Embed every image of a set with a backbone in evaluation mode.

    Args:
        backbone: maps images (B, 3, H, H) to embeddings (B, D); left in the mode it was in.
        faces: the images.
        mirrored: embed every image flipped left to right.
        batch_size: images at a time.
        progress: label of a bar, shown on a terminal.

    Returns:
        Raw embeddings (N, D), float32, on the CPU; row i belongs to image i.

    Raises:
        ValueError: an empty set; a net with weights in half precision, or one that does not give
            one embedding an image; an embedding that is NaN or infinite (names the image).
    """
    if not len(faces):
        raise ValueError("the set holds no image: there is nothing to embed")
    half = {p.dtype for p in backbone.parameters()} & {torch.float16, torch.bfloat16}
    if half:
        raise ValueError(
            f"the net's weights are {half.pop()}: expected float32, which net.float() gives, since "
            "images come in float32"
        )
    was_training = backbone.training
    # A net without parameters, such as an ONNX file, runs on the CPU.
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    backbone.eval()
    rows = []
    starts = range(0, len(faces), batch_size)
    try:
        with torch.inference_mode():
            for start in tqdm(starts, desc=progress, disable=None if progress else True):
                indices = range(start, min(start + batch_size, len(faces)))
                images = faces.batch(indices).to(device)
                if mirrored:
                    images = images.flip(-1)
                rows.append(check_embeddings(backbone(images), len(images)).float().cpu())
    finally:
        backbone.train(was_training)
    embeddings = torch.cat(rows).clone()  # clone: no longer an inference tensor
    bad = (~embeddings.isfinite().all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"the embedding of image {int(bad[0])} is not finite ({len(bad)} such)")
    return embeddings
