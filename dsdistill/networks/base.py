"""The interface of every network, and the chain of blocks that most networks are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Network(nn.Module, ABC):
    """An image classifier split into an embedding and a classifier.

    One of your own says here what its features are; any other `torch.nn.Module` is divided by what it
    computes (see `register_network`).

    >>> class Flat(dsdistill.Network):
    ...     def __init__(self, channels, size, num_classes):
    ...         super().__init__()
    ...         self.feature_dim = channels * size**2
    ...         self.classifier = torch.nn.Linear(self.feature_dim, num_classes)
    ...
    ...     def embed(self, x):
    ...         return x.flatten(1)
    ...
    ...     def trace(self, x):
    ...         return [x], self.embed(x)
    >>> dsdistill.distill("flat.h5", dataset="digits", ipc=1, iterations=3, network=Flat).images
    10

    Inputs are float [B, C, H, W] in network space (standardised or whitened). No operation works in
    place: second-order gradients need the values it would overwrite.

    Attributes:
        classifier: maps embeddings [B, feature_dim] to logits [B, K].
        feature_dim: length of one embedding.
    """

    classifier: nn.Module
    feature_dim: int

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Return the input of the classifier, [B, feature_dim]."""

    @abstractmethod
    def trace(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the feature maps and ``embed(x)`` from a single forward pass.

        The maps are [B, c, h, w], one per block, after its activation and before its pooling.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K]."""
        return self.classifier(self.embed(x))

    @property
    def has_batch_norm(self) -> bool:
        """Whether any layer is batch normalisation, with the statistics of a batch or with running ones."""
        return any(isinstance(module, _BatchNorm) for module in self.modules())

    @property
    def couples_samples(self) -> bool:
        """Whether the output of a sample depends on the rest of its batch, so that a batch cannot be split.

        Batch normalisation does so in training mode; with running statistics, samples are independent.
        """
        return any(isinstance(module, _BatchNorm) and module.training for module in self.modules())


class Block(nn.Module, ABC):
    """One block of a chain: a feature map, then its pooling."""

    pool: nn.Module

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the map after activation and before pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled map."""
        return self.pool(self.features(x))


class Chain(Network):
    """A sequence of blocks, a neck that turns the last map into a vector, and a linear classifier."""

    def __init__(self, blocks: Iterable[Block], neck: nn.Module, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.neck = neck
        self.feature_dim = feature_dim
        self.classifier = nn.Linear(feature_dim, num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """Return the input of the classifier, [B, feature_dim]."""
        for block in self.blocks:
            x = block(x)
        return self.neck(x)

    def trace(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the feature maps [B, c, h, w] of all blocks and ``embed(x)`` from a single forward pass."""
        maps = []
        for block in cast("Iterable[Block]", self.blocks):
            maps.append(block.features(x))
            x = block.pool(maps[-1])
        return maps, self.neck(x)
