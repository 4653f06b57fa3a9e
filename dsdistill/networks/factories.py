"""Calling a network factory of the user's own: which of its parameters take what, read from its signature.

A factory is a class derived from `torch.nn.Module`, or a function that returns such a module. Its parameters
are recognised by these names, whatever their order:

    channels, channel, in_channels, in_chans, num_channels     channels of the images
    size, im_size, img_size, image_size, input_size            height and width; a pair, if the default is one
    num_classes, n_classes, classes, num_class                 number of logits

It may lack any of them. A factory with none takes three positional parameters, in this order. All others need
defaults.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from dsdistill.errors import UserError
from dsdistill.plugs import cause, passes_on

NetworkFactory = Callable[..., nn.Module]
"""Makes a network with fresh weights, drawn from torch's global generator."""

NAMES: dict[str, tuple[str, ...]] = {
    "channels": ("channels", "channel", "in_channels", "in_chans", "num_channels"),
    "size": ("size", "im_size", "img_size", "image_size", "input_size"),
    "num_classes": ("num_classes", "n_classes", "classes", "num_class"),
}
"""The names of parameters that are recognised, for each quantity."""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def make(name: str, factory: NetworkFactory, channels: int, size: int, num_classes: int) -> nn.Module:
    """Call a factory.

    Args:
        name: of the network, for messages.
        factory: see the module's docstring.
        channels, size, num_classes: of the images and the task.

    Raises:
        UserError: it takes other parameters, raises an exception, or returns something else than a module
            whose weights are there.
    """
    positional, keywords = _arguments(name, factory, channels, size, num_classes)
    try:
        module = factory(*positional, **keywords)
    except Exception as error:  # whatever the user's code raises
        if passes_on(error):
            raise
        arguments = ", ".join([*map(str, positional), *(f"{key}={value}" for key, value in keywords.items())])
        raise UserError(f"network {name} cannot be made with ({arguments}): {cause(error)}") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"network {name} makes a {type(module).__name__}, not a torch.nn.Module")
    if any(is_lazy(parameter) for parameter in module.parameters()):
        raise UserError(
            f"network {name} has lazy layers, whose weights are not there yet: give them their sizes"
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError(f"network {name} has no parameters to train")
    return module


def _arguments(
    name: str, factory: NetworkFactory, channels: int, size: int, num_classes: int
) -> tuple[list[int], dict[str, Any]]:
    """Return the positional arguments and the keywords of a call.

    Raises:
        UserError: naming the parameters that nothing is known to take.
    """
    values = {"channels": channels, "size": size, "num_classes": num_classes}
    parameters = list(_signature(name, factory).parameters.values())
    keywords = {}
    for each in parameters:
        for quantity, names in NAMES.items():
            if each.kind in _NAMED and each.name in names:
                pair = quantity == "size" and isinstance(each.default, tuple | list)
                keywords[each.name] = (size, size) if pair else values[quantity]
    required = [
        each
        for each in parameters
        if each.default is each.empty and each.name not in keywords and each.kind in (*_NAMED, *_POSITIONAL)
    ]
    takes_all = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    if not keywords and ((takes_all and not required) or len(required) == 3 == sum(_positional(required))):
        return list(values.values()), {}
    if required:
        unknown = ", ".join(each.name for each in required)
        raise UserError(
            f"network {name} needs {unknown}, which nobody gives: it is made with channels, size and "
            "num_classes, so give the others defaults, or write a function that does"
        )
    return [], keywords


def _signature(name: str, factory: NetworkFactory) -> inspect.Signature:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError) as error:  # builtins have none
        raise UserError(f"network {name} has no signature to read; write a function that makes it") from error


def _positional(parameters: list[inspect.Parameter]) -> list[bool]:
    return [each.kind in _POSITIONAL for each in parameters]
