"""Gradient matching as its equations read: one class at a time, differentiated twice, nothing clever.

Serves twice: as the naive version the engine's loss and gradient are compared with, and as the plain version
its speed and memory are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gradient_matching_loss(
    network: nn.Module,
    real: Sequence[Tensor],
    synthetic: Sequence[Tensor],
    augment: Sequence[Callable[[Tensor], Tensor]],
    metric: str,
    which: str,
) -> Tensor:
    """Sum over classes of the distance between the gradients of real and synthetic cross-entropy.

    Like the released code of DC it differentiates by every parameter, whatever the distance reads, and keeps
    the graphs of all classes until the caller's one ``backward``.

    Args:
        network: in the mode it is to be matched in; its parameters require gradients.
        real, synthetic: for each class its images, in network space.
        augment: for each class the one augmentation its real and synthetic images share.
        metric, which: as ``dsdistill.objectives.gradients`` names them.
    """
    parameters = list(network.parameters())
    total = synthetic[0].new_zeros(())
    for label, (images, learned, siamese) in enumerate(zip(real, synthetic, augment, strict=True)):
        loss_real = cross_entropy(network(siamese(images)), label)
        theirs = [gradient.detach() for gradient in torch.autograd.grad(loss_real, parameters)]
        loss_synthetic = cross_entropy(network(siamese(learned)), label)
        ours = torch.autograd.grad(loss_synthetic, parameters, create_graph=True)
        total = total + eager_distance(metric, chosen(ours, which), chosen(theirs, which))
    return total


def inner_epochs(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    order: Callable[[int], Tensor],
    lr: float = 0.01,
    batch_size: int = 256,
    augment: Callable[[Tensor, int, int], Tensor] = lambda x, epoch, batch: x,
) -> None:
    """Train in place on the synthetic images as they are now: plain SGD, as DC does between image updates.

    ``order(epoch)`` is the shuffle; ``augment(batch, epoch, number)`` what a batch goes through.
    """
    images = images.detach()
    optimiser = torch.optim.SGD(network.parameters(), lr=lr)
    for epoch in range(epochs):
        for number, rows in enumerate(order(epoch).split(batch_size)):
            logits = network(augment(images[rows], epoch, number))
            optimiser.zero_grad()
            F.cross_entropy(logits, labels[rows]).backward()
            optimiser.step()


def cross_entropy(logits: Tensor, label: int) -> Tensor:
    return F.cross_entropy(logits, torch.full((len(logits),), label, device=logits.device))


def chosen(gradients: Sequence[Tensor], which: str) -> list[Tensor]:
    dimensions = {"weights": (2, 3, 4), "convolutions": (4,), "all": (0, 1, 2, 3, 4)}[which]
    return [gradient for gradient in gradients if gradient.dim() in dimensions]


def eager_distance(metric: str, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """One tensor after the other, all rows of a tensor at once: what the papers' code runs and is timed."""
    if metric == "cosine_whole":
        ours = [torch.cat([a.reshape(1, -1) for a in ours], dim=1)]
        theirs = [torch.cat([b.reshape(1, -1) for b in theirs], dim=1)]
    total = ours[0].new_zeros(())
    for a, b in zip(ours, theirs, strict=True):
        if metric in ("cosine", "cosine_whole") and a.dim() > 1:
            a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
            cosines = torch.sum(a * b, dim=-1) / (torch.norm(a, dim=-1) * torch.norm(b, dim=-1) + 1e-6)
            total = total + torch.sum(1 - cosines)
        elif metric == "squared":
            total = total + torch.sum((a - b) ** 2)
        elif metric == "l1":
            total = total + torch.sum(torch.abs(a - b))
        elif metric == "l1_mean":
            total = total + torch.sum(torch.mean(torch.abs(a - b).reshape(a.shape[0], -1), dim=-1))
    return total


def looped_distance(metric: str, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """One output channel after the other, for tensors that are nowhere zero: what the formulas say."""
    total = torch.zeros((), dtype=ours[0].dtype)
    whole_ours, whole_theirs = [], []
    for a, b in zip(ours, theirs, strict=True):
        for i in range(len(a)):
            row_a, row_b = a[i].reshape(-1), b[i].reshape(-1)
            whole_ours.append(row_a)
            whole_theirs.append(row_b)
            if metric == "cosine" and a.dim() > 1:
                total = total + 1 - cosine(row_a, row_b)
            elif metric == "squared":
                total = total + (row_a - row_b) @ (row_a - row_b)
            elif metric == "l1":
                total = total + (row_a - row_b).abs().sum()
            elif metric == "l1_mean":
                total = total + (row_a - row_b).abs().sum() / math.prod(a.shape[1:])
    if metric == "cosine_whole":
        total = 1 - cosine(torch.cat(whole_ours), torch.cat(whole_theirs))
    return total


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return a @ b / ((a @ a).sqrt() * (b @ b).sqrt() + 1e-6)
