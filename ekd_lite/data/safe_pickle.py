"""Read lists of bytes, booleans and numpy arrays out of a pickle without running anything in it.

A pickle is a program: `pickle.load` of a file from the internet runs whatever its author wished.
Verification sets (`.bin`) come as pickles nevertheless. Here

1. the file is first walked through opcode by opcode (by the tables of `pickletools`, which run
   nothing): only opcodes that genuine sets use pass, and no number in it may ask for memory that
   the file itself does not have;
2. then it is unpickled with every name it could call replaced by a stand-in of this module; no
   name is ever imported, neither numpy nor the builtins, and an unknown one is refused.

All protocols, 0 to 5, and pickles of Python 2 are read.
"""

from __future__ import annotations

import io
import itertools
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

_OPCODES = frozenset(
    [
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "MEMOIZE", "PUT", "BINPUT"),
        *("LONG_BINPUT", "GET", "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "INT"),
        *("BININT", "BININT1", "BININT2", "LONG", "LONG1", "STRING", "BINSTRING"),
        *("SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "GLOBAL", "STACK_GLOBAL"),
        *("REDUCE", "BUILD"),
    ]
)
_OPCODE = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_MEMO = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
_DTYPES = {"b1": "|b1", "u1": "|u1", "i1": "|i1", "i4": "<i4", "i8": "<i8", "O8": "O", "O": "O"}


def load_plain(data: bytes) -> Any:
    """What a pickle holds, out of None, bool, int, str, bytes, list, tuple and numpy arrays.

    Raises:
        ValueError: it is damaged, or holds or calls anything else.
    """
    try:
        _check(data)
        return _finished(_PlainUnpickler(io.BytesIO(data), encoding="bytes").load())
    except Exception as error:  # a damaged pickle raises whatever its last whole opcode meets
        raise ValueError(f"{type(error).__name__}: {str(error) or 'damaged'}"[:300]) from error


def _check(data: bytes) -> None:
    file = io.BytesIO(data)
    for count in itertools.count():
        position = file.tell()
        opcode = _OPCODE.get(file.read(1))
        if opcode is None:
            raise ValueError(f"no opcode at offset {position}")
        if opcode.name not in _OPCODES:
            raise ValueError(f"opcode {opcode.name} at offset {position} is not allowed here")
        if opcode.name == "STOP":
            return
        argument = None
        if opcode.name == "STRING":  # pickletools takes it for ASCII, and images are not
            file.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(file)
        # The memo is an array as long as its largest number: 4 bytes could ask for 64 GB.
        if opcode.name in _MEMO and int(argument or 0) > count:
            raise ValueError(f"memo number {argument} at offset {position} is out of range")


class _Call:
    """A stand-in for something callable; it cannot be changed by what is in the pickle."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise ValueError("attributes of callables are not changed")


class _DType:
    __slots__ = ("code",)

    def __init__(self, code: Any, *_: Any) -> None:
        text = code.decode() if isinstance(code, bytes) else code
        if text not in _DTYPES:
            raise ValueError(f"arrays of {text!r} are not expected here")
        self.code = _DTYPES[text]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in (">", b">"):
            raise ValueError("big-endian arrays are not expected here")


class _Array:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, content = state
        self.value = _array(content, dtype, shape)


def _array(content: Any, dtype: Any, shape: Any) -> Any:
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple):
        raise ValueError("damaged array")
    if len(shape) > 1:
        raise ValueError(f"arrays of shape {shape} are not expected here")
    if dtype.code == "O":  # an array of objects is a list here
        if not isinstance(content, list) or len(content) != math.prod(shape):
            raise ValueError("damaged array of objects")
        return content
    raw = _as_bytes(content)
    return np.frombuffer(raw, dtype.code).reshape(shape)


def _as_bytes(content: Any, *encoding: Any) -> bytes:
    if isinstance(content, str) and encoding in ((), ("latin1",), ("latin-1",)):
        return content.encode("latin-1")
    if isinstance(content, bytes | bytearray):
        return bytes(content)
    raise ValueError(f"expected bytes, got {type(content).__name__}")


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, ()).item()


def _empty_bytes(*arguments: Any) -> bytes:
    return _as_bytes(*arguments) if arguments else b""


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Any:
    return _array(content, dtype, shape)


def _never(*_: Any) -> NoReturn:
    raise ValueError("numpy.ndarray is named in genuine sets, and never called")


_NAMES: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _as_bytes,
    "builtins.bytes": _empty_bytes,
    "builtins.bytearray": _empty_bytes,
    "__builtin__.bytes": _empty_bytes,
    "__builtin__.bytearray": _empty_bytes,
    "numpy.ndarray": _never,
    "numpy.dtype": _DType,
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray._reconstruct"] = lambda *_: _Array()
    _NAMES[f"{_core}.multiarray.scalar"] = _scalar
    _NAMES[f"{_core}.numeric._frombuffer"] = _from_buffer


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in _NAMES:
            raise ValueError(f"the pickle asks for {full}, which is never called here")
        return _Call(_NAMES[full])


def _finished(value: Any, depth: int = 0) -> Any:
    """Stand-ins replaced by their arrays; anything else that is not plain is refused."""
    if depth > 4:
        raise ValueError("nested deeper than a verification set")
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without content")
        value = value.value
    if isinstance(value, list | tuple):
        return [_finished(item, depth + 1) for item in value]
    if isinstance(value, bytearray):
        return bytes(value)
    if value is None or isinstance(value, bool | int | str | bytes | np.ndarray):
        return value
    raise ValueError(f"{type(value).__name__} is not expected here")
