"""Kills of what writes data: the next start finishes it, and it equals what nobody disturbed."""

import hashlib
import http.server
import io
import json
import random
import tarfile
import threading
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ekd_lite.data import open_faces
from tests.faults import data_jobs, jobs
from tests.faults.data_jobs import tree
from tests.faults.scale import FULL, cases
from tests.processes import session_members, start, wait_until

pytestmark = [pytest.mark.starts_process, pytest.mark.timeout(3000)]
KINDS = [
    kind for kind in data_jobs.WORK if FULL or kind != "cache, 2 workers"
]  # those import torch
FULL_COUNTS = {"unpack": 20, "cache": 15, "cache, 2 workers": 3}  # the others: 30


class Slow(http.server.BaseHTTPRequestHandler):
    """Sends a file, or the rest of it, in pieces."""

    content = b""

    def log_message(self, *_):
        pass

    def do_GET(self):
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if begin >= len(self.content):
            return self.send_error(416)
        self.send_response(206 if begin else 200)
        last = len(self.content) - 1
        self.send_header("Content-Range", f"bytes {begin}-{last}/{last + 1}")
        self.send_header("Content-Length", str(last + 1 - begin))
        self.end_headers()
        try:
            for at in range(begin, last + 1, 20_000):
                self.wfile.write(self.content[at : at + 20_000])
                time.sleep(0.002)
        except OSError:
            pass  # who asked is dead
        return None


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of faces, a tar of them, and a server that has the tar."""
    root, rng = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    with tarfile.open(root / "faces.tar", "w") as archive:
        for number in range(60):
            name = f"p{number // 4:02}/{number}.png"
            file = io.BytesIO()
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file, "png")
            path = root / "faces" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
            archive.add(path, f"faces/{name}")
    Slow.content = (root / "faces.tar").read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/faces.tar"
        about = [url, hashlib.sha256(Slow.content).hexdigest()]
        (root / "download.json").write_text(json.dumps(about))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield root
        server.shutdown()
        thread.join()


def kill_once(job, folder, rng, seconds, *, when_writing):
    """Start, and kill at some moment; whether the work was under way then."""
    numbers = jobs.Numbers(folder / "numbers")
    numbers[0] = numbers[1] = 0
    process = start(*job, log=folder / "log")
    pid = process.pid
    assert wait_until(lambda: numbers[0], poll=0.0005), process.output
    if when_writing:
        out = folder / "out"
        wait_until(lambda: numbers[1] or [*out.rglob("*.tmp"), *out.rglob("*.part")], poll=0)
        seconds /= 20
    time.sleep(rng.uniform(0, seconds))
    process.process.kill()
    code = process.wait()
    assert code in (0, -9), process.output
    assert wait_until(lambda: not session_members(pid), 60), "workers outlive their parent"
    return not numbers[1]


def is_refused(kind, out):
    """Whether half a set says that it is one; other kinds of half are not there by their name."""
    if kind not in ("packed", "rec", "unpack") or not (out / ".unfinished").exists():
        return True
    try:
        open_faces(out, image_size=32)
    except ValueError as error:
        return "is not finished" in str(error)
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_work_that_is_killed_is_finished_by_the_next_start(tmp_path, source, kind, count):
    """One to three kills, then a start that nobody disturbs."""
    rng = random.Random(kind)  # noqa: S311
    undisturbed = tmp_path / "undisturbed"
    job = (data_jobs.work, kind, str(source))
    process = start(*job, str(undisturbed / "out"), str(undisturbed / "numbers"),
                    log=undisturbed / "log")  # fmt: skip
    assert process.wait() == 0, process.output
    expected = tree(undisturbed / "out")
    assert not any(name.rpartition("/")[2].startswith(".") for name in expected)
    seconds = jobs.Numbers(undisturbed / "numbers")[2] / 1e9
    found, total = Counter(), cases(1, FULL_COUNTS.get(kind, 30))
    for turn in range(total):
        folder = tmp_path / str(turn)
        folder.mkdir()
        own = (*job, str(folder / "out"), str(folder / "numbers"))
        for _ in range(rng.randint(1, 3)):
            found["kills"] += 1
            found["at work"] += kill_once(own, folder, rng, seconds, when_writing=turn % 2)
            found["passed for whole"] += not is_refused(kind, folder / "out")
            if tree(folder / "out") == expected:  # too late; a conversion is not done twice
                break
        else:
            process = start(*own, log=folder / "log")
            assert process.wait() == 0, process.output
        left = tree(folder / "out")
        found["equal"] += left == expected
        found["left over"] += len(left.keys() - expected.keys())
    count(
        f"killed work, {kind}",
        f"{total} of {seconds * 1e3:.0f} ms, {found['kills']} kills ({found['at work']} at work), "
        f"{found['equal']} equal to an undisturbed one in the end, {found['left over']} files left "
        "over",
    )
    assert found["equal"] == total
    assert found["passed for whole"] == 0
    assert found["at work"] > found["kills"] // 4 or not FULL
