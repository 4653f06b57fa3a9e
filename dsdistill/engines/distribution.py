"""Distribution matching: move synthetic images until random networks embed them like real ones.

DM (Zhao & Bilen, *Dataset Condensation with Distribution Matching*, WACV 2023, eq. 4-5): for a fresh random
network f and one siamese augmentation A per class,

    L = Σ_c ‖ mean_b f(A(real_c)) - mean_j f(A(S_c)) ‖²

summed over features and classes. M3D (Zhang et al., *M3D: Dataset Condensation by Minimizing Maximum Mean
Discrepancy*, AAAI 2024) compares the distributions of the embeddings through a kernel, not their means alone.
IDM (Zhao et al., *Improved Distribution Matching for Dataset Condensation*, CVPR 2023) takes its networks
from a queue in training on real data, and adds the cross-entropy of the synthetic images under them; TGDD
takes snapshots of trained networks, and adds it under snapshots of later epochs. Nothing is differentiated
twice.
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

from dsdistill.augment.dsa import Parameters
from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.custom_gradient import settled
from dsdistill.engines.discrepancies import DISCREPANCIES, Discrepancy, Means
from dsdistill.engines.matching import MatchingEngine
from dsdistill.engines.sources import ClassFeatures, Sources
from dsdistill.errors import UserError
from dsdistill.supply.base import NetworkRequest, Supply
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.synthetic.set import SyntheticSet


@dataclass(frozen=True, kw_only=True)
class DistributionEngine(MatchingEngine):
    """Match the embeddings of each class."""

    kind: Literal["distribution"] = "distribution"
    discrepancy: Annotated[Discrepancy, DISCREPANCIES] = field(default_factory=Means)
    """What is compared: mean features (DM, IDM), distributions through a kernel (M3D), characteristic
    functions (NCFM), or one of your own."""
    batch_synthetic: Annotated[int, Ge(0)] = 0
    """Decoded images of a class matched at once, a random choice in each iteration; 0 takes all."""
    calibration: Annotated[float, Ge(0)] = 0.0
    """Weight of the cross-entropy of the synthetic images under the trained network, in a second step of each
    iteration (NCFM, DANCE)."""
    classification: Annotated[float, Ge(0)] = 0.0
    """Weight of the cross-entropy of the synthetic images under the ``classifier``, times that network's
    accuracy in percent where it comes from a queue (IDM)."""
    classifier: Literal["matched", "later"] = "matched"
    """The network of ``classification``: the one that is matched with (IDM); or, of a supply of snapshots,
    the same network at that epoch or a later one, within the supply's region (TGDD)."""

    def __post_init__(self) -> None:
        if self.classifier == "later" and not self.classification:
            raise UserError(
                "engine.classifier=later is of the cross-entropy, whose weight is 0: set "
                "engine.classification, or engine.classifier=matched"
            )
        if self._by_later and not self.supply.has_later:
            raise UserError(
                f"a supply of kind {self.supply.kind!r} has no networks of later epochs to classify by: set "
                "engine.supply.kind=snapshots, or engine.classifier=matched"
            )

    @property
    def _by_later(self) -> bool:
        """Whether images are classified by a later network than they are matched with."""
        return self.classifier == "later"

    @property
    def updates_per_iteration(self) -> int:
        """Return 2 where a step of calibration follows that of matching."""
        return 2 if self.calibration else 1

    @property
    def auxiliary_optimisers(self) -> Mapping[str, OptimiserConfig]:
        """Return the optimiser of the discrepancy's adversary."""
        return {"adversary": self.discrepancy.adversary_optimiser}

    def images_at_once(self, decoded: int) -> int:
        """Return ``batch_synthetic``, where there are more."""
        return min(self.batch_synthetic or decoded, decoded)

    def build_networks(self, request: NetworkRequest) -> Supply:
        """Build the supply.

        Raises:
            UserError: its experts do not fit, or lack the later epochs that images are classified by.
        """
        supply = super().build_networks(request)
        if self._by_later:
            supply.require_later()
        return supply

    def prepare(self, synthetic: SyntheticSet, sources: Sources[Supply]) -> None:
        """Register what the discrepancy learns."""
        self.discrepancy.prepare(synthetic, sources.supply.network, sources.seed)

    def loss(self, synthetic: SyntheticSet, sources: Sources[Supply]) -> dict[str, Tensor]:
        """Return the discrepancy, and ``classification``; or ``calibration``, in an update of its own."""
        rows = sources.siamese()
        if sources.update:
            if load_trained := sources.drawn().load_trained:
                load_trained()
            fake = sources.synthetic_features(synthetic, rows, self.batch_synthetic)
            return {"calibration": self.calibration * self._classification(fake, sources)}
        terms: dict[str, Tensor] = {}
        if self._by_later:
            terms["classification"] = self._under_later(synthetic, sources, rows)
        fake = sources.synthetic_features(synthetic, rows, self.batch_synthetic)
        distance = self.discrepancy.term(synthetic, fake, sources, self.batch_real, rows)
        if self.classification and not self._by_later:
            terms["classification"] = self.classification * self._classification(fake, sources)
        return {self.discrepancy.kind: distance, **terms}

    def _under_later(self, synthetic: SyntheticSet, sources: Sources[Supply], rows: Parameters) -> Tensor:
        """Return the weighted cross-entropy under the later network, differentiated while that is there."""
        later = sources.drawn().later
        assert later is not None  # as has_later of the supply's options says
        learned = [parameter for parameter in synthetic.parameters() if parameter.requires_grad]
        with later():
            fake = sources.synthetic_features(synthetic, rows, self.batch_synthetic)
            return settled(self.classification * self._classification(fake, sources), learned)

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
        """Count one pass of features, what the discrepancy makes of them, and a pass of another network."""
        most = min(self.batch_real, int(sizes.counts.max()))
        sizes = dataclasses.replace(sizes, most_matched=self.batch_synthetic)
        cost = super().cost(sizes)
        again = 3 * int(sizes.matched.sum()) * (bool(self.calibration) + self._by_later)
        return dataclasses.replace(
            cost,
            passes=cost.passes + again,
            features=self.discrepancy.values(sizes, most),
            kept=self.discrepancy.kept(sizes, self.batch_real),
        )
