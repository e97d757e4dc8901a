"""Install the lowest, then the newest versions that pyproject.toml allows; run smoke.py with each.

    python scripts/versions.py lowest    oldest Python, lowest version of every direct dependency
    python scripts/versions.py newest    newest Python, newest version of everything
    python scripts/versions.py           both, one after the other
    python scripts/versions.py --cuda    with the builds of PyPI, gigabytes of CUDA among them

The environments are made by uv in a temporary folder and deleted afterwards; the package goes into
them as a wheel. torch is the CPU build of PyTorch's own index, a tenth of the size of the CUDA
build of PyPI. Where that index cannot be reached, a CPU wheel in PIP_FIND_LINKS takes its place,
with the Python that it was built for: then all bounds are tested but those of torch and of Python,
and the output says so. --cuda tests all bounds there too.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
UV = [sys.executable, "-m", "uv"]
EXTRAS = [f"--extra={name}" for name in ("export", "align", "tensorboard", "fast")]


def supported() -> list[str]:
    """The Pythons of pyproject.toml's classifiers, oldest first: the one list of them."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)


@dataclass(frozen=True)
class Setting:
    """What to install, and with which Python."""

    resolution: str  # of uv: lowest-direct or highest
    python: str
    torch: Path | None = None  # a wheel instead of an index
    sources: tuple[str, ...] = ()  # options of uv that say where torch comes from


def setting_of(which: str, *, cuda: bool) -> Setting:
    """The true setting, or the nearest that this machine can have."""
    resolution = {"lowest": "lowest-direct", "newest": "highest"}[which]
    python = supported()[{"lowest": 0, "newest": -1}[which]]
    if cuda:
        return Setting(resolution, python)
    try:
        with urllib.request.urlopen(f"{TORCH_INDEX}/torch/", timeout=20):  # noqa: S310
            return Setting(resolution, python, sources=("--torch-backend", "cpu"))
    except OSError as error:
        reason = f"{TORCH_INDEX} cannot be reached ({error})"
    folders = map(Path, os.environ.get("PIP_FIND_LINKS", "").split())
    for wheel in (file for folder in folders for file in sorted(folder.glob("torch-*+cpu-*.whl"))):
        version, tag = wheel.name.split("-")[1:3]
        found = f"3.{tag.removeprefix('cp3')}"
        print(
            f"NOT THE WHOLE TEST: {reason}. This run has torch {version} and Python {found} "
            f"instead of the {which} torch and Python {python}; all else is the {which}.",
            flush=True,
        )
        return Setting(resolution, found, wheel)
    sys.exit(f"{reason}, and PIP_FIND_LINKS names no folder with a CPU build of torch")


def interpreter(version: str) -> str:
    """A path to this Python if pyenv has it, else the version, which uv looks for on the PATH."""
    if version == f"3.{sys.version_info.minor}":
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob(f"{version}.*/bin/python"))
    return str(found[-1]) if found else version


def try_out(setting: Setting, work: Path) -> int:
    """Resolve, install, and run smoke.py from an empty folder; its exit status."""
    environment, locked, override = work / "environment", work / "locked.txt", work / "torch.txt"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    override.write_text(
        f"torch @ {setting.torch.as_uri()}\n" if setting.torch else "", encoding="utf-8"
    )
    call("venv", "--quiet", "--python", interpreter(setting.python), str(environment))
    resolve = ["--python", str(python), "--resolution", setting.resolution]
    resolve += ["--overrides", str(override), "--quiet", "--output-file", str(locked)]
    call("pip", "compile", "pyproject.toml", *EXTRAS, *setting.sources, *resolve)
    install = ["--quiet", "--python", str(python), *setting.sources]
    call("pip", "install", *install, "--requirements", str(locked))
    call("pip", "install", *install, "--no-deps", str(ROOT))
    outside = work / "empty"
    outside.mkdir()
    smoke = [str(python), str(ROOT / "scripts" / "smoke.py")]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    clean["PYTHONWARNINGS"] = "ignore"  # the faces are patterns, as many warnings say
    clean.setdefault("OMP_NUM_THREADS", "1")  # nets this small are slower on two
    return subprocess.run(smoke, cwd=outside, env=clean, check=False).returncode


def call(*arguments: str) -> None:
    """Run uv, and stop if it fails."""
    if subprocess.run([*UV, *arguments], cwd=ROOT, check=False).returncode:
        sys.exit(f"failed: uv {' '.join(arguments)}")


def main() -> int:
    """Try out what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="?", choices=["lowest", "newest", "both"], default="both")
    parser.add_argument("--cuda", action="store_true", help="torch as PyPI has it")
    asked = parser.parse_args()
    failed = []
    for which in ["lowest", "newest"] if asked.which == "both" else [asked.which]:
        print(f"== {which}", flush=True)
        setting = setting_of(which, cuda=asked.cuda)
        with tempfile.TemporaryDirectory(prefix="ekd_lite-versions-") as folder:
            status = try_out(setting, Path(folder))
        print(f"== {which}: {'FAILED' if status else 'ok'}", flush=True)
        failed += [which] if status else []
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
