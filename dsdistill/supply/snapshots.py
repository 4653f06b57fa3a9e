"""Snapshots: stored networks as they were after some of their epochs, one at random for every iteration."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.config.validation import forbid_extra
from dsdistill.errors import UserError
from dsdistill.seeding import generator
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.supply.base import DrawnNetwork, NetworkRequest, Supply, load_weights, normalise_by_batch
from dsdistill.supply.batches import TrainingBatches
from dsdistill.supply.perturbation import perturb
from dsdistill.supply.stored import DrawnConfig, StoredNetworks


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class SnapshotsConfig(DrawnConfig):
    """A random stored network as it was after a random one of its stored epochs (TGDD)."""

    has_later: ClassVar[bool] = True

    kind: Literal["snapshots"] = "snapshots"
    region: Annotated[int, Ge(1)] = 7
    """Epochs from which a later snapshot of the same network is drawn, its own the first of them (TGDD's
    region length); read where engine.classifier is "later"."""

    def distinct_networks(self) -> int:
        """Count the snapshots, every stored epoch of every network; they are endless where perturbed."""
        if self.perturbation:
            return 0
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
        self.request, self.config = request, config
        self.teachers = self._stored = StoredNetworks(request, config)
        self.network = self._stored.template
        normalise_by_batch(self.network, False)

    def network_bytes(self, iterations: int) -> int:
        """Count two: a snapshot is kept while a later one is in its place."""
        return 2 * super().network_bytes(iterations)

    def require_later(self) -> None:
        """Check that some snapshot is followed by another within the region.

        Raises:
            UserError: none is.
        """
        file, region = self._stored.file, self.config.region
        between = [later - epoch for epoch, later in itertools.pairwise(file.epochs)]
        if region == 1 or min(between, default=region) < region:
            return
        remedy = f"set engine.supply.region={min(between) + 1}, or " if between else ""
        raise UserError(
            f"images are classified by a later epoch, and {file.path} holds none less than "
            f"engine.supply.region = {region} epochs after another: {remedy}train networks with --set "
            "keep=all"
        )

    def draw(self, iteration: int, batches: TrainingBatches) -> DrawnNetwork:
        """Give the network the weights of a random snapshot, uniform over networks and stored epochs.

        The later snapshot is uniform over the stored epochs of the region.
        """
        epochs, stream = self._stored.file.epochs, generator(self.request.seed, "snapshots", iteration)
        network = int(torch.randint(self._stored.count, (), generator=stream))
        stage = int(torch.randint(len(epochs), (), generator=stream))
        epoch = epochs[stage]
        region = [later for later in epochs if epoch <= later < epoch + self.config.region]
        later = region[int(torch.randint(len(region), (), generator=stream))]
        self._load(network, epoch)
        perturb(self.network, self.config.perturbation, self.request.seed, iteration)
        of_later = functools.cache(functools.partial(self._stored.file.state, network, later))
        return DrawnNetwork(
            load_trained=functools.partial(self._load, network, epochs[-1]),
            later=functools.partial(self._loaded, of_later),
            number=None if self.config.perturbation else network * len(epochs) + stage,
        )

    def _load(self, network: int, epoch: int) -> None:
        load_weights(self.network, self._stored.file.state(network, epoch))

    @contextmanager
    def _loaded(self, state: Callable[[], dict[str, Tensor]]) -> Iterator[None]:
        """Give the network another state inside, and the one it has afterwards."""
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        try:
            load_weights(self.network, state())
            yield
        finally:
            self.network.load_state_dict(before)
