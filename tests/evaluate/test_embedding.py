"""`embed` gives one row an image, in order, or says what it expects."""

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
