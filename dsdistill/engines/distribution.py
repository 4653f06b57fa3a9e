"""Distribution matching: move synthetic images until random networks embed them like real ones.

DM (Zhao & Bilen, *Dataset Condensation with Distribution Matching*, WACV 2023, eq. 4-5): for a fresh random
network f and one siamese augmentation A per class,

    L = Σ_c ‖ mean_b f(A(real_c)) - mean_j f(A(S_c)) ‖²

summed over features and classes. M3D (Zhang et al., *M3D: Dataset Condensation by Minimizing Maximum Mean
Discrepancy*, AAAI 2024) compares the distributions of the embeddings through a kernel, not their means alone.
IDM (Zhao et al., *Improved Distribution Matching for Dataset Condensation*, CVPR 2023) takes its networks
from a queue in training on real data, and adds the cross-entropy of the synthetic images under them. Nothing is
differentiated twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, assert_never

import torch
import torch.nn.functional as F
from annotated_types import Ge
from pydantic import Field
from torch import Tensor

from dsdistill.data.real import Task
from dsdistill.engines.base import Engine
from dsdistill.network_queue import QueueConfig
from dsdistill.objectives.distributions import mean_discrepancy
from dsdistill.objectives.kernels import Gaussian, Kernel, Linear, Polynomial, squared_mmd_by_class
from dsdistill.sources import Sources
from dsdistill.supply import FreshConfig, Supply
from dsdistill.synthetic import SyntheticSet


@dataclass(frozen=True, kw_only=True)
class DistributionEngine(Engine):
    """Match the embeddings of each class."""

    kind: Literal["distribution"] = "distribution"
    batch_real: Annotated[int, Ge(1)] = 256
    """Real images per class and iteration; a smaller class gives all it has."""

    discrepancy: Literal["mean", "mmd"] = "mean"
    """Between the embeddings of a class: mean, of their means (DM); mmd, through a kernel (M3D)."""
    kernel: Literal["linear", "polynomial", "gaussian"] = "gaussian"
    """Of mmd. A linear one makes it the discrepancy of means."""
    bandwidth: Annotated[float, Ge(0)] = 0.0
    """s of the Gaussian kernel; 0 takes the median distance between the real embeddings of each class. The
    discrepancy is multiplied by s², so that the learning rates of DM hold."""
    degree: Annotated[int, Ge(1)] = 3
    """Of the polynomial kernel (x·y / D + 1)^degree."""
    supply: Annotated[FreshConfig | QueueConfig, Field(discriminator="kind")] = field(
        default_factory=FreshConfig
    )
    """Where networks come from: fresh ones (DM), or a queue of networks in training (IDM)."""
    classification: Annotated[float, Ge(0)] = 0.0
    """Weight of the cross-entropy of the synthetic images under the network that is matched with, times that
    network's accuracy in percent where they come from a queue (IDM)."""

    @property
    def wanted(self) -> int:
        """Return ``batch_real``."""
        return self.batch_real

    def images(self, counts: Tensor, per_class: int) -> int:
        """Count real images once and synthetic ones, which are differentiated, three times."""
        real = int(counts.clamp(max=self.batch_real).sum())
        return real + 3 * (per_class * len(counts) + self.supply.trained)

    def held(self, per_class: int, classes: int, chunk: int, size: int) -> int:
        """Count the synthetic images, or a batch that a network is trained on."""
        return max(per_class * classes, getattr(self.supply, "batch_size", 0)) * size

    def together(self, counts: Tensor) -> int:
        """Count those of all classes."""
        return int(counts.clamp(max=self.batch_real).sum())

    def networks(self, name: str, task: Task, device: torch.device) -> Supply:
        """Return what ``supply`` describes."""
        return self.supply.build(name, task, device)

    def loss(self, synthetic: SyntheticSet, sources: Sources) -> dict[str, Tensor]:
        """Return ``mean`` or ``mmd``, and ``classification``, of ``sources.classes``, all in one pass."""
        rows = sources.siamese()
        fake = sources.synthetic_features(synthetic, rows)
        if self.discrepancy == "mean":
            terms = {"mean": mean_discrepancy(sources.real_means(self.batch_real, rows), fake.mean(1))}
        else:
            features = sources.real_features(self.batch_real, rows)
            classes = features.split(sources.counts(self.batch_real).tolist())
            terms = {"mmd": squared_mmd_by_class(classes, fake, self._kernel()).sum()}
        if self.classification:
            terms["classification"] = self.classification * self._classification(fake, sources)
        return terms

    def _classification(self, features: Tensor, sources: Sources) -> Tensor:
        """Return each class's mean cross-entropy over its features [k, n, D], summed and trusted."""
        logits = sources.supply.network.classifier(features.flatten(0, 1))
        labels = sources.classes.repeat_interleave(features.shape[1]).to(logits.device, non_blocking=True)
        return sources.supply.trust * F.cross_entropy(logits, labels, reduction="sum") / features.shape[1]

    def _kernel(self) -> Kernel:
        match self.kernel:
            case "linear":
                return Linear()
            case "polynomial":
                return Polynomial(degree=self.degree)
            case "gaussian":
                return Gaussian(bandwidth=self.bandwidth or None, scaled=True)
            case _:
                assert_never(self.kernel)
