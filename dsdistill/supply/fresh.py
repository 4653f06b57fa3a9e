"""A randomly initialised network for every iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from dsdistill import seeding
from dsdistill.config.validation import forbid_extra
from dsdistill.data.real import Task
from dsdistill.networks.base import Network
from dsdistill.networks.registry import build_network
from dsdistill.supply.base import Supply, normalise_by_batch


class Fresh(Supply):
    """A randomly initialised network for every iteration, frozen (DM, DataDAM).

    The weights are those the network's own constructor draws; batch normalisation sees the batch at hand.
    """

    def __init__(self, name: str, task: Task, device: torch.device) -> None:
        self.name = name
        self.task = task
        with seeding.forked(0, "networks"):
            self.network = self._build().to(device).requires_grad_(False).eval()
        normalise_by_batch(self.network, True)

    def _build(self) -> Network:
        return build_network(self.name, self.task.channels, self.task.size, self.task.num_classes)

    def draw(self, seed: int, iteration: int) -> bool:
        """Re-initialise the network from stream "networks" of this iteration."""
        with seeding.forked(seed, "networks", iteration):
            self.network.load_state_dict(self._build().state_dict())
        return True


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class FreshConfig:
    """A randomly initialised network for every iteration (DM, DataDAM)."""

    kind: Literal["fresh"] = "fresh"

    @property
    def trained(self) -> int:
        """Real images that networks are trained on in an iteration."""
        return 0

    def build(self, name: str, task: Task, device: torch.device) -> Fresh:
        """Return the supply."""
        return Fresh(name, task, device)
