"""MobileFaceNet (Chen et al., CCBR 2018): depthwise bottlenecks and a global depthwise convolution.

Layer for layer TFace's `MobileFaceNet` with GDC output (Tencent/TFace 171ec14,
`model_mobilefacenet.py`): 1,199,488 parameters at 512 dimensions and 112x112.

insightface's net of the same name (deepinsight/insightface 7fadd42, `arcface_torch`: mbf) has maps
twice as wide between the same expansions, groups of two channels in its second convolution, and a
last batch norm with a weight and a bias: `scale=2, affine_output=True`, here
`build_backbone("arcface_mobilefacenet")`. Its large form has `blocks=(2, 8, 12, 4), scale=4`.

`build_backbone("mobilefacenet_half")` is ours: every width is half of TFace's, which leaves about
a quarter of the multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ekd_lite.models.iresnet import Activation, initialise


def conv_bn(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution and batch norm, linear."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


def conv_bn_act(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, activation: Activation
) -> nn.Sequential:
    """Convolution, batch norm, non-linearity."""
    return conv_bn(inputs, outputs, kernel, stride, groups).append(activation(outputs))


class Bottleneck(nn.Module):
    """1x1 expand -> 3x3 depthwise -> 1x1 linear; with a shortcut when the shape is kept."""

    def __init__(
        self, inputs: int, outputs: int, expanded: int, stride: int, activation: Activation
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn_act(inputs, expanded, 1, 1, 1, activation),
            conv_bn_act(expanded, expanded, 3, stride, expanded, activation),
            conv_bn(expanded, outputs),
        )
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Apply the bottleneck, (N, C_in, H, W) -> (N, C, H/s, W/s)."""
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


def global_depthwise(
    channels: int, side: int, embedding_dim: int, *, affine: bool = False
) -> nn.Sequential:
    """One learned weight per place and channel instead of an average over the map, then linear."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, side, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Linear(channels, embedding_dim, bias=False),
        nn.BatchNorm1d(embedding_dim, affine=affine),
    )


class MobileFaceNet(nn.Module):
    """Image (N, 3, H, H) -> embedding (N, embedding_dim), not normalised; H a multiple of 16.

    Args:
        embedding_dim: D.
        image_size: H.
        activation: channels -> module.
        blocks: bottlenecks with a shortcut at each of the four resolutions; at the first, 1 stands
            for a depthwise convolution in 64 groups.
        scale: factor of the width of the maps; the expansions keep theirs.
        expansion: factor of the width of the expansions and of the last map.
        affine_output: the last batch norm has a weight and a bias.
    """

    def __init__(
        self,
        *,
        embedding_dim: int,
        image_size: int,
        activation: Activation = nn.PReLU,
        blocks: Sequence[int] = (1, 4, 6, 2),
        scale: float = 1,
        expansion: float = 1,
        affine_output: bool = False,
    ) -> None:
        super().__init__()
        inputs, outer = round(64 * scale), round(128 * scale)
        narrow, wide, last = (round(width * expansion) for width in (128, 256, 512))
        layers: list[nn.Module] = [conv_bn_act(3, inputs, 3, 2, 1, activation)]
        if blocks[0] == 1:
            layers.append(conv_bn_act(inputs, inputs, 3, 1, min(64, inputs), activation))
        else:
            layers += [Bottleneck(inputs, inputs, narrow, 1, activation) for _ in range(blocks[0])]
        #            outputs, expanded, repeats with shortcut, their expansion
        for outputs, expanded, repeats, width in (
            (inputs, narrow, blocks[1], narrow),
            (outer, wide, blocks[2], wide),
            (outer, last, blocks[3], wide),
        ):
            layers.append(Bottleneck(inputs, outputs, expanded, 2, activation))
            layers += [Bottleneck(outputs, outputs, width, 1, activation) for _ in range(repeats)]
            inputs = outputs
        layers.append(conv_bn_act(inputs, last, 1, 1, 1, activation))
        self.body = nn.Sequential(*layers)
        self.output = global_depthwise(last, image_size // 16, embedding_dim, affine=affine_output)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images in [-1, 1], (N, 3, H, H) -> (N, embedding_dim)."""
        embeddings: Tensor = self.output(self.body(images))
        return embeddings
