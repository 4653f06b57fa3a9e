"""What an expert minimises over a batch, and the direction in which it is stepped."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dsdistill.compute.learner import Learner
from dsdistill.experts.config import ExpertConfig
from dsdistill.objectives import sharpness
from dsdistill.objectives.smoothness import gradient_penalty


class TrainingBatch(NamedTuple):
    """Training images and what they show.

    Attributes:
        images: float [B, C, H, W] in network space, augmented and mixed.
        targets: int64 [B], or probabilities [B, K].
        plain: the images before that.
    """

    images: Tensor
    targets: Tensor
    plain: Tensor


class Objective:
    """The loss of an expert: the cross-entropy of augmented images and the penalty of plain ones, weighed."""

    def __init__(self, learner: Learner, config: ExpertConfig) -> None:
        """Name whose loss it is.

        Args:
            learner: of the network, in training mode. The penalty is computed in the network's own precision
                and eagerly, whatever the learner's.
            config: the weights of the terms, and the sharpness.
        """
        self._learner, self._config = learner, config

    def descend(self, batch: TrainingBatch, epoch: int) -> Tensor:
        """Leave in every parameter's ``grad``, empty before, the direction to step against; return the loss.

        Weights stay as they are, to the bit; buffers (statistics of batch normalisation) move as in one pass.

        Args:
            batch: on the network's device.
            epoch: counted from 0.

        Returns:
            Scalar without a graph, at the network's weights.
        """
        loss = self._backward(batch, epoch)
        if self._config.sharpness.rho:
            self._flatten(batch, epoch)
        return loss

    def _backward(self, batch: TrainingBatch, epoch: int) -> Tensor:
        loss = self._config.factor(epoch) * self._learner.loss(batch.images, batch.targets)
        if weight := self._config.gradient_penalty:
            loss = loss + weight * gradient_penalty(self._learner.network, batch.plain)
        loss.backward()
        return loss.detach()

    def _flatten(self, batch: TrainingBatch, epoch: int) -> None:
        """Turn the gradient that ``grad`` holds into the direction of adaptive GSAM."""
        told, network = self._config.sharpness, self._learner.network
        weights: list[Tensor] = [weight for weight in network.parameters() if weight.grad is not None]
        gradient = _gradients(weights)
        state = [*weights, *network.buffers()]
        before = [tensor.detach().clone() for tensor in state]
        network.zero_grad()
        with torch.no_grad():
            torch._foreach_add_(weights, sharpness.perturbation(weights, gradient, told.rho))
        self._backward(batch, epoch)
        with torch.no_grad():
            torch._foreach_copy_(state, before)
        steps = sharpness.descent(gradient, _gradients(weights), told.alpha)
        for weight, step in zip(weights, steps, strict=True):
            weight.grad = step


def _gradients(weights: list[Tensor]) -> list[Tensor]:
    return [weight.grad for weight in weights if weight.grad is not None]
