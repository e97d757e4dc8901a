"""Many processes do what one does with the joined batch: losses, weights, running statistics.

Four processes train all cases for two steps in float64, two of them once more as a group of two;
one process takes the same steps with the joined batches.
"""

import contextlib
import copy
import functools
import os
import pathlib
import warnings
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ekd_lite.distill import DISTILLERS, FineEKDLoss, GalleryEKDLoss
from ekd_lite.files import locked_folder
from ekd_lite.heads import HEADS, ArcFace, PartialFC
from ekd_lite.models import build_backbone
from ekd_lite.parallel import broadcast_bytes, gather_bytes, rank, world_size
from ekd_lite.train import TrainConfig, build_state, fit, train_step
from ekd_lite.train import state as state_module
from ekd_lite.train.distributed import agree, pick_device, process_group
from ekd_lite.train.model_file import Model
from ekd_lite.train.step import BadBatchError, Batch
from tests.distill.batches import gallery
from tests.fakes import ColourFaces
from tests.processes import free_port, launch

pytestmark = [
    pytest.mark.starts_process,
    pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs"),
]

IDENTITIES, PER_RANK, STEPS = 11, 8, 2  # 11: the shards of PartialFC are of different size
BASE: dict[str, Any] = {
    "image_size": 16,
    "embedding_dim": 8,
    "steps": 10,
    "device": "cpu",
    "sync_batch_norm": True,
    "margin_ramp": 0.0,
    "scale": 8.0,
    "teacher": "in memory",
    "teacher_threshold": 0.3,
}
SPLITTABLE = ("normface", "sphereface", "cosface", "arcface")
MARGIN = {name: 1.5 if name == "sphereface" else 0.3 for name in HEADS}
CASES: dict[str, dict[str, Any]] = {
    # A loss sees embeddings. From the small student they come with a tenth of the messages.
    **{f"method {name}": {"method": name, "student": lambda: Own()} for name in DISTILLERS},
    "method ekd": {"method": "ekd"},
    **{f"head {name}": {"head": name, "margin": MARGIN[name]} for name in HEADS},
    **{
        f"split {name}": {"head": name, "partial_fc": 1.0, "margin": MARGIN[name]}
        for name in SPLITTABLE
    },
    "split and distilled": {"method": "ekd:50+fitnet+sp", "partial_fc": 1.0, "optimizer": "sgd"},
    "clipped": {"clip_norm": 0.05, "partial_fc": 1.0, "optimizer": "sgd"},
    "accumulated": {"accumulate": 2, "method": "ekd"},
    "own student": {"student": lambda: Own(), "method": "fitnet", "optimizer": "sgd"},
    "tables": {"accumulate": 2, "method": "adadistill+qud+seed+thkd"},
}
# Each process's batch norms see its own images, and what it keeps of them is its own.
LOCAL: dict[str, dict[str, Any]] = {
    "alone": {"sync_batch_norm": False, "method": "ekd+ekd_fine", "head": "adaface"},
    "alone, own student": {"sync_batch_norm": False, "student": lambda: Own(), "method": "fitnet"},
}


class Own(nn.Module):
    """A student of somebody's own, with a part that no embedding depends on."""

    def __init__(self, width=8):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=4, bias=False), nn.BatchNorm2d(4)
        self.output, self.idle = nn.Linear(4, width), nn.Linear(2, 2)

    def forward(self, images):
        return self.output(self.norm(self.conv(images)).tanh().mean((2, 3)))


@functools.cache
def make_teacher():
    torch.manual_seed(7)
    backbone = build_backbone("tiny_teacher", embedding_dim=8, image_size=16).double().eval()
    head = ArcFace(8, IDENTITIES, scale=8.0).double()
    return Model(backbone, head, {"embedding_dim": 8})


