"""A randomly initialised network for every iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsdistill.config.validation import forbid_extra
from dsdistill.seeding import forked
from dsdistill.supply.base import (
    DrawnNetwork,
    NetworkConfig,
    NetworkRequest,
    Supply,
    load_weights,
    normalise_by_batch,
)
from dsdistill.supply.batches import TrainingBatches


class Fresh(Supply):
    """A randomly initialised network for every iteration, frozen (DM, DataDAM).

    The weights are those the network's own constructor draws; batch normalisation reads the batch at hand.
    """

    def __init__(self, request: NetworkRequest) -> None:
        self.request = request
        self.network = request.frozen()
        normalise_by_batch(self.network, True)

    def initialise(self, number: int) -> None:
        """Give the network the initial weights of number n, from the stream "networks"."""
        with forked(self.request.seed, "networks", number):
            load_weights(self.network, self.request.build().state_dict())

    def draw(self, iteration: int, batches: TrainingBatches) -> DrawnNetwork:
        """Re-initialise the network."""
        self.initialise(iteration)
        return DrawnNetwork()


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class FreshConfig(NetworkConfig):
    """A randomly initialised network for every iteration (DM, DataDAM)."""

    kind: Literal["fresh"] = "fresh"

    @property
    def batch_statistics(self) -> bool:
        """Return True: there are no other statistics yet."""
        return True

    def build(self, request: NetworkRequest) -> Fresh:
        """Return the supply."""
        return Fresh(request)
