"""Kills and full disks while a checkpoint is written: the newest whole one is always there."""

import os
import random
import subprocess
import time
from collections import Counter

import pytest
from PIL import Image

from ekd_lite.train.checkpoint import load_checkpoint
from tests import processes
from tests.fakes import ColourFaces
from tests.faults import jobs
from tests.processes import start, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.starts_process, pytest.mark.timeout(3000)]


def is_whole(state):
    return bool((state["x"] == state["step"]).all())


def test_kills_during_saves(tmp_path, count):
    """200 SIGKILLs; a file that says step k must hold the tensor of step k throughout."""
    rng = random.Random(0)  # noqa: S311
    folder = tmp_path / "run"
    folder.mkdir()
    numbers = jobs.Numbers(tmp_path / "numbers")
    path, outcome = folder / "checkpoint.pt", Counter()
    for kill in range(200):
        first = numbers[1]
        process = start(jobs.save_forever, str(folder), str(tmp_path / "numbers"),
                        log=tmp_path / "log")  # fmt: skip
        assert wait_until(lambda done=first: numbers[1] > done), process.output
        assert numbers[3] == kill + 1
        outcome["stale"] += numbers[2]
        # Anywhere in the next two saves of some 40 ms, or, every other time, while one is written.
        if kill % 2:
            assert wait_until(lambda: any(folder.glob("*.tmp")), poll=0)
        time.sleep(rng.uniform(0, 0.01 if kill % 2 else 0.08))
        process.process.kill()
        assert process.wait() == -9
        outcome["inside a save"] += numbers[0]
        outcome["left a .tmp"] += any(folder.glob("*.tmp"))
        saved, before = load_checkpoint(path), load_checkpoint(path.with_suffix(".previous"))
        outcome["lost"] += saved is None or saved["step"] not in (numbers[1], numbers[1] + 1)
        outcome["torn"] += not is_whole(saved) or (before is not None and not is_whole(before))
        numbers[0], numbers[1] = 0, saved["step"]
    count(
        "kill during save",
        f"200 kills ({outcome['inside a save']} inside a save, {outcome['left a .tmp']} left a "
        f".tmp), {outcome['lost']} lost, {outcome['torn']} torn, {outcome['stale']} stale after "
        "the next start",
    )
    assert outcome["lost"] == outcome["torn"] == outcome["stale"] == 0
    assert outcome["inside a save"] > 100
    assert outcome["left a .tmp"] > 20


def test_a_new_start_of_a_run_removes_what_kills_left(tmp_path, count):
    """20 SIGKILLs of `fit`, which saves after every step."""
    rng = random.Random(1)  # noqa: S311
    numbers, out = jobs.Numbers(tmp_path / "numbers"), tmp_path / "run"
    tell = jobs.Tell(str(tmp_path / "numbers"))
    options = {"steps": 100_000, "checkpoint_every": 1, "on_step": tell}
    left = stale = lost = 0
    for _ in range(20):
        there = set(out.glob("*.tmp"))
        left += len(there)
        before = load_checkpoint(out / "checkpoint.pt")
        numbers[0] = 0
        process = start(jobs.train, str(out), log=tmp_path / "log", **options)
        assert wait_until(lambda: numbers[0] > 0), process.output
        stale += len(there & set(out.glob("*.tmp")))
        time.sleep(rng.uniform(0, 0.2))
        process.process.kill()
        process.wait()
        saved = load_checkpoint(out / "checkpoint.pt")
        step = 0 if saved is None else saved["step"]
        lost += step < (0 if before is None else before["step"])
        lost += not numbers[0] - 1 <= step <= numbers[0]
    count("kill of a run that saves", f"20 kills, {left} left a .tmp, {lost} lost, {stale} stale")
    assert lost == stale == 0


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder of 20 people, for the command line."""
    root = tmp_path_factory.mktemp("faces")
    squares = ColourFaces(20, 6)
    for i, label in enumerate(squares.labels.tolist()):
        folder = root / f"p{label:02}"
        folder.mkdir(exist_ok=True)
        pixels = ((squares.images[i] + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def train_command(out, faces):
    config = {**jobs.SMALL, "steps": 10}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in config.items()]
    return ["train", "--out", str(out), "--faces", str(faces), *options]


def run_command(out, faces, log, largest_file):
    process = start(jobs.command_with_little_space, train_command(out, faces), largest_file,
                    log=log)  # fmt: skip
    return process.wait(120), process.output


def errors_in(output):
    """Lines of the command's own error, and whether there was a trace."""
    return processes.errors_in(output), "Traceback" in output


def test_a_limit_on_the_size_of_files(tmp_path, faces, count):
    """20 saves break off after a random number of bytes, with EFBIG; the command says so."""
    rng = random.Random(2)  # noqa: S311
    out = tmp_path / "run"
    assert run_command(out, faces, tmp_path / "log", 1 << 30)[0] == 0
    size = (out / "checkpoint.pt").stat().st_size
    good = 0
    for number in range(20):
        clear, saved = breaks_off(tmp_path / str(number), faces, rng.randrange(4000, size))
        good += clear and saved
    count("save that meets a size limit", f"20 saves at random sizes, {20 - good} lost or unclear")
    assert good == 20


def breaks_off(folder, faces, largest_file):
    """Whether one error is shown, and whether the last checkpoint is untouched and alone."""
    out = folder / "run"
    # First as far as step 5 without a limit, then on with one.
    process = start(jobs.stop_command_at, train_command(out, faces), 5, log=folder / "log")
    assert process.wait(120) == 143, process.output
    before = (out / "checkpoint.pt").read_bytes()
    code, output = run_command(out, faces, folder / "log2", largest_file)
    lines, has_trace = errors_in(output)
    clear = code == 1 and not has_trace and len(lines) == 1 and "File too large" in lines[0]
    clear = clear and "checkpoint.pt" in lines[0]
    untouched = (out / "checkpoint.pt").read_bytes() == before
    return clear, untouched and not list(out.glob("*.tmp"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, where the machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def test_a_full_disk(small_disk, tmp_path, faces, count):
    """20 runs whose disk has a random rest of space left; made room for, each goes on."""
    rng = random.Random(3)  # noqa: S311
    outcome = Counter()
    for number in range(20):
        out, filler = small_disk / "run", small_disk / "filler"
        log = tmp_path / f"log{number}"
        process = start(jobs.stop_command_at, train_command(out, faces), 5, log=log)
        assert process.wait(120) == 143, process.output
        before = (out / "checkpoint.pt").read_bytes()
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        # Less than one more checkpoint fits, after the log and the configuration.
        rest = rng.randrange(16_384, len(before) - 16_384)
        filler.write_bytes(bytes(free - rest))
        code, output = run_command(out, faces, log.with_suffix(".full"), 1 << 30)
        lines, has_trace = errors_in(output)
        is_clear = len(lines) == 1 and "No space left on device" in lines[0]
        outcome["clear"] += code == 1 and is_clear and "run" in lines[0] and not has_trace
        outcome["lost"] += (out / "checkpoint.pt").read_bytes() != before
        outcome["left over"] += len(list(out.glob("*.tmp")))
        filler.unlink()
        code, output = run_command(out, faces, log.with_suffix(".again"), 1 << 30)
        outcome["went on"] += code == 0
        for file in out.iterdir():
            file.unlink()
    count(
        "disk full during save",
        f"20 saves, {outcome['clear']} clear errors, {outcome['lost']} good checkpoints lost, "
        f"{outcome['left over']} .tmp left, {outcome['went on']} went on with room",
    )
    assert outcome == Counter({"clear": 20, "went on": 20})
