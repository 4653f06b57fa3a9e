"""A student trained the plain way: the loop that most matching papers' released code shares, and IDC's."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    order: Callable[[int], Tensor],
    augment: Callable[[Tensor, int, int], Tensor] = lambda x, epoch, batch: x,
    soft: bool = False,
) -> list[float]:
    """Train in place. Returns the learning rate of each epoch.

    ``order(epoch)`` is the shuffle; ``augment(batch, epoch, number)`` what a batch goes through.
    """
    rates = []
    optimiser = sgd(network, lr)
    network.train()
    for epoch in range(epochs + 1):
        rates.append(lr)
        shuffled = order(epoch).tolist()
        batch = 0
        while shuffled:
            chosen, shuffled = shuffled[:batch_size], shuffled[batch_size:]
            x = augment(torch.stack([images[i] for i in chosen]), epoch, batch)
            y = torch.stack([labels[i] for i in chosen])
            log_probabilities = F.log_softmax(network(x), dim=1)
            if soft:
                losses = -(y.softmax(1) * log_probabilities).sum(1)
            else:
                losses = -log_probabilities[range(len(y)), y]
            optimiser.zero_grad()
            losses.mean().backward()
            optimiser.step()
            batch += 1
        if epoch == epochs // 2 + 1:
            lr *= 0.1
            optimiser = sgd(network, lr)
    return rates


def sgd(network: nn.Module, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, foreach=False)


def train_in_steps(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    factor: float,
    order: Callable[[int], Tensor],
    augment: Callable[[Tensor, int, int], Tensor],
    box: Callable[[int, int, int], tuple[slice, slice, Tensor, float]],
) -> list[float]:
    """Train in place as IDC's released code does. Returns the learning rate of each epoch.

    ``box(count, epoch, number)`` is what CutMix does to a batch: rows, columns, the partner of each image,
    and the share of pixels kept.
    """
    milestones = [2 * epochs // 3, 5 * epochs // 6]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=factor)
    rates = []
    network.train()
    for epoch in range(epochs):
        rates.append(float(scheduler.get_last_lr()[0]))
        for batch, chosen in enumerate(order(epoch).split(batch_size)):
            x, y = augment(images[chosen], epoch, batch).clone(), labels[chosen]
            rows, columns, partner, kept = box(len(chosen), epoch, batch)
            x[:, :, rows, columns] = x[partner][:, :, rows, columns]
            logits = network(x)
            loss = kept * F.cross_entropy(logits, y) + (1 - kept) * F.cross_entropy(logits, y[partner])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        scheduler.step()
    return rates
