"""`embed` gives one row an image, in order, or says what it expects."""

import importlib

import pytest
import torch
from torch import nn

from ekd_lite.evaluate import embed
from tests.fakes import ColourFaces

FACES = ColourFaces()


class Net(nn.Module):
    """Pixels times a matrix; `change` is what it gives of it."""

    def __init__(self, change=lambda x: x):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * 16 * 16, 8, generator=generator))
        self.change = change

    def forward(self, images):
        return self.change(images.flatten(1) @ self.weight)


@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_row_i_belongs_to_image_i(batch_size):
    net = Net().train()
    rows = embed(net, FACES, batch_size=batch_size)
    images = FACES.batch(range(len(FACES)))
    assert torch.allclose(rows, net(images), atol=1e-5)
    mirrored = embed(net, FACES, mirrored=True, batch_size=batch_size)
    assert torch.allclose(mirrored, net(images.flip(-1)), atol=1e-5)
    assert net.training
    assert not rows.requires_grad


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Net(lambda x: (x, x.norm(dim=1, keepdim=True))), "gives a tuple of 2"),
        (Net(lambda x: {"embedding": x}), "gives a dict of 1"),
        (Net(lambda x: x.view(-1, 2, 2, 2)), "expected embeddings"),
        (Net(lambda x: x.sum(1)), "expected embeddings"),
        (Net(lambda x: x[:1]), "expected embeddings"),
        (Net(lambda x: x.long()), "in floating point"),
        (Net().half(), "torch.float16: expected float32"),
        (Net().bfloat16(), "torch.bfloat16: expected float32"),
        (Net(lambda x: x / 0), "not finite"),
    ],
)
def test_a_net_of_another_output_is_named(net, message):
    net.train()
    with pytest.raises(ValueError, match=message):
        embed(net, FACES)
    assert net.training


def test_an_empty_set_is_named():
    class Nobody:
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="the set holds no image"):
        embed(Net(), Nobody())  # type: ignore[arg-type]


def test_the_module_that_was_called_embed():
    from ekd_lite import evaluate

    again = importlib.import_module("ekd_lite.evaluate.embed").embed  # no file of that name
    assert again is embed is evaluate.embed


def test_a_net_in_double_precision_gets_images_of_its_own_kind():
    assert torch.allclose(embed(Net().double(), FACES), embed(Net(), FACES), atol=1e-4)


@pytest.mark.parametrize("net", [None, "net.pth", lambda images: images.flatten(1)])
def test_what_is_no_net(net):
    with pytest.raises(ValueError, match="embed needs a net"):
        embed(net, FACES)


def test_half_precision_in_buffers_alone():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * 16 * 16, affine=False).half())
    with pytest.raises(ValueError, match=r"torch\.float16: expected float32"):
        embed(net, FACES)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_batches_of_no_size(size):
    with pytest.raises(ValueError, match="batch_size must be a whole number >= 1"):
        embed(Net(), FACES, batch_size=size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: ((x + 1) * 127.5).to(torch.uint8), r"got \(72, 3, 16, 16\) of torch.uint8"),
        (lambda x: (x + 1) * 127.5, "pixels of 0..255 are scaled by"),
        (lambda x: x.double(), "got .* of torch.float64"),
        (lambda x: x.numpy(), "got a numpy array"),
        (lambda x: (x, x), "got tuple"),
        (lambda x: x[:1], r"got \(1, 3, 16, 16\)"),
        (lambda x: x.permute(0, 2, 3, 1), r"got \(72, 16, 16, 3\)"),
        (lambda x: x * torch.nan, "image 0 of the set holds NaN"),
    ],
)
def test_images_that_are_none(monkeypatch, change, message):
    faces = ColourFaces()
    batch = faces.batch
    monkeypatch.setattr(faces, "batch", lambda indices: change(batch(indices)))
    with pytest.raises(ValueError, match=message):
        embed(Net(), faces)
