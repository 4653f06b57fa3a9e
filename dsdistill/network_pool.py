"""A pool of networks trained beforehand, between whose first and last weights NCFM interpolates."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill import seeding
from dsdistill.buffer import Buffer
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.supply import Fresh, bytes_of, classified, normalise_by_batch
from dsdistill.validation import FORBID_EXTRA


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Networks from a buffer: those that ``dsdistill experts`` trained and stored."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_EXTRA

    kind: Literal["pool"] = "pool"
    path: str = ""
    """The buffer's file."""
    networks: Annotated[int, Ge(0)] = 0
    """How many of its networks to use; 0 takes all."""

    def resolved(self) -> PoolConfig:
        """Say how many "all" are: more may be added to the file before a run is resumed or replayed.

        Raises:
            UserError: the file is no buffer.
        """
        if self.networks or not self.path:
            return self
        return dataclasses.replace(self, networks=Buffer.open(self.path).count)

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


class Pool(Fresh):
    """A random network of a pool, at a random point between its initial and its trained weights (NCFM).

    The weights of all of them are held on the device; batch normalisation keeps the statistics of the trained
    one.
    """

    def __init__(self, name: str, task: Task, device: torch.device, told: PoolConfig) -> None:
        if not told.path:
            raise UserError(
                "this method matches with trained networks: make some with dsdistill experts --recipe ncfm "
                "-o pool.h5 and pass --pool pool.h5"
            )
        super().__init__(name, task, device)
        normalise_by_batch(self.network, False)
        self.buffer = Buffer.open(told.path)
        if told.networks > self.buffer.count:
            raise UserError(
                f"{told.path} holds {self.buffer.count} networks, not {told.networks}: set "
                "engine.supply.networks=0 for all of them, or train more with dsdistill experts"
            )
        last = self.buffer.epochs[-1]
        self._ends = [
            tuple(
                {key: value.to(device) for key, value in self.buffer.state(expert, epoch).items()}
                for epoch in (0, last)
            )
            for expert in range(told.networks or self.buffer.count)
        ]
        self.count = len(self._ends)
        self._picked = 0

    def held_bytes(self, iterations: int) -> int:
        """Count both ends of every network, and the one between them."""
        return super().held_bytes(iterations) + sum(bytes_of(state) for ends in self._ends for state in ends)

    def verify(self, name: str, task: Task, real: RealDataset) -> None:
        """Refuse networks that were trained for something else.

        Raises:
            UserError: naming both.
        """
        self.buffer.check(task, name, real.fingerprint)

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

    def logits(self, network: int, images: Tensor) -> Tensor:
        """Classify images [n, C, H, W] in network space by a trained network -> float32 [n, K], CPU."""
        return classified(self.network, self._ends[network][1], images)

    def settle(self) -> None:
        """Give ``network`` the trained weights of the one that was drawn."""
        self.network.load_state_dict(self._ends[self._picked][1])
