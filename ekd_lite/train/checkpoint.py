"""Checkpoints that are whole or not there, and are never executed."""

from __future__ import annotations

import hashlib
import os
import secrets
import warnings
from pathlib import Path
from typing import Any

import torch

from ekd_lite.files import write_atomically
from ekd_lite.train.distributed import from_bytes, to_bytes

CHECKPOINT_MAGIC = b"ekd_lite.checkpoint.2\n"


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Save a training state; the one before it is kept as `NAME.previous`.

    Raises:
        OSError: it could not be written (a full disk); the checkpoints that are there stay whole.
    """
    payload = to_bytes(state)
    data = CHECKPOINT_MAGIC + hashlib.sha256(payload).digest() + payload
    if path.exists():
        _keep(path, path.with_suffix(".previous"))
    write_atomically(path, data)


def _keep(path: Path, previous: Path) -> None:
    """Give the newest checkpoint a second name, so that at no moment there is none."""
    # Of a form that `remove_leftovers` knows, should this process be killed before the rename.
    link = previous.with_name(f".{previous.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        link.write_bytes(path.read_bytes())
    os.replace(link, previous)


def read_checkpoint(path: Path) -> bytes | None:
    """The newest checkpoint that is whole, for `from_bytes`; None if there is none.

    If the newest is damaged it is named in a warning and the one before it is used.

    Raises:
        ValueError: checkpoints are there, but every one of them is damaged, or another program's.
    """
    faults: list[str] = []
    candidates = [p for p in (path, path.with_suffix(".previous")) if p.exists()]
    for candidate in candidates:
        data = candidate.read_bytes()
        start = len(CHECKPOINT_MAGIC) + 32
        payload = data[start:]
        digest = data[len(CHECKPOINT_MAGIC) : start]
        if data.startswith(CHECKPOINT_MAGIC) and hashlib.sha256(payload).digest() == digest:
            for fault in faults:
                warnings.warn(f"{fault}: not used", stacklevel=2)
            return payload
        head = data[: len(CHECKPOINT_MAGIC)]
        is_ours = CHECKPOINT_MAGIC.startswith(head)  # cut off, perhaps
        why = "is damaged (its checksum is wrong)" if is_ours else "was not written by ekd_lite"
        faults.append(f"{candidate} {why}")
    if faults:
        raise ValueError(
            f"{'; '.join(faults)}: every checkpoint of this run is unusable; delete or move "
            "them to start anew"
        )
    return None


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Load what `read_checkpoint` finds."""
    payload = read_checkpoint(path)
    return None if payload is None else from_bytes(payload, device=device)
