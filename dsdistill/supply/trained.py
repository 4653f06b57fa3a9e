"""One network that is trained between the steps of the pixels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from dsdistill.compute.learner import Learner
from dsdistill.compute.sgd import restore, sgd, state_of
from dsdistill.data.real import Task
from dsdistill.supply.base import Batch, NetworkTraining, normalise_by_batch
from dsdistill.supply.fresh import Fresh


class Trained(Fresh):
    """One network that is trained between steps of the pixels and drawn anew every so many (DC, DSA, IDC)."""

    training: NetworkTraining

    def __init__(self, name: str, task: Task, device: torch.device, training: NetworkTraining) -> None:
        super().__init__(name, task, device)
        self.training = training
        self.network.requires_grad_(True)
        self._optimiser = sgd(self.network, self.training)

    def draw(self, seed: int, iteration: int) -> bool:
        """Re-initialise the network and forget its momentum where its time is up, else keep both."""
        if iteration % self.training.updates_per_network:
            return False
        self._optimiser = sgd(self.network, self.training)
        return super().draw(seed, iteration // self.training.updates_per_network)

    def train(self, learner: Learner, batches: Iterable[Batch]) -> None:
        """Take one step of SGD per batch. Dropout stays off: it would draw from the global generator."""
        normalise_by_batch(self.network, True)
        for images, targets in batches:
            learner.loss(images, targets).backward()
            self._optimiser.step()
            self._optimiser.zero_grad()

    def refresh(self, images: Tensor) -> None:
        """Let batch normalisation see images [B, C, H, W] once, then keep its statistics."""
        normalise_by_batch(self.network, True)
        with torch.no_grad():
            self.network(images)
        normalise_by_batch(self.network, False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights and momentum."""
        return state_of(self.network, self._optimiser)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict`."""
        self._optimiser = restore(self.network, self.training, state)
