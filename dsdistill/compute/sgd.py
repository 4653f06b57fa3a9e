"""A network together with the SGD that trains it: how the optimiser is made, and what a resumed run needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn


class Rates(Protocol):
    """Any config that says how a network is stepped."""

    @property
    def lr(self) -> float: ...

    @property
    def momentum(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...


def sgd(network: nn.Module, told: Rates, momentum: Mapping[str, Tensor] | None = None) -> torch.optim.SGD:
    """Make the optimiser of a network's parameters.

    Args:
        network: on its device.
        told: the rates.
        momentum: by parameter name, on that device; stepped in place. What is not named starts from zero.
    """
    optimiser = torch.optim.SGD(
        network.parameters(), told.lr, told.momentum, weight_decay=told.weight_decay, fused=True
    )
    for name, parameter in network.named_parameters():
        if momentum and name in momentum:
            optimiser.state[parameter]["momentum_buffer"] = momentum[name]
    return optimiser


def momentum_of(network: nn.Module, optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    """Return the momentum of every parameter that has one, by its name; not copied."""
    held = {
        name: optimiser.state.get(parameter, {}).get("momentum_buffer")
        for name, parameter in network.named_parameters()
    }
    return {name: momentum for name, momentum in held.items() if momentum is not None}


def state_of(network: nn.Module, optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    """Return weights, buffers and momentum, as ``network.<name>`` and ``momentum.<name>``."""
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    return state | {f"momentum.{name}": value for name, value in momentum_of(network, optimiser).items()}


def restored(network: nn.Module, told: Rates, state: Mapping[str, Tensor]) -> torch.optim.SGD:
    """Load a state returned by `state_of`, from any device, and return an optimiser that goes on from it."""
    network.load_state_dict({name: state[f"network.{name}"] for name in network.state_dict()})
    momentum = {
        name: state[f"momentum.{name}"].to(parameter.device, copy=True)
        for name, parameter in network.named_parameters()
        if f"momentum.{name}" in state
    }
    return sgd(network, told, momentum)
