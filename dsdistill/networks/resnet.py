"""Residual networks (He et al. 2016) for small images, strided or with average pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from dsdistill.errors import UserError
from dsdistill.networks.base import Block, Chain
from dsdistill.networks.layers import SMALL, ConvBlock, Stage, normalisation, too_small

ResNetNorm = Literal["instance", "batch", "group"]
Shrink = Literal["strided", "ap"]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; ``halve`` halves the map by stride, or by average pooling."""

    expansion = 1

    def __init__(self, before: int, after: int, *, halve: bool, norm: ResNetNorm, shrink: Shrink) -> None:
        super().__init__()
        stride = 2 if halve and shrink == "strided" else 1
        pooled = halve and shrink == "ap"
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = _norm(norm, after)
        self.pool = nn.AvgPool2d(2) if pooled else nn.Identity()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = _norm(norm, after)
        self.activation = nn.ReLU()
        # The papers pool after the 1×1 convolution. The two commute, and pooling first is four times cheaper.
        self.shortcut = (
            nn.Sequential(
                nn.AvgPool2d(2) if pooled else nn.Identity(),
                nn.Conv2d(before, after, 1, stride=stride, bias=False),
                _norm(norm, after),
            )
            if halve or before != after
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, after, h, w]."""
        y = self.pool(self.activation(self.norm1(self.conv1(x))))
        return self.activation(self.norm2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 1×1 convolution to a quarter of the maps, a 3×3 one, a 1×1 one back, and a shortcut.

    ``halve`` halves the map by the stride of the 3×3 convolution, as torchvision's does.
    """

    expansion = 4

    def __init__(self, before: int, after: int, *, halve: bool, norm: ResNetNorm, shrink: Shrink) -> None:
        super().__init__()
        inner, stride = after // self.expansion, 2 if halve else 1
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.norm1 = _norm(norm, inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.norm2 = _norm(norm, inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.norm3 = _norm(norm, after)
        self.activation = nn.ReLU()
        self.shortcut = (
            nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), _norm(norm, after))
            if halve or before != after
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, after, h, w]."""
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.activation(self.norm2(self.conv2(y)))
        return self.activation(self.norm3(self.conv3(y)) + self.shortcut(x))


@dataclass(frozen=True)
class Stem:
    """The first convolution, with the average pool of so many pixels, or the maximum pool, that follows."""

    kernel: int = 3
    stride: int = 1
    average_pool: int = 1
    max_pool: bool = False

    def side(self, size: int) -> int:
        """Return the height and width of the map that leaves the stem."""
        side = _halved(size) if self.stride == 2 else size
        return _halved(side) if self.max_pool else side // self.average_pool

    def block(self, channels: int, width: int, norm: ResNetNorm) -> ConvBlock:
        """Make its layers."""
        conv = nn.Conv2d(
            channels, width, self.kernel, stride=self.stride, padding=self.kernel // 2, bias=False
        )
        pool = nn.AvgPool2d(self.average_pool) if self.average_pool > 1 else nn.Identity()
        return ConvBlock(
            conv,
            _norm(norm, width),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1) if self.max_pool else pool,
        )


class ResNet(Chain):
    """A stem and four stages of widths w, 2w, 4w, 8w, then a global average pool unless ``flat``.

    Stages of bottlenecks have four times as many maps.
    """

    def __init__(
        self,
        name: str,
        channels: int,
        size: int,
        num_classes: int,
        *,
        depths: Sequence[int],
        width: int,
        norm: ResNetNorm,
        shrink: Shrink,
        flat: bool = False,
        stem: Stem = Stem(),
        block: type[BasicBlock | Bottleneck] = BasicBlock,
    ) -> None:
        side = stem.side(size)
        for _ in range(3):
            side = _halved(side) if shrink == "strided" else side // 2
        if side < 1:
            raise too_small(name, size, 8)
        if side == 1 and norm == "instance":
            raise UserError(
                f"{name} cannot take {size}x{size} images: its last map is 1x1, which instance normalisation "
                f"sets to a constant; use {name}-batch or a network with fewer poolings"
            )
        blocks: list[Block] = [stem.block(channels, width, norm)]
        before = width
        for level, depth in enumerate(depths):
            after = block.expansion * width << level
            first = block(before, after, halve=level > 0, norm=norm, shrink=shrink)
            rest = [block(after, after, halve=False, norm=norm, shrink=shrink) for _ in range(depth - 1)]
            blocks.append(Stage(first, *rest))
            before = after
        # A global pool is the papers' 4×4 one at 32 pixels, and keeps the feature size at any other.
        neck = nn.Flatten() if flat else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(blocks, neck, before * side**2 if flat else before, num_classes)


def resnet(
    layers: int,
    channels: int,
    size: int,
    num_classes: int,
    *,
    width: int = 64,
    norm: ResNetNorm = "instance",
    shrink: Shrink = "strided",
) -> ResNet:
    """Make a ResNet of 10 or 18 ``layers`` with a 3×3 stem and no max pool.

    ``shrink="ap"`` replaces every stride by a 2×2 average pool and drops the global one, so the classifier
    reads the whole last map (DSA's ResNet18_AP).
    """
    return ResNet(
        f"resnet{layers}" if shrink == "strided" else f"resnet{layers}-ap",
        channels,
        size,
        num_classes,
        depths={10: (1, 1, 1, 1), 18: (2, 2, 2, 2)}[layers],
        width=width,
        norm=norm,
        shrink=shrink,
        flat=shrink == "ap",
    )


def resnet50(
    channels: int, size: int, num_classes: int, *, width: int = 64, norm: ResNetNorm = "instance"
) -> ResNet:
    """Make a ResNet of 50 layers, of bottlenecks.

    Images of up to 64 pixels get a 3×3 stem and no max pool; larger ones the 7×7 stem of stride 2 and the
    max pool of He et al.
    """
    return ResNet(
        "resnet50",
        channels,
        size,
        num_classes,
        depths=(3, 4, 6, 3),
        width=width,
        norm=norm,
        shrink="strided",
        stem=Stem() if size <= SMALL else Stem(kernel=7, stride=2, max_pool=True),
        block=Bottleneck,
    )


def resnetap10(
    channels: int,
    size: int,
    num_classes: int,
    *,
    width: int = 64,
    norm: ResNetNorm = "instance",
) -> ResNet:
    """Make IDC's ResNetAP-10 (Kim et al. 2022): average pools for strides, a stem by the size of the images.

    Convolutions are initialised from N(0, 2/(k²·out)) as in that paper, not by torch's default.
    """
    kernel, pool = (7, 4) if size > 128 else (3, 2) if size > SMALL else (3, 1)
    network = ResNet(
        "resnetap10",
        channels,
        size,
        num_classes,
        depths=(1, 1, 1, 1),
        width=width,
        norm=norm,
        shrink="ap",
        stem=Stem(kernel=kernel, average_pool=pool),
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _halved(side: int) -> int:
    """Return the side of a map after a 3×3 window of stride 2, which rounds up; a 2×2 pool rounds down."""
    return (side + 1) // 2


def _norm(kind: ResNetNorm, channels: int) -> nn.Module:
    return normalisation(kind, channels, 0)  # these kinds do not depend on the size of the map
