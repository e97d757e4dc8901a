"""Processes and devices: joining a group under torchrun, and agreeing on what happens next.

    torchrun --standalone --nproc-per-node 2 -m ekd_lite train --out runs/student ...

starts two processes that find one another through the environment. If one of them dies the others
end with an error within the timeout, and torchrun with them; a supervisor starts the same command
again, which goes on from the last checkpoint:

    until torchrun --standalone --nproc-per-node 2 -m ekd_lite train ...; do sleep 1; done

(torchrun's own `--max-restarts` reconnects the survivors, which was seen to hang; a new start of
everything was not.) Gloo carries tensors on the CPU, NCCL those on GPUs.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import io
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ekd_lite.files import locked_folder, remove_leftovers
from ekd_lite.parallel import broadcast_bytes, max_over_ranks, rank, world_size


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is one, each process of a node its own.

    Raises:
        ValueError: no such device here.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0")) if "WORLD_SIZE" in os.environ else None
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        try:
            is_there = not torch.zeros(1, device=device).is_meta
        except (RuntimeError, AssertionError, NotImplementedError):
            is_there = False
        if not is_there:
            raise ValueError(f"device {name!r} was asked for, but this torch has none: use cpu")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {name!r} was asked for, but torch sees no CUDA GPU")
        if local_rank is not None and ":" not in name:
            device = torch.device("cuda", local_rank)
        if (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"process {local_rank} of this node asks for {device}, but torch sees "
                f"{torch.cuda.device_count()} GPU(s): start one process a GPU"
            )
    return device


@contextlib.contextmanager
def process_group(device: torch.device, *, timeout: float = 120.0) -> Iterator[None]:
    """Join the group that torchrun announces; nothing happens outside torchrun or inside a group.

    Args:
        device: of this process.
        timeout: seconds after which a process that waits for a lost one gives up. torch waits half
            an hour.

    Raises:
        ConnectionError: another process has ended or does not answer.
    """
    if "WORLD_SIZE" not in os.environ or in_group():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            timeout=datetime.timedelta(seconds=timeout),
        )
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # they hold DistributedDataParallel, see below
        # Gloo has no type of its own for its errors: mostly the path of its source in the text.
        if isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError)
            and any(words in str(error) for words in ("gloo", "caused pair closure"))
        ):
            raise ConnectionError(
                f"process {os.environ.get('RANK')} lost another process of this run, or heard "
                f"nothing from it for {timeout:g} seconds; the other's own message, if it left "
                "one, says why. The same command goes on from the last checkpoint "
                f"({str(error).splitlines()[0]})"
            ) from error
        raise
    finally:
        # If DistributedDataParallel outlives this it ends the group itself, holding Python's lock
        # while it waits for gloo's threads, which may wait for that lock: processes hung for good.
        gc.collect()
        if in_group():
            dist.destroy_process_group()


def agree(number: int) -> int:
    """The largest of all processes' numbers: what one wants, all do in the same step."""
    if world_size() == 1:
        return number
    return int(max_over_ranks(torch.tensor(number)))


def rng_state() -> dict[str, Any]:
    """State of torch's generators of this process."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"rng": torch.get_rng_state(), "cuda_rng": cuda}


def set_rng_state(state: dict[str, Any]) -> None:
    """Go back to a `rng_state`."""
    torch.set_rng_state(state["rng"].cpu())
    if torch.cuda.is_available() and len(state["cuda_rng"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda_rng"]])


def to_bytes(state: dict[str, Any]) -> bytes:
    """Tensors, numbers and text as bytes, read back by `from_bytes`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read `to_bytes`; nothing in it is executed."""
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    return state


def in_group() -> bool:
    """Whether this process belongs to a group, be it of one."""
    return dist.is_available() and dist.is_initialized()


def lock_folder(out: Path, stack: contextlib.ExitStack) -> None:
    """Lock the run's folder; the first process does, and all end if it cannot."""
    problem: Exception | None = None
    if rank() == 0:
        try:
            stack.enter_context(locked_folder(out))
            remove_leftovers(out)
        except (ValueError, OSError) as error:
            problem = error
    said = broadcast_bytes(str(problem or "").encode())
    if said:
        raise problem or ValueError(said.decode())
