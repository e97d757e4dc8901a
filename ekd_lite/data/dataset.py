"""A torch dataset of somebody else, as a set of faces."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset
from tqdm import tqdm

from ekd_lite.data.decode import VERSION
from ekd_lite.data.faceset import images_digest, pixels_digest
from ekd_lite.data.indexing import Indices, index_tensor, one_index
from ekd_lite.data.pixels import as_bytes, to_floats, to_square
from ekd_lite.ops import check_image_size

LOOKED_AT = 16  # samples that are read before anything else, evenly spaced


class FaceDataset:
    """Any torch dataset of (image, label) as a set of faces, read when asked for.

    An image may be

    - a PIL image, of any mode; turned upright if it still bears an EXIF orientation;
    - an array of bytes, height x width x 3, or height x width for grey;
    - a tensor of bytes or of floats in [-1, 1], 3 x height x width, or 1 x height x width for grey.

    As from `ImageFolder`, images come out as bytes would, in steps of 2/255 from -1 to 1, and of
    another size than `image_size` they are scaled by Pillow's bicubic filter.

    Labels are taken from where they cost nothing: the `targets` or `labels` of the dataset (also
    below a `Subset` or `ConcatDataset`), or the second tensor of a `TensorDataset`, if they agree
    with the samples that are looked at. Otherwise every sample is read once, with a warning that
    says so and a bar on a terminal. They are numbered anew from 0 in their order, so that a subset
    of the people has no gaps.

    Augmentation inside of the dataset is allowed for in training; what is cached needs the same
    pixels at every reading. Readers in other processes get the dataset by `pickle`.

    Args:
        dataset: has a length and `dataset[i]`, which gives `(image, label)`; a label is a whole
            number of at least 0.
        image_size: side of the square images given out, a multiple of 16.
        identities: names of the people by the dataset's own labels, such as a list of 1,000 names;
            left out, the dataset's `classes`, if it has them.

    Attributes:
        labels: (N,) int64, 0..num_identities - 1.
        identities: the names by label; the dataset's own labels where it has no names.
        num_identities: number of people.

    Raises:
        ValueError: what is wrong with the dataset, one of its samples or its labels, in one line.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
        >>> faces = FaceDataset(TensorDataset(images, torch.tensor([3, 3, 5, 5, 9, 9])),
        ...                     image_size=32)
        >>> faces.labels.tolist(), faces.identities, faces.batch([0, 5]).shape
        ([0, 0, 1, 1, 2, 2], [3, 5, 9], torch.Size([2, 3, 32, 32]))
    """

    def __init__(
        self, dataset: Any, *, image_size: int, identities: Sequence[Any] | None = None
    ) -> None:
        check_image_size(image_size)
        self.image_size = image_size
        self.dataset = dataset
        self._length = _length(dataset)
        self._content: str | None = None
        looked_at = self._look()
        own = _labels(dataset, looked_at)
        names = _names(dataset) if identities is None else list(identities)
        numbers, labels = np.unique(own, return_inverse=True)
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.identities: list[Any] = numbers.tolist()
        if names is not None:
            if numbers[-1] >= len(names):
                raise ValueError(
                    f"the dataset has the label {numbers[-1]} and there are {len(names)} names of "
                    "identities: expected one for every label"
                )
            self.identities = [names[number] for number in self.identities]
        self.num_identities = len(self.identities)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        position = one_index(index, len(self))
        return self.batch([position])[0], int(self.labels[position])

    def batch(self, indices: Indices) -> Tensor:
        """Images in [-1, 1], (B, 3, image_size, image_size) float32.

        Raises:
            IndexError: an index that is none of this set.
            ValueError: a sample is none of those that the class takes; it is named.
        """
        rows = index_tensor(indices, len(self)).tolist()
        pictures = (self._pixels(row, _sample(self.dataset, row)) for row in rows)
        return to_floats(pictures, count=len(rows), size=self.image_size, channels=3)

    def at_size(self, image_size: int) -> FaceDataset | None:
        """The same images at another size; None if the dataset holds none as large."""
        check_image_size(image_size)
        rows = np.linspace(0, len(self) - 1, min(LOOKED_AT, len(self))).astype(int).tolist()
        if min(_side(_sample(self.dataset, row)[0]) for row in rows) < image_size:
            return None
        other = copy.copy(self)
        other.image_size, other._content = image_size, None
        return other

    def parameters(self) -> dict[str, object]:
        """What the pixels depend on, for the cache: a digest of all of them, so all are read once.

        Raises:
            ValueError: they are others at every reading, so that a cache would keep one draw.
        """
        if self._content is None:
            if images_digest(self) is None:
                raise ValueError(
                    "the dataset gives other images at every reading: leave the augmentation out "
                    "of what is to be cached"
                )
            self._content = pixels_digest(self, 1)
        kind = {"kind": "dataset", "decoder": VERSION, "image_size": self.image_size}
        return kind | {"images": len(self), "content": self._content}

    def _look(self) -> dict[int, int]:
        """Check some samples; their labels by index."""
        found, lowest, floats = {}, np.inf, False
        for row in np.linspace(0, len(self) - 1, min(LOOKED_AT, len(self))).astype(int).tolist():
            image, label = _sample(self.dataset, row)
            found[row] = _label(label, row)
            self._pixels(row, (image, label))
            if isinstance(image, Tensor) and image.is_floating_point():
                floats, lowest = True, min(lowest, float(image.min()))
        if floats and lowest >= 0:
            raise ValueError(
                f"no pixel of the {len(found)} images that were looked at is below 0: expected "
                "floats in [-1, 1], and these seem to lie in [0, 1]; give 2 * image - 1, which is "
                "torchvision's Normalize(0.5, 0.5), or bytes"
            )
        return found

    def _pixels(self, row: int, sample: tuple[Any, Any]) -> np.ndarray[Any, Any]:
        """Height x width x 3 bytes of the wanted size."""
        name = f"image {row} of the dataset"
        pixels = as_bytes(sample[0], name=name)
        size = self.image_size
        if pixels.shape[:2] == (size, size):
            return pixels
        return np.asarray(to_square(Image.fromarray(pixels), size, lambda: name))


def _side(image: Any) -> int:
    """The shorter side of an image in any of the forms, pixels."""
    if isinstance(image, Image.Image):
        return min(image.size)
    return min(image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2])


def _length(dataset: Any) -> int:
    kind = type(dataset).__name__
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise ValueError(
            f"{kind} is no map-style dataset: expected len(dataset) and dataset[i], since batches "
            "with genuine pairs need images by number"
        )
    try:
        length = len(dataset)
    except TypeError as error:
        raise ValueError(f"{kind} has no length: {error}") from None
    if not length:
        raise ValueError(f"{kind} holds no image")
    return length


def _sample(dataset: Any, row: int) -> tuple[Any, Any]:
    sample = dataset[row]
    if isinstance(sample, tuple | list) and len(sample) == 2:
        return sample[0], sample[1]
    kind = type(sample).__name__
    if isinstance(sample, tuple | list):
        kind += f" of {len(sample)}"
    elif isinstance(sample, dict):
        kind += f" with {', '.join(map(repr, list(sample)[:5]))}"
    raise ValueError(f"sample {row} of the dataset is a {kind}: expected (image, label)")


def _label(label: Any, row: int) -> int:
    """A label as a number, or a ValueError that says what it is instead."""
    value = label
    if isinstance(label, Tensor | np.ndarray | np.generic) and np.ndim(label) == 0:
        value = label.item()
    if isinstance(value, bool) or not isinstance(value, int):
        shape = f" of shape {tuple(label.shape)}" if np.ndim(label) else f" {value!r}"
        raise ValueError(
            f"the label of sample {row} is a {type(label).__name__}{shape}: expected the number of "
            "its identity, a whole number of at least 0"
        )
    if value < 0:
        raise ValueError(f"the label of sample {row} is {value}: expected a number of at least 0")
    return value


def _labels(dataset: Any, looked_at: dict[int, int]) -> np.ndarray[Any, Any]:
    """The dataset's own labels, (N,) int64."""
    known = _known_labels(dataset)
    if known is not None and len(known) == len(dataset):
        if known.min() < 0:
            _label(known.min(), int(known.argmin()))
        if all(known[row] == label for row, label in looked_at.items()):
            return known
    warnings.warn(
        f"{type(dataset).__name__} has no `targets` or `labels` that agree with its samples: all "
        f"{len(dataset):,} samples are read once for theirs",
        stacklevel=4,
    )
    rows = tqdm(range(len(dataset)), desc="reading labels", disable=None, leave=False)
    return np.fromiter((_label(_sample(dataset, row)[1], row) for row in rows), np.int64)


