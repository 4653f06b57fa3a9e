"""The pixels that passes through teachers see some of, and whose gradient they add up, pass by pass.

No pass keeps a graph to all images: that would take as much memory for every pass as the whole set does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from dsdistill.compute.custom_gradient import attach_gradients
from dsdistill.synthetic.set import SyntheticSet


class RecoveredPixels(ABC):
    """What is learned, or has a graph to it, and the gradient so far."""

    def __init__(self, values: Tensor) -> None:
        """Begin with no gradient.

        Args:
            values: with a graph to what is learned, or a parameter.
        """
        self.values, self.gradient = values, torch.zeros_like(values)

    @abstractmethod
    def take(self, rows: Tensor) -> Tensor:
        """Return decoded images in network space at int64 [B], for one pass: [B, C, H, W]."""

    @abstractmethod
    def add(self, total: Tensor, part: Tensor, rows: Tensor) -> None:
        """Add the gradient of a pass.

        Args:
            total: its loss, scalar.
            part: what `take` returned for it.
            rows: the same as `take` got.
        """

    def attached(self, value: Tensor) -> Tensor:
        """Return a value that has this gradient."""
        return attach_gradients(value, (self.values, self.gradient))


class DecodedPixels(RecoveredPixels):
    """All decoded images [N, C, H, W] in network space."""

    def take(self, rows: Tensor) -> Tensor:
        return self.values.detach()[self._there(rows)].requires_grad_()

    def add(self, total: Tensor, part: Tensor, rows: Tensor) -> None:
        self.gradient[self._there(rows)] += torch.autograd.grad(total, part)[0]

    def _there(self, rows: Tensor) -> Tensor:
        """Return the rows on the device of the images."""
        return rows.to(self.values.device, non_blocking=True)


class CompensatorPixels(RecoveredPixels):
    """The compensators of a set, whose decoded images are many times as many: they are made for each pass."""

    def __init__(self, synthetic: SyntheticSet) -> None:
        assert synthetic.compensators is not None
        super().__init__(synthetic.compensators)
        self._synthetic = synthetic

    def take(self, rows: Tensor) -> Tensor:
        return self._synthetic.compensated(rows)

    def add(self, total: Tensor, part: Tensor, rows: Tensor) -> None:
        self.gradient += torch.autograd.grad(total, self.values)[0]


def recovered_pixels(synthetic: SyntheticSet, classes: Tensor) -> RecoveredPixels:
    """Return what is learned of a set, without a gradient.

    Args:
        synthetic: the set.
        classes: all of them, int64 [K].
    """
    if synthetic.compensators is not None:
        return CompensatorPixels(synthetic)
    return DecodedPixels(synthetic.of(classes))
