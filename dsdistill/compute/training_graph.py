"""Which networks train by a CUDA graph."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dsdistill.networks.base import Network
from dsdistill.networks.wrapped import Wrapped


def has_dropout(network: nn.Module) -> bool:
    """Whether a training pass draws random numbers.

    >>> has_dropout(torch.nn.Sequential(torch.nn.Dropout(0.5))), has_dropout(torch.nn.Dropout(0.0))
    (True, False)
    """
    return any(isinstance(module, _DropoutNd) and module.p > 0 for module in network.modules())


def why_not_captured(network: Network) -> str:
    """Return why training steps of a network are not captured as a CUDA graph; empty if they may be.

    Dropout in a graph would draw other numbers, and of the networks of libraries and of users nothing is
    known.
    """
    if isinstance(network, Wrapped):
        return "what a network of a library or of your own does in a step is not known"
    return "the network has dropout" if has_dropout(network) else ""
