"""A pool of networks trained beforehand, between whose first and last weights NCFM interpolates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.config.validation import forbid_extra
from dsdistill.errors import UserError
from dsdistill.seeding import generator
from dsdistill.supply.base import DrawnNetwork, NetworkRequest, Supply, bytes_of, normalise_by_batch
from dsdistill.supply.batches import TrainingBatches
from dsdistill.supply.perturbation import perturb
from dsdistill.supply.stored import DrawnConfig, StoredNetworks


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class PoolConfig(DrawnConfig):
    """Random points between the initial and the trained weights of stored networks (NCFM, DANCE)."""

    recipe: ClassVar[str] = "ncfm"

    kind: Literal["pool"] = "pool"
    points: Annotated[int, Ge(0)] = 0
    """How many random points there are in all, of which every iteration takes one; 0 draws another one for
    each. What is computed of real images can be cached (compute.cache_real) if there are so many only."""

    def distinct_networks(self) -> int:
        """Return the points."""
        return self.points

    def build(self, request: NetworkRequest) -> Pool:
        """Return the supply.

        Raises:
            UserError: no file is named, it does not fit, or it lacks the initial or the trained weights.
        """
        return Pool(request, self)


class Pool(Supply):
    """A random network of a file, at a random point between its initial and its trained weights.

    The weights of all networks are on the device. Batch normalisation keeps the statistics of the trained
    network.
    """

    def __init__(self, request: NetworkRequest, config: PoolConfig) -> None:
        self.request, self.config = request, config
        self.teachers = stored = StoredNetworks(request, config)
        _check_ends(stored)
        self.network = stored.template
        normalise_by_batch(self.network, False)
        epochs = (0, stored.file.epochs[-1])
        self._ends = [
            tuple(self._state(stored, network, epoch) for epoch in epochs) for network in range(stored.count)
        ]

    def _state(self, stored: StoredNetworks, network: int, epoch: int) -> dict[str, Tensor]:
        state = stored.file.state(network, epoch)
        return {name: value.to(self.request.device) for name, value in state.items()}

    def network_bytes(self, iterations: int) -> int:
        """Count both ends of every network, and the one between them."""
        ends = sum(bytes_of(state) for pair in self._ends for state in pair)
        return super().network_bytes(iterations) + ends

    def draw(self, iteration: int, batches: TrainingBatches) -> DrawnNetwork:
        """Interpolate between the ends of a random network: l · initial + (1 - l) · trained, l ~ U(0, 1)."""
        point = self._point(iteration)
        stream = generator(self.request.seed, "pool", iteration if point is None else point)
        number = int(torch.randint(len(self._ends), (), generator=stream))
        share = float(torch.rand((), generator=stream))
        initial, trained = self._ends[number]
        parameters = {name for name, _ in self.network.named_parameters()}
        self.network.load_state_dict(
            {
                name: torch.lerp(value, initial[name], share) if name in parameters else value
                for name, value in trained.items()
            }
        )
        perturb(
            self.network, self.config.perturbation, self.request.seed, iteration if point is None else point
        )
        return DrawnNetwork(load_trained=lambda: self._load(trained), number=point)

    def _point(self, iteration: int) -> int | None:
        """Draw one of so many points; None if every iteration has its own."""
        if not self.config.points:
            return None
        stream = generator(self.request.seed, "pool-points", iteration)
        return int(torch.randint(self.config.points, (), generator=stream))

    def _load(self, state: dict[str, Tensor]) -> None:
        self.network.load_state_dict(state)


def _check_ends(stored: StoredNetworks) -> None:
    """Check that networks are stored before and after their training."""
    stored.require((0,), "a pool needs the initial weights; train networks with --set keep=ends")
    if stored.file.epochs == (0,):
        raise UserError(
            f"{stored.file.path} holds untrained networks alone, and a pool needs trained ones too: train "
            "networks with --set keep=ends"
        )
