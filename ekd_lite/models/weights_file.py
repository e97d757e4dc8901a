"""The tensors of a checkpoint that somebody else wrote; nothing in it is executed."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
# Where training programs put the weights of the net inside a checkpoint.
INSIDE = ("state_dict", "state_dict_backbone", "model_state_dict", "model", "backbone", "net")
# What torch, pickletools and zipfile raise over a damaged file.
READING_FAILED = (
    *(SafetensorError, OSError, RuntimeError, EOFError),
    *(ValueError, KeyError, IndexError, AttributeError, TypeError, zipfile.BadZipFile),
    *(MemoryError, OverflowError, AssertionError, struct.error, zlib.error),
)
MAX_PICKLE = 64 * 2**20  # bytes of a checkpoint that are not tensors
MAX_DEPTH = 16  # dictionaries inside dictionaries


def read_weights(
    path: str | Path, *, shapes_only: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a checkpoint by name.

    A pickle is read with `weights_only=True`. Classes that it names and torch does not know, such
    as the callbacks and settings that PyTorch Lightning stores beside the weights, become empty
    objects: no module is imported and no constructor runs.

    Args:
        path: a .safetensors file, or what `torch.save` wrote (.pt, .pth, .ckpt, .bin).
        shapes_only: give tensors without memory, on torch's device "meta".

    Returns:
        The tensors, on the CPU, from the "state_dict" in it if there is one; and the file's own
        metadata, empty for a pickle.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, holds no tensors, or claims more than its size can hold.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: expected a file ({', '.join(SUFFIXES)})")
    try:
        if path.suffix.lower() == ".safetensors":
            return _read_safetensors(path, shapes_only)
        content = _load_pickle(path, "meta" if shapes_only else "cpu")
        tensors = _tensors_of(content, {})
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is damaged, or holds a whole net or other "
            "objects, which would be executed; where its code is, "
            "`torch.save(net.state_dict(), path)` writes the weights alone"
        ) from error
    except READING_FAILED as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} cannot be read as a checkpoint: {first}") from error
    if not tensors:
        inside = list(content)[:8] if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{path} holds no tensors by name, but {inside}: expected a state dict, as "
            "`torch.save(net.state_dict(), path)` writes it"
        )
    claimed = sum(t.numel() * t.element_size() for t in tensors.values())
    if claimed > 2 * path.stat().st_size + 2**20:  # a view may show a stored number many times
        raise ValueError(
            f"{path} is damaged: its tensors claim {claimed:,} bytes, the file has "
            f"{path.stat().st_size:,}"
        )
    return tensors, {}


def _read_safetensors(path: Path, shapes_only: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        names, metadata = file.keys(), dict(file.metadata() or {})
        if shapes_only:
            shapes = {name: file.get_slice(name).get_shape() for name in names}
            return {n: torch.empty(s, device="meta") for n, s in shapes.items()}, metadata
        return {name: file.get_tensor(name) for name in names}, metadata


def _tensors_of(
    content: Any, known: dict[int, dict[str, Tensor]], depth: int = 0
) -> dict[str, Tensor]:
    """The named tensors of a state dict, or of the one inside a training checkpoint.

    Args:
        content: what the file holds.
        known: what was found in a dictionary, by its id: each is looked at once, even if the file
            shows it many times.
        depth: how many dictionaries `content` is inside of.
    """
    if not isinstance(content, dict):
        return {}
    if depth > MAX_DEPTH:
        raise ValueError(
            f"its dictionaries are more than {MAX_DEPTH} deep, or hold themselves; "
            "`torch.save(net.state_dict(), path)` writes the weights alone"
        )
    if id(content) not in known:
        known[id(content)] = _tensors_in(content, known, depth)
    return known[id(content)]


def _tensors_in(
    content: dict[Any, Any], known: dict[int, dict[str, Tensor]], depth: int
) -> dict[str, Tensor]:
    for name in INSIDE:
        if isinstance(content.get(name), dict):
            return _tensors_of(content[name], known, depth + 1)
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:  # under another name, if it is the only one
        found = [_tensors_of(v, known, depth + 1) for v in content.values()]
        parts = [part for part in found if part]
        tensors = parts[0] if len(parts) == 1 else {}
    return tensors


def _load_pickle(path: Path, device: str) -> Any:
    """What `torch.save` wrote, with empty objects in place of unknown classes."""
    unknown = [_empty_class(*name.split(" ", 1)) for name in _named_globals(path)]
    with _allowed(unknown):
        return torch.load(path, map_location=device, weights_only=True)


def _named_globals(path: Path) -> set[str]:
    """Module and name of all that the pickle wants to import, read without unpickling it."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            streams = [pickletools.genops(file) for _ in range(4)]  # as torch wrote before 1.6
            found = {str(a) for ops in streams for op, a, _ in ops if op.name == "GLOBAL"}
        return _of_others(found)
    with zipfile.ZipFile(path) as archive:
        inflated = sum(item.file_size for item in archive.infolist())
        if inflated > 2 * path.stat().st_size + 2**20:
            raise RuntimeError(f"it would grow to {inflated:,} bytes when it is read")
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise RuntimeError(
                "it is a TorchScript program, which would be executed; who trusts it gives "
                "Teacher what torch.jit.load makes of it"
            )
        if any(archive.getinfo(name).file_size > MAX_PICKLE for name in names):
            raise RuntimeError(f"its pickle is larger than {MAX_PICKLE:,} bytes")
        data = b"".join(archive.read(name) for name in names[:1])
    return _of_others({str(a) for op, a, _ in pickletools.genops(data) if op.name == "GLOBAL"})


def _of_others(names: set[str]) -> set[str]:
    """Without what torch reads by itself."""
    ours = ("torch", "collections", "_codecs", "numpy", "builtins", "__builtin__")
    return {name for name in names if name.split(" ")[0].split(".")[0] not in ours}


def _empty_class(module: str, name: str) -> type:
    """A class of that name which keeps nothing and does nothing."""

    class Empty(dict[Any, Any]):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

        def __setstate__(self, _: Any) -> None:
            pass

        def append(self, _: Any) -> None:
            pass

        extend = append

    Empty.__module__, Empty.__name__, Empty.__qualname__ = module, name, name
    return Empty


@contextlib.contextmanager
def _allowed(classes: list[type]) -> Iterator[None]:
    """Let torch's reader meet these classes inside the block, and none of them afterwards."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(classes)  # type: ignore[arg-type]
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
