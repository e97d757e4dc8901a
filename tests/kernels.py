"""Kernels of notebooks at the price of a fork: `pytest --nbval -p tests.kernels`.

A kernel imports torch and the plotting libraries in about three seconds of CPU, a tenth of what
the chapters take. Each worker of xdist starts one server that has imported them and does nothing
else, and forks every kernel from it: a process of its own, with no memory of another chapter.
"""

import importlib
import multiprocessing
import os
import signal
import time
from typing import Any

PRELOADED = ["ipykernel.kernelapp", "matplotlib.pyplot", "seaborn", "ekd_lite.experiments"]


class Kernel:
    """A forked kernel, with those parts of subprocess.Popen that jupyter_client uses."""

    stdin = stdout = stderr = None

    def __init__(self, command, *, cwd=None, env=None, **_):
        connection = command[command.index("-f") + 1]
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        # The server imports matplotlib, which asks for its backend then.
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
        self.process = context.Process(target=_run, args=(connection, cwd, env))
        self.process.start()
        self.pid = self.process.pid
        while self.poll() is None and os.getpgid(self.pid) != self.pid:
            time.sleep(0.001)  # whoever asks for its group must not get the server's

    def poll(self):
        return self.process.exitcode

    def wait(self, timeout=None):
        self.process.join(timeout)
        return self.poll()

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def _run(connection, cwd, env):
    """What `python -m ipykernel_launcher -f connection` does, in a session of its own."""
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()
    os.environ.update(env or {})
    os.environ["JPY_PARENT_PID"] = str(os.getppid())  # it ends with the server
    if cwd is not None:
        os.chdir(cwd)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 2):  # nbval throws away what a kernel prints of itself
        os.dup2(null, stream)
    IPKernelApp.launch_instance(["-f", connection])


def pytest_configure(config):
    """Let jupyter_client, of which nbval asks its kernels, start them here."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        name = "jupyter_client.provisioning.local_provisioner"
        provisioner: Any = importlib.import_module(name)
        provisioner.launch_kernel = Kernel
