"""Distribution matching: move synthetic images until random networks embed them like real ones.

DM (Zhao & Bilen, *Dataset Condensation with Distribution Matching*, WACV 2023, eq. 4-5): for a fresh random
network f and one siamese augmentation A per class,

    L = Σ_c ‖ mean_b f(A(real_c)) - mean_j f(A(S_c)) ‖²

summed over features and classes. No network is trained and nothing is differentiated twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.data.real import Task
from dsdistill.engines.base import Engine
from dsdistill.objectives.distributions import class_sums, mean_discrepancy
from dsdistill.sources import Sources
from dsdistill.supply import Fresh, Supply
from dsdistill.synthetic import SyntheticSet


@dataclass(frozen=True, kw_only=True)
class DistributionEngine(Engine):
    """Match class-mean embeddings under fresh random networks."""

    kind: Literal["distribution"] = "distribution"
    batch_real: Annotated[int, Ge(1)] = 256
    """Real images per class and iteration; a smaller class gives all it has."""

    @property
    def wanted(self) -> int:
        """Return ``batch_real``."""
        return self.batch_real

    def images(self, counts: Tensor, per_class: int) -> int:
        """Count real images once and synthetic ones, which are differentiated, three times."""
        return int(counts.clamp(max=self.batch_real).sum()) + 3 * per_class * len(counts)

    def held(self, per_class: int, classes: int, chunk: int) -> int:
        """Count the synthetic images."""
        return per_class * classes

    def networks(self, name: str, task: Task, device: torch.device) -> Supply:
        """Return fresh random networks, one per iteration."""
        return Fresh(name, task, device)

    def loss(self, synthetic: SyntheticSet, sources: Sources) -> dict[str, Tensor]:
        """Return the term ``mean``: eq. 4-5 summed over ``sources.classes``, in one pass over all of them."""
        network, rows, classes = sources.network(), sources.siamese(), len(sources.classes)
        sums = torch.zeros((), device=synthetic.images.device)
        for images, owner in sources.real(self.batch_real, rows):
            sums = sums + class_sums(network.frozen(images), owner, classes)
        real = sums / sources.counts(self.batch_real).to(sums.device)[:, None]

        fake = synthetic.of(sources.classes)
        owner = torch.arange(classes).repeat_interleave(fake.shape[1])
        features = network.differentiable(sources.augmentation(fake.flatten(0, 1), rows[owner]))
        return {"mean": mean_discrepancy(real, features.unflatten(0, fake.shape[:2]).mean(1))}
