"""All that a run leaves, in values that `==` compares bit by bit."""

import safetensors.torch
import torch

from ekd_lite.train.checkpoint import load_checkpoint
from ekd_lite.train.distributed import from_bytes


def as_bytes(value):
    """The state as nested plain values, tensors by their bytes."""
    if isinstance(value, dict):
        return {key: as_bytes(item) for key, item in value.items() if key != "seconds"}
    if isinstance(value, (list, tuple)):
        return [as_bytes(item) for item in value]
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.contiguous().numpy().tobytes()
    return value


def outcome(folder):
    """State, model, log and configuration of a finished run, without the time it took."""
    saved = load_checkpoint(folder / "checkpoint.pt")
    # Equal values may be written with other bytes: pickle notes which strings are one object.
    saved["ranks"] = [from_bytes(own.numpy().tobytes()) for own in saved["ranks"]]
    state = as_bytes(saved)
    assert state["step"] == 40
    model = as_bytes(safetensors.torch.load_file(folder / "model.safetensors"))
    files = [(folder / name).read_bytes() for name in ("log.jsonl", "log.csv", "config.json")]
    return {"state": state, "model": model, "files": files}
