"""Read lists of bytes, booleans and numpy arrays out of a pickle without running anything in it.

A pickle is a program: `pickle.load` of a file from the internet runs whatever its author wished.
Verification sets (`.bin`) come as pickles nevertheless. Here

1. the file is first walked through opcode by opcode (by the tables of `pickletools`, which run
   nothing): only opcodes that genuine sets use pass, and no number in it may ask for memory that
   the file itself does not have;
2. then it is unpickled with every name it could call replaced by a stand-in of this module; no
   name is ever imported, neither numpy nor the builtins, and an unknown one is refused. A short
   file can call thousands of times for copies of what it holds once; all copies together may not be
   larger than twice the file;
3. lists that are parts of one another by reference (a billion items in some hundred bytes) are
   walked through once each.

So time and memory grow with the size of the file, and no faster. All protocols, 0 to 5, and pickles
of Python 2 are read.
"""

from __future__ import annotations

import functools
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
        *("BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "STRING"),
        *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BYTEARRAY8", "UNICODE"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "GLOBAL", "STACK_GLOBAL"),
        *("REDUCE", "BUILD"),
    ]
)
_OPCODE = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_MEMO = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
_DTYPES = {code: f"<{code}" for code in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8")}
_DTYPES |= {"b1": "|b1", "u1": "|u1", "i1": "|i1", "O8": "O", "O": "O"}
_MAX_NAME = 64  # characters of anything that names a type or a function
_MAX_DEPTH = 4  # of lists in lists


def load_plain(data: bytes) -> Any:
    """What a pickle holds, of None, bool, int, float, str, bytes, list, tuple and numpy arrays.

    Raises:
        ValueError: it is damaged, holds or calls anything else, or would grow beyond its size.
    """
    try:
        _check(data)
        budget = _Budget(2 * len(data) + 1024)
        return _finished(_PlainUnpickler(io.BytesIO(data), budget).load(), budget, {})
    except Exception as error:  # a damaged pickle raises whatever its last whole opcode meets
        raise ValueError(f"{type(error).__name__}: {str(error) or 'damaged'}"[:300]) from error


class _Budget:
    """Bytes that may still be copied."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError("it grows to many times its size when it is read")


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
        text = _short(code)
        if text not in _DTYPES:
            raise ValueError(f"arrays of {text!r} are not expected here")
        self.code = _DTYPES[text]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in (">", b">"):
            raise ValueError("big-endian arrays are not expected here")


class _Array:
    __slots__ = ("_budget", "value")

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, content = state
        self.value = _array(self._budget, content, dtype, shape)


def _short(name: Any) -> str:
    if not isinstance(name, str | bytes) or len(name) > _MAX_NAME:
        raise ValueError("damaged name")
    return name.decode() if isinstance(name, bytes) else name


def _array(budget: _Budget, content: Any, dtype: Any, shape: Any, *_: Any) -> Any:
    """A flat array, or for one of objects a list; cv2.imencode gives images of shape (n, 1)."""
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple):
        raise ValueError("damaged array")
    if not all(
        isinstance(side, int) and side >= 0 for side in shape
    ):  # numpy reads -1 as "the rest"
        raise ValueError("an array of no possible shape")
    if len(shape) > 2 or (len(shape) == 2 and 1 not in shape):
        raise ValueError(f"arrays of {len(shape)} dimensions are not expected here")
    if dtype.code == "O":
        if not isinstance(content, list) or len(content) != math.prod(shape):
            raise ValueError("damaged array of objects")
        return content
    array = np.frombuffer(_as_bytes(budget, content), dtype.code)
    return array.reshape(shape).reshape(-1)


def _as_bytes(budget: _Budget, content: Any, *encoding: Any) -> bytes:
    if isinstance(content, str) and encoding in ((), ("latin1",), ("latin-1",)):
        budget.spend(len(content))
        return content.encode("latin-1")
    if isinstance(content, bytearray):
        budget.spend(len(content))
        return bytes(content)
    if isinstance(content, bytes):
        return content
    raise ValueError(f"expected bytes, got {type(content).__name__}")


def _empty_bytes(budget: _Budget, *arguments: Any) -> bytes:
    return _as_bytes(budget, *arguments) if arguments else b""


def _scalar(budget: _Budget, dtype: Any, content: Any) -> Any:
    array = _array(budget, content, dtype, ())
    return array[0].item()


def _dtype(_: _Budget, *arguments: Any) -> _DType:
    return _DType(*arguments)


def _new_array(budget: _Budget, *_: Any) -> _Array:
    return _Array(budget)


def _never(*_: Any) -> NoReturn:
    raise ValueError("numpy.ndarray is named in genuine sets, and never called")


_NAMES: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _as_bytes,
    "builtins.bytes": _empty_bytes,
    "builtins.bytearray": _empty_bytes,
    "__builtin__.bytes": _empty_bytes,
    "__builtin__.bytearray": _empty_bytes,
    "numpy.ndarray": _never,
    "numpy.dtype": _dtype,
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray._reconstruct"] = _new_array
    _NAMES[f"{_core}.multiarray.scalar"] = _scalar
    _NAMES[f"{_core}.numeric._frombuffer"] = _array


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, budget: _Budget) -> None:
        super().__init__(file, encoding="bytes")
        self._budget = budget

    def find_class(self, module: str, name: str) -> Any:
        full = f"{_short(module)}.{_short(name)}"
        if full not in _NAMES:
            raise ValueError(f"the pickle asks for {full}, which is never called here")
        return _Call(functools.partial(_NAMES[full], self._budget))


def _finished(value: Any, budget: _Budget, known: dict[int, Any], depth: int = 0) -> Any:
    """Stand-ins replaced by their arrays; anything else that is not plain is refused.

    Args:
        value: what was unpickled.
        budget: of bytes to be copied.
        known: by its id, what is finished: shared parts are walked through once.
        depth: of lists around it.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("nested deeper than a verification set")
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without content")
        value = value.value
    if isinstance(value, list | tuple):
        if id(value) not in known:
            known[id(value)] = [_finished(item, budget, known, depth + 1) for item in value]
        return known[id(value)]
    if isinstance(value, bytearray):
        if id(value) not in known:
            known[id(value)] = _as_bytes(budget, value)
        return known[id(value)]
    if value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray):
        return value
    raise ValueError(f"{type(value).__name__} is not expected here")
