"""Where an engine's networks come from."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from dsdistill import seeding
from dsdistill.data.real import Task
from dsdistill.networks.base import Network
from dsdistill.networks.registry import build


class Supply(ABC):
    """A source of networks.

    ``network`` is one module that lives on the device and is given other weights at every draw, in place, so
    that whatever was compiled or captured around it serves them all.
    """

    network: Network

    @abstractmethod
    def draw(self, seed: int, iteration: int) -> None:
        """Give ``network`` the weights of an iteration; they stay until the next draw."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed run needs beyond the seed, such as partly trained networks."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - most supplies have no state
        """Continue from a state returned by `state_dict`."""


class Fresh(Supply):
    """A randomly initialised network for every iteration, frozen (DM, DataDAM).

    The weights are those the network's own constructor draws; batch normalisation sees the batch at hand.
    """

    def __init__(self, name: str, task: Task, device: torch.device) -> None:
        self.name = name
        self.task = task
        with seeding.fenced(0, "networks"):
            self.network = self._build().to(device).requires_grad_(False).eval()
        # Dropout and its like stay off: they would draw from the global generator.
        for module in self.network.modules():
            if isinstance(module, _BatchNorm):
                module.train()

    def _build(self) -> Network:
        return build(self.name, self.task.channels, self.task.size, self.task.num_classes)

    def draw(self, seed: int, iteration: int) -> None:
        """Re-initialise the network from stream "networks" of this iteration."""
        with seeding.fenced(seed, "networks", iteration):
            self.network.load_state_dict(self._build().state_dict())
