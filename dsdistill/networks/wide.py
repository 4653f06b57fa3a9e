"""The ConvNets of kernel regression, whose width doubles from block to block."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dsdistill.networks import layers
from dsdistill.networks.base import Block, Chain
from dsdistill.networks.convnet import depth_for

Norm = Literal["batch", "inputbatch", "none"]

_KEPT_OF_LAST = 0.9
"""The share of the last batch in running statistics: flax keeps a tenth of them, its momentum being 0.1."""

_TRUNCATED = 0.87962566103423978
"""The deviation of a standard normal that is cut off two deviations from its mean."""


class InputNormalised(Block):
    """norm → conv → ReLU → pool: what is normalised is the input of the convolution."""

    def __init__(self, norm: nn.Module, conv: nn.Conv2d, pool: nn.Module) -> None:
        super().__init__()
        self.norm, self.conv, self.pool, self.activation = norm, conv, pool, nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        """Return the map after activation and before pooling."""
        return self.activation(self.conv(self.norm(x)))

    def after_norm(self, x: Tensor) -> Tensor:
        """Return the pooled map of an input that is normalised already; it couples no samples."""
        return self.pool(self.activation(self.conv(x)))


class WideConvNet(Chain):
    """``depth`` blocks of a 3×3 convolution with bias, ReLU and a 2×2 average pool; flatten, linear.

    The first has ``width`` maps, and each later one twice those before it; so the last map of an image of 32
    pixels has 512 channels of 4×4 at a width of 128. Norms:
        ``batch``: before each ReLU, with torch's own weights and running statistics (KRR-ST);
        ``inputbatch``: of the input of each block but the first, where running statistics keep nine tenths
            of the last batch (FRePo);
        ``none``: FRePo's students.
    The last two begin with LeCun's normal weights, cut off at two deviations, and without biases, as flax's
    layers do. The convolutions draw theirs before the classifier, so that they begin alike whatever
    ``num_classes`` is.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        num_classes: int,
        *,
        depth: int | None = None,
        width: int = 128,
        norm: Norm = "none",
    ) -> None:
        depth = depth_for(size) if depth is None else depth
        extra = layers.extra_padding(channels, size)
        side = size + 2 * extra
        if side >> depth == 0:
            raise layers.too_small(f"wideconvnet{depth}", size, 2**depth)
        blocks, before = [], channels
        for level in range(depth):
            maps = width << level
            conv = layers.Convolution(before, maps, 1 if level else 1 + extra)
            if norm != "batch":
                _begin_as_flax(conv)
            blocks.append(_block(conv, norm, before, maps, first=level == 0))
            before, side = maps, side // 2
        super().__init__(blocks, nn.Flatten(), before * side**2, num_classes)
        if norm != "batch":
            assert isinstance(self.classifier, nn.Linear)
            _begin_as_flax(self.classifier)


def _begin_as_flax(layer: nn.Conv2d | nn.Linear) -> None:
    """Draw LeCun's truncated normal weights, of variance 1 / fan-in, and set the bias to zero."""
    deviation = layer.weight[0].numel() ** -0.5 / _TRUNCATED
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _block(conv: nn.Conv2d, norm: Norm, before: int, maps: int, first: bool) -> Block:
    """Return a block from ``before`` to ``maps`` channels."""
    pool = nn.AvgPool2d(2)
    if norm == "batch":
        return layers.ConvBlock(conv, nn.BatchNorm2d(maps), nn.ReLU(), pool)
    plain = norm == "none" or first
    return InputNormalised(
        nn.Identity() if plain else nn.BatchNorm2d(before, momentum=_KEPT_OF_LAST), conv, pool
    )
