"""A process that reads images ahead dies, breaks or hangs: one error that names the images."""

import json
import random

import pytest

from tests.faults import jobs
from tests.processes import session_members, start, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.starts_process, pytest.mark.timeout(3000)]
TIMEOUT = 4.0


@pytest.mark.parametrize("kind", ["kill", "exit", "exception", "hang"])
def test_a_bad_reader_is_an_error_that_names_the_images(tmp_path, count, kind):
    """Ten images each; the error comes within the timeout and 5 s of it, and nothing stays."""
    rng = random.Random(0)  # noqa: S311
    good, slowest = 0, 0.0
    for turn in range(10):
        image, out = rng.randrange(72), tmp_path / str(turn)
        process = start(
            jobs.train_and_tell_how_it_failed,
            str(out),
            str(tmp_path / f"told{turn}"),
            log=tmp_path / f"log{turn}",
            faces=jobs.BadInWorker(image, kind),
            workers=2,
            loader_timeout=TIMEOUT,
        )
        pid = process.pid
        code = process.wait(60)
        told = json.loads((tmp_path / f"told{turn}").read_text())
        slowest = max(slowest, told["seconds"])
        is_clean = wait_until(lambda p=pid: not session_members(p), 10)
        text = told["text"]
        is_clear = told["type"] == "LoaderError" and "\n" not in text and "Traceback" not in text
        # Of a dead process we know the batch; of one that lives to tell, the image.
        words = text.replace("[", " ").replace("]", " ").replace(",", " ").replace(":", " ").split()
        is_named = str(image) in words and (kind != "exception" or f"image {image} " in text)
        if not (code == 2 and is_clear and is_named and is_clean):
            print(turn, image, code, is_clean, told)
        good += code == 2 and is_clear and is_named and is_clean
    count(
        f"loader worker: {kind}",
        f"{good}/10 one clear error that names the images, no orphans, at most {slowest:.1f} s "
        f"after the last step (loader_timeout {TIMEOUT:g} s)",
    )
    assert good == 10
    # Torch gives a hanging reader five seconds to end; the rest is for a machine with other work.
    assert slowest < TIMEOUT + 5 + 3
