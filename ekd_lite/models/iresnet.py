"""IResNet, the improved residual net of ArcFace (Deng et al., CVPR 2019, section 3.1).

Layer for layer TFace's `IR_18 ... IR_101` (Tencent/TFace 171ec14, `model_irse.py`), which AdaFace
and CVLface use too: a block is BN-conv-BN-PReLU-conv-BN, every stage starts with a stride of 2, the
output is BN-dropout-linear-BN on the flattened map. Input 112x112 leaves a map of 7x7.

insightface's nets of the same name (deepinsight/insightface 7fadd42, `arcface_torch`) differ: their
first block projects the shortcut although the width stays, and their last batch norm has a weight
and a bias. At IResNet-50 that makes 5,248 parameters more. Here they are
`project_all=True, affine_output=True`, and `build_backbone("arcface_iresnet50")`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

Activation = Callable[[int], nn.Module]


def initialise(module: nn.Module) -> None:
    """Kaiming-normal weights by fan-out, zero biases, as in TFace."""
    for layer in module.modules():
        # On `meta`, where files are compared with shapes, torch takes longer for no draw at all.
        if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Block(nn.Module):
    """shortcut(x) + BN-conv-BN-act-conv/s-BN(x): (N, C_in, H, W) -> (N, C, H/s, W/s)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        activation: Activation,
        *,
        project: bool = False,
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            activation(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        # Of equal width the shortcut only has to shrink: every stride-th pixel, no parameter.
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs or project:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y: Tensor = self.shortcut(x) + self.residual(x)
        return y


class IResNet(nn.Module):
    """Image (N, 3, H, H) -> embedding (N, embedding_dim), not normalised.

    Args:
        depths: blocks a stage, e.g. (3, 4, 14, 3) for IResNet-50.
        widths: channels a stage.
        embedding_dim: D.
        image_size: H, a multiple of 16 (the strides multiply to 16).
        stem_stride: of the first convolution.
        activation: channels -> module, `nn.PReLU` in the paper.
        dropout: before the embedding layer.
        project_all: the first block of every stage projects its shortcut, also where the width
            stays.
        affine_output: the last batch norm has a weight and a bias.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        *,
        embedding_dim: int,
        image_size: int,
        stem_stride: int = 1,
        activation: Activation = nn.PReLU,
        dropout: float = 0.4,
        project_all: bool = False,
        affine_output: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            activation(widths[0]),
        )
        blocks: list[nn.Module] = []
        inputs = widths[0]
        for depth, width in zip(depths, widths, strict=True):
            for index in range(depth):
                is_first = index == 0
                blocks.append(
                    Block(
                        inputs,
                        width,
                        2 if is_first else 1,
                        activation,
                        project=project_all and is_first,
                    )
                )
                inputs = width
        self.body = nn.Sequential(*blocks)
        side = image_size // (stem_stride * 2 ** len(depths))
        self.output = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(inputs * side * side, embedding_dim),
            nn.BatchNorm1d(embedding_dim, affine=affine_output),
        )
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images in [-1, 1], (N, 3, H, H) -> (N, embedding_dim)."""
        embeddings: Tensor = self.output(self.body(self.stem(images)))
        return embeddings
