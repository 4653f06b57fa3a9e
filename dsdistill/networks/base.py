"""What every network offers, and the chain of blocks most of them are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Network(nn.Module, ABC):
    """An image classifier split into an embedding and a classifier.

    Inputs are float [B, C, H, W] in network space (standardised or whitened). No operation is a ReLU in
    place: second-order gradients read what it would overwrite.

    Attributes:
        classifier: maps embeddings [B, feature_dim] to logits [B, K].
        feature_dim: length of one embedding.
    """

    classifier: nn.Module
    feature_dim: int

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Return what the classifier sees, [B, feature_dim]."""

    @abstractmethod
    def trace(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return ``activations(x)`` and ``embed(x)`` from a single forward pass."""

    def activations(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps [B, c, h, w] of every block, after activation and before pooling."""
        return self.trace(x)[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K]."""
        return self.classifier(self.embed(x))

    @property
    def has_batch_norm(self) -> bool:
        """Whether any layer normalises by batches, or by the statistics it has kept of them."""
        return any(isinstance(module, _BatchNorm) for module in self.modules())

    @property
    def couples_samples(self) -> bool:
        """Whether one sample's output depends on the rest of its batch, so that a batch cannot be split.

        That is so of batch normalisation while it reads the batch at hand; with statistics it has kept, and
        keeps, a sample is alone.
        """
        return any(isinstance(module, _BatchNorm) and module.training for module in self.modules())


class Block(nn.Module, ABC):
    """One link of a chain: a feature map, then the pooling on the way to the next link."""

    pool: nn.Module

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the map after activation and before pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled map."""
        return self.pool(self.features(x))


class Chain(Network):
    """Blocks in a row, a neck that makes their last map a vector, and a linear classifier."""

    def __init__(self, blocks: Iterable[Block], neck: nn.Module, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.neck = neck
        self.feature_dim = feature_dim
        self.classifier = nn.Linear(feature_dim, num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """Return what the classifier sees, [B, feature_dim]."""
        for block in self.blocks:
            x = block(x)
        return self.neck(x)

    def trace(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return ``activations(x)`` and ``embed(x)`` from a single forward pass."""
        maps = []
        for block in cast("Iterable[Block]", self.blocks):
            maps.append(block.features(x))
            x = block.pool(maps[-1])
        return maps, self.neck(x)
