"""The names of the networks of the papers and of libraries.

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
    FILE.py:NAME       a class or a function of yours that makes a torch.nn.Module
    package.module:NAME  the same, of a module that can be imported

"instance" is GroupNorm with one channel per group, "group" has four groups.
Examples: ``convnet``, ``convnet4-w64-batch``, ``resnet18-ap-batch``, ``torchvision:mobilenet_v2``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
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


def network_names() -> list[str]:
    """Return the names of the networks of the papers; options and libraries give many more."""
    depths = [f"convnet{depth}" for depth in range(3, 7)]
    batch = [f"{name}-batch" for name in ("convnet", "alexnet", "vgg11", "resnet18", "resnetap10")]
    return sorted([*FAMILIES, *depths, *batch, "resnet18-ap", "resnet18-ap-batch"])


def is_known(name: str) -> bool:
    """Whether a name is one of these by its first part, be its options right or wrong."""
    library, colon, _ = name.partition(":")
    return library in LIBRARIES if colon else _family(name) in FAMILIES


def factory_of(name: str, others: Iterable[str] = ()) -> Factory:
    """Return the factory of a name.

    Args:
        others: further names that a misspelt one may mean.

    Raises:
        UserError: there is no such network; the message suggests the nearest.
    """
    library, colon, model = name.partition(":")
    if colon:
        if library not in LIBRARIES:
            raise unknown("library of networks", library, LIBRARIES)
        check_model, make = LIBRARIES[library]
        check_model(model)
        return partial(make, model)
    stem, *words = name.split("-")
    keywords: dict[str, object] = {}
    if depth := _DEPTH.fullmatch(stem):
        stem, keywords["depth"] = "convnet", int(depth[1])
    if stem not in FAMILIES:
        raise unknown("network", stem, [*FAMILIES, *network_names(), *others])
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


_DEPTH = re.compile(r"convnet([1-9][0-9]?)")


def _family(name: str) -> str:
    """Return the family that a name begins with."""
    stem = name.partition("-")[0]
    return "convnet" if _DEPTH.fullmatch(stem) else stem


def _unknown_option(family: str, word: str, known: list[str]) -> UserError:
    if not known:
        return UserError(f"{family} takes no options, so drop {word!r}")
    return unknown(f"option of {family}", word, known)
