"""MobileNetV2, ShuffleNetV2, EfficientNet-B0 and DenseNet-121, for photographs and for small images.

Images of more than 64 pixels get torchvision's networks. Those halve an image five times, which leaves one
pixel of 32. Up to 64 pixels they are these forms, whose weights have the same shapes but for DenseNet's stem:

    mobilenetv2      stride 1 in the stem and in the second stage (24 maps)
    shufflenetv2     stride 1 in the stem, no max pool
    efficientnet-b0  stride 1 in the stem
    densenet121      a 3×3 stem of stride 1, no max pool

They are built of torchvision's blocks, which are batch-normalised, and their weights are drawn as torchvision
draws them. A width factor multiplies the maps of every layer, with torchvision's rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from torch import Tensor, nn

from dsdistill.networks.base import Block, Chain
from dsdistill.networks.external import torchvision_models
from dsdistill.networks.layers import SMALL, Stage, out_of_place, too_small


class SmallForm(Chain):
    """Blocks of a model of torchvision, global average pooling, and the model's linear layer."""

    def __init__(self, blocks: Iterable[Block], linear: nn.Linear, dropout: float = 0.0) -> None:
        pool: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        neck = nn.Sequential(*pool, *([nn.Dropout(dropout)] if dropout else []))
        super().__init__(blocks, neck, linear.in_features, linear.out_features)
        self.classifier = linear
        out_of_place(self)


def mobilenetv2(channels: int, size: int, num_classes: int, *, width: float = 1.0) -> SmallForm:
    """Make MobileNetV2 (Sandler et al. 2018); its last convolution keeps 1280 maps below width 1."""
    first = 1 if size <= SMALL else 2
    rows = [  # expansion, maps, blocks, stride
        [1, 16, 1, 1],
        [6, 24, 2, first],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    model = torchvision_models().MobileNetV2(num_classes, width, rows)
    _replace_stem(model.features[0], channels, size, _fan_out)
    layers = iter(model.features)
    stages = [(1, [next(layers)]), *((stride, list(islice(layers, count))) for _, _, count, stride in rows)]
    dropout, linear = model.classifier
    return SmallForm(_by_resolution([*stages, (1, list(layers))]), linear, dropout.p)


def shufflenetv2(channels: int, size: int, num_classes: int, *, width: float = 0.5) -> SmallForm:
    """Make ShuffleNetV2 (Ma et al. 2018).

    The paper has its widths at 0.5, 1, 1.5 and 2; others are multiples of that at 0.5.
    """
    maps = _SHUFFLENET_MAPS.get(width) or [
        max(2, 2 * round(count * width)) for count in _SHUFFLENET_MAPS[0.5]
    ]
    model = torchvision_models().ShuffleNetV2([4, 8, 4], maps, num_classes)
    _replace_stem(model.conv1, channels, size)
    stem = Stage(model.conv1, pool=None if size <= SMALL else model.maxpool)
    return SmallForm(
        [stem, Stage(model.stage2), Stage(model.stage3), Stage(model.stage4, model.conv5)], model.fc
    )


_SHUFFLENET_MAPS = {
    0.5: [24, 48, 96, 192, 1024],
    1.0: [24, 116, 232, 464, 1024],
    1.5: [24, 176, 352, 704, 1024],
    2.0: [24, 244, 488, 976, 2048],
}


def efficientnet_b0(channels: int, size: int, num_classes: int, *, width: float = 1.0) -> SmallForm:
    """Make EfficientNet-B0 (Tan & Le 2019), with its stochastic depth and dropout of 0.2."""
    models = torchvision_models().efficientnet
    rows = [  # expansion, kernel, stride, maps before and after, blocks
        (1, 3, 1, 32, 16, 1),
        (6, 3, 2, 16, 24, 2),
        (6, 5, 2, 24, 40, 2),
        (6, 3, 2, 40, 80, 3),
        (6, 5, 1, 80, 112, 3),
        (6, 5, 2, 112, 192, 4),
        (6, 3, 1, 192, 320, 1),
    ]
    settings = [models.MBConvConfig(*row, width_mult=width) for row in rows]
    model = models.EfficientNet(settings, dropout=0.2, num_classes=num_classes)
    _replace_stem(model.features[0], channels, size, _fan_out)
    strides = [1, *(stride for _, _, stride, *_ in rows), 1]
    stages = [(stride, [layer]) for stride, layer in zip(strides, model.features, strict=True)]
    dropout, linear = model.classifier
    return SmallForm(_by_resolution(stages), linear, dropout.p)


def densenet121(channels: int, size: int, num_classes: int, *, width: float = 1.0) -> SmallForm:
    """Make DenseNet-121 (Huang et al. 2017); ``width`` multiplies the growth rate of 32 and the stem."""
    if size < 8:
        raise too_small("densenet121", size, 8)
    growth = max(1, round(32 * width))
    model: Any = torchvision_models().DenseNet(growth, (6, 12, 24, 16), 2 * growth, num_classes=num_classes)
    layers = model.features
    _replace_stem(layers, channels, size, nn.init.kaiming_normal_)
    stem = [layers.conv0, layers.norm0, layers.relu0]
    blocks = [Stage(*stem, pool=None if size <= SMALL else layers.pool0)]
    for level in (1, 2, 3):
        *shrink, pool = layers.get_submodule(f"transition{level}")
        blocks.append(Stage(layers.get_submodule(f"denseblock{level}"), *shrink, pool=pool))
    blocks.append(Stage(layers.denseblock4, layers.norm5, nn.ReLU()))
    return SmallForm(blocks, model.classifier)


def _fan_out(weight: Tensor) -> Tensor:
    return nn.init.kaiming_normal_(weight, mode="fan_out")


def _replace_stem(
    layers: nn.Sequential, channels: int, size: int, initialise: Callable[[Tensor], object] | None = None
) -> None:
    """Replace the first convolution by one for so many channels, which small images pass at 3×3 and stride 1.

    Args:
        layers: that begin with it.
        initialise: its weights; torch's default draws them otherwise.
    """
    conv: Any = layers[0]
    kernel, stride = (3, 1) if size <= SMALL else (conv.kernel_size[0], conv.stride[0])
    stem = nn.Conv2d(channels, conv.out_channels, kernel, stride, padding=kernel // 2, bias=False)
    if initialise:
        initialise(stem.weight)
    layers[0] = stem


def _by_resolution(stages: Sequence[tuple[int, Sequence[nn.Module]]]) -> list[Stage]:
    """Join layers, with the stride of each stage, to stages of one resolution."""
    groups: list[list[nn.Module]] = []
    for stride, layers in stages:
        if stride > 1 or not groups:
            groups.append([])
        groups[-1] += layers
    return [Stage(*group) for group in groups]
