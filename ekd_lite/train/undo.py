"""What a step that is not finite leaves as it was, without a copy of every large table.

A method may keep a table as large as its classifier: 175 MB for the 85,742 people of MS1MV2 and
embeddings of 512 numbers. Two kinds of tables need no copy before each step and no broadcast from
the first process at each forward pass (`DistributedDataParallel` does that to every buffer):

* constants: buffers of a loss that are not in its state_dict (`persistent=False`), such as the
  teacher's prototypes;
* tables of which a batch changes only the rows of its labels, on every process alike. A loss names
  them in `rows_by_label`; of these the rows are copied.

Everything else, running statistics, thresholds, queues, is small, and is copied whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ekd_lite.parallel import gather_batch


class Undo:
    """The buffers of a run as they are now.

    Args:
        others: modules whose buffers are all copied.
        distillers: the losses.
        labels: of the batches that are about to come, of this process.
    """

    def __init__(
        self, others: Sequence[nn.Module], distillers: nn.Module, labels: Sequence[Tensor]
    ) -> None:
        buffers = dict(distillers.named_buffers())
        constant, by_label = tables(distillers)
        self._now = [buffer for module in others for buffer in module.buffers()]
        self._now += [b for name, b in buffers.items() if name not in {*constant, *by_label}]
        self._then = _copies(self._now)
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []
        if by_label:
            # Rows may come twice: without those, a GPU would have to say how many are left.
            rows = gather_batch(torch.cat(list(labels)))
            self._rows = [(buffers[name], rows, buffers[name][rows]) for name in by_label]

    @torch.no_grad()
    def restore(self) -> None:
        """Bring them back, as often as is needed."""
        torch._foreach_copy_(self._now, self._then)
        for table, rows, then in self._rows:
            table[rows] = then


def _copies(buffers: list[Tensor]) -> list[Tensor]:
    """Copies of many small tensors; those of one type together, a launch for all on a GPU."""
    kinds = [(buffer.dtype, buffer.device) for buffer in buffers]
    found: dict[int, Tensor] = {}
    for kind in set(kinds):
        places = [i for i, own in enumerate(kinds) if own == kind]
        some = [buffers[i] for i in places]
        is_number = kind[0] != torch.bool
        copies = torch._foreach_mul(some, 1) if is_number else [x.clone() for x in some]
        found.update(zip(places, copies, strict=True))
    return [found[i] for i in range(len(buffers))]


def tables(distillers: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the buffers that stay as they are, and of those that change by rows."""
    kept = distillers.state_dict().keys()
    constant = [name for name, _ in distillers.named_buffers() if name not in kept]
    by_label = [
        f"{path}.{name}" if path else name
        for path, module in distillers.named_modules()
        for name in getattr(module, "rows_by_label", ())
    ]
    return constant, by_label


def not_sent(objective: nn.Module) -> list[str]:
    """Names of the buffers that the first process need not send to the others in every step.

    Those of our heads and losses are made of the gathered batch, or drawn alike, on every process.
    A batch norm does not look at its running statistics in training; without `sync_batch_norm`
    those of each process are of its own images, and those of the first are saved. What a net or a
    loss of your own keeps is sent.
    """
    return [
        f"{path}.{name}"
        for path, module in objective.named_modules()
        if isinstance(module, _BatchNorm) or type(module).__module__.startswith("ekd_lite.")
        for name, _ in module.named_buffers(recurse=False)
    ]
