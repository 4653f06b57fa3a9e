"""A pool of networks trained beforehand, between whose first and last weights NCFM interpolates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge

from dsdistill import seeding
from dsdistill.config.validation import forbid_extra
from dsdistill.data.real import Task
from dsdistill.supply.base import bytes_of, normalise_by_batch
from dsdistill.supply.stored import Stored, StoredConfig


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class PoolConfig(StoredConfig):
    """Networks from a buffer: those that ``dsdistill experts`` trained and stored."""

    word: ClassVar[str] = "networks"

    kind: Literal["pool"] = "pool"
    networks: Annotated[int, Ge(0)] = 0
    """How many of its networks to use; 0 takes all."""

    @property
    def trained(self) -> int:
        """Real images that networks are trained on in an iteration: they were trained before."""
        return 0

    def build(self, name: str, task: Task, device: torch.device) -> Pool:
        """Return the supply.

        Raises:
            UserError: no path is given, or the file is no buffer.
        """
        return Pool(name, task, device, self)


class Pool(Stored):
    """A random network of a pool, at a random point between its initial and its trained weights (NCFM).

    The weights of all of them are held on the device; batch normalisation keeps the statistics of the trained
    one.
    """

    def __init__(self, name: str, task: Task, device: torch.device, told: PoolConfig) -> None:
        hint = (
            "this method matches with trained networks: make some with dsdistill experts --recipe ncfm "
            "-o pool.h5 and pass --pool pool.h5"
        )
        super().__init__(name, task, device, told, hint)
        normalise_by_batch(self.network, False)
        last = self.buffer.epochs[-1]
        self._ends = [
            tuple(
                {key: value.to(device) for key, value in self.buffer.state(expert, epoch).items()}
                for epoch in (0, last)
            )
            for expert in range(self.count)
        ]
        self._picked = 0

    def network_bytes(self, iterations: int) -> int:
        """Count both ends of every network, and the one between them."""
        return super().network_bytes(iterations) + sum(
            bytes_of(state) for ends in self._ends for state in ends
        )

    def draw(self, seed: int, iteration: int) -> bool:
        """Interpolate between the ends of a random network: l · initial + (1 - l) · trained, l ~ U(0, 1)."""
        stream = seeding.generator(seed, "pool", iteration)
        self._picked = int(torch.randint(len(self._ends), (), generator=stream))
        share = float(torch.rand((), generator=stream))
        initial, trained = self._ends[self._picked]
        learned = {key for key, _ in self.network.named_parameters()}
        self.network.load_state_dict(
            {
                key: torch.lerp(value, initial[key], share) if key in learned else value
                for key, value in trained.items()
            }
        )
        return True

    def settle(self) -> None:
        """Give ``network`` the trained weights of the one that was drawn."""
        self.network.load_state_dict(self._ends[self._picked][1])
