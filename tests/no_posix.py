"""A plugin of pytest that hides from our files what Windows lacks, for `--collect-only`.

python -m pytest -p tests.no_posix --collect-only
"""

import builtins
import os
import signal
from pathlib import Path

ROOT = str(Path(__file__).parents[1])
MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios")
SIGNALS = ("SIGALRM", "SIGCONT", "SIGHUP", "SIGKILL", "SIGSTOP", "SIGUSR1", "SIGUSR2")
CALLS = ("fork", "killpg", "mkfifo", "setsid")

_import = builtins.__import__


def _as_on_windows(name, globals=None, *rest, **others):
    file = str((globals or {}).get("__file__"))
    ours = file.startswith(ROOT) and "site-packages" not in file
    # files.py asks for the platform, which is not hidden.
    if name in MODULES and ours and not file.endswith(os.path.join("ekd_lite", "files.py")):
        raise ModuleNotFoundError(f"No module named {name!r}, as on Windows", name=name)
    return _import(name, globals, *rest, **others)


def pytest_collection():
    builtins.__import__ = _as_on_windows
    for module, names in ((signal, SIGNALS), (os, CALLS)):
        for name in names:
            delattr(module, name)
