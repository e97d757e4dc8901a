"""`--student-module package:callable`: a net of the user's own, by the name of what makes it."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from ekd_lite.ops import one_line
from ekd_lite.train.net_form import make_net


def own_net(name: str | None) -> nn.Module | Callable[[], nn.Module] | None:
    """What `--student-module` names, imported; None if it is left out.

    Only the command line is asked: no name of a module is ever read from a file. The working folder
    is looked into first, as `python -m` does.

    Args:
        name: package.module:callable, a class or a function without arguments that gives an
            nn.Module, or a module itself.

    Raises:
        ValueError: no such module or name, or one that cannot be imported or called.
    """
    if name is None:
        return None
    package, colon, attributes = name.partition(":")
    if not (package and colon and attributes):
        raise ValueError(f"--student-module takes package.module:callable, got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(package)
    except Exception as error:  # the module's own code may raise whatever it likes
        raise ValueError(
            f"--student-module {name}: importing {package} failed, {type(error).__name__}: "
            f"{one_line(error)}"
        ) from error
    for part in attributes.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(found) if not n.startswith("_") and callable(vars(found)[n])]
            names = f"; it has {', '.join(known[:8])}" if known else ""
            raise ValueError(f"--student-module {name}: {package} has no {part!r}{names}")
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise ValueError(f"--student-module {name}: it is no callable but {found!r:.40}")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise ValueError(
            f"--student-module {name}: it is called without arguments, and {one_line(error)}; name "
            "a function that gives the net as you want it"
        ) from error
    except ValueError:
        pass  # it does not tell its signature: calling it will show

    def make() -> nn.Module:
        try:
            return make_net(found)
        except Exception as error:  # its own code, once more
            raise ValueError(f"--student-module {name}: {one_line(error)}") from error

    return make
