"""What recovered images are to be for their teacher, besides images of its statistics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dsdistill.compute.recovery import Recovered, RecoveryNetwork
from dsdistill.config.validation import forbid_extra
from dsdistill.engines.sources import Sources
from dsdistill.objectives.precision import at_least_float32
from dsdistill.supply.teachers import Teachers
from dsdistill.synthetic.set import ANCHORS, Constants, SyntheticSet


@dataclass(frozen=True, eq=False)
class RecoveryBatch:
    """G batches of B images each, and what one network says of them.

    Attributes:
        network: the network.
        said: of the images as they are seen.
        rows: int64 [G·B], the images' positions in the decoded set.
        labels: int64 [G·B], on the device.
        groups: G.
        see: applies this iteration's augmentation and view of these batches to other images [G·B, C, S, S].
        constants: of the set.
    """

    network: RecoveryNetwork
    said: Recovered
    rows: Tensor
    labels: Tensor
    groups: int
    see: Callable[[Tensor], Tensor]
    constants: Constants


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Target(ABC):
    """A loss of what a network says of a batch."""

    maps: ClassVar[bool] = False
    """Whether it reads the maps of the blocks."""
    anchored: ClassVar[bool] = False
    """Whether it reads the constant `ANCHORS`."""
    term: ClassVar[str]
    """Its name in the log."""

    def prepare(self, synthetic: SyntheticSet, sources: Sources[Teachers]) -> None:  # noqa: B027
        """Register constants that the loss needs; called once."""

    @abstractmethod
    def loss(self, batch: RecoveryBatch) -> Tensor:
        """Return the loss of each batch, [G]."""


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Target):
    """Be recognised: the mean cross-entropy of the images' labels (SRe2L)."""

    term: ClassVar[str] = "classification"

    kind: Literal["cross-entropy"] = "cross-entropy"

    def loss(self, batch: RecoveryBatch) -> Tensor:
        """Return the mean over each batch."""
        losses = F.cross_entropy(batch.said.logits, batch.labels, reduction="none")
        return losses.unflatten(0, (batch.groups, -1)).mean(1)


@dataclass(frozen=True, kw_only=True)
class PairedFeatures(Target):
    """Be to a network what an image's anchor is: the real image it starts from, seen in the same way (CIM).

    The loss is the mean absolute difference of a map of the network, summed over the images of a batch.
    """

    maps: ClassVar[bool] = True
    anchored: ClassVar[bool] = True
    term: ClassVar[str] = "features"

    kind: Literal["paired-features"] = "paired-features"
    layer: int = -1
    """The block whose map is compared, counted from 0; -1 is the last."""

    def loss(self, batch: RecoveryBatch) -> Tensor:
        """Return the sum over each batch."""
        with torch.no_grad():
            anchors = batch.see(batch.constants[ANCHORS][batch.rows])
            goal = batch.network(anchors, batch.groups, maps=True).maps[self.layer]
        apart = at_least_float32(batch.said.maps[self.layer] - goal).abs().flatten(1).mean(1)
        return apart.unflatten(0, (batch.groups, -1)).sum(1)


TargetConfig = Annotated[CrossEntropy | PairedFeatures, Field(discriminator="kind")]
"""The option ``engine.target``, by its ``kind``."""