def make_batches(config, size, share=slice(None)):
    """The batches of every step: of one process, or the share of one."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        group = []
        for _ in range(config.accumulate):
            count = PER_RANK * size
            images = torch.randn(count, 3, 16, 16, generator=generator, dtype=torch.float64)
            labels = torch.randint(IDENTITIES, (count,), generator=generator)
            teacher = torch.randn(count, 8, generator=generator, dtype=torch.float64)
            index = torch.arange(count)
            group.append(Batch(*(x[share] for x in (images, labels, teacher, index))))
        yield group


def start(case):
    """A state in float64 whose prototypes do not depend on how they are split."""
    options = {**BASE, **(CASES | LOCAL)[case]}
    student = options.pop("student", None)
    config = TrainConfig(**options)
    torch.set_default_dtype(torch.float64)
    try:
        state = build_state(
            config,
            IDENTITIES,
            copy.deepcopy(make_teacher()),
            "cpu",
            student=student,
            gallery=gallery(8),
        )
        for loss in state.distillers.values():
            if isinstance(loss, FineEKDLoss | GalleryEKDLoss):  # levels that so few pairs can show
                loss.fprs, loss.hard_fpr = (0.3, 0.1)[: len(loss.fprs)], 0.5
    finally:
        torch.set_default_dtype(torch.float32)
    if isinstance(state.head, PartialFC):
        full = torch.randn(
            IDENTITIES, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        first = state.head.first
        with torch.no_grad():
            state.head.prototypes.copy_(full[first : first + len(state.head.prototypes)])
    return state


def take_steps(case, share=slice(None), size=None):
    """Losses of every step, and what the nets and their statistics are in the end."""
    state = start(case)
    size = size or world_size()
    losses = [train_step(state, *group) for group in make_batches(state.config, size, share)]
    kept = {
        "prototypes": state.full_head().prototypes,
        **{f"backbone.{k}": v for k, v in state.backbone.state_dict().items()},
        **{f"distillers.{k}": v for k, v in state.distillers.state_dict().items()},
    }
    if not isinstance(state.head, PartialFC):
        kept |= {f"head.{k}": v for k, v in state.head.state_dict().items()}
    # Every value a copy: the next case must not change them.
    return losses, {name: value.detach().clone() for name, value in kept.items()}


def work(number, folder):
    warnings.simplefilter("ignore")
    for size in (4, 2):
        if number >= size:
            continue
        os.environ.update(
            RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1",
            MASTER_PORT=pathlib.Path(f"{folder}/port{size}").read_text(encoding="utf-8"),
        )  # fmt: skip
        with process_group(torch.device("cpu"), timeout=120):
            share = slice(number * PER_RANK, (number + 1) * PER_RANK)
            results = {case: take_steps(case, share) for case in CASES}
            extra = {"sent": {case: both_ways(case, share) for case in LOCAL}}
            extra |= collectives(number, size) | refusals(number, pathlib.Path(folder) / str(size))
            torch.save((results, extra), f"{folder}/{size}-{number}.pt")


def both_ways(case, share):
    """What a process has in the end if buffers are left alone, and if the first one sends all."""
    found = {}
    for sends in (False, True):
        patch = mock.patch.object(state_module, "not_sent", return_value=[])
        with patch if sends else contextlib.nullcontext():
            state = start(case)
        assert isinstance(state.objective, DistributedDataParallel)
        assert state.objective.will_sync_module_buffers() == sends
        for group in make_batches(state.config, world_size(), share):
            train_step(state, *group)
        found[sends] = {
            name: value.detach().clone()
            for part in ("backbone", "head", "distillers")
            for name, value in getattr(state, part).state_dict(prefix=f"{part}.").items()
        }
    return found


def collectives(number, size):
    """The small things that processes say to one another, and how a NaN on one of them ends."""
    found = {
        "agree": agree(number),
        "broadcast": broadcast_bytes(b"from 0" if number == 0 else None).decode(),
        "nothing": broadcast_bytes(None),
        "gathered": [data.decode() for data in gather_bytes(b"x" * number)],
    }
    share = slice(number * PER_RANK, (number + 1) * PER_RANK)
    for case in ("method ekd", "tables"):
        state = start(case)
        kept = {
            **{f"backbone.{name}": value for name, value in state.backbone.state_dict().items()},
            **dict(state.distillers.named_buffers()),
        }
        before = {name: value.clone() for name, value in kept.items()}
        group = next(iter(make_batches(state.config, size, share)))
        if number == 1:
            group[-1].images[2, 0, 3, 3] = float("nan")
        try:
            train_step(state, *group)
        except BadBatchError as error:
            found[f"error, {case}"] = str(error)
        found[f"changed, {case}"] = [k for k in before if not torch.equal(before[k], kept[k])]
        found[f"changed, {case}"] += [str(state.step)] * (state.step > 0)
    try:
        PartialFC(ArcFace, 4, size - 1)
    except ValueError as error:
        found["too few"] = str(error)
    return found


def refusals(number, folder):
    """What every process is told if one of them was given something else."""
    tiny: dict[str, Any] = {
        **{"image_size": 16, "embedding_dim": 8, "device": "cpu", "steps": 1},
        **{"general": 8, "identities": 2},
    }
    last = number == world_size() - 1
    faces, same = ColourFaces(seed=int(last)), ColourFaces()
    calls = {
        "other faces": lambda out: fit(TrainConfig(**tiny), faces, out, progress=False),
        "another student": lambda out: fit(
            TrainConfig(**tiny), same, out, student=Own(8 + last), progress=False
        ),
        "another seed": lambda out: fit(
            TrainConfig(**tiny, seed=int(last)), same, out, progress=False
        ),
        "a folder in use": lambda out: fit(TrainConfig(**tiny), same, out, progress=False),
    }
    found = {}
    for name, call in calls.items():
        out = folder / name
        taken = name == "a folder in use" and number == 0
        with locked_folder(out) if taken else contextlib.nullcontext():
            try:
                call(out)
            except ValueError as error:
                found[name] = str(error)
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What every process of every group brought home: size -> [(results, extra)]."""
    folder = tmp_path_factory.mktemp("ranks")
    for size in (4, 2):
        (folder / f"port{size}").write_text(str(free_port()))
    launch(work, str(folder), ranks=4, log=folder / "log", timeout=500)
    found = {
        size: [torch.load(folder / f"{size}-{k}.pt", weights_only=True) for k in range(size)]
        for size in (4, 2)
    }
    for size, processes in found.items():
        for _, extra in processes:
            extra["begun"] = [path.name for path in (folder / str(size)).iterdir()]
    return found


