"""A step that is not finite is undone to the last bit; large tables are not copied or sent."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from ekd_lite.heads import ArcFace
from ekd_lite.models import build_backbone
from ekd_lite.train import TrainConfig, build_state, train_step
from ekd_lite.train.distributed import process_group
from ekd_lite.train.model_file import Model
from ekd_lite.train.step import BadBatchError, Batch
from ekd_lite.train.undo import Undo, tables
from tests.processes import free_port

PEOPLE, DIM = 400, 8
SMALL: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": DIM,
    "steps": 100,
    "device": "cpu",
    "teacher": "in memory",
    "margin_ramp": 0.0,
}
EVERYTHING = "adadistill+qud+seed+thkd+ekd+fitnet"


def start(**changes):
    torch.manual_seed(7)
    backbone = build_backbone("tiny_teacher", embedding_dim=DIM, image_size=16).eval()
    teacher = Model(backbone, ArcFace(DIM, PEOPLE), {"embedding_dim": DIM})
    return build_state(TrainConfig(**SMALL | changes), PEOPLE, teacher, "cpu")


def batch(seed, count=10):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 16, 16, generator=generator)
    labels = torch.randint(PEOPLE, (count,), generator=generator)
    labels[:4] = labels[0]
    return Batch(images, labels, torch.randn(count, DIM, generator=generator))


def everything(state):
    return {
        **{f"backbone {k}": v.clone() for k, v in state.backbone.state_dict().items()},
        **{f"distillers {k}": v.clone() for k, v in state.distillers.named_buffers()},
    }


def differing(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")
def test_a_bad_step_leaves_no_trace_and_a_good_one_does():
    """The second of two batches is bad, so that the first has moved the centres already."""
    state, clean = (start(method=EVERYTHING, accumulate=2) for _ in range(2))
    for one in (state, clean):
        train_step(one, batch(0), batch(1))
    bad = batch(3)
    bad.images[2, 0, 3, 3] = math.nan
    before = everything(state)
    with pytest.raises(BadBatchError):
        train_step(state, batch(2), bad)
    assert differing(everything(state), before) == []
    for one in (state, clean):
        train_step(one, batch(4), batch(5))
    assert differing(everything(state), everything(clean)) == []
    changed = set(differing(everything(state), before))
    assert changed >= {"distillers adadistill.centres", "distillers qud.queue"}
    assert "distillers thkd.prototypes" not in changed


def test_centres_move_once_however_many_tries_a_step_takes():
    found = []
    for scale in (2.0**4, 2.0**40):
        state = start(method="adadistill", precision="fp16")
        state.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        train_step(state, batch(0))
        assert (state.scaler.get_scale() < scale) == (scale > 2**30)  # there were further tries
        found.append(state.distillers["adadistill"].centres)
    assert torch.equal(*found)
    assert 0 < (found[0].norm(dim=1) > 0).sum() <= 7


@pytest.mark.parametrize("method", ["adadistill", "margin", "arcdistill", "thkd"])
def test_of_a_table_only_the_rows_that_may_change_are_copied(method):
    state = start(method=method)
    undo = Undo((state.backbone, state.head), state.distillers, [batch(0).labels])
    rows = [then for _, _, then in undo._rows]
    assert sum(map(len, rows)) == (len(batch(0).labels) if method == "adadistill" else 0)
    assert not any(len(copy) == PEOPLE for copy in [*undo._then, *rows] if copy.ndim)


def test_a_loss_that_says_nothing_is_copied_whole():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.zeros(5, 2))
            self.register_buffer("constant", torch.ones(5), persistent=False)

    modules = nn.ModuleDict({"mine": Table(), "other": nn.Sequential(Table())})
    assert tables(modules) == (["mine.constant", "other.0.constant"], [])
    undo = Undo((), modules, [])
    modules["mine"].table += 1
    undo.restore()
    assert (modules["mine"].table == 0).all()


@pytest.mark.starts_process
def test_processes_do_not_send_their_tables(monkeypatch):
    for name, value in {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with process_group(torch.device("cpu"), timeout=30):
        state = start(method="adadistill+qud+thkd")
        sent = {buffer.data_ptr() for buffer in state.objective.modules_buffers}
        losses = state.distillers
        tables = [losses["adadistill"].centres, losses["thkd"].prototypes]
        tables += [losses["qud"].queue]
        assert not sent & {table.data_ptr() for table in tables}
        del state
