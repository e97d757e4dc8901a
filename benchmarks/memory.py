"""Does a long run need more and more memory? What a process holds at two of its steps."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.timing import Row
from ekd_lite.data import SyntheticFaces, cache_faces
from ekd_lite.train import TrainConfig, TrainState, fit

ROOT = Path(__file__).parent.parent
STEPS = 500, 2000


def bench_memory(*, quick: bool) -> Iterator[Row]:
    """A run with FitNet and EKD: what it holds more at its last step than at step 500, in MB."""
    first, last = (50, 200) if quick else STEPS
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "benchmarks.memory", str(first), str(last)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if not found["mb"]:
        return  # this system does not tell
    begin, end = found["mb"]
    yield Row(
        "memory of a run", f"steps {first} to {last}", {}, {"ours": end - begin},
        goal="0 MB", note=f"{begin:.1f} MB at step {first}, {end:.1f} at step {last}",
    )  # fmt: skip


def held_at(steps: tuple[int, ...]) -> list[float]:
    """Resident MB of this process after some steps of a run; empty where the system does not say.

    Batches are of 24 images: what is kept by mistake, a graph or a log, is kept with each of them.
    """
    found: list[float] = []

    def look(state: TrainState, metrics: dict[str, float]) -> None:
        if state.step in steps and (held := status_mb("VmRSS")) is not None:
            found.append(held)

    warnings.simplefilter("ignore")
    config = TrainConfig(
        method="fitnet+ekd", steps=steps[-1], general=12, identities=6, images_per_identity=2,
        device="cpu", log_every=25, checkpoint_every=250,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        faces = cache_faces(SyntheticFaces(50, 8, image_size=32), Path(folder), progress=False)
        rows = torch.randn(50, 128)[faces.labels] + 0.5 * torch.randn(len(faces), 128)
        fit(config, faces, Path(folder) / "run", teacher=rows, on_step=look, progress=False)
    return found


def status_mb(name: str) -> float | None:
    """What /proc says of this process, VmRSS or RssAnon, in MB; None where it is not there."""
    gc.collect()
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    held = [int(line.split()[1]) / 1024 for line in lines if line.startswith(name)]
    return held[0] if held else None


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"mb": held_at(tuple(int(x) for x in sys.argv[1:]))}))