@pytest.fixture(scope="module")
def one_process():
    return {(case, size): take_steps(case, size=size) for case in CASES for size in (2, 4)}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_ranks_do_what_one_process_does(case, size, ranks, one_process):
    losses, kept = one_process[case, size]
    assert all(abs(value) > 0 for step in losses for value in step.values())
    for results, _ in ranks[size]:
        got_losses, got = results[case]
        for step, (one, many) in enumerate(zip(losses, got_losses, strict=True)):
            for name in one:
                assert float(many[name]) == pytest.approx(float(one[name]), rel=1e-9), (step, name)
        for name, wanted in kept.items():
            if name.startswith("head.step") or "num_batches" in name:
                continue
            # AdamW divides by the gradient's size: rounding in a tiny gradient is no longer tiny.
            torch.testing.assert_close(
                got[name], wanted, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("size", [2, 4])
def test_tables_are_equal_to_the_last_bit(size, ranks):
    """Nothing would mend centres that drift apart: processes do not send their tables."""
    first, *others = [results["tables"][1] for results, _ in ranks[size]]
    for name in ("adadistill.centres", "qud.queue", "seed.queue", "qud.position"):
        table = first[f"distillers.{name}"]
        assert table.any()
        assert all(torch.equal(table, other[f"distillers.{name}"]) for other in others)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", LOCAL)
def test_nothing_is_lost_if_no_buffer_is_sent(case, size, ranks):
    """What the first process saves, and everything that trains, is the same to the last bit."""
    first, *others = [extra["sent"][case] for _, extra in ranks[size]]
    assert all(torch.equal(value, first[True][name]) for name, value in first[False].items())
    for other in others:
        own = {k for k, v in other[False].items() if not torch.equal(v, first[False][k])}
        assert own and all("running_" in name for name in own)


def test_what_processes_say_to_one_another(ranks):
    for size in (2, 4):
        for number, (_, found) in enumerate(ranks[size]):
            assert found["agree"] == size - 1
            assert found["broadcast"] == "from 0"
            assert found["nothing"] is None
            assert found["gathered"] == (["x" * i for i in range(size)] if number == 0 else [])


def test_a_nan_on_one_process_stops_all_before_the_weights_change(ranks):
    texts = set()
    for size in (2, 4):
        for _, found in ranks[size]:
            for case in ("method ekd", "tables"):
                assert found[f"changed, {case}"] == []
                texts.add((size, found[f"error, {case}"]))
            assert f"{size - 1} identities cannot be split" in found["too few"]
    assert len(texts) == 4  # the same on every process
    for _, text in texts:
        assert "loss" in text
        assert "process 1" in text


def test_every_process_is_told_that_one_was_given_something_else(ranks):
    for size in (2, 4):
        for _, found in ranks[size]:
            assert f"process {size - 1}: faces: 72 images of 16 pixels" in found["other faces"]
            assert f"process {size - 1}: seed: 0 here, 1 there" in found["another seed"]
            assert "embedding_dim: 8 here, 9 there" in found["another student"]
            assert "student: Own of 10 tensors" in found["another student"]
            assert "process 0:" not in found["other faces"] + found["another seed"]
            assert "another process is writing to" in found["a folder in use"]
            assert found["begun"] == []


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(torch.device("cpu")):
        assert (rank(), world_size()) == (0, 1)
    assert agree(5) == 5
    assert gather_bytes(b"a") == [b"a"]
    assert broadcast_bytes(b"a") == b"a"
    assert pick_device("cpu") == torch.device("cpu")


def test_a_group_of_one(monkeypatch):
    for name, value in {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    expected, _ = take_steps("method ekd", size=1)
    with process_group(torch.device("cpu"), timeout=30):
        with process_group(torch.device("cpu")):  # inside a group nothing happens
            assert dist.is_initialized()
        got, _ = take_steps("method ekd", size=1)
    assert not dist.is_initialized()
    for one, other in zip(expected, got, strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-12)
