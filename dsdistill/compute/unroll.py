"""A student's few steps on synthetic images, and the gradient of a loss of its weights, one step at a time.

With x_i, y_i the images and targets of step i, A_i its augmentation, β the learning rate and μ the momentum:

    g_i = ∇_θ ℓ(A_i(x_i), y_i; θ_i),    b_i = μ b_{i-1} + g_i,    θ_{i+1} = θ_i - β b_i,    i = 0 … T-1.

Unrolling in one graph stores the maps of all T steps and the graph of each gradient. Here only T + 1 vectors
of weights are stored; the backward pass recomputes one step after the other, from the last to the first. Let
λ_i be the gradient of the loss to θ_i, through all later steps too, and κ_T = 0:

    κ_i = λ_{i+1} + μ κ_{i+1},    s_i = κ_iᵀ g_i,    λ_i = ∂L/∂θ_i - β ∂s_i/∂θ_i + λ_{i+1}
    dL/dx_i = -β ∂s_i/∂x_i,    dL/dy_i = -β ∂s_i/∂y_i,    dL/dβ = -Σ_i s_i

where κ_i is a constant in the derivatives of s_i. s_i is a directional derivative of the loss of step i, so
no graph of a gradient is needed: see `dsdistill.compute.jvp`. This is the exact gradient. TESLA's gradient
(Cui et al. 2023) ignores that the weights of a step change the later gradients: λ_i = λ_{i+1}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dsdistill.compute.learner import Learner
from dsdistill.networks.layout import Layout
from dsdistill.runtime.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from jaxtyping import Float, Int64


@dataclass(frozen=True)
class StudentGradients:
    """The gradient of a loss of a student's weights to its training data and learning rate.

    Attributes:
        images: to the images [N, C, H, W].
        labels: to the logits [N, K]; None for fixed labels.
        lr: to the learning rate.
    """

    images: Float[Tensor, "N C H W"]
    labels: Float[Tensor, "N K"] | None
    lr: Float[Tensor, ""]


@dataclass(frozen=True, eq=False)
class UnrolledStudent:
    """T steps of SGD on fixed batches.

    Attributes:
        learner: of the network; computes in its precision of second order.
        layout: of its parameters in a vector [P].
        images: [N, C, H, W] in network space, detached.
        targets: int64 [N], or logits [N, K], detached.
        batches: the rows of each of the T steps, int64 [b].
        augment: maps a step and its images [b, C, H, W] to one or several augmented copies
            [copies * b, C, H, W]; differentiable, and the same at every call for a step.
        weight: factor of the cross-entropy.
        ranks: the processes that share the images of every step.
    """

    learner: Learner
    layout: Layout
    images: Float[Tensor, "N C H W"]
    targets: Int64[Tensor, " N"] | Float[Tensor, "N K"]
    batches: Sequence[Int64[Tensor, " _"]]
    augment: Callable[[int, Tensor], Tensor]
    weight: float = 1.0
    ranks: Ranks = ALONE

    def unroll(
        self, weights: Float[Tensor, " P"], lr: Float[Tensor, ""], momentum: float = 0.0
    ) -> list[Float[Tensor, " P"]]:
        """Take all steps from the weights [P] and return θ_0 … θ_T, without a graph.

        Every process has the same.
        """
        names = [name for name, _, _ in self.layout.parameters]
        lr, path = lr.detach(), [weights]
        velocity = torch.zeros_like(weights)
        for step, rows in enumerate(self.batches):
            with torch.no_grad():
                images = self.augment(step, self.images[rows])
                targets = self._targets(self.targets[rows], len(images))
            gradient = self._gradient(images, targets, path[-1], names)
            velocity = gradient.mul_(self.weight).add_(velocity, alpha=momentum)
            path.append(path[-1] - lr * velocity)
        return path

    def _gradient(self, images: Tensor, targets: Tensor, weights: Tensor, names: Sequence[str]) -> Tensor:
        """Return the gradient [P] of the mean loss of a step's images."""
        own = self.ranks.part(len(images))
        gradient = torch.zeros_like(weights)
        if count := own.stop - own.start:
            views = self.layout.views(weights)
            grads = self.learner.gradient(images[own], targets[own], names, weights=views, exact=True)
            gradient = torch.cat([grad.flatten() for grad in grads])
            if count < len(images):
                gradient.mul_(count / len(images))
        self.ranks.sum_(gradient)
        return gradient

    def adjoint(
        self,
        path: Sequence[Float[Tensor, " P"]],
        cotangents: Mapping[int, Float[Tensor, " P"]],
        lr: Float[Tensor, ""],
        momentum: float = 0.0,
        *,
        truncated: bool = False,
        last: int = 0,
    ) -> StudentGradients:
        """Return the gradient of a loss of ``path``; where processes share it, the parts of all add up to it.

        Args:
            path: θ_0 … θ_T, from `unroll`.
            cotangents: ∂L/∂θ_i [P] by i, for i > 0, of every θ_i that the loss reads directly.
            lr, momentum: as in `unroll`.
            truncated: use TESLA's approximation.
            last: number of last steps to differentiate; the weights before them are constants. 0 for all.
        """
        lr = lr.detach()
        steps = len(self.batches)
        weights_grad, kappa = torch.zeros_like(path[0]), torch.zeros_like(path[0])  # λ and κ
        images_grad = torch.zeros_like(self.images)
        soft = self.targets.is_floating_point()
        labels_grad = torch.zeros_like(self.targets) if soft else None
        lr_grad = torch.zeros_like(lr)
        first = steps - last if last else 0
        for step in reversed(range(first, steps)):
            if step + 1 in cotangents:
                weights_grad = weights_grad + cotangents[step + 1]
            kappa = weights_grad + momentum * kappa
            to_weights = step > first and not truncated
            value, step_images, step_labels, step_weights = self._step_backward(
                step, path[step], kappa, to_weights
            )
            rows = self.batches[step]
            images_grad.index_add_(0, rows, -lr * step_images)
            if labels_grad is not None and step_labels is not None:
                labels_grad.index_add_(0, rows, -lr * step_labels)
            if step_weights is not None:
                weights_grad = weights_grad - lr * step_weights
            lr_grad = lr_grad - value
        if first and momentum and self.ranks.is_first:
            # The velocity of the constant steps, which β multiplies in the later ones.
            lr_grad = lr_grad - momentum * (kappa @ (path[first - 1] - path[first])) / lr
        return StudentGradients(images_grad, labels_grad, lr_grad)

    def _step_backward(
        self, step: int, weights: Tensor, tangent: Tensor, to_weights: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return s = tangentᵀ g of a step and its gradients to images, labels and, ``to_weights``, weights.

        s is a sum over images, so a few of them are processed at a time. Where processes share them, all but
        the gradient to the weights is a part.
        """
        rows = self.batches[step]
        images = self.images[rows].requires_grad_()
        augmented = self.augment(step, images)
        labels = self.targets[rows]
        labels = labels.requires_grad_() if labels.is_floating_point() else labels
        targets = self._targets(labels, len(augmented))
        leaf = weights.detach().requires_grad_(to_weights)
        tangents = self.layout.views(tangent)
        value = torch.zeros_like(tangent[0])
        weights_grad = torch.zeros_like(weights) if to_weights else None
        augmented_grads, targets_grads = [], []
        own = self.ranks.part(len(augmented))
        own_images, own_targets = augmented.detach()[own], targets.detach()[own]
        size = self.learner.chunk_size(max(1, len(own_images)))
        pairs = zip(own_images.split(size), own_targets.split(size), strict=True)
        chunks = pairs if len(own_images) else ()
        for x, y in chunks:
            x.requires_grad_()
            soft = [y.requires_grad_()] if y.is_floating_point() else []
            share = self.weight * len(x) / len(augmented)
            jvp = self.learner.jvp(x, y, self.layout.views(leaf), tangents)
            value = value + share * jvp.detach()
            grads = torch.autograd.grad(jvp, [x, *soft, *([leaf] if to_weights else [])])
            augmented_grads.append(share * grads[0])
            targets_grads += [share * grads[1]] if soft else []
            if weights_grad is not None:
                weights_grad.add_(grads[-1], alpha=share)
        (images_grad,) = torch.autograd.grad(augmented, images, _placed(augmented_grads, augmented, own))
        labels_grad = None
        if targets.is_floating_point():
            (labels_grad,) = torch.autograd.grad(targets, labels, _placed(targets_grads, targets, own))
        if weights_grad is not None:
            self.ranks.sum_(weights_grad)
        return value, images_grad, labels_grad, weights_grad

    @staticmethod
    def _targets(labels: Tensor, count: int) -> Tensor:
        """Return the targets of every copy of a step's images: classes, or the probabilities of logits."""
        copies = count // len(labels)
        return labels.softmax(1).repeat(copies, 1) if labels.is_floating_point() else labels.repeat(copies)


def _placed(parts: Sequence[Tensor], like: Tensor, rows: slice) -> Tensor:
    """Return a gradient of the shape of ``like`` that has these parts at some rows, and 0 elsewhere."""
    if sum(map(len, parts)) == len(like):
        return torch.cat(list(parts))
    gradient = torch.zeros_like(like)
    if parts:
        gradient[rows] = torch.cat(list(parts))
    return gradient
