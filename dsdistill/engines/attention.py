"""Attention matching: move synthetic images until networks attend to the same places as in real ones.

DataDAM (Sajedi et al., *DataDAM: Efficient Dataset Distillation with Attention Matching*, ICCV 2023): for a
fresh random network and one siamese augmentation per class, the mean spatial attention of each class is
matched at every layer but the last, and the mean embedding in its place:

    L = 100 Σ_layers Σ_c ‖ mean a(real_c) - mean a(S_c) ‖² + 100 λ Σ_c ‖ mean f(real_c) - mean f(S_c) ‖²

with a(F) = Σ_channels |F|^p, flattened and of unit length. The factor 100 is the released code's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.engines.matching import MatchingEngine
from dsdistill.engines.sources import Sources
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.objectives.attention import attention, attention_discrepancy, output_discrepancy
from dsdistill.supply.base import NetworkRequest, Supply
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.synthetic.set import SyntheticSet


@dataclass(frozen=True, kw_only=True)
class AttentionEngine(MatchingEngine):
    """Match spatial attention and class-mean embeddings."""

    kind: Literal["attention"] = "attention"
    batch_real: Annotated[int, Ge(1)] = 64
    power: Annotated[float, Ge(1)] = 4.0
    """p: the larger, the more the strongest channels count."""
    balance: Annotated[float, Ge(0)] = 0.01
    """λ, the weight of the embeddings beside the attention."""

    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Return the attention of every layer but the last and then the embedding, in one row."""

        def joined(images: Tensor) -> Tensor:
            maps, embedding = network.trace(images)
            rows = [attention(layer, self.power) for layer in maps[:-1]]
            return torch.cat([*rows, embedding.to(rows[0].dtype)], 1)

        return joined

    def build_networks(self, request: NetworkRequest) -> Supply:
        """Build the supply.

        Raises:
            UserError: the network has fewer than two layers to look at.
        """
        supply = super().build_networks(request)
        with torch.no_grad():
            maps, _ = supply.network.trace(torch.zeros(2, *request.task.shape, device=request.device))
        if len(maps) < 2:
            raise UserError(
                f"{request.name} has no layer to match the attention of; choose one of two or more blocks"
            )
        return supply

    def loss(self, synthetic: SyntheticSet, sources: Sources[Supply]) -> dict[str, Tensor]:
        """Return the terms ``attention`` and ``output`` of ``sources.classes``, in one pass over all."""
        rows = sources.siamese()
        real = sources.real_means(self.batch_real, rows)
        fake = sources.synthetic_features(synthetic, rows).means()
        embedding = sources.supply.network.feature_dim
        return {
            "attention": attention_discrepancy(real[:, :-embedding], fake[:, :-embedding]),
            "output": output_discrepancy(real[:, -embedding:], fake[:, -embedding:], self.balance),
        }

    def cost(self, sizes: Sizes) -> Cost:
        """Count one pass of features, of real images first, whose means are all that is kept of them."""
        kept = len(sizes.counts) * sizes.feature_dim
        return dataclasses.replace(super().cost(sizes), beside_graph=False, kept=kept)
