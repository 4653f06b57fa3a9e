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

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from dsdistill.compute.pixel_optimiser import OptimiserConfig
from dsdistill.engines.discrepancies import DISCREPANCIES, Discrepancy, Means
from dsdistill.engines.matching import MatchingEngine
from dsdistill.engines.sources import ClassFeatures, Sources
from dsdistill.supply.base import Supply
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.synthetic.set import SyntheticSet


@dataclass(frozen=True, kw_only=True)
class DistributionEngine(MatchingEngine):
    """Match the embeddings of each class."""

    kind: Literal["distribution"] = "distribution"
    discrepancy: Annotated[Discrepancy, DISCREPANCIES] = field(default_factory=Means)
    """What is compared: mean features (DM, IDM), distributions through a kernel (M3D), characteristic
    functions (NCFM), or one of your own."""
    calibration: Annotated[float, Ge(0)] = 0.0
    """Weight of the cross-entropy of the synthetic images under the trained network, in a second step of each
    iteration (NCFM)."""
    classification: Annotated[float, Ge(0)] = 0.0
    """Weight of the cross-entropy of the synthetic images under the network that is matched with, times that
    network's accuracy in percent where it comes from a queue (IDM)."""

    @property
    def updates_per_iteration(self) -> int:
        """Return 2 where a step of calibration follows that of matching."""
        return 2 if self.calibration else 1

    @property
    def auxiliary_optimisers(self) -> Mapping[str, OptimiserConfig]:
        """Return the optimiser of the discrepancy's adversary."""
        return {"adversary": self.discrepancy.adversary_optimiser}

    def prepare(self, synthetic: SyntheticSet, sources: Sources[Supply]) -> None:
        """Register what the discrepancy learns."""
        self.discrepancy.prepare(synthetic, sources.supply.network, sources.seed)

    def loss(self, synthetic: SyntheticSet, sources: Sources[Supply]) -> dict[str, Tensor]:
        """Return the discrepancy, and ``classification``; or ``calibration``, in an update of its own."""
        rows = sources.siamese()
        if sources.update:
            if load_trained := sources.drawn().load_trained:
                load_trained()
            fake = sources.synthetic_features(synthetic, rows)
            return {"calibration": self.calibration * self._classification(fake, sources)}
        fake = sources.synthetic_features(synthetic, rows)
        distance = self.discrepancy.term(synthetic, fake, sources, self.batch_real, rows)
        terms: dict[str, Tensor] = {self.discrepancy.kind: distance}
        if self.classification:
            terms["classification"] = self.classification * self._classification(fake, sources)
        return terms

    def _classification(self, features: ClassFeatures, sources: Sources[Supply]) -> Tensor:
        """Return each class's mean cross-entropy over its features, summed and weighted."""
        logits = sources.supply.network.classifier(features.rows)
        counts = torch.tensor(features.counts)
        labels = sources.classes.repeat_interleave(counts).to(logits.device, non_blocking=True)
        weight = sources.drawn().accuracy_weight
        if len(set(features.counts)) == 1:
            return weight * F.cross_entropy(logits, labels, reduction="sum") / features.counts[0]
        sizes = counts.repeat_interleave(counts).to(logits.device, non_blocking=True)
        return weight * (F.cross_entropy(logits, labels, reduction="none") / sizes).sum()

    def cost(self, sizes: Sizes) -> Cost:
        """Count one pass of features, and what the discrepancy makes of them."""
        most = min(self.batch_real, int(sizes.counts.max()))
        return dataclasses.replace(
            super().cost(sizes),
            features=self.discrepancy.values(sizes, most),
            kept=self.discrepancy.kept(sizes, self.batch_real),
        )
