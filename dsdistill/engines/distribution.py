"""Distribution matching: move synthetic images until random networks embed them like real ones.

DM (Zhao & Bilen, *Dataset Condensation with Distribution Matching*, WACV 2023, eq. 4-5): for a fresh random
network f and one siamese augmentation A per class,

    L = Σ_c ‖ mean_b f(A(real_c)) - mean_j f(A(S_c)) ‖²

summed over features and classes. M3D (Zhang et al., *M3D: Dataset Condensation by Minimizing Maximum Mean
Discrepancy*, AAAI 2024) compares the distributions of the embeddings through a kernel, not their means alone.
No network is trained and nothing is differentiated twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, assert_never

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.data.real import Task
from dsdistill.engines.base import Engine
from dsdistill.objectives.distributions import mean_discrepancy
from dsdistill.objectives.kernels import Gaussian, Kernel, Linear, Polynomial, squared_mmd_by_class
from dsdistill.sources import Sources
from dsdistill.supply import Fresh, Supply
from dsdistill.synthetic import SyntheticSet


@dataclass(frozen=True, kw_only=True)
class DistributionEngine(Engine):
    """Match the embeddings of each class under fresh random networks."""

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

    @property
    def wanted(self) -> int:
        """Return ``batch_real``."""
        return self.batch_real

    def images(self, counts: Tensor, per_class: int) -> int:
        """Count real images once and synthetic ones, which are differentiated, three times."""
        return int(counts.clamp(max=self.batch_real).sum()) + 3 * per_class * len(counts)

    def held(self, per_class: int, classes: int, chunk: int, size: int) -> int:
        """Count the synthetic images."""
        return per_class * classes * size

    def together(self, counts: Tensor) -> int:
        """Count those of all classes."""
        return int(counts.clamp(max=self.batch_real).sum())

    def networks(self, name: str, task: Task, device: torch.device) -> Supply:
        """Return fresh random networks, one per iteration."""
        return Fresh(name, task, device)

    def loss(self, synthetic: SyntheticSet, sources: Sources) -> dict[str, Tensor]:
        """Return the term ``mean`` or ``mmd``, summed over ``sources.classes``, in one pass over all."""
        rows = sources.siamese()
        if self.discrepancy == "mean":
            real = sources.real_means(self.batch_real, rows)
            return {"mean": mean_discrepancy(real, sources.synthetic_features(synthetic, rows).mean(1))}
        features = sources.real_features(self.batch_real, rows)
        classes = features.split(sources.counts(self.batch_real).tolist())
        fake = sources.synthetic_features(synthetic, rows)
        return {"mmd": squared_mmd_by_class(classes, fake, self._kernel()).sum()}

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
