"""Training and testing fresh students: the hot path of an evaluation.

Every draw is a function of (seed, stream, repeat, epoch, batch), so a student comes out the same alone, among
others or stacked with them, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from dsdistill.augment.dsa import Augmentation
from dsdistill.augment.mix import CutMix
from dsdistill.augment.training import augment_and_mix
from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset
from dsdistill.evaluation.ensembles import Ensemble, Ensembles, Execution, Single
from dsdistill.networks import Network
from dsdistill.protocol import Protocol
from dsdistill.runtime.device import autocast
from dsdistill.seeding import forked, generator

TrainingSet = tuple[Tensor, Tensor]
"""Images float [N,C,H,W] in network space; labels int64 [N], or logits float [N,K] for soft labels."""

Tick = Callable[[int, int], None]
"""Called with (steps done, steps in all) after every epoch; a step of one student counts one."""

_RESIDENT_BYTES = 1 << 30  # a test set up to this size is preprocessed once, not once per student
_TEST_PIXELS = 1 << 19  # of one channel, in one chunk of test images: 512 images of 32×32
_STACKED_PIXELS = 1 << 23  # likewise in one batch of all stacked students: 32 × 256 images of 32×32


class HeldOut:
    """The test images in network space, in chunks of one shape.

    Iterating yields (images [chunk,C,H,W], labels [n]) with n < chunk where the last chunk was filled up.
    """

    def __init__(self, test: RealDataset, preprocess: Preprocess, device: torch.device) -> None:
        side = test.images.shape[-1]
        self._test, self._device = test, device
        self._preprocess = preprocess.to(device)
        self._chunk = min(max(1, _TEST_PIXELS // side**2), 1024, len(test))
        self._kept: list[TrainingSet] | None = None

    def __len__(self) -> int:
        return len(self._test)

    def __iter__(self) -> Iterator[TrainingSet]:
        if self._kept is None and 4 * self._test.images.numel() <= _RESIDENT_BYTES:
            self._kept = list(self._chunks())
        return iter(self._kept) if self._kept is not None else self._chunks()

    def _chunks(self) -> Iterator[TrainingSet]:
        for start in range(0, len(self._test), self._chunk):
            rows = slice(start, start + self._chunk)
            images = self._preprocess(self._test.unit(rows).to(self._device))
            missing = self._chunk - len(images)
            yield F.pad(images, (0, 0) * 3 + (0, missing)), self._test.labels[rows].to(self._device)


def train_student(
    network: Network,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    augmentation: Augmentation,
    *,
    seed: int,
    repeat: int = 0,
    lr: float | None = None,
    execution: Execution = Execution(),  # noqa: B008 (frozen)
    tick: Tick = lambda done, total: None,
) -> Network:
    """Train one network, in place, and return it.

    Args:
        network: on the execution's device.
        images, labels: a ``TrainingSet`` on the same device.
        lr: in place of the protocol's, where that is "learned".
        repeat: selects the draws of shuffling, augmentation and CutMix, together with the seed.
    """
    ensemble = Single(network, execution)
    fit(ensemble, [(images, labels)], [repeat], protocol, augmentation, seed, lr, execution, tick)
    return network


def train_students(
    build: Callable[[int], Network],
    sets: Callable[[int], TrainingSet],
    held_out: HeldOut,
    protocol: Protocol,
    augmentation: Augmentation,
    ensembles: Ensembles,
    *,
    seed: int,
    stack: bool = False,
    lr: float | None = None,
    tick: Tick = lambda done, total: None,
) -> list[float]:
    """Train ``protocol.repeats`` students and test each at its last epoch.

    Args:
        build: a repeat to its untrained network, on the CPU.
        sets: a repeat to its training set; all repeats have equally many images.
        ensembles: pass the same ones for every set that this architecture is trained on.
        stack: train students together, as many as fit in memory (see ``ensembles``).
        lr: in place of the protocol's, where that is "learned".

    Returns:
        test accuracies, fractions in [0, 1], one per repeat.
    """
    device = ensembles.execution.device
    first = sets(0)[0]
    together = max(1, _STACKED_PIXELS // (min(len(first), protocol.batch_size) * first.shape[-1] ** 2))
    groups = torch.arange(protocol.repeats).split(together if stack else 1)
    total = protocol.repeats * steps(protocol, len(first))
    found: list[float] = []
    done = 0
    for group in groups:
        repeats = group.tolist()
        chosen = _shared([sets(repeat) for repeat in repeats], device)
        ensemble = ensembles.filled([build(repeat) for repeat in repeats])

        def advance(steps_done: int, _: int, before: int = done) -> None:
            tick(before + steps_done, total)

        fit(ensemble, chosen, repeats, protocol, augmentation, seed, lr, ensembles.execution, advance)
        found += accuracies(ensemble, held_out, ensembles.execution)
        done += len(repeats) * steps(protocol, len(first))
    return found


def steps(protocol: Protocol, images: int) -> int:
    """Return the optimiser steps that one student takes on so many images."""
    return protocol.epochs_run * -(-images // protocol.batch_size)


@torch.inference_mode()
def accuracies(ensemble: Ensemble, held_out: HeldOut, execution: Execution) -> list[float]:
    """Return each student's share of test images it classifies correctly."""
    ensemble.train(False)
    correct = torch.zeros(ensemble.count, dtype=torch.int64, device=execution.device)
    for images, labels in held_out:
        with autocast(execution.device, execution.precision):
            predicted = ensemble.logits(images).argmax(-1)
        correct += (predicted[:, : len(labels)] == labels).sum(1)
    return [count / len(held_out) for count in correct.tolist()]


