"""NaN and infinity in the images, the teacher, the loss and the gradient of one of two ranks."""

import itertools
import json
import math
import random

import pytest

from ekd_lite.train import load_model
from ekd_lite.train.checkpoint import load_checkpoint
from tests.faults import jobs
from tests.processes import start, start_ranks, wait_all

pytestmark = [pytest.mark.slow, pytest.mark.starts_process, pytest.mark.timeout(3000)]
KINDS = ("input", "teacher", "loss", "gradient")
VALUES = (math.nan, math.inf, -math.inf)
METHODS = ("fitnet", "ekd+fitnet")  # of one's own images, and of all gathered ones


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    assert start(jobs.make_teacher, str(folder / "run"), log=folder / "log").wait() == 0
    return str(folder / "run" / "model.safetensors")


def seen_by(out):
    return [json.loads((out / f"seen.{rank}.json").read_text()) for rank in range(2)]


def check(seen, plan, method, out):
    """Both ranks met the same errors, changed nothing, and named the culprit's images."""
    first, second = seen
    assert [one["step"] for one in first] == [one["step"] for one in second] == sorted(plan)
    lines = [json.loads(line) for line in (out / "bad_batches.jsonl").read_text().splitlines()]
    assert lines == [one["record"] for one in first]  # once each, so by one rank
    for mine, other in zip(first, second, strict=True):
        kind, who, _ = plan[mine["step"]]
        assert mine["same"] and other["same"]
        assert mine["text"] == other["text"]
        record = mine["record"]
        culprit = (mine, other)[who]
        assert record["images"][str(who)] == culprit["index"]
        if kind == "gradient":
            assert "gradient on process" in record["reason"]
        else:
            assert f"on process {who}" in record["reason"]
        if method == "fitnet" and kind != "gradient":
            assert list(record["images"]) == [str(who)]


@pytest.mark.parametrize("method", METHODS)
def test_bad_steps_are_left_out(tmp_path, teacher, count, method):
    """46 injections a method into a run that may leave steps out; it ends with finite weights."""
    cases = list(itertools.product(KINDS, (0, 1), VALUES)) * 2
    rng = random.Random(0)  # noqa: S311
    rng.shuffle(cases)
    cases = cases[:46]
    plan = dict(zip(sorted(rng.sample(range(60), len(cases))), cases, strict=True))
    out = tmp_path / "run"
    ranks = start_ranks(
        jobs.train_with_injections,
        str(out),
        plan,
        log=tmp_path / "log",
        method=method,
        teacher=teacher,
        steps=60,
        max_bad_steps=len(plan),
    )
    codes = wait_all(ranks, 300)
    assert codes == [0, 0], [one.output for one in ranks]
    check(seen_by(out), plan, method, out)
    saved = load_checkpoint(out / "checkpoint.pt")
    assert (saved["step"], saved["bad_steps"]) == (60, len(plan))
    model = load_model(out)
    tensors = [*model.backbone.state_dict().values(), *model.head.state_dict().values()]
    tensors += saved["distillers"].values()
    assert all(bool(tensor.isfinite().all()) for tensor in tensors)
    count(f"NaN or infinity, {method}, left out", f"{len(plan)} injections, 0 steps taken with "
          "them, all ranks agree, logged once, final weights finite")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_without_leave_the_run_ends(tmp_path, teacher, count, kind):
    """With `max_bad_steps` 0 every rank ends with the same error; a new start goes on."""
    for who in (0, 1):
        out, plan = tmp_path / str(who), {7: (kind, who, math.nan)}
        options = {"method": "ekd", "teacher": teacher, "steps": 12}
        job = (jobs.train_with_injections, str(out), plan)
        ranks = start_ranks(*job, log=tmp_path / f"log{who}", **options)
        assert wait_all(ranks) == [1, 1]
        check(seen_by(out), plan, "ekd", out)
        assert all("BadBatchError: step 7 is not finite" in one.output for one in ranks)
        assert load_checkpoint(out / "checkpoint.pt")["step"] == 5
        ranks = start_ranks(jobs.train, str(out), log=tmp_path / f"again{who}", **options)
        assert wait_all(ranks) == [0, 0]
        head = load_checkpoint(out / "checkpoint.pt")["head"]
        assert all(bool(tensor.isfinite().all()) for tensor in head.values())
    count(f"NaN in the {kind}, not allowed", "2/2 end, all ranks agree, a new start goes on")
