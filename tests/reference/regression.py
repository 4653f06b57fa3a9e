"""Kernel regression as its equations read: all real images in one pass, every kernel whole, plain autograd.

Serves twice: as the naive version the engine's loss and gradients are compared with, and as the plain version
its speed is compared with. Like the released code it computes features of real images without a gradient,
and the kernel between real and synthetic images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.networks.base import Network


def regressed(
    support: Tensor, answers: Tensor, queries: Tensor, strength: float, mean: bool, constant: bool
) -> Tensor:
    """Predict for queries [B, D] from features [n, D] and answers [n, d] by ridge regression in dual form."""
    kernel = support @ support.T
    trace = kernel.trace() / (len(support) if mean else 1)
    penalty = strength * (trace.detach() if constant else trace)
    system = kernel + penalty * torch.eye(len(support), dtype=kernel.dtype)
    return queries @ support.T @ torch.linalg.solve(system, answers)


def frepo_loss(network: Network, synthetic: Tensor, answers: Tensor, real: Tensor, goals: Tensor) -> Tensor:
    """FRePo's loss: half the squared error of real images, and the separation of learned labels.

    Args:
        network: one of the population, in eval mode.
        synthetic, answers: images in network space and labels [n, K], with graphs.
        real, goals: real images and their centred one-hot labels.
    """
    with torch.no_grad():
        queries = network.embed(real)
    predicted = regressed(network.embed(synthetic), answers, queries, 1e-6, mean=True, constant=False)
    error = 0.5 * (predicted - goals).square().sum(1).mean()
    first, second = answers.topk(2, dim=1).values.unbind(1)
    return error - (first - second).clamp(max=1 / answers.shape[1]).mean()


def krr_st_loss(network: Network, synthetic: Tensor, answers: Tensor, real: Tensor, goals: Tensor) -> Tensor:
    """KRR-ST's loss: the mean squared error of real images, with a feature that is 1; arguments as above."""
    with torch.no_grad():
        queries = F.pad(network.embed(real), (0, 1), value=1.0)
    support = F.pad(network.embed(synthetic), (0, 1), value=1.0)
    predicted = regressed(support, answers, queries, 1e-6, mean=False, constant=True)
    return F.mse_loss(predicted, goals)


def separation_loop(labels: Tensor) -> Tensor:
    """The mean over labels of -min(first - second, 1 / K), one label after the other."""
    total = torch.zeros((), dtype=labels.dtype)
    for row in labels:
        ordered = sorted(row.unbind(), key=lambda entry: entry.item())
        gap = ordered[-1] - ordered[-2]
        total = total - (gap if gap.item() < 1 / len(row) else row.new_tensor(1 / len(row)))
    return total / len(labels)


def lamb_steps(
    parameter: Tensor, gradients: Sequence[Tensor], rates: Sequence[float], eps: float, decay: float = 0.0
) -> Tensor:
    """LAMB with betas 0.9 and 0.999, entry by entry where its equation is; return where it arrives."""
    flat, first, second = parameter.flatten().tolist(), [0.0] * parameter.numel(), [0.0] * parameter.numel()
    for number, (gradient, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        update = []
        for place, slope in enumerate(gradient.flatten().tolist()):
            first[place] = 0.9 * first[place] + 0.1 * slope
            second[place] = 0.999 * second[place] + 0.001 * slope**2
            average, square = first[place] / (1 - 0.9**number), second[place] / (1 - 0.999**number)
            update.append(average / (square**0.5 + eps) + decay * flat[place])
        norms = [sum(value**2 for value in values) ** 0.5 for values in (flat, update)]
        ratio = norms[0] / norms[1] if all(norms) else 1.0
        flat = [value - lr * ratio * step for value, step in zip(flat, update, strict=True)]
    return torch.tensor(flat, dtype=parameter.dtype).view_as(parameter)


def adam_step(network: Network, images: Tensor, answers: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """A network's step on half the squared error of its answers, with batch statistics."""
    network.train()
    optimiser.zero_grad()
    (0.5 * (network(images) - answers).square().sum(1).mean()).backward()
    optimiser.step()
    network.eval()
