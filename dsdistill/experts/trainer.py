"""Training one expert after another.

Every draw is a function of (seed, stream, expert, epoch, batch). So expert e is the same however many are
trained, and a resumed run equals an unbroken one.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.mix import CutMix
from dsdistill.augment.training import augment_and_mix
from dsdistill.compute.learner import Learner
from dsdistill.compute.sgd import restore, sgd, state_of
from dsdistill.data.real import RealDataset, Task
from dsdistill.experts.config import ExpertConfig
from dsdistill.experts.objective import Objective, TrainingBatch
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.runtime.device import autocast, resolve_precision
from dsdistill.runtime.notice import Notify, once
from dsdistill.runtime.signals import Interrupted
from dsdistill.seeding import forked, generator
from dsdistill.storage.expert_file import Snapshot

_RESIDENT_BYTES = 1 << 30  # training images up to this size are preprocessed once, not once per epoch
_CHUNK = 512  # images per pass outside training
_TIMED_STEPS, _TIMING_SECONDS = 16, 3.0  # limits of the timing, whichever comes first; the first step is free


class Trainer:
    """Trains one network at a time. All share one module, so that code is compiled once for them all.

    Attributes:
        network: on the device, in training mode.
        layout: how its state is flattened.
        batches: steps of an epoch.
    """

    def __init__(
        self,
        config: ExpertConfig,
        task: Task,
        real: RealDataset,
        device: torch.device,
        notify: Notify,
    ) -> None:
        """Prepare.

        Args:
            config: without any ``auto``.
            task, real: the training images; they are moved to a CUDA device if most of it stays free.
            device: that computes.
            notify: receives one notice if the compiler fails; the training goes on without it.

        Raises:
            UserError: the network cannot take such images.
        """
        real = real.resident_on(device)
        self._config, self._task, self._real, self._device = config, task, real, device
        self._preprocess = task.preprocess.to(device)
        self._labels = real.labels.to(device)
        self._augmentation = config.augmentation.build(task.mirror)
        self._cutmix = CutMix(probability=config.cutmix) if config.cutmix else None
        self._size = min(config.batch_size, len(real))
        self.batches = len(real) // self._size if config.drop_last else -(-len(real) // self._size)
        with forked(config.seed, "experts-init", 0):
            self.network = build_network(config.network, *task.shape[:2], task.num_classes).to(device)
        self.layout = Layout.of(self.network)
        compute = config.compute
        self._precision = resolve_precision(compute.precision, device)
        learner = Learner(
            self.network, task.size, device, self._precision, bool(compute.compile), notify=once(notify)
        )
        self._objective = Objective(learner, config)
        self._optimiser = sgd(self.network, self._config)
        self._resident: Tensor | None = None
        if 4 * real.images.numel() <= _RESIDENT_BYTES:
            self._resident = torch.empty(real.images.shape, device=device)
            for rows in torch.arange(len(real)).split(_CHUNK):
                self._resident[rows.to(device)] = self._preprocessed(rows)

    def initialise(self, expert: int) -> None:
        """Give the network the initial weights of an expert, and reset the momentum."""
        config, task = self._config, self._task
        with forked(config.seed, "experts-init", expert):
            fresh = build_network(config.network, *task.shape[:2], task.num_classes)
        self.network.load_state_dict(fresh.state_dict())
        self._optimiser = sgd(self.network, self._config)

    def train_epoch(self, expert: int, epoch: int, signals: list[Interrupted]) -> float:
        """Train for one epoch, counted from 0.

        Returns:
            the mean loss over augmented images, with all terms.

        Raises:
            Interrupted: as soon as there is a signal in ``signals``.
        """
        if self._config.drop_restarts and epoch in self._config.drop_epochs:
            self._optimiser = sgd(self.network, self._config)
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.learning_rate(epoch)
        self.network.train()
        total, count = torch.zeros((), device=self._device), 0
        with forked(self._config.seed, "experts-noise", expert, epoch):  # for dropout
            for batch in self._epoch_batches(expert, epoch):
                if signals:
                    raise signals[0]
                loss = self._objective.backward(batch, epoch)
                self._optimiser.step()
                self._optimiser.zero_grad()
                total += loss * len(batch.images)
                count += len(batch.images)
        return float(total) / count

    @torch.no_grad()
    def training_metrics(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy (a fraction) on all training images, not augmented."""
        self.network.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        correct = torch.zeros((), dtype=torch.int64, device=self._device)
        for rows in torch.arange(len(self._real)).split(_CHUNK):
            labels = self._labels[rows.to(self._device)]
            with autocast(self._device, self._precision):
                logits = self.network(self._images(rows)).float()
            loss += F.cross_entropy(logits, labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
        return float(loss) / len(self._real), int(correct) / len(self._real)

    def seconds_per_epoch(self) -> float:
        """Estimate the seconds of an epoch by timing steps that change no weights.

        The first of these steps compiles.
        """
        self.network.train()
        times: list[float] = []
        batches = (batch for epoch in itertools.count() for batch in self._epoch_batches(0, epoch))
        with forked(self._config.seed, "experts-noise"):
            while len(times) < _TIMED_STEPS and sum(times[1:]) < _TIMING_SECONDS:
                since = time.monotonic()
                loss = self._objective.backward(next(batches), 0)
                self._optimiser.zero_grad()
                loss.item()  # waits for the device
                times.append(time.monotonic() - since)
        return statistics.fmean(times[len(times) // 2 :]) * self.batches

    def snapshot(self) -> Snapshot:
        """Return weights and buffers, flattened as a file of experts holds them."""
        return self.layout.pack(self.network.state_dict())

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights, buffers and momentum."""
        return state_of(self.network, self._optimiser)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict`."""
        self._optimiser = restore(self.network, self._config, state)

    def _epoch_batches(self, expert: int, epoch: int) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch: augmented by one operator each, with parameters per image; mixed."""
        seed, classes = self._config.seed, self._task.num_classes
        order = torch.randperm(len(self._real), generator=generator(seed, "experts", expert, epoch))
        for step, rows in enumerate(itertools.islice(order.split(self._size), self.batches)):
            plain = self._images(rows)
            targets = self._labels[rows.to(self._device, non_blocking=True)]

            def streams(kind: str, step: int = step) -> list[torch.Generator]:
                return [generator(seed, f"experts-{kind}", expert, epoch, step)]

            images, targets = augment_and_mix(
                plain, targets, self._augmentation, self._cutmix, classes, streams
            )
            yield TrainingBatch(images, targets, plain)

    def _images(self, rows: Tensor) -> Tensor:
        if self._resident is not None:
            return self._resident[rows.to(self._device, non_blocking=True)]
        return self._preprocessed(rows)

    def _preprocessed(self, rows: Tensor) -> Tensor:
        return self._preprocess(self._real.unit(rows.to(self._real.images.device)).to(self._device))
