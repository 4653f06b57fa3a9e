"""Snapshots: stored networks as they were after some of their epochs, one at random for every iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge

from dsdistill.config.validation import forbid_extra
from dsdistill.seeding import generator
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.supply.base import DrawnNetwork, NetworkRequest, Supply, normalise_by_batch
from dsdistill.supply.batches import TrainingBatches
from dsdistill.supply.stored import StoredConfig, StoredNetworks


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class SnapshotsConfig(StoredConfig):
    """A random stored network as it was after a random one of its stored epochs."""

    kind: Literal["snapshots"] = "snapshots"
    networks: Annotated[int, Ge(0)] = 0
    """How many networks of the file to use; 0 takes all."""

    def distinct_networks(self) -> int:
        """Count the snapshots: every stored epoch of every network."""
        file = ExpertFile.open(self.path)
        return (self.count or file.count) * len(file.epochs)

    def build(self, request: NetworkRequest) -> Snapshots:
        """Return the supply.

        Raises:
            UserError: no file is named, or it does not fit.
        """
        return Snapshots(request, self)


class Snapshots(Supply):
    """A random snapshot of a file of experts for every iteration, frozen; weights are read when drawn.

    Batch normalisation keeps the statistics of the snapshot.
    """

    def __init__(self, request: NetworkRequest, config: SnapshotsConfig) -> None:
        self.request = request
        self.teachers = self._stored = StoredNetworks(request, config)
        self.network = self._stored.template
        normalise_by_batch(self.network, False)

    def draw(self, iteration: int, batches: TrainingBatches) -> DrawnNetwork:
        """Give the network the weights of a random snapshot, uniform over networks and stored epochs."""
        file, stream = self._stored.file, generator(self.request.seed, "snapshots", iteration)
        network = int(torch.randint(self._stored.count, (), generator=stream))
        stage = int(torch.randint(len(file.epochs), (), generator=stream))
        self.network.load_state_dict(file.state(network, file.epochs[stage]))
        number = network * len(file.epochs) + stage
        return DrawnNetwork(load_trained=lambda: self._load_trained(network), number=number)

    def _load_trained(self, network: int) -> None:
        self.network.load_state_dict(self._stored.file.state(network, self._stored.file.epochs[-1]))
