"""Older networks for cross-architecture evaluation, in their versions for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from dsdistill.networks.base import Chain, Network
from dsdistill.networks.layers import ConvBlock, Norm, Pool, extra_padding, normalisation, pooling, too_small


class MLP(Network):
    """Two hidden layers of 128 units with ReLU."""

    feature_dim = 128

    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(channels * size**2, 128), nn.Linear(128, 128)])
        self.activation = nn.ReLU()
        self.classifier = nn.Linear(128, num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """Return the second hidden layer, [B, 128]."""
        x = x.flatten(1)
        for layer in self.hidden:
            x = self.activation(layer(x))
        return x

    def trace(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the hidden layers as maps of one position, [B, 128, 1, 1], and the embedding."""
        first = self.activation(self.hidden[0](x.flatten(1)))
        second = self.activation(self.hidden[1](first))
        return [first[..., None, None], second[..., None, None]], second


class LeNet(Chain):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling."""

    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        extra = extra_padding(channels, size)
        side = ((size + 2 * extra - 4) // 2 - 4) // 2
        if side < 1:
            raise too_small("lenet", size, 16)
        blocks = [
            ConvBlock(nn.Conv2d(channels, 6, 5, padding=extra), nn.Identity(), nn.ReLU(), nn.MaxPool2d(2)),
            ConvBlock(nn.Conv2d(6, 16, 5), nn.Identity(), nn.ReLU(), nn.MaxPool2d(2)),
        ]
        neck = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * side**2, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()
        )
        super().__init__(blocks, neck, 84, num_classes)


class AlexNet(Chain):
    """Five convolutions of 128-192-256-192-192 channels, pooled after the first, second and last."""

    def __init__(
        self,
        channels: int,
        size: int,
        num_classes: int,
        *,
        norm: Literal["instance", "batch", "group", "none"] = "none",
    ) -> None:
        layers = [(128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True)]
        blocks, side = _convolutions("alexnet", channels, size, layers, norm)
        super().__init__(blocks, nn.Flatten(), 192 * side**2, num_classes)


class VGG11(Chain):
    """VGG configuration A (Simonyan & Zisserman 2015) with normalisation and one linear layer."""

    def __init__(
        self,
        channels: int,
        size: int,
        num_classes: int,
        *,
        norm: Literal["instance", "batch", "group", "none"] = "instance",
    ) -> None:
        widths = [(64, True), (128, True), (256, False), (256, True)]
        widths += [(512, False), (512, True), (512, False), (512, True)]
        layers = [(width, 3, pooled) for width, pooled in widths]
        blocks, side = _convolutions("vgg11", channels, size, layers, norm)
        super().__init__(blocks, nn.Flatten(), 512 * side**2, num_classes)


def _convolutions(
    network: str, channels: int, size: int, layers: Sequence[tuple[int, int, bool]], norm: Norm
) -> tuple[list[ConvBlock], int]:
    """Return one block per (width, kernel, pooled), and the side of the last map."""
    extra = extra_padding(channels, size)
    side = size + 2 * extra
    halvings = sum(pooled for _, _, pooled in layers)
    if side >> halvings == 0:
        raise too_small(network, size, 2**halvings)
    blocks = []
    for width, kernel, pooled in layers:
        conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2 + extra)
        pool: Pool = "maxpool" if pooled else "nopool"
        blocks.append(ConvBlock(conv, normalisation(norm, width, side), nn.ReLU(), pooling(pool)))
        channels, extra, side = width, 0, side // 2 if pooled else side
    return blocks, side
