"""Embeddings of a whole face set, in order."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ekd_lite import ops
from ekd_lite.data import FaceSet
from ekd_lite.data.ahead import as_floats, holds_bytes, read_ahead, read_bytes
from ekd_lite.data.faceset import about_range, check_pixels, check_side
from ekd_lite.ops import are_numbers, check_embeddings

ENOUGH = 8  # images among which one has a dark pixel


def embed(
    backbone: nn.Module,
    faces: FaceSet,
    *,
    mirrored: bool = False,
    batch_size: int = 256,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
    progress: str | None = None,
) -> Tensor:
    """Embed every image of a set with a backbone in evaluation mode.

    Images of a set that decodes files are read by a thread while the batch before them is embedded.
    A set that holds bytes sends bytes to a GPU, which makes floats of them.

    Args:
        backbone: maps images (B, 3, H, H) to embeddings (B, D); left in the mode it was in.
        faces: the images.
        mirrored: embed every image flipped left to right.
        batch_size: images at a time.
        autocast: torch.bfloat16 or torch.float16 for convolutions and products in it, where the
            device has them; the embeddings are close to those in float32, not equal.
        channels_last: images in torch's channels-last format, in which many convolutions are
            faster, and may round otherwise.
        progress: label of a bar, shown on a terminal.

    Returns:
        Raw embeddings (N, D), float32, on the CPU; row i belongs to image i.

    Raises:
        ValueError: no net; an empty set, or images that are no float32 (B, 3, H, H) in [-1, 1]
            of the set's image_size; a net with weights in half precision, or one that does not give
            one embedding an image; an embedding that is NaN or infinite (names the image).

    Warns:
        UserWarning: no pixel of the first batch, of 8 images or more, is below 0: they seem to be
            in [0, 1].
    """
    (rows,) = embed_views(
        backbone,
        faces,
        views=(mirrored,),
        batch_size=batch_size,
        autocast=autocast,
        channels_last=channels_last,
        progress=progress,
    )
    return rows


def embed_views(
    backbone: nn.Module,
    faces: FaceSet,
    *,
    views: Sequence[bool] = (False, True),
    batch_size: int = 256,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
    progress: str | None = None,
) -> list[Tensor]:
    """Embed the images as they are, or flipped left to right, or both: each is read once.

    Args:
        backbone: as for `embed`, and so are the other options and what is raised.
        faces: the images.
        views: for each result, whether the images are flipped for it.
        batch_size: images at a time.
        autocast: a type in half precision.
        channels_last: the format of the images.
        progress: label of a bar.

    Returns:
        What `embed` gives, for each of the views.
    """
    if not isinstance(backbone, nn.Module):
        raise ValueError(
            f"embed needs a net, an nn.Module that maps images to embeddings, got "
            f"{type(backbone).__name__}; ekd_lite.train.load_backbone reads one from a file"
        )
    if not are_numbers(batch_size, whole=True) or batch_size < 1:
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
    memory_format = torch.channels_last if channels_last else torch.preserve_format
    starts = range(0, len(faces), batch_size)
    parts = [range(start, min(start + batch_size, len(faces))) for start in starts]
    as_bytes = device.type not in ops.FREE_TO_FETCH and holds_bytes(faces)

    def read(part: range) -> Tensor:
        """Images that are fit to go to the net's device, as bytes if that is another than ours."""
        images = read_bytes(faces, part) if as_bytes else faces.batch(part)
        if not as_bytes:  # of bytes nothing is out of range
            check_pixels(images, torch.tensor(part))
        check_side(images, faces.image_size)
        return images.pin_memory() if device.type == "cuda" and images.is_cpu else images

    images_of = contextlib.closing(read_ahead(map(read, parts), faces))
    table = _Rows(len(faces), len(views))
    backbone.eval()
    try:
        with (
            images_of as coming,
            torch.inference_mode(),
            contextlib.nullcontext() if autocast is None else torch.autocast(device.type, autocast),
        ):
            for part in tqdm(parts, desc=progress, disable=None if progress else True):
                images = as_floats(next(coming).to(device, non_blocking=True))
                if part.start == 0 and len(part) >= ENOUGH and not as_bytes:
                    _warn_of_range(images)
                images = images.to(dtype, memory_format=memory_format)
                for view, is_mirrored in enumerate(views):
                    seen = images.flip(-1) if is_mirrored else images
                    table.keep(view, part, check_embeddings(backbone(seen), len(seen)))
    finally:
        backbone.train(was_training)
    return table.checked()


def _warn_of_range(images: Tensor) -> None:
    low, high = images.aminmax()
    if doubt := about_range(float(low), float(high), len(images)):
        warnings.warn(doubt, stacklevel=4)


class _Rows:
    """Embeddings of all images for some views, each in one array: joining batches needs two."""

    def __init__(self, count: int, views: int) -> None:
        self._count = count
        self._views: list[Tensor | None] = [None] * views
        self._bad: list[list[int]] = [[] for _ in range(views)]

    def keep(self, view: int, part: range, rows: Tensor) -> None:
        """Copy the embeddings of some images to where they belong."""
        table = self._views[view]
        if table is None:
            with torch.inference_mode(False):  # the result is an ordinary tensor
                table = torch.empty(self._count, rows.shape[1])
            self._views[view] = table
        if rows.shape[1] != table.shape[1]:
            raise ValueError(
                f"the net gives embeddings of {rows.shape[1]} numbers for images {part.start} to "
                f"{part.stop - 1}, and of {table.shape[1]} before: expected one width"
            )
        own = rows.float().cpu()
        table[part.start : part.stop] = own
        bad = (~own.isfinite().all(dim=1)).nonzero().flatten()
        self._bad[view] += (bad + part.start).tolist()

    def checked(self) -> list[Tensor]:
        """The arrays, if all numbers are finite."""
        for bad in self._bad:
            if bad:
                raise ValueError(f"the embedding of image {bad[0]} is not finite ({len(bad)} such)")
        return [table for table in self._views if table is not None]
