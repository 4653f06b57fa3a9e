"""SGD of one network: the optimiser, and the state that a resumed run needs."""

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


def state_of(network: nn.Module, optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    """Return weights, buffers and momentum, as ``network.<name>`` and ``momentum.<name>``."""
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    return state | {f"momentum.{name}": value for name, value in momentum_of(network, optimiser).items()}


def restore(network: nn.Module, config: SGDConfig, state: Mapping[str, Tensor]) -> torch.optim.SGD:
    """Load a state of `state_of`, from any device, and return an optimiser that continues from it."""
    network.load_state_dict({name: state[f"network.{name}"] for name in network.state_dict()})
    momentum = {
        name: state[f"momentum.{name}"].to(parameter.device, copy=True)
        for name, parameter in network.named_parameters()
        if f"momentum.{name}" in state
    }
    return sgd(network, config, momentum)
