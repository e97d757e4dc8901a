"""The teacher's rows of a whole set, looked up by person, on the host and on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.ops import is_free_to_fetch, unit_rows

MAX_ON_DEVICE = 1 << 32  # bytes of rows that a GPU keeps; of a larger table rows are sent


class GalleryRows:
    """No buffers: millions of rows belong neither into a checkpoint nor, all, onto a GPU.

    Args:
        rows: embeddings of the set, (G, D), on the CPU or mapped from a file; not normalised.
        labels: their identities, (G,), on the CPU.
    """

    def __init__(self, rows: Tensor, labels: Tensor) -> None:
        self.rows, self.labels = rows, labels
        self._sorted, self._order = labels.sort(stable=True)
        self._largest = int(labels.unique(return_counts=True)[1].max())  # type: ignore[no-untyped-call]
        self._copies: dict[tuple[torch.device, bool], list[Tensor]] = {}

    def of_people(self, labels: Tensor, shift: float, *, most: int) -> tuple[Tensor, Tensor]:
        """Places of the images of each image's person, and which of them are any: two (N, M).

        Of a person with more than `most` images every (count / most)-th is taken.

        Args:
            labels: identities of N images.
            shift: 0..1, which of those between two.
            most: images of a person.
        """
        is_free = is_free_to_fetch(labels)
        # On a device 16 bytes a row of the gallery.
        names, order = (self._sorted, self._order) if is_free else self._on(labels.device)
        first = torch.searchsorted(names, labels)
        count = torch.searchsorted(names, labels, right=True) - first
        if is_free:
            most = min(most, int(count.max())) if len(count) else 0
        else:  # columns to spare: how many are needed only the device knows
            most = min(most, self._largest)
        stride = (count.double() / max(most, 1)).clamp(min=1)[:, None]
        place = ((torch.arange(most, device=labels.device) + shift) * stride).floor().long()
        is_any = place < count[:, None]
        place = (first[:, None] + place).clamp(max=len(order) - 1)
        return order[place], is_any

    def read(self, places: Tensor, like: Tensor) -> Tensor:
        """Unit rows at some places, (..., D), where and as other embeddings are."""
        table = self.rows
        if not is_free_to_fetch(like) and table.nbytes <= MAX_ON_DEVICE:
            table = self._on(like.device, rows=True)[0]
        # Sending need not wait; what comes from a device must be there before it is looked at.
        is_sent = places.device.type == "cpu"
        there = places.flatten().to(table.device, non_blocking=is_sent)
        rows = unit_rows(table[there].to(like.device, like.dtype, non_blocking=True))
        return rows.view(*places.shape, rows.shape[1])

    def _on(self, device: torch.device, *, rows: bool = False) -> list[Tensor]:
        """The rows, or their order by label, copied to a device at the first call."""
        key = device, rows
        if key not in self._copies:
            tables = [self.rows] if rows else [self._sorted, self._order]
            self._copies[key] = [table.to(device) for table in tables]
        return self._copies[key]
