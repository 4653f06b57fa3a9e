"""The optimiser of one network, SGD or a kind of Adam, and the state that a resumed run needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from dsdistill.compute.sgd import SGDConfig, sgd

Kind = Literal["sgd", "adam", "adamw"]
"""AdamW takes the weight decay from the weights; the others add it to the gradient."""

MOMENTS: dict[Kind, int] = {"sgd": 1, "adam": 2, "adamw": 2}
"""Tensors of the size of the weights that the state of an optimiser has, at most."""

_STATE = {
    "momentum_buffer": "momentum",
    "exp_avg": "exp_avg",
    "exp_avg_sq": "exp_avg_sq",
    "step": "step",
}
"""Torch's names of what an optimiser remembers of a parameter, and ours."""


class OptimiserConfig(SGDConfig, Protocol):
    """The options of an optimiser; any config that has them."""

    @property
    def optimiser(self) -> Kind: ...


def make_optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Make the optimiser of a network's parameters, which remembers nothing yet.

    Args:
        network: on its device.
        config: kind, learning rate, weight decay and, of SGD alone, momentum; β is (0.9, 0.999) otherwise.
    """
    if config.optimiser == "sgd":
        return sgd(network, config)
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    return kind(network.parameters(), config.lr, weight_decay=config.weight_decay, fused=True)


def state_of(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return weights and buffers, as ``network.<name>``, and what the optimiser remembers of each parameter.

    That is ``momentum.<name>`` of SGD, and ``exp_avg.<name>``, ``exp_avg_sq.<name>`` and ``step.<name>`` of a
    kind of Adam.
    """
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            if value is not None:  # as the momentum of SGD without one
                state[f"{_STATE[key]}.{name}"] = value
    return state


def restore(network: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Load a state of `state_of`, from any device.

    Args:
        network: any of the same kind.
        optimiser: a new one of its parameters.
        state: of such a network, trained by such an optimiser.
    """
    network.load_state_dict({name: state[f"network.{name}"] for name in network.state_dict()})
    for name, parameter in network.named_parameters():
        for key, prefix in _STATE.items():
            if (value := state.get(f"{prefix}.{name}")) is not None:
                optimiser.state[parameter][key] = _like(parameter, value)


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """Copy what an optimiser remembers of a parameter to its device, in the order in which its values lie:
    fused kernels go through both alike."""
    if value.shape != parameter.shape:  # as the number of steps
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, requires_grad=False).copy_(value)
