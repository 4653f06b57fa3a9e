"""ConvNet, the network of nearly every paper on distillation (Gidaris & Komodakis 2018; Zhao et al. 2021)."""

from __future__ import annotations

from torch import nn

from dsdistill.networks import layers
from dsdistill.networks.base import Chain


def depth_for(size: int) -> int:
    """Return the depth the papers use: 3 up to 32 pixels, 4 up to 64, 5 up to 128, 6 beyond; 2 below 17.

    No paper has such small images; a third block would normalise maps of 2×2, which leaves little of them.
    """
    return 2 if size <= 16 else 3 if size <= 32 else 4 if size <= 64 else 5 if size <= 128 else 6


class ConvNet(Chain):
    """``depth`` times [3×3 convolution with bias → norm → activation → 2×2 pool], flatten, linear.

    ``blocks`` holds one ``ConvBlock`` per level, and ``embed`` flattens the last block's output in the
    order channel, row, column.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        num_classes: int,
        *,
        depth: int | None = None,
        width: int = 128,
        norm: layers.Norm = "instance",
        activation: layers.Activation = "relu",
        pool: layers.Pool = "avgpool",
    ) -> None:
        depth = depth_for(size) if depth is None else depth
        extra = layers.extra_padding(channels, size)
        side = size + 2 * extra
        if pool != "nopool" and side >> depth == 0:
            raise layers.too_small(f"convnet{depth}", size, 2**depth)
        blocks = []
        for level in range(depth):
            conv = layers.Convolution(width if level else channels, width, 1 if level else 1 + extra)
            blocks.append(
                layers.ConvBlock(
                    conv,
                    layers.normalisation(norm, width, side),
                    layers.activation(activation),
                    layers.pooling(pool),
                )
            )
            side = side if pool == "nopool" else side // 2
        super().__init__(blocks, nn.Flatten(), width * side**2, num_classes)

    @property
    def is_standard(self) -> bool:
        """Whether every block is the papers' default: instance norm, ReLU, average pooling."""
        return all(
            isinstance(block, layers.ConvBlock)
            and isinstance(block.norm, nn.GroupNorm)
            and block.norm.num_groups == block.norm.num_channels
            and isinstance(block.activation, nn.ReLU)
            and isinstance(block.pool, nn.AvgPool2d)
            for block in self.blocks
        )
