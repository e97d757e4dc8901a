"""The cost formulas of the scaling page, against counted operations and tensors."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ekd_lite.experiments import Machine, PlannedRun
from ekd_lite.heads import ArcFace, PartialFC
from ekd_lite.models import build_backbone
from ekd_lite.train import TrainConfig, build_state


def counted(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_operations_are_those_that_torch_counts():
    # Not MobileFaceNet: torch counts the backward pass of a depthwise convolution as a full one.
    backbone = build_backbone("iresnet18", image_size=32).train()
    images = torch.randn(4, 3, 32, 32)
    macs = counted(lambda: backbone(images)) / 2 / 4
    run = PlannedRun(steps=1, images=4, processes=1, identities=500, student_macs=macs)
    # The first layer needs no gradient of the images: the count stays a little below.
    found = counted(lambda: backbone(images).sum().backward())
    assert found == pytest.approx(run.flop()["student"], rel=0.05)
    embeddings = torch.randn(4, 512, requires_grad=True)
    for head in (ArcFace(512, 500), PartialFC(ArcFace, 512, 500)):
        found = counted(lambda h=head: h(embeddings, torch.arange(4)).sum().backward())
        assert found == run.flop()["head"]


def test_memory_is_that_of_the_tensors():
    config = TrainConfig(backbone="mobilefacenet", image_size=112, embedding_dim=512, device="cpu")
    state = build_state(config, 1000, None, "cpu")
    tensors = [p for group in state.parameters() for p in group]
    run = PlannedRun(steps=1, images=8, processes=1, identities=1000, moments=2)
    parts = run.bytes()
    assert parts["backbone"] + parts["prototypes"] == sum(4 * 4 * p.numel() for p in tensors)


def test_splitting_saves_memory_and_sampling_saves_time():
    whole, split, tenth = (
        PlannedRun(10, 64, 8, 2_000_000, is_split=is_split, sample_rate=rate)
        for is_split, rate in ((False, 1.0), (True, 1.0), (True, 0.1))
    )
    assert whole.flop() == pytest.approx(split.flop())
    assert whole.bytes()["prototypes"] == 8 * split.bytes()["prototypes"]
    assert tenth.flop()["head"] == pytest.approx(split.flop()["head"] / 10)
    assert tenth.bytes()["prototypes"] == split.bytes()["prototypes"]
    machine = Machine(student=1e12, dense=1e13)
    assert tenth.hours(machine) < split.hours(machine)
    assert PlannedRun(10, 64, 1, 1000).sent() == 0


def test_the_page_has_the_numbers_of_the_formulas(run_tool):
    assert run_tool("scaling_table.py", "--check") == 0
