"""Expert trajectories: the weights of networks in training, epoch by epoch, for a student to follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.config.validation import forbid_extra
from dsdistill.seeding import generator
from dsdistill.supply.base import NetworkRequest, NetworkSource, normalise_by_batch
from dsdistill.supply.stored import StoredConfig, StoredNetworks


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class TrajectoriesConfig(StoredConfig):
    """Expert trajectories from a file that ``dsdistill experts`` wrote."""

    noun: ClassVar[str] = "experts"

    kind: Literal["trajectories"] = "trajectories"
    experts: Annotated[int, Ge(0)] = 0
    """How many experts of the file to follow; 0 takes all."""

    def build(self, request: NetworkRequest) -> Trajectories:
        """Return the reader.

        Raises:
            UserError: no file is named, or it does not fit.
        """
        return Trajectories(request, self)


class Trajectories(NetworkSource):
    """A reader of experts that a student starts beside and is to arrive beside.

    ``network`` is what students and experts are made of; its own weights are never matched. Weights are read
    from the file when they are needed. Batch normalisation sees the batch at hand, as in MTT's code.

    Attributes:
        file: the experts.
        layout: of the parameters in a vector [P].
        count: experts in use.
    """

    def __init__(self, request: NetworkRequest, config: TrajectoriesConfig) -> None:
        self.teachers = self._stored = StoredNetworks(request, config)
        self.network = self._stored.template
        normalise_by_batch(self.network, True)
        self.file = self._stored.file
        self.layout = self.file.metadata.layout
        self.count = self._stored.count

    def require(self, epochs: Iterable[int], remedy: str) -> None:
        """Refuse a file that lacks epochs a run may need: see `StoredNetworks.require`."""
        self._stored.require(epochs, remedy)

    def expert(self, seed: int, iteration: int) -> int:
        """Return the expert of an iteration: all in turn, shuffled anew for every round."""
        round_, place = divmod(iteration, self.count)
        order = torch.randperm(self.count, generator=generator(seed, "experts-order", round_))
        return int(order[place])

    def weights(self, expert: int, epoch: int, like: Tensor) -> Tensor:
        """Return the parameters [P] of an expert after some epochs, of the dtype and device of ``like``.

        Raises:
            UserError: the file is damaged there.
        """
        return self.file.flat(expert, epoch).to(like, non_blocking=True)

    def logits(self, expert: int, images: Tensor) -> Tensor:
        """Classify images [n, C, H, W] in network space by a trained expert -> float32 [n, K], CPU."""
        return self._stored.logits(expert, images)
