"""Networks by name.

A name is a family and options, joined by dashes, in any order:

    convnet            depth from the image size: 2 to 16 pixels, 3 to 32, 4 to 64, 5 to 128, 6 beyond
    convnet3, …        that depth
        -w64           width (default 128)
        -instance | -batch | -group | -layer | -none       normalisation (default instance)
        -relu | -leakyrelu | -sigmoid | -swish             activation (default relu)
        -avgpool | -maxpool | -nopool                      pooling (default avgpool)
    mlp, lenet
    alexnet            -none (default) | -instance | -batch | -group
    vgg11              -instance (default) | -batch | -group | -none
    resnet10, resnet18 -instance (default) | -batch | -group;  -ap: average pools for strides;
                       -w32: width of the first stage (default 64)
    resnetap10         -instance (default) | -batch | -group;  -w32 likewise
    torchvision:NAME   any image classifier of torchvision that ends in a linear layer, random weights
    timm:NAME          the same of timm (extra ``timm``)

"instance" is GroupNorm with one channel per group, "group" has four groups.
Examples: ``convnet``, ``convnet4-w64-batch``, ``resnet18-ap-batch``, ``torchvision:mobilenet_v2``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from dsdistill.errors import UserError, unknown
from dsdistill.networks import external
from dsdistill.networks.base import Network
from dsdistill.networks.classic import MLP, VGG11, AlexNet, LeNet
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.resnet import resnet, resnetap10

Factory = Callable[[int, int, int], Network]
"""From channels, size and number of classes to a network."""


@dataclass(frozen=True)
class Family:
    """A family of networks: its constructor, and its options as keyword of ``make`` -> values."""

    make: Callable[..., Network]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    width: bool = False


_PLAIN = ("instance", "batch", "group")

FAMILIES: dict[str, Family] = {
    "convnet": Family(
        ConvNet,
        {
            "norm": (*_PLAIN, "layer", "none"),
            "activation": ("relu", "leakyrelu", "sigmoid", "swish"),
            "pool": ("avgpool", "maxpool", "nopool"),
        },
        width=True,
    ),
    "mlp": Family(MLP),
    "lenet": Family(LeNet),
    "alexnet": Family(AlexNet, {"norm": (*_PLAIN, "none")}),
    "vgg11": Family(VGG11, {"norm": (*_PLAIN, "none")}),
    "resnet10": Family(partial(resnet, 10), {"norm": _PLAIN, "shrink": ("ap",)}, width=True),
    "resnet18": Family(partial(resnet, 18), {"norm": _PLAIN, "shrink": ("ap",)}, width=True),
    "resnetap10": Family(resnetap10, {"norm": _PLAIN}, width=True),
}

LIBRARIES: dict[str, tuple[Callable[[str], None], Callable[[str, int, int, int], Network]]] = {
    "torchvision": (external.check_torchvision, external.torchvision_network),
    "timm": (external.check_timm, external.timm_network),
}


def build_network(name: str, channels: int, size: int, num_classes: int) -> Network:
    """Make a network with fresh weights for [B, channels, size, size] images.

    Weights are drawn from torch's global generator: call this inside `seeding.forked`.

    Args:
        name: see the module's docstring.
        channels: image channels.
        size: image height and width.
        num_classes: number of logits.

    Raises:
        UserError: if the name is unknown, or the network cannot take images of this size.
    """
    return _factory(name)(channels, size, num_classes)


def network_names() -> list[str]:
    """Return the names of the networks of the papers; options and libraries give many more."""
    depths = [f"convnet{depth}" for depth in range(3, 7)]
    batch = [f"{name}-batch" for name in ("convnet", "alexnet", "vgg11", "resnet18", "resnetap10")]
    return sorted([*FAMILIES, *depths, *batch, "resnet18-ap", "resnet18-ap-batch"])


def check_network(name: str) -> None:
    """Raise a UserError, with the nearest name, unless ``name`` names a network."""
    _factory(name)


def _factory(name: str) -> Factory:
    library, colon, model = name.partition(":")
    if colon:
        if library not in LIBRARIES:
            raise unknown("library of networks", library, LIBRARIES)
        check_model, make = LIBRARIES[library]
        check_model(model)
        return partial(make, model)
    stem, *words = name.split("-")
    keywords: dict[str, object] = {}
    if depth := re.fullmatch(r"convnet([1-9][0-9]?)", stem):
        stem, keywords["depth"] = "convnet", int(depth[1])
    if stem not in FAMILIES:
        raise unknown("network", stem, [*FAMILIES, *network_names()])
    family = FAMILIES[stem]
    keyword_of = {value: keyword for keyword, values in family.options.items() for value in values}
    for word in words:
        width = re.fullmatch(r"w([1-9][0-9]{0,4})", word) if family.width else None
        keyword = "width" if width else keyword_of.get(word)
        if keyword is None:
            raise _unknown_option(stem, word, [*keyword_of, *(["w64"] if family.width else [])])
        if keyword in keywords:
            raise UserError(f"network {name!r} gives two values for its {keyword}; keep one")
        keywords[keyword] = int(width[1]) if width else word
    return partial(family.make, **keywords)


def _unknown_option(family: str, word: str, known: list[str]) -> UserError:
    if not known:
        return UserError(f"{family} takes no options, so drop {word!r}")
    return unknown(f"option of {family}", word, known)
