"""Attention matching: move synthetic images until random networks look where they look in real ones.

DataDAM (Sajedi et al., *DataDAM: Efficient Dataset Distillation with Attention Matching*, ICCV 2023): for a
fresh random network and one siamese augmentation per class, the mean spatial attention of each class is
matched at every layer but the last, and the mean embedding in its place:

    L = 100 Σ_layers Σ_c ‖ mean a(real_c) - mean a(S_c) ‖² + 100 λ Σ_c ‖ mean f(real_c) - mean f(S_c) ‖²

with a(F) = Σ_channels |F|^p, flattened and of unit length. The factor 100 is the released code's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.data.real import Task
from dsdistill.engines.base import Engine, Sizes
from dsdistill.engines.sources import Sources
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.objectives.attention import attention, attention_discrepancy, output_discrepancy
from dsdistill.supply.base import Supply
from dsdistill.supply.fresh import Fresh
from dsdistill.synthetic.set import SyntheticSet


@dataclass(frozen=True, kw_only=True)
class AttentionEngine(Engine):
    """Match spatial attention and class-mean embeddings under fresh random networks."""

    kind: Literal["attention"] = "attention"
    batch_real: Annotated[int, Ge(1)] = 64
    """Real images per class and iteration; a smaller class gives all it has."""
    power: Annotated[float, Ge(1)] = 4.0
    """p: the larger, the more the strongest channels count."""
    balance: Annotated[float, Ge(0)] = 0.01
    """λ, the weight of the embeddings beside the attention."""

    @property
    def wanted(self) -> int:
        """Return ``batch_real``."""
        return self.batch_real

    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Return the attention of every layer but the last and then the embedding, in one row."""

        def joined(images: Tensor) -> Tensor:
            maps, embedding = network.trace(images)
            seen = [attention(layer, self.power) for layer in maps[:-1]]
            return torch.cat([*seen, embedding.to(seen[0].dtype)], 1)

        return joined

    def images(self, sizes: Sizes) -> int:
        """Count real images once and synthetic ones, which are differentiated, three times."""
        return sizes.real(self.batch_real) + 3 * sizes.copies * sizes.total

    def held(self, sizes: Sizes, classes: int, chunk: int, size: int) -> int:
        """Count the synthetic images."""
        return sizes.copies * sizes.decoded * classes * size

    def together(self, counts: Tensor) -> int:
        """Count those of all classes."""
        return int(counts.clamp(max=self.batch_real).sum())

    def networks(self, name: str, task: Task, device: torch.device) -> Supply:
        """Return fresh random networks, one per iteration.

        Raises:
            UserError: the network has fewer than two layers to look at.
        """
        supply = Fresh(name, task, device)
        with torch.no_grad():
            maps, _ = supply.network.trace(torch.zeros(2, *task.shape, device=device))
        if len(maps) < 2:
            raise UserError(
                f"{name} has no layer to match the attention of; choose one of two or more blocks"
            )
        return supply

    def loss(self, synthetic: SyntheticSet, sources: Sources) -> dict[str, Tensor]:
        """Return the terms ``attention`` and ``output`` of ``sources.classes``, in one pass over all."""
        rows = sources.siamese()
        real = sources.real_means(self.batch_real, rows)
        fake = sources.synthetic_features(synthetic, rows).mean(1)
        embedding = sources.supply.network.feature_dim
        return {
            "attention": attention_discrepancy(real[:, :-embedding], fake[:, :-embedding]),
            "output": output_discrepancy(real[:, -embedding:], fake[:, -embedding:], self.balance),
        }
