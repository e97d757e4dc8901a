"""Backbones have the published sizes, any size of image, and costs that can be counted."""

import pytest
import torch
from torch import nn

from ekd_lite.models import BACKBONES, build_backbone, profile_backbone

# TFace 171ec14, counted with its own classes: IR_18, IR_34, IR_50, IR_101, MobileFaceNet.
PUBLISHED = {
    "iresnet18": 24_020_352,
    "iresnet34": 34_134_080,
    "iresnet50": 43_585_600,
    "iresnet100": 65_150_912,
    "mobilefacenet": 1_199_488,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    with torch.device("meta"):
        backbone = build_backbone(name)
    assert sum(p.numel() for p in backbone.parameters()) == PUBLISHED[name]


def test_tiny_nets_are_tiny():
    teacher, student = (
        profile_backbone(build_backbone(name, embedding_dim=128, image_size=32), image_size=32)
        for name in ("tiny_teacher", "tiny_student")
    )
    assert (student.parameters, student.macs) == (16_468, 354_560)
    assert teacher.macs > 20 * student.macs
    assert teacher.parameters > 20 * student.parameters


SIZES = [(name, 16) for name in BACKBONES] + [
    (name, size) for name in ("tiny_teacher", "tiny_student", "mobilefacenet") for size in (48, 112)
]


@pytest.mark.parametrize(("name", "image_size"), [*SIZES, ("iresnet18", 48)])
def test_every_size_that_is_a_multiple_of_16(name, image_size):
    backbone = build_backbone(name, embedding_dim=24, image_size=image_size)
    embeddings = backbone(torch.randn(2, 3, image_size, image_size))
    assert embeddings.shape == (2, 24)
    embeddings.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


def test_half_the_width_is_a_quarter_of_the_cost():
    whole, half = (
        profile_backbone(build_backbone(name, embedding_dim=128), image_size=112, repeats=1)
        for name in ("mobilefacenet", "mobilefacenet_half")
    )
    # stem, depthwise convolutions and the last product are halved and not quartered
    assert 0.25 < half.macs / whole.macs < 0.27
    assert half.parameters < 0.3 * whole.parameters


def test_macs_count_convolutions_and_linear_layers():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),  # 8 x 8 x 8 outputs of 27 products
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),  # 8 x 8 x 8 outputs of 9
        nn.Flatten(),
        nn.Linear(512, 10, bias=False),
    )
    profile = profile_backbone(net, image_size=16, repeats=5)
    assert profile.macs == 512 * 27 + 512 * 9 + 5120
    assert profile.parameters == 8 * 27 + 8 * 9 + 5120
    assert profile.latency_ms > 0


def test_profiling_leaves_the_net_and_the_threads_alone():
    backbone = build_backbone("tiny_student", embedding_dim=8, image_size=16)
    threads = torch.get_num_threads()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    profile_backbone(backbone, image_size=16, repeats=5)
    assert backbone.training
    assert torch.get_num_threads() == threads
    assert all(torch.equal(before[name], t) for name, t in backbone.state_dict().items())


def test_the_seed_decides_the_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return build_backbone("tiny_student", embedding_dim=8, image_size=16).body[0][0].weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilfacenet", {}, "did you mean 'mobilefacenet'"),
        ("tiny_student", {"image_size": 100}, "multiple of 16"),
        ("tiny_student", {"image_size": 0}, "multiple of 16"),
        ("tiny_student", {"embedding_dim": 0}, "positive"),
    ],
)
def test_bad_requests_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, **options)
