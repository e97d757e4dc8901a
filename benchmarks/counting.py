"""What a step asks of a device: how many operations, and how often the host must wait for one.

On a GPU every operation is a launch of some microseconds, and the host runs ahead of the device,
unless it asks for a number. On a CPU nothing waits, but the same calls can be counted.

Launches: operations of aten that reach the dispatcher, views and bare allocations left out; a
`_foreach_` operation is one.

Waits: `item`, `bool`, `int` and `float` of a tensor; `tolist`, `numpy` and `cpu`; `nonzero`,
`unique`, `bincount`, `masked_select`, `equal` and indexing by booleans, whose sizes the host must
learn; `new_tensor`, and `torch.tensor` with a device, which copy a list there and wait for it. Not
seen: `to(device)` without `non_blocking`, for on a CPU it does nothing. Numbers that are on the CPU
anyway are left out: step counters, of an optimizer, of a loss that draws, of a head that samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.comparing import as_on_a_gpu, small_state
from benchmarks.timing import Row
from ekd_lite.distill import parse_method
from ekd_lite.train import Batch, TrainState, train_step
from ekd_lite.train.objective import identity_loss

FETCHES = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.new_tensor}
SIZED = (
    "nonzero", "_local_scalar_dense", "unique_dim", "_unique", "_unique2", "unique_consecutive",
    "bincount", "masked_select", "equal", "repeat_interleave",
)  # fmt: skip


class Counts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is open.

    Attributes:
        launches: operation -> how often.
        waits: call -> how often.
    """

    def __init__(self, ignored: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._ignored = {tensor.data_ptr() for tensor in ignored}
        self._functions = _Functions(self.waits)

    def __enter__(self) -> Counts:
        self._functions.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._functions.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        is_view = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
        if not is_view and not name.startswith(("empty", "new_empty", "detach", "profiler::")):
            self.launches[name] += 1
        if name in SIZED and not (
            name == "_local_scalar_dense" and args[0].data_ptr() in self._ignored
        ):
            self.waits[name] += 1
        if name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        ):
            self.waits[f"{name} by booleans"] += 1
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """Calls that copy to the host without an operation of aten."""

    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FETCHES or (func is torch.tensor and "device" in (kwargs or {})):
            self.waits[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def count(run: Callable[[], object], state: TrainState) -> Counts:
    """What one call asks for."""
    steps = [v["step"] for v in state.optimizer.state.values() if "step" in v]
    for module in (state.head, *state.distillers.values()):
        steps += [b for name, b in module.named_buffers() if name in ("step", "steps")]
    with Counts(steps) as counts:
        run()
    return counts


def bare_step(state: TrainState, batch: Batch) -> None:
    """Net, head, loss, backward, update, and nothing else."""
    embeddings = state.backbone(batch.images).float()
    loss = identity_loss(state.head, embeddings, batch.labels)
    weights = parse_method(state.config.method)
    for name, distiller in state.distillers.items():
        loss = loss + weights[name] * distiller(embeddings, batch.teacher_embeddings, batch.labels)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()


def bench_launches(*, quick: bool) -> Iterator[Row]:
    """Launches of a step, counted, not timed; the bound is a bare loop with the same loss."""
    methods = ["none", "fitnet", "ekd", "ekd_fine", "ekd_gallery", "triplet", "pwr"]
    cases = [(method, 0.0) for method in methods] + [("none", 0.5)]
    for method, share in cases[2:3] if quick else cases:
        with as_on_a_gpu():
            state, batch = small_state(method, torch.device("cpu"), share=share)
            for number in range(3):
                train_step(state, batch(number))
            group = batch(5)
            ours = count(lambda s=state, b=group: train_step(s, b), state)
            bare = count(lambda s=state, b=group: bare_step(s, b), state)
        counts = {"ours": float(ours.launches.total()), "bound": float(bare.launches.total())}
        name = "PartialFC" if share else method
        yield Row(
            f"launches, {name}", "N=24", counts, goal="<= 1.1 bound",
            note=f"counts, no milliseconds; the host waits {ours.waits.total()} time(s)",
        )  # fmt: skip
