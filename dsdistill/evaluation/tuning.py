"""What follows pre-training: a student learns other data, by all of its weights or by a linear probe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.augment.training import Transform
from dsdistill.compute.probe import joined, linear_probe
from dsdistill.config.transfer import TransferConfig
from dsdistill.data.batches import RealBatches
from dsdistill.data.selection import random_selection
from dsdistill.evaluation.accuracy import TestImages
from dsdistill.evaluation.config import RealData
from dsdistill.evaluation.execution import Execution
from dsdistill.evaluation.students import Tick
from dsdistill.networks import Network
from dsdistill.objectives.precision import at_least_float32
from dsdistill.runtime.device import autocast
from dsdistill.seeding import forked, generator

_CHUNK = 512  # images whose features are computed at once

_TICKS = 50
"""Steps between reports of the progress."""


@dataclass(frozen=True, eq=False)
class DownstreamData:
    """Data that pre-trained students learn.

    Attributes:
        data: at the size and with the channels of the set, preprocessed by constants of their own.
        test: the test images, as students see them.
        fraction: of the training images, whose labels are seen.
    """

    data: RealData
    test: TestImages
    fraction: float

    @property
    def counts(self) -> Tensor:
        """Labels that are seen of each class, int64 [K]: one at least."""
        counts = self.data.train.counts
        return (counts * self.fraction).round().long().clamp(min=1).minimum(counts)

    @property
    def labels(self) -> int:
        """How many labels are seen."""
        return int(self.counts.sum())

    def rows(self, seed: int, repeat: int) -> Tensor:
        """Draw the training images whose labels a repeat sees, int64 [n]: the same for every set."""
        draws = generator(seed, "transfer-labels", repeat)
        return random_selection(self.data.train, self.counts, draws)


@dataclass(frozen=True)
class Tuning:
    """How students learn other data.

    Attributes:
        config: see `TransferConfig`.
        execution: device and precision.
        seed: of every draw.
    """

    config: TransferConfig
    execution: Execution
    seed: int

    @property
    def steps(self) -> int:
        """That a student takes; a probe counts as one."""
        return self.config.steps if self.config.tuning == "fine-tune" else 1

    def accuracy(self, network: Network, downstream: DownstreamData, repeat: int, tick: Tick) -> float:
        """Teach a student and return the share of test images that it classifies correctly.

        Args:
            network: on the device, of as many outputs as the data have classes; its weights change.
            repeat: whose draws are taken.
        """
        classify = self.teach(network, downstream, repeat, tick)
        correct = torch.zeros((), dtype=torch.int64, device=self.execution.device)
        with torch.inference_mode():
            for images, labels in downstream.test:
                correct += (classify(images).argmax(1)[: len(labels)] == labels).sum()
        return int(correct) / len(downstream.test)

    def teach(
        self, network: Network, downstream: DownstreamData, repeat: int, tick: Tick
    ) -> Callable[[Tensor], Tensor]:
        """Teach a student, and return what it answers to images [B, C, H, W] then: logits [B, K]."""
        rows = downstream.rows(self.seed, repeat)
        device, data = self.execution.device, downstream.data
        batches = RealBatches.of(data.task, data.train.resident_on(device), self.seed, device)
        if self.config.tuning == "probe":
            return self._probe(network, batches, rows)
        self._fine_tune(network, batches, rows, repeat, tick)
        network.eval()

        def classify(images: Tensor) -> Tensor:
            with autocast(self.execution.device, self.execution.precision):
                return network(images)

        return classify

    def _fine_tune(
        self, network: Network, batches: RealBatches, rows: Tensor, repeat: int, tick: Tick
    ) -> None:
        config, execution = self.config, self.execution
        optimiser = torch.optim.SGD(
            network.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, fused=True
        )
        augmentation = Augmentation.parse(config.augmentation, rule="idc")
        transform = Transform(augmentation if batches.task.mirror else augmentation.without("flip"))
        network.train()
        with forked(self.seed, "transfer-noise", repeat):  # for dropout
            for step, chosen in enumerate(self._batches(rows, repeat)):
                for group in optimiser.param_groups:
                    group["lr"] = config.lr * (1 + math.cos(math.pi * step / config.steps)) / 2

                def streams(kind: str, step: int = step) -> list[torch.Generator]:
                    return [generator(self.seed, f"transfer-{kind}", repeat, step)]

                images = transform(batches.images(chosen), streams)
                with autocast(execution.device, execution.precision):
                    logits = network(images)
                F.cross_entropy(at_least_float32(logits), batches.labels(chosen)).backward()
                optimiser.step()
                optimiser.zero_grad()
                if step % _TICKS == 0:
                    tick(step, config.steps)

    def _batches(self, rows: Tensor, repeat: int) -> Iterator[Tensor]:
        """Yield as many batches of positions as there are steps, in a new order each time all were seen."""
        size, left, epoch = min(self.config.batch_size, len(rows)), self.config.steps, 0
        while left:
            order = torch.randperm(len(rows), generator=generator(self.seed, "transfer", repeat, epoch))
            whole = order[: len(rows) // size * size].split(size)[:left]
            yield from (rows[part] for part in whole)
            left, epoch = left - len(whole), epoch + 1

    @torch.no_grad()
    def _probe(self, network: Network, batches: RealBatches, rows: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the linear probe of the student's features."""
        network.eval()

        def features(images: Tensor) -> Tensor:
            with autocast(self.execution.device, self.execution.precision):
                return network.embed(images).float()

        known = joined((features(batches.images(part)) for part in rows.split(_CHUNK)), len(rows))
        labels, classes = batches.labels(rows), batches.task.num_classes
        weight, bias = linear_probe(known, labels, classes, overwrite=True)
        return lambda images: features(images) @ weight.T + bias
