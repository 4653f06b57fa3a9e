"""SGD of one network, and its momentum by the names of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn


class SGDConfig(Protocol):
    """The options of SGD; any config that has them."""

    @property
    def lr(self) -> float: ...

    @property
    def momentum(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...


def sgd(
    network: nn.Module, config: SGDConfig, momentum: Mapping[str, Tensor] | None = None
) -> torch.optim.SGD:
    """Make the optimiser of a network's parameters.

    Args:
        network: on its device.
        config: learning rate, momentum and weight decay.
        momentum: momentum buffers by parameter name, on that device, updated in place. Parameters without one
            start from zero.
    """
    optimiser = torch.optim.SGD(
        network.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, fused=True
    )
    for name, parameter in network.named_parameters():
        if momentum and name in momentum:
            optimiser.state[parameter]["momentum_buffer"] = momentum[name]
    return optimiser


def momentum_of(network: nn.Module, optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    """Return the momentum buffer of every parameter that has one, by its name; not copied."""
    buffers = {
        name: optimiser.state.get(parameter, {}).get("momentum_buffer")
        for name, parameter in network.named_parameters()
    }
    return {name: buffer for name, buffer in buffers.items() if buffer is not None}
