"""Stored networks whose training goes on between the steps of the pixels (Acc-DD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from dsdistill.config.validation import forbid_extra
from dsdistill.seeding import generator
from dsdistill.supply.base import NetworkRequest, bytes_of, load_weights
from dsdistill.supply.perturbation import perturb
from dsdistill.supply.stored import DrawnConfig, StoredNetworks
from dsdistill.supply.trained import Trained, TrainingConfig


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ContinuedConfig(DrawnConfig, TrainingConfig):
    """A random stored network, as it was after its last epoch, whose training goes on (Acc-DD).

    It differs from the kind "trained" in where a network starts.
    """

    recipe: ClassVar[str] = "acc-dd"

    kind: Literal["continued"] = "continued"

    def build(self, request: NetworkRequest) -> Continued:
        """Return the supply.

        Raises:
            UserError: no file is named, or it does not fit.
        """
        return Continued(request, self)


class Continued(Trained):
    """One stored network that is trained between steps of the pixels; another is drawn every so many."""

    def __init__(self, request: NetworkRequest, config: ContinuedConfig) -> None:
        self.teachers = self._stored = StoredNetworks(request, config)
        self._perturbation = config.perturbation
        super().__init__(request, config)

    def network_bytes(self, iterations: int) -> int:
        """Count the network that classifies as a stored one, too."""
        return super().network_bytes(iterations) + bytes_of(self._stored.template.state_dict())

    def initialise(self, number: int) -> None:
        """Give the network the last weights of a random stored one, perturbed as number n of those drawn."""
        seed, file = self.request.seed, self._stored.file
        stream = generator(seed, "continued", number)
        network = int(torch.randint(self._stored.count, (), generator=stream))
        load_weights(self.network, file.state(network, file.epochs[-1]))
        perturb(self.network, self._perturbation, seed, number)
