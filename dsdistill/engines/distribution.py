"""Distribution matching: move synthetic images until random networks embed them like real ones.

DM (Zhao & Bilen, *Dataset Condensation with Distribution Matching*, WACV 2023, eq. 4-5): for a fresh random
network f and one siamese augmentation A per class,

    L = Σ_c ‖ mean_b f(A(real_c)) - mean_j f(A(S_c)) ‖²

summed over features and classes. M3D (Zhang et al., *M3D: Dataset Condensation by Minimizing Maximum Mean
Discrepancy*, AAAI 2024) compares the distributions of the embeddings through a kernel, not their means alone.
IDM (Zhao et al., *Improved Distribution Matching for Dataset Condensation*, CVPR 2023) takes its networks
from a queue in training on real data, and adds the cross-entropy of the synthetic images under them. Nothing
is differentiated twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from pydantic import Field
from torch import Tensor

from dsdistill.compute.pixel_optimiser import OptimiserConfig
from dsdistill.data.real import Task
from dsdistill.engines.base import Engine, Sizes
from dsdistill.engines.discrepancies import Characteristic, Kernels, Means
from dsdistill.engines.sources import Sources
from dsdistill.supply.base import Supply
from dsdistill.supply.fresh import FreshConfig
from dsdistill.supply.pool import PoolConfig
from dsdistill.supply.queue import QueueConfig
from dsdistill.synthetic.set import SyntheticSet


@dataclass(frozen=True, kw_only=True)
class DistributionEngine(Engine):
    """Match the embeddings of each class."""

    kind: Literal["distribution"] = "distribution"
    batch_real: Annotated[int, Ge(1)] = 256
    """Real images per class and iteration; a smaller class gives all it has."""

    discrepancy: Annotated[Means | Kernels | Characteristic, Field(discriminator="kind")] = field(
        default_factory=Means
    )
    """What is compared: mean features (DM, IDM), distributions through a kernel (M3D), characteristic
    functions (NCFM)."""
    supply: Annotated[FreshConfig | QueueConfig | PoolConfig, Field(discriminator="kind")] = field(
        default_factory=FreshConfig
    )
    """Where networks come from: fresh ones (DM), a queue of networks in training (IDM), or between the first
    and the last weights of trained ones (NCFM)."""
    calibration: Annotated[float, Ge(0)] = 0.0
    """Weight of the cross-entropy of the synthetic images under the trained network, in a second step of each
    iteration (NCFM); for a pool."""
    classification: Annotated[float, Ge(0)] = 0.0
    """Weight of the cross-entropy of the synthetic images under the network that is matched with, times that
    network's accuracy in percent where they come from a queue (IDM)."""

    @property
    def wanted(self) -> int:
        """Return ``batch_real``."""
        return self.batch_real

    def images(self, sizes: Sizes) -> int:
        """Count real images once and synthetic ones, which are differentiated, three times."""
        return sizes.real(self.batch_real) + 3 * (sizes.copies * sizes.total + self.supply.trained)

    def held(self, sizes: Sizes, classes: int, chunk: int, size: int) -> int:
        """Count the synthetic images, or a batch that a network is trained on."""
        return max(sizes.copies * sizes.decoded * classes, getattr(self.supply, "batch_size", 0)) * size

    def together(self, counts: Tensor) -> int:
        """Count those of all classes."""
        return int(counts.clamp(max=self.batch_real).sum())

    def networks(self, name: str, task: Task, device: torch.device) -> Supply:
        """Return what ``supply`` describes."""
        return self.supply.build(name, task, device)

    @property
    def updates_per_iteration(self) -> int:
        """Return 2 where a step of calibration follows that of matching."""
        return 2 if self.calibration else 1

    @property
    def auxiliary_optimisers(self) -> Mapping[str, OptimiserConfig]:
        """Return how the discrepancy's adversary is stepped, if it has one."""
        return {"adversary": self.discrepancy.adversary_optimiser}

    def prepare(self, synthetic: SyntheticSet, supply: Supply, seed: int) -> None:
        """Register what the discrepancy learns."""
        self.discrepancy.prepare(synthetic, supply.network, seed)

    def loss(self, synthetic: SyntheticSet, sources: Sources) -> dict[str, Tensor]:
        """Return the discrepancy, and ``classification``; or ``calibration``, in a turn of its own."""
        rows = sources.siamese()
        if sources.update:
            sources.network()
            sources.supply.settle()
            fake = sources.synthetic_features(synthetic, rows)
            return {"calibration": self.calibration * self._classification(fake, sources)}
        fake = sources.synthetic_features(synthetic, rows)
        found = self.discrepancy.term(synthetic, fake, sources, self.batch_real, rows)
        terms: dict[str, Tensor] = {self.discrepancy.kind: found}
        if self.classification:
            terms["classification"] = self.classification * self._classification(fake, sources)
        return terms

    def _classification(self, features: Tensor, sources: Sources) -> Tensor:
        """Return each class's mean cross-entropy over its features [k, n, D], summed and trusted."""
        logits = sources.supply.network.classifier(features.flatten(0, 1))
        labels = sources.classes.repeat_interleave(features.shape[1]).to(logits.device, non_blocking=True)
        return sources.supply.trust * F.cross_entropy(logits, labels, reduction="sum") / features.shape[1]