def _known_labels(dataset: Any) -> np.ndarray[Any, Any] | None:
    """Labels that can be had without reading an image; None if there are none."""
    if isinstance(dataset, Subset):
        inner = _known_labels(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices, np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [_known_labels(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None
    if isinstance(dataset, TensorDataset):
        given: Any = dataset.tensors[1] if len(dataset.tensors) == 2 else None
    else:
        given = getattr(dataset, "targets", None)
        given = getattr(dataset, "labels", None) if given is None else given
    try:
        values = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
    except (TypeError, ValueError):
        return None
    return values.astype(np.int64) if values.ndim == 1 and values.dtype.kind in "iu" else None


def _names(dataset: Any) -> list[Any] | None:
    """The names of a dataset's labels, which are the same in all its parts.

    Raises:
        ValueError: its parts give one label to several people.
    """
    listed = list(_parts(dataset))
    found = [list(part.classes) for part in listed if _has_names(part)]
    if not found:
        return None
    longest = max(found, key=len)
    if len(found) < len(listed) or any(names != longest[: len(names)] for names in found):
        raise ValueError(
            "the parts of the ConcatDataset number their people each for itself (their `classes` "
            "differ), so that two people would have one label: number them alike first"
        )
    return longest


def _parts(dataset: Any) -> Iterator[Any]:
    if isinstance(dataset, Subset):
        yield from _parts(dataset.dataset)
    elif isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _parts(part)
    else:
        yield dataset


def _has_names(dataset: Any) -> bool:
    names = getattr(dataset, "classes", None)
    return isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
