"""Training and testing fresh students: the hot path of an evaluation.

Every draw is a function of (seed, stream, repeat, epoch, batch). So a student is the same whether it is
trained alone, after others or stacked with them, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from dsdistill.augment.dsa import Augmentation
from dsdistill.augment.mix import CutMix
from dsdistill.augment.training import augment_and_mix
from dsdistill.evaluation.accuracy import TestImages, accuracies
from dsdistill.evaluation.ensembles import Ensemble, Ensembles
from dsdistill.evaluation.execution import Execution
from dsdistill.networks import Network
from dsdistill.objectives.precision import working_dtype
from dsdistill.protocol import Protocol
from dsdistill.runtime.device import autocast
from dsdistill.seeding import forked, generator

TrainingSet = tuple[Tensor, Tensor]
"""Images float [N,C,H,W] in network space; labels int64 [N], or logits float [N,K] for soft labels."""

Tick = Callable[[int, int], None]
"""Called with (steps done, steps in all) after every epoch; a step of one student counts one."""

_STACKED_PIXELS = 1 << 23  # of one channel, in one batch of all stacked students: 32 × 256 images of 32×32


@dataclass(frozen=True)
class StudentTraining:
    """How students are trained.

    Attributes:
        protocol: optimiser, schedule and epochs.
        augmentation: the protocol's, for the data set at hand.
        seed: of every draw.
        lr: learned with the set; for protocols whose rate is "learned".
    """

    protocol: Protocol
    augmentation: Augmentation
    seed: int = 0
    lr: float | None = None


def train_students(
    build: Callable[[int], Network],
    training_set: Callable[[int], TrainingSet],
    test_images: TestImages,
    training: StudentTraining,
    ensembles: Ensembles,
    stack: bool = False,
    tick: Tick = lambda done, total: None,
) -> list[float]:
    """Train ``protocol.repeats`` students and test each after its last epoch.

    Args:
        build: returns a repeat's untrained network, on the CPU.
        training_set: returns a repeat's training set; all repeats have equally many images.
        ensembles: pass the same ones for every set that this architecture is trained on.
        stack: train students together, as many as fit in memory (see ``ensembles``).

    Returns:
        test accuracies, fractions in [0, 1], one per repeat.
    """
    execution, protocol = ensembles.execution, training.protocol
    images = training_set(0)[0]
    most = group_size(protocol, len(images), images.shape[-1], stack)
    groups = torch.arange(protocol.repeats).split(most)
    total = protocol.repeats * steps(protocol, len(images))
    fractions: list[float] = []
    done = 0
    for group in groups:
        repeats = group.tolist()
        sets = _on_device([training_set(repeat) for repeat in repeats], execution.device)
        ensemble = ensembles.fill([build(repeat) for repeat in repeats])

        def advance(steps_done: int, _: int, before: int = done) -> None:
            tick(before + steps_done, total)

        fit(ensemble, sets, repeats, training, execution, advance)
        fractions += accuracies(ensemble, test_images, execution)
        done += len(repeats) * steps(protocol, len(images))
    return fractions


def group_size(protocol: Protocol, images: int, side: int, stack: bool) -> int:
    """Return how many students are trained together, at most.

    Args:
        images: that each trains on.
        side: of an image, in pixels.
        stack: whether they may be.
    """
    fitting = max(1, _STACKED_PIXELS // (min(images, protocol.batch_size) * side**2))
    return min(protocol.repeats, fitting) if stack else 1


def steps(protocol: Protocol, images: int) -> int:
    """Return the optimiser steps that one student takes on so many images."""
    return protocol.epochs_run * -(-images // protocol.batch_size)


def fit(
    ensemble: Ensemble,
    sets: Sequence[TrainingSet],
    repeats: Sequence[int],
    training: StudentTraining,
    execution: Execution,
    tick: Tick = lambda done, total: None,
) -> None:
    """Train an ensemble, in place: student r on ``sets[r]`` with the draws of ``repeats[r]``.

    Args:
        sets: on the execution's device, equally many images each.
    """
    protocol, seed = training.protocol, training.seed
    count = len(sets[0][0])
    cutmix = CutMix(probability=protocol.cutmix, beta=protocol.cutmix_beta) if protocol.cutmix else None
    images, targets, offsets = _pool(sets, classes=ensemble.classes if cutmix else None)
    rate = protocol.learning_rate(training.lr)
    total = ensemble.count * steps(protocol, count)
    optimiser = _optimiser(ensemble, protocol, rate, epoch=0)
    ensemble.train(True)
    with forked(seed, "student-noise", *repeats):  # for dropout, which draws from the global generator alone
        for epoch in range(protocol.epochs_run):
            if epoch in protocol.milestones:
                optimiser = _lowered(optimiser, ensemble, protocol, rate, epoch)
            orders = [torch.randperm(count, generator=generator(seed, "students", r, epoch)) for r in repeats]
            for batch, rows in enumerate(torch.stack(orders).split(protocol.batch_size, dim=1)):
                index = (rows + offsets).flatten().to(images.device, non_blocking=True)

                def streams(kind: str, epoch: int = epoch, batch: int = batch) -> list[torch.Generator]:
                    return [generator(seed, f"student-{kind}", repeat, epoch, batch) for repeat in repeats]

                x, y = augment_and_mix(
                    images[index], targets[index], training.augmentation, cutmix, ensemble.classes, streams
                )
                with autocast(execution.device, execution.precision):
                    loss = ensemble.loss(x, y)
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
            tick(ensemble.count * (epoch + 1) * (batch + 1), total)


def _optimiser(ensemble: Ensemble, protocol: Protocol, rate: float, epoch: int) -> Optimizer:
    """Build an optimiser that has taken no step, with the rate and momentum of an epoch.

    Args:
        rate: in the first epoch.
    """
    lr = rate * protocol.decay(epoch)
    # It is element-wise, so stacking changes nothing. Fused takes a third of the time of the other
    # implementations, on a CPU too.
    if protocol.optimiser == "adamw":
        return torch.optim.AdamW(ensemble.parameters, lr=lr, weight_decay=protocol.weight_decay, fused=True)
    return torch.optim.SGD(
        ensemble.parameters,
        lr=lr,
        momentum=protocol.momentum_in(epoch),
        weight_decay=protocol.weight_decay,
        fused=True,
    )


def _lowered(
    optimiser: Optimizer, ensemble: Ensemble, protocol: Protocol, rate: float, epoch: int
) -> Optimizer:
    """Return the optimiser after a drop of the rate: a new one, or the same one with its momentum."""
    if protocol.schedule == "restart":
        return _optimiser(ensemble, protocol, rate, epoch)
    for group in optimiser.param_groups:
        group["lr"] = rate * protocol.decay(epoch)
        if "momentum" in group:  # AdamW has none
            group["momentum"] = protocol.momentum_in(epoch)
    return optimiser


def _on_device(sets: Sequence[TrainingSet], device: torch.device) -> list[TrainingSet]:
    """Move sets to a device. Sets that share one tensor of images share it there too."""
    moved = {id(images): (images.to(device), labels.to(device)) for images, labels in sets}
    return [moved[id(images)] for images, _ in sets]


def _pool(sets: Sequence[TrainingSet], classes: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Join sets of equal size: images, targets, and each student's first row in them [R, 1].

    Targets are probabilities [N, K] where labels are soft, or where ``classes`` is set because labels get
    mixed.
    """
    distinct = list({id(images): (images, labels) for images, labels in sets}.values())
    position = {id(images): i for i, (images, _) in enumerate(distinct)}
    count = len(sets[0][0])
    images = torch.cat([images for images, _ in distinct]) if len(distinct) > 1 else distinct[0][0]
    targets = torch.cat([labels for _, labels in distinct])
    if targets.is_floating_point():
        targets = targets.softmax(-1)
    elif classes:
        targets = F.one_hot(targets, classes).to(working_dtype(images.dtype))
    return images, targets, torch.tensor([[position[id(images)] * count] for images, _ in sets])
