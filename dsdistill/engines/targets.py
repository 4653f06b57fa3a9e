"""What recovered images are to be for their teacher, besides images of its statistics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from pydantic import Field
from torch import Tensor

from dsdistill.compute.recovery import NetworkOutput, RecoveryNetwork
from dsdistill.config.validation import forbid_extra
from dsdistill.engines.sources import Sources
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.objectives.barycentre import free_support, weighted_barycentre
from dsdistill.objectives.precision import at_least_float32
from dsdistill.seeding import generator
from dsdistill.supply.teachers import Teachers
from dsdistill.synthetic.set import ANCHORS, Constants, SyntheticSet


@dataclass(frozen=True, eq=False)
class RecoveryBatch:
    """G batches of B images each, and what one network says of them.

    Attributes:
        network: the network.
        teacher: its number.
        output: of the images as they are seen.
        rows: int64 [G·B], the images' positions in the decoded set; on the device.
        labels: int64 [G·B], on the device.
        groups: G.
        see: applies this iteration's augmentation and view of these batches to other images [G·B, C, S, S].
        constants: of the set.
    """

    network: RecoveryNetwork
    teacher: int
    output: NetworkOutput
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

    def check_network(self, name: str, network: Network, channels: int, size: int) -> None:  # noqa: B027
        """Check that the loss can be taken of a network, trained or not.

        Args:
            name: of the network. channels, size: of its images.

        Raises:
            UserError: it cannot.
        """

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
        losses = F.cross_entropy(batch.output.logits, batch.labels, reduction="none")
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

    def check_network(self, name: str, network: Network, channels: int, size: int) -> None:
        """Check that a network has such a block.

        Raises:
            UserError: it has fewer.
        """
        like = next(network.parameters())
        with torch.no_grad():
            blocks = len(network.trace(torch.zeros(2, channels, size, size).to(like))[0])
        if not -blocks <= self.layer < blocks:
            raise UserError(
                f"{name} has {blocks} blocks, and no block {self.layer}: set engine.target.layer "
                f"to 0 to {blocks - 1}, or to -1 for the last"
            )

    def prepare(self, synthetic: SyntheticSet, sources: Sources[Teachers]) -> None:
        """Check every teacher.

        Raises:
            UserError: as `check_network`.
        """
        for member in sources.supply.members:
            self.check_network(member.name, member.network, sources.task.channels, sources.task.size)

    def loss(self, batch: RecoveryBatch) -> Tensor:
        """Return the sum over each batch."""
        with torch.no_grad():
            anchors = batch.see(batch.constants[ANCHORS][batch.rows])
            goal = batch.network(anchors, batch.groups, maps=True).maps[self.layer]
        apart = at_least_float32(batch.output.maps[self.layer] - goal).abs().flatten(1).mean(1)
        return apart.unflatten(0, (batch.groups, -1)).sum(1)


@dataclass(frozen=True, kw_only=True)
class Barycentre(Target):
    """Be what stands best for all features of a class: the atoms of their Wasserstein barycentre (WMDD).

    The features are the inputs of a teacher's classifier, of all real images of the class. A class has as
    many atoms as images, each the goal of one; the loss is the norm of all differences of a batch.
    """

    term: ClassVar[str] = "features"

    kind: Literal["barycentre"] = "barycentre"
    weights: bool = False
    """Learn how much each atom weighs. The finished set then stores it as the weight of the image in a
    student's loss, on average 1 in each class."""
    classification: Annotated[float, Ge(0)] = 0.0
    """Weight of the cross-entropy of the images' labels beside it."""

    def prepare(self, synthetic: SyntheticSet, sources: Sources[Teachers]) -> None:
        """Compute the atoms of every class for every teacher; their weights are the mean over teachers."""
        weights = torch.zeros(sum(synthetic.decoded_counts), dtype=torch.float64)
        for teacher, member in enumerate(sources.supply.members):
            parts = [
                self._atoms(member.network, label, count, sources)
                for label, count in enumerate(synthetic.decoded_counts)
            ]
            atoms, shares = (torch.cat(each) for each in zip(*parts, strict=True))
            synthetic.constants[_atoms_of(teacher)] = atoms.to(synthetic.images.dtype)
            weights += shares / sources.supply.count
        if self.weights:
            origins = synthetic.origins()
            sums = torch.zeros(len(synthetic.labels), dtype=torch.float64).index_add(0, origins, weights)
            synthetic.sample_weights = (sums / origins.bincount()).to(synthetic.images.dtype)

    def _atoms(
        self, network: Network, label: int, count: int, sources: Sources[Teachers]
    ) -> tuple[Tensor, Tensor]:
        """Return the atoms of a class [n, D] and their weights [n], on average 1."""
        with torch.no_grad():
            features = torch.cat([network.embed(images).cpu() for images in sources.all_of(label)])
        stream = generator(sources.seed, "barycentre", label)
        start = torch.randn(count, features.shape[1], generator=stream, dtype=torch.float64)
        if self.weights:
            atoms, weights = weighted_barycentre(features, start)
            return atoms, count * weights
        return free_support(features, start), torch.ones(count, dtype=torch.float64)

    def loss(self, batch: RecoveryBatch) -> Tensor:
        """Return the norm over each batch, and the mean cross-entropy."""
        atoms = batch.constants[_atoms_of(batch.teacher)][batch.rows]
        apart = (batch.output.embedding - atoms).unflatten(0, (batch.groups, -1))
        distances = torch.linalg.vector_norm(apart, dim=(1, 2))
        if not self.classification:
            return distances
        return distances + self.classification * CrossEntropy().loss(batch)


def _atoms_of(teacher: int) -> str:
    return f"atoms_{teacher}"


TargetConfig = Annotated[CrossEntropy | PairedFeatures | Barycentre, Field(discriminator="kind")]
"""The option ``engine.target``, by its ``kind``."""
