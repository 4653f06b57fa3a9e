"""The loss of an expert over a batch, and the gradient that its optimiser takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.compute.learner import Learner
from dsdistill.experts.config import ExpertConfig
from dsdistill.objectives import sharpness
from dsdistill.objectives.smoothness import gradient_penalty
from dsdistill.runtime.cuda_graphs import GraphedBackward, Mode
from dsdistill.runtime.notice import Notify, silent


class TrainingBatch(NamedTuple):
    """Training images and their labels.

    Attributes:
        images: float [B, C, H, W] in network space, augmented and mixed.
        targets: int64 [B], or probabilities [B, K].
        plain: the same images before augmentation and mixing.
    """

    images: Tensor
    targets: Tensor
    plain: Tensor


class Objective:
    """The loss of an expert: cross-entropy of augmented images and penalty of plain ones, weighted."""

    def __init__(
        self, learner: Learner, config: ExpertConfig, graphs: Mode = False, notify: Notify = silent
    ) -> None:
        """Prepare.

        Args:
            learner: of the network, in training mode. The penalty is always computed eagerly and in the
                network's own precision.
            config: weights of the terms, and sharpness.
            graphs: whether to replay steps as a CUDA graph, of a config that allows it.
            notify: receives a sentence if that fails.
        """
        self._learner, self._config = learner, config
        network = learner.network
        state = list(network.parameters()), list(network.buffers())
        self._graphs = GraphedBackward(self._backward, *state, graphs, notify) if graphs else None

    def backward(
        self, batch: TrainingBatch, epoch: int, observe: Callable[[Tensor], None] | None = None
    ) -> Tensor:
        """Set every parameter's ``grad``, empty before, to the gradient for the optimiser; return the loss.

        With a sharpness, that is the direction of adaptive GSAM. Weights do not change, to the bit; buffers
        (statistics of batch normalisation) change as in one pass.

        Args:
            batch: on the network's device.
            epoch: counted from 0.
            observe: receives the batch's logits [B, K], without a graph, if the config records EL2N.

        Returns:
            Scalar without a graph, at the network's weights.
        """
        if self._graphs:
            return self._graphs({"images": batch.images, "targets": batch.targets})
        loss = self._gradient(batch, epoch, observe)
        if self._config.sharpness.rho:
            self._replace_by_gsam(batch, epoch)
        return loss

    def _backward(self, batch: Mapping[str, Tensor]) -> Tensor:
        loss = self._learner.loss(batch["images"], batch["targets"])
        loss.backward()
        return loss.detach()

    def _gradient(
        self, batch: TrainingBatch, epoch: int, observe: Callable[[Tensor], None] | None = None
    ) -> Tensor:
        loss = self._config.loss_weight(epoch) * self._cross_entropy(batch, observe)
        if weight := self._config.gradient_penalty:
            loss = loss + weight * gradient_penalty(self._learner.network, batch.plain)
        loss.backward()
        return loss.detach()

    def _cross_entropy(self, batch: TrainingBatch, observe: Callable[[Tensor], None] | None) -> Tensor:
        if not self._config.record_el2n:
            return self._learner.loss(batch.images, batch.targets)
        # In every epoch of such a training, so that its pass is compiled once.
        loss, logits = self._learner.loss_and_logits(batch.images, batch.targets)
        if observe:
            observe(logits)
        return loss

    def _replace_by_gsam(self, batch: TrainingBatch, epoch: int) -> None:
        """Replace the gradient in ``grad`` by the direction of adaptive GSAM."""
        config, network = self._config.sharpness, self._learner.network
        weights: list[Tensor] = [weight for weight in network.parameters() if weight.grad is not None]
        gradient = _gradients(weights)
        state = [*weights, *network.buffers()]
        before = [tensor.detach().clone() for tensor in state]
        network.zero_grad()
        with torch.no_grad():
            torch._foreach_add_(weights, sharpness.perturbation(weights, gradient, config.rho))
        self._gradient(batch, epoch)
        with torch.no_grad():
            torch._foreach_copy_(state, before)
        steps = sharpness.descent(gradient, _gradients(weights), config.alpha)
        for weight, step in zip(weights, steps, strict=True):
            weight.grad = step


def smoothed(targets: Tensor, classes: int, amount: float) -> Tensor:
    """Mix targets with the uniform distribution, as torch's ``label_smoothing`` does.

    Args:
        targets: int64 [B], or probabilities [B, K].
        classes: K.
        amount: the share of the uniform distribution.

    Returns:
        probabilities [B, K].
    """
    if not targets.is_floating_point():
        targets = F.one_hot(targets, classes).float()
    return (1 - amount) * targets + amount / classes


def _gradients(weights: list[Tensor]) -> list[Tensor]:
    return [weight.grad for weight in weights if weight.grad is not None]
