"""Embeddings of a whole face set, in order."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ekd_lite.data import FaceSet
from ekd_lite.data.faceset import check_pixels
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
        ValueError: no net; an empty set, or images that are no float32 (B, 3, H, W) in [-1, 1]; a
            net with weights in half precision, or one that does not give one embedding an image;
            an embedding that is NaN or infinite (names the image).
    """
    if not isinstance(backbone, nn.Module):
        raise ValueError(
            f"embed needs a net, an nn.Module that maps images to embeddings, got "
            f"{type(backbone).__name__}; ekd_lite.train.load_backbone reads one from a file"
        )
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number >= 1, got {batch_size!r}")
    if not len(faces):
        raise ValueError("the set holds no image: there is nothing to embed")
    kinds = {t.dtype for t in (*backbone.parameters(), *backbone.buffers())}
    half = kinds & {torch.float16, torch.bfloat16}
    if half:
        raise ValueError(
            f"the net's weights are {half.pop()}: expected float32, which net.float() gives, since "
            "images come in float32"
        )
    was_training = backbone.training
    # A net without parameters, such as an ONNX file, runs on the CPU.
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    dtype = torch.float64 if torch.float64 in kinds else torch.float32
    backbone.eval()
    rows = []
    starts = range(0, len(faces), batch_size)
    try:
        with torch.inference_mode():
            for start in tqdm(starts, desc=progress, disable=None if progress else True):
                indices = range(start, min(start + batch_size, len(faces)))
                images = faces.batch(indices)
                check_pixels(images, torch.tensor(indices))
                images = images.to(device, dtype)
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