def fit(
    ensemble: Ensemble,
    sets: Sequence[TrainingSet],
    repeats: Sequence[int],
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    lr: float | None,
    execution: Execution,
    tick: Tick,
) -> None:
    """Train a ensemble, student r on ``sets[r]`` with the draws of ``repeats[r]``."""
    count = len(sets[0][0])
    cutmix = CutMix(probability=protocol.cutmix, beta=protocol.cutmix_beta) if protocol.cutmix else None
    images, targets, offsets = _pool(sets, classes=ensemble.classes if cutmix else None)
    rate = protocol.learning_rate(lr)
    total = ensemble.count * steps(protocol, count)
    optimiser = _optimiser(ensemble, protocol, rate, epoch=0)
    ensemble.train(True)
    with forked(seed, "student-noise", *repeats):  # for dropout, which knows only the global generator
        for epoch in range(protocol.epochs_run):
            if epoch in protocol.milestones:
                optimiser = _lowered(optimiser, ensemble, protocol, rate, epoch)
            orders = [torch.randperm(count, generator=generator(seed, "students", r, epoch)) for r in repeats]
            for batch, rows in enumerate(torch.stack(orders).split(protocol.batch_size, dim=1)):
                index = (rows + offsets).flatten().to(images.device, non_blocking=True)

                def streams(kind: str, epoch: int = epoch, batch: int = batch) -> list[torch.Generator]:
                    return [generator(seed, f"student-{kind}", repeat, epoch, batch) for repeat in repeats]

                x, y = augment_and_mix(
                    images[index], targets[index], augmentation, cutmix, ensemble.classes, streams
                )
                with autocast(execution.device, execution.precision):
                    loss = ensemble.loss(x, y)
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
            tick(ensemble.count * (epoch + 1) * (batch + 1), total)


def _optimiser(ensemble: Ensemble, protocol: Protocol, rate: float, epoch: int) -> Optimizer:
    """Make an optimiser that has taken no step, for an epoch and a rate at first.

    It is element-wise, so stacking changes nothing.
    """
    lr = rate * protocol.decay(epoch)
    # Fused takes a third of the time of the other implementations, on a CPU too.
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
    """Return what goes on at a lower rate: a fresh optimiser, or this one with its momentum."""
    if protocol.schedule == "restart":
        return _optimiser(ensemble, protocol, rate, epoch)
    for group in optimiser.param_groups:
        group["lr"] = rate * protocol.decay(epoch)
        if "momentum" in group:  # not of AdamW
            group["momentum"] = protocol.momentum_in(epoch)
    return optimiser


def _shared(sets: Sequence[TrainingSet], device: torch.device) -> list[TrainingSet]:
    """Move sets to a device; those that are one object stay one."""
    moved = {id(images): (images.to(device), labels.to(device)) for images, labels in sets}
    return [moved[id(images)] for images, _ in sets]


def _pool(sets: Sequence[TrainingSet], classes: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Join sets of equal size: images, targets, and each student's first row in them [R, 1].

    Targets are probabilities [N, K] where labels are soft, or where ``classes`` says that they get mixed.
    """
    distinct = list({id(images): (images, labels) for images, labels in sets}.values())
    position = {id(images): i for i, (images, _) in enumerate(distinct)}
    count = len(sets[0][0])
    images = torch.cat([images for images, _ in distinct]) if len(distinct) > 1 else distinct[0][0]
    targets = torch.cat([labels for _, labels in distinct])
    if targets.is_floating_point():
        targets = targets.softmax(-1)
    elif classes:
        targets = F.one_hot(targets, classes).to(torch.promote_types(images.dtype, torch.float32))
    return images, targets, torch.tensor([[position[id(images)] * count] for images, _ in sets])
