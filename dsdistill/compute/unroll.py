"""A student's few steps on synthetic images, and the gradient of where they lead, with the graph of one step.

With x_i, y_i the images and targets of step i, A_i its augmentation, β the learning rate and μ the momentum:

    g_i = ∇_θ ℓ(A_i(x_i), y_i; θ_i),    b_i = μ b_{i-1} + g_i,    θ_{i+1} = θ_i - β b_i,    i = 0 … T-1.

Unrolling in one graph keeps the maps of all T steps, and a graph of each gradient. It need not: only T + 1
vectors of weights are kept, and the steps are gone back one by one, each recomputed. With λ_i the gradient of
the loss to θ_i, by way of all later steps too, and κ_T = 0:

    κ_i = λ_{i+1} + μ κ_{i+1},    s_i = κ_iᵀ g_i,    λ_i = ∂L/∂θ_i - β ∂s_i/∂θ_i + λ_{i+1}
    dL/dx_i = -β ∂s_i/∂x_i,    dL/dy_i = -β ∂s_i/∂y_i,    dL/dβ = -Σ_i s_i

where κ_i is held constant in the derivatives of s_i. s_i is a directional derivative of the loss of step i,
so that no graph of a gradient is made either: see `dsdistill.compute.jvp`. This is the exact gradient.
TESLA's (Cui et al. 2023) leaves out how a step's weights change the later gradients: λ_i = λ_{i+1}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsdistill.compute.learner import Learner
from dsdistill.networks.layout import Layout


@dataclass(frozen=True)
class StudentGradients:
    """The gradient of a loss of a student's weights to what it learned from.

    Attributes:
        images: [N, C, H, W].
        labels: of the logits [N, K]; None where labels are fixed.
        lr: scalar.
    """

    images: Tensor
    labels: Tensor | None
    lr: Tensor


@dataclass(frozen=True, eq=False)
class UnrolledStudent:
    """T steps on batches that are known beforehand.

    Attributes:
        learner: of the network; computes in the precision of the weights.
        layout: of its parameters in a vector [P].
        images: [N, C, H, W] in network space, detached.
        targets: int64 [N], or logits [N, K], detached.
        batches: T times the rows of a step, int64 [b].
        augment: step and images [b, C, H, W] to what is seen of them, once or several times over
            [copies * b, C, H, W]; differentiable, the same at every call of a step.
        weight: what the cross-entropy is multiplied by.
    """

    learner: Learner
    layout: Layout
    images: Tensor
    targets: Tensor
    batches: Sequence[Tensor]
    augment: Callable[[int, Tensor], Tensor]
    weight: float = 1.0

    def unroll(self, weights: Tensor, lr: Tensor, momentum: float = 0.0) -> list[Tensor]:
        """Take all steps from weights [P] -> θ_0 … θ_T, without a graph."""
        names = [name for name, _, _ in self.layout.parameters]
        lr, path = lr.detach(), [weights]
        velocity = torch.zeros_like(weights)
        for step, rows in enumerate(self.batches):
            with torch.no_grad():
                images = self.augment(step, self.images[rows])
                targets = self._targets(self.targets[rows], len(images))
            at = self.layout.views(path[-1])
            found = self.learner.gradient(images, targets, names, weights=at, exact=True)
            gradient = torch.cat([each.flatten() for each in found])
            velocity = gradient.mul_(self.weight).add_(velocity, alpha=momentum)
            path.append(path[-1] - lr * velocity)
        return path

    def adjoint(
        self,
        path: Sequence[Tensor],
        cotangents: Mapping[int, Tensor],
        lr: Tensor,
        momentum: float = 0.0,
        *,
        truncated: bool = False,
        last: int = 0,
    ) -> StudentGradients:
        """Return the gradient of a loss of ``path``.

        Args:
            path: θ_0 … θ_T, from `unroll`.
            cotangents: ∂L/∂θ_i [P] by i, for i > 0, of every θ_i that the loss reads itself.
            lr, momentum: as in `unroll`.
            truncated: TESLA's approximation.
            last: go back over so many steps and take the weights before them as fixed; 0 goes all the way.
        """
        lr = lr.detach()
        steps = len(self.batches)
        pull, kappa = torch.zeros_like(path[0]), torch.zeros_like(path[0])
        images = torch.zeros_like(self.images)
        soft = self.targets.is_floating_point()
        labels = torch.zeros_like(self.targets) if soft else None
        total = torch.zeros_like(lr)
        first = steps - last if last else 0
        for step in reversed(range(first, steps)):
            if step + 1 in cotangents:
                pull = pull + cotangents[step + 1]
            kappa = pull + momentum * kappa
            onward = step > first and not truncated
            value, to_images, to_labels, to_weights = self._step_back(step, path[step], kappa, onward)
            rows = self.batches[step]
            images.index_add_(0, rows, -lr * to_images)
            if labels is not None and to_labels is not None:
                labels.index_add_(0, rows, -lr * to_labels)
            if to_weights is not None:
                pull = pull - lr * to_weights
            total = total - value
        if first and momentum:  # the velocity of the steps taken as fixed, which β goes on to multiply
            total = total - momentum * (kappa @ (path[first - 1] - path[first])) / lr
        return StudentGradients(images, labels, total)

    def _step_back(
        self, step: int, weights: Tensor, direction: Tensor, onward: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return s = directionᵀ g of a step and its gradients to images, labels and, ``onward``, weights.

        s is a sum over images, so that a few of them are gone through at a time.
        """
        rows = self.batches[step]
        images = self.images[rows].requires_grad_()
        augmented = self.augment(step, images)
        labels = self.targets[rows]
        labels = labels.requires_grad_() if labels.is_floating_point() else labels
        targets = self._targets(labels, len(augmented))
        at = weights.detach().requires_grad_(onward)
        tangents = self.layout.views(direction)
        value, to_weights = torch.zeros_like(direction[0]), torch.zeros_like(weights) if onward else None
        to_seen, to_targets = [], []
        size = self.learner.part(len(augmented))
        for seen, part in zip(augmented.detach().split(size), targets.detach().split(size), strict=True):
            seen.requires_grad_()
            soft = [part.requires_grad_()] if part.is_floating_point() else []
            share = self.weight * len(seen) / len(augmented)
            change = self.learner.jvp(seen, part, self.layout.views(at), tangents)
            value = value + share * change.detach()
            found = torch.autograd.grad(change, [seen, *soft, *([at] if onward else [])])
            to_seen.append(share * found[0])
            to_targets += [share * found[1]] if soft else []
            if to_weights is not None:
                to_weights.add_(found[-1], alpha=share)
        (to_images,) = torch.autograd.grad(augmented, images, torch.cat(to_seen))
        to_labels = torch.autograd.grad(targets, labels, torch.cat(to_targets))[0] if to_targets else None
        return value, to_images, to_labels, to_weights

    @staticmethod
    def _targets(labels: Tensor, count: int) -> Tensor:
        """Return what a step is trained on, for every copy of its images: classes, or what logits say."""
        copies = count // len(labels)
        return labels.softmax(1).repeat(copies, 1) if labels.is_floating_point() else labels.repeat(copies)
