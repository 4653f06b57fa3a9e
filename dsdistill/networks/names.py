"""The names of the networks of the papers and of libraries.

A name is a family and options, joined by dashes, in any order:

    convnet            depth from the image size: 2 to 16 pixels, 3 to 32, 4 to 64, 5 to 128, 6 beyond
    convnet3, …        that depth
        -w64           width (default 128)
        -instance | -batch | -group | -layer | -none       normalisation (default instance)
        -relu | -leakyrelu | -sigmoid | -swish             activation (default relu)
        -avgpool | -maxpool | -nopool                      pooling (default avgpool)
    wideconvnet        depth likewise, or wideconvnet3, …; the width doubles from block to block
        -w64           width of the first block (default 128)
        -none | -batch | -inputbatch       normalisation (default none; inputbatch: of the inputs of blocks)
    mlp, lenet
    alexnet            -none (default) | -instance | -batch | -group
    vgg11              -instance (default) | -batch | -group | -none
    resnet10, resnet18 -instance (default) | -batch | -group;  -ap: average pools for strides;
                       -w32: width of the first stage (default 64)
    resnet50           -instance (default) | -batch | -group;  -w32 likewise
    resnetap10         -instance (default) | -batch | -group;  -w32 likewise
    mobilenetv2, efficientnet-b0, densenet121
                       -x0.25: a factor of the width (default 1)
    shufflenetv2       -x0.25 likewise (default 0.5, the published ones being 0.5, 1, 1.5 and 2)
    torchvision:NAME   any image classifier of torchvision that ends in a linear layer, random weights
    timm:NAME          the same of timm (extra ``timm``)
    FILE.py:NAME       a class or a function of yours that makes a torch.nn.Module
    package.module:NAME  the same, of a module that can be imported

"instance" is GroupNorm with one channel per group, "group" has four groups. The four with a factor are
torchvision's, with batch normalisation. Up to 64 pixels they and resnet50 have their forms for small images:
a 3×3 stem of stride 1 and no max pool, in mobilenetv2 also stride 1 in the second stage. Larger images get
the stem of torchvision. resnet10 and resnet18 have the small one at every size.
Examples: ``convnet``, ``convnet4-w64-batch``, ``resnet18-ap-batch``, ``mobilenetv2-x0.25``,
``torchvision:mobilenet_v2``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from dsdistill.errors import UserError, unknown
from dsdistill.networks import external
from dsdistill.networks.base import Network
from dsdistill.networks.classic import MLP, VGG11, AlexNet, LeNet
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.resnet import resnet, resnet50, resnetap10
from dsdistill.networks.small_forms import densenet121, efficientnet_b0, mobilenetv2, shufflenetv2
from dsdistill.networks.wide import WideConvNet

Factory = Callable[[int, int, int], Network]
"""From channels, size and number of classes to a network."""


@dataclass(frozen=True)
class Family:
    """A family of networks.

    Attributes:
        make: its constructor.
        options: keyword of ``make`` -> values.
        width: an example of the option that is its keyword ``width``: maps (w64), or a factor (x0.5).
    """

    make: Callable[..., Network]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    width: Literal["", "w64", "x0.5"] = ""


_PLAIN = ("instance", "batch", "group")

FAMILIES: dict[str, Family] = {
    "convnet": Family(
        ConvNet,
        {
            "norm": (*_PLAIN, "layer", "none"),
            "activation": ("relu", "leakyrelu", "sigmoid", "swish"),
            "pool": ("avgpool", "maxpool", "nopool"),
        },
        width="w64",
    ),
    "wideconvnet": Family(WideConvNet, {"norm": ("none", "batch", "inputbatch")}, width="w64"),
    "mlp": Family(MLP),
    "lenet": Family(LeNet),
    "alexnet": Family(AlexNet, {"norm": (*_PLAIN, "none")}),
    "vgg11": Family(VGG11, {"norm": (*_PLAIN, "none")}),
    "resnet10": Family(partial(resnet, 10), {"norm": _PLAIN, "shrink": ("ap",)}, width="w64"),
    "resnet18": Family(partial(resnet, 18), {"norm": _PLAIN, "shrink": ("ap",)}, width="w64"),
    "resnet50": Family(resnet50, {"norm": _PLAIN}, width="w64"),
    "resnetap10": Family(resnetap10, {"norm": _PLAIN}, width="w64"),
    "mobilenetv2": Family(mobilenetv2, width="x0.5"),
    "shufflenetv2": Family(shufflenetv2, width="x0.5"),
    "efficientnet-b0": Family(efficientnet_b0, width="x0.5"),
    "densenet121": Family(densenet121, width="x0.5"),
}

LIBRARIES: dict[str, tuple[Callable[[str], None], Callable[[str, int, int, int], Network]]] = {
    "torchvision": (external.check_torchvision, external.torchvision_network),
    "timm": (external.check_timm, external.timm_network),
}


def network_names() -> list[str]:
    """Return the names of the networks of the papers; options and libraries give many more."""
    depths = [f"convnet{depth}" for depth in range(3, 7)]
    normalised = ("convnet", "alexnet", "vgg11", "resnet18", "resnet50", "resnetap10")
    batch = [f"{name}-batch" for name in normalised]
    narrow = [f"{name}-x0.25" for name, family in FAMILIES.items() if family.width == "x0.5"]
    return sorted([*FAMILIES, *depths, *batch, *narrow, "resnet18-ap", "resnet18-ap-batch"])


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
    stem = _family(name)
    words = name.split("-")[stem.count("-") + 1 :]
    keywords: dict[str, object] = {}
    if depth := _DEPTH.match(name):
        keywords["depth"] = int(depth[2])
    if stem not in FAMILIES:
        raise unknown("network", stem, [*FAMILIES, *network_names(), *others])
    family = FAMILIES[stem]
    keyword_of = {value: keyword for keyword, values in family.options.items() for value in values}
    for word in words:
        width = _width(family, word)
        keyword = "width" if width else keyword_of.get(word)
        if keyword is None:
            raise _unknown_option(stem, word, [*keyword_of, *([family.width] if family.width else [])])
        if keyword in keywords:
            raise UserError(f"network {name!r} gives two values for its {keyword}; keep one")
        keywords[keyword] = width or word
    return partial(family.make, **keywords)


def with_norm(name: str, norm: str) -> str:
    """Return the name of the same network with another normalisation, if its family has that.

    >>> with_norm("convnet3-w64-batch", "none"), with_norm("resnet18", "none"), with_norm("mlp", "none")
    ('convnet3-w64-none', 'resnet18', 'mlp')
    """
    family = FAMILIES.get(_family(name))
    norms = family.options.get("norm", ()) if family else ()
    if norm not in norms:
        return name
    return "-".join([*(word for word in name.split("-") if word not in norms), norm])


_DEPTH = re.compile(r"(wideconvnet|convnet)([1-9][0-9]?)(?=-|$)")


def _family(name: str) -> str:
    """Return the family that a name begins with; its first word if there is none."""
    if deep := _DEPTH.match(name):
        return deep[1]
    return next((each for each in FAMILIES if f"{name}-".startswith(f"{each}-")), name.partition("-")[0])


def _width(family: Family, word: str) -> float:
    """Return the width that a word gives; 0 if it gives none."""
    if family.width.startswith("w") and re.fullmatch(r"w[1-9][0-9]{0,4}", word):
        return int(word[1:])
    factor = family.width.startswith("x") and re.fullmatch(r"x[0-9]{1,2}(\.[0-9]{1,3})?", word)
    return float(word[1:]) if factor else 0


def _unknown_option(family: str, word: str, known: list[str]) -> UserError:
    if not known:
        return UserError(f"{family} takes no options, so drop {word!r}")
    return unknown(f"option of {family}", word, known)
