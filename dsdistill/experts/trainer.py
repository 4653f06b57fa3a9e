"""Training one expert after another.

Every draw is a function of (seed, stream, expert, epoch, batch). So expert e is the same however many are
trained, and a resumed run equals an unbroken one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.crops import RandomResizedCrop
from dsdistill.augment.mix import CutMix
from dsdistill.augment.training import Transform, augment_and_mix
from dsdistill.compute.learner import Learner
from dsdistill.compute.memory_format import in_fast_order
from dsdistill.compute.optimiser import MOMENTS, make_optimiser, restore, state_of
from dsdistill.compute.training_graph import why_not_captured
from dsdistill.config.unlabelled import is_labelled
from dsdistill.data.real import RealDataset, Task
from dsdistill.data.selection import validation_split
from dsdistill.errors import UserError
from dsdistill.experts.config import ExpertConfig
from dsdistill.experts.difficulty import Difficulty
from dsdistill.experts.images import CHUNK, NetworkImages
from dsdistill.experts.objective import Objective, TrainingBatch, smoothed
from dsdistill.experts.twins import Twins, TwinsObjective, fit_classifier, linear_classifier
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.runtime.allocations import beside_tensors, peak_of
from dsdistill.runtime.cuda_graphs import Mode, resolve_mode
from dsdistill.runtime.device import autocast, training_precision
from dsdistill.runtime.notice import Notify, once, silent
from dsdistill.runtime.pace import typical
from dsdistill.runtime.signals import Interrupted
from dsdistill.seeding import forked, generator
from dsdistill.storage.expert_file import Snapshot

_TIMED_STEPS, _FEWEST_STEPS = 16, 5  # between these, the timing ends after _TIMING_SECONDS
_TIMING_SECONDS = 3.0
_TIMED_SHARE, _LEAST_STEPS = 50, 3  # of a short training, one step in so many is timed before, but some are
_REPEATS = 3  # of the metrics of a few images, before a long training
_MEASURED = 10_000  # training images that tell the loss and the accuracy of a trained network, at most
EL2N = "el2n"
"""The tensor of a state that holds the scores of the training images so far, if they are recorded."""


@dataclass(frozen=True)
class Pace:
    """The seconds that training takes from now on. Compiling is not among them: it is done by now."""

    epoch: float
    """All steps of an epoch."""
    metrics: float
    """What tells the loss and the accuracy on training images, at the end of every expert."""
    warm_up: float = 0.0
    """What the first steps took above this pace."""


class Trainer:
    """Trains one network at a time. All share one module, so that code is compiled once for them all.

    Attributes:
        network: on the device, in training mode.
        layout: how its state is flattened.
        images: that it trains on, their number.
        batches: steps of an epoch.
        unseen: images that no step sees: those of test, or those held out; None where there are neither.
    """

    def __init__(
        self,
        config: ExpertConfig,
        task: Task,
        real: RealDataset,
        device: torch.device,
        notify: Notify,
        test: RealDataset | None = None,
    ) -> None:
        """Prepare.

        Args:
            config: without any ``auto``.
            task, real: the training images; they are moved to a CUDA device if most of it stays free.
            device: that computes.
            notify: receives one notice if the compiler fails; the training goes on without it.
            test: the test images, for `unseen_accuracy`, unless training images are held out for it.

        Raises:
            UserError: the network cannot take such images, or none can be held out.
        """
        self._config, self._task, self._device = config, task, device
        crop = RandomResizedCrop(scale=config.crop_scale) if config.crop_scale else None
        self._transform = Transform(config.augmentation.build(task.mirror), crop)
        self._cutmix = CutMix(probability=config.cutmix) if config.cutmix else None
        self._splits = [NetworkImages(each, task.preprocess, device) for each in (real, test) if each]
        self._train, self.unseen = self._parted(real)
        self.images = len(self._train)
        stream = generator(config.seed, "experts-measured")
        self._measured = torch.randperm(self.images, generator=stream)[:_MEASURED].sort().values
        self._size = min(config.batch_size, self.images)
        self.batches = self._batches_of_epoch()
        last = self.images - (self.batches - 1) * self._size
        if not config.needs_labels and last == 1:
            raise UserError(
                "the last batch of an epoch is a single image, of which the projector makes no statistics: "
                "set drop_last=true, or another batch_size"
            )
        with forked(config.seed, "experts-init", 0):
            network = build_network(config.network, *task.shape[:2], task.num_classes)
        self.network = in_fast_order(network.to(device), device)
        self.layout = Layout.of(self.network)
        self._trained = self.network if config.needs_labels else self._new_twins()
        if self._probes:
            linear_classifier(self.network)
        self._precision = training_precision(config.compute.precision, device)
        self._objective = self._objective_of(
            bool(config.compute.compile), once(notify), self._graph_mode(notify)
        )
        self._optimiser = make_optimiser(self._trained, self._config)
        self._epoch_loss = 0.0
        self._difficulty = self._new_difficulty()

    def _batches_of_epoch(self) -> int:
        """Count the steps of an epoch: those of a pass, or as many as it has at most."""
        config = self._config
        every = self.images // self._size if config.drop_last else -(-self.images // self._size)
        return min(every, config.epoch_batches or every)

    def _parted(self, real: RealDataset) -> tuple[NetworkImages, NetworkImages | None]:
        """Return the images to train on, and those that no step sees."""
        train, *test = self._splits
        if not self._config.holds_out:
            return train, test[0] if test else None
        kept, held_out = map(train.part, validation_split(real))
        return kept, held_out

    def _new_twins(self, expert: int = 0) -> Twins:
        """Return the network with the initial projector of an expert."""
        with forked(self._config.seed, "experts-projector", expert):
            return Twins(self.network, self._config.twins.projector).to(self._device)

    def _objective_of(
        self, compile: bool, notify: Notify, graphs: Mode = False
    ) -> Objective | TwinsObjective:
        """Return the loss of a batch, and what its gradient is of."""
        config, device, precision = self._config, self._device, self._precision
        if isinstance(self._trained, Twins):
            return TwinsObjective(self._trained, config, device, precision, compile, notify)
        learner = Learner(self.network, self._task.size, device, precision, compile, notify=notify)
        return Objective(learner, config, graphs, notify)

    def _graph_mode(self, notify: Notify) -> Mode:
        """Return whether steps of this network are captured as a CUDA graph."""
        mode, reason = self._config.compute.cuda_graphs, why_not_captured(self.network)
        if mode == "auto":
            mode = resolve_mode(mode, self._device)
        if mode is True and reason:
            notify(f"running without CUDA graphs: {reason}")
        return False if reason else mode

    def initialise(self, expert: int) -> None:
        """Give the network the initial weights of an expert, and have the optimiser forget."""
        config, task = self._config, self._task
        with forked(config.seed, "experts-init", expert):
            fresh = build_network(config.network, *task.shape[:2], task.num_classes)
        self.network.load_state_dict(fresh.state_dict())
        if isinstance(self._trained, Twins):
            self._trained.projector.load_state_dict(self._new_twins(expert).projector.state_dict())
        self._optimiser = make_optimiser(self._trained, self._config)
        self._difficulty = self._new_difficulty()

    def _new_difficulty(self) -> Difficulty | None:
        epochs = min(self._config.record_el2n, self._config.epochs)
        return Difficulty(len(self._train), epochs, self._device) if epochs else None

    def train_epoch(self, expert: int, epoch: int, signals: list[Interrupted]) -> float:
        """Train for one epoch, counted from 0.

        Returns:
            the mean loss over augmented images, with all terms.

        Raises:
            Interrupted: as soon as there is a signal in ``signals``.
        """
        if self._config.drop_restarts and epoch in self._config.drop_epochs:
            self._optimiser = make_optimiser(self._trained, self._config)
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.learning_rate(epoch)
        self._trained.train()
        total, count = torch.zeros((), device=self._device), 0
        with forked(self._config.seed, "experts-noise", expert, epoch):  # for dropout
            for rows, batch in self._epoch_batches(expert, epoch):
                if signals:
                    raise signals[0]
                loss = self._objective.backward(batch, epoch, self._observer(rows, epoch))
                self._optimiser.step()
                self._optimiser.zero_grad()
                total += loss * len(batch.images)
                count += len(batch.images)
        self._epoch_loss = float(total) / count
        return self._epoch_loss

    def finish_epoch(self) -> None:
        """Make the classifier a linear probe, before weights are stored that were trained without labels."""
        if self._probes:
            fit_classifier(self.network, self._train, self._task.num_classes)

    @property
    def _probes(self) -> bool:
        return not self._config.needs_labels and is_labelled(self._task.classes)

    def _observer(self, rows: Tensor, epoch: int) -> Callable[[Tensor], None] | None:
        """Return what takes the logits of a batch, if the scores of this epoch are recorded."""
        if self._difficulty is None or epoch >= self._config.record_el2n:
            return None
        labels = self._train.labels[rows.to(self._device, non_blocking=True)]
        return partial(self._difficulty.add, rows, labels=labels)

    def training_metrics(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy (a fraction) on images trained on, not augmented.

        They are 10,000 random ones at most, the same for every network. Of data without labels it is the loss
        of the last epoch, and the accuracy is 0.
        """
        if not is_labelled(self._task.classes):
            return self._epoch_loss, 0.0
        return self._metrics(self._train, self._measured)

    def unseen_accuracy(self) -> float:
        """Return the accuracy (a fraction) on the images that no step sees.

        Raises:
            ValueError: there are none.
        """
        if self.unseen is None:
            raise ValueError("the trainer has no images besides those that it trains on")
        return self._metrics(self.unseen, torch.arange(len(self.unseen)))[1]

    def _metrics(self, images: NetworkImages, rows: Tensor) -> tuple[float, float]:
        """Return the mean loss and the accuracy on images of a split."""
        self.network.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        correct = torch.zeros((), dtype=torch.int64, device=self._device)
        for part in rows.split(CHUNK):
            more_loss, more_correct = self._tested(images, part)
            loss += more_loss
            correct += more_correct
        return float(loss) / len(rows), int(correct) / len(rows)

    def pace(self, steps: int | None = None) -> Pace:
        """Time steps that change no weights, once every size of batch has been compiled for.

        Call `initialise` before training: the optimiser's state and the statistics of batch normalisation are
        not those of an expert afterwards.

        A smaller last batch takes its share of the time of the others.

        Args:
            steps: that are to come, if known; few of them are not worth many that are only timed.
        """
        most = _TIMED_STEPS if steps is None else max(_LEAST_STEPS, min(_TIMED_STEPS, steps // _TIMED_SHARE))
        order = torch.randperm(len(self._train), generator=generator(self._config.seed, "experts", 0, 0))
        batches = list(order.split(self._size)[: self.batches])
        full = [rows for rows in batches if len(rows) == self._size]
        smaller = batches[len(full) :]
        self._trained.train()
        for group in self._optimiser.param_groups:
            group["lr"] = 0.0
        with forked(self._config.seed, "experts-noise"):
            first = [self._timed_step(rows, 0) for rows in (full[0], *smaller)]
            step = typical(list(self._timed_steps(full, most)))
        self._optimiser = make_optimiser(self._trained, self._config)
        last = sum(step * len(rows) / self._size for rows in smaller)
        metrics = self._seconds_of_metrics(_REPEATS if most == _TIMED_STEPS else 1)
        return Pace(len(full) * step + last, metrics, max(0.0, sum(first) - step - last))

    def memory_bytes(self) -> int:
        """Estimate what the training adds to the process, or takes on the GPU, from a step on one batch.

        Call `initialise` before training, as after `pace`.
        """
        compute = self._config.compute
        objective = self._objective_of(False, silent)
        self._trained.train()
        batch = self._batch(torch.arange(self._size), 0, 0, 0)
        step = peak_of(lambda: objective.backward(batch, 0))
        self._optimiser.zero_grad()
        moments = MOMENTS[self._config.optimiser]  # besides a copy of them and of the weights to save
        weights = (2 * moments + 1) * sum(each.nbytes for each in self._trained.parameters())
        images_bytes = sum(each.real.memory_bytes + each.resident_bytes for each in self._splits)
        unused = beside_tensors(
            step, self._device, bool(compute.compile), bool(self._config.gradient_penalty)
        )
        return images_bytes + weights + 2 * batch.images.nbytes + step + unused

    def _timed_steps(self, batches: list[Tensor], most: int) -> Iterator[float]:
        """Yield the seconds of steps on batches in turn, until they are enough."""
        total = 0.0
        for turn in range(most):
            if turn >= _FEWEST_STEPS and total >= _TIMING_SECONDS:
                return
            seconds = self._timed_step(batches[turn % len(batches)], turn)
            total += seconds
            yield seconds

    def _timed_step(self, rows: Tensor, turn: int) -> float:
        """Take a step as in training, with the optimiser as it is, and return its seconds."""
        since = time.monotonic()
        loss = self._objective.backward(self._batch(rows, 0, 0, turn), 0)
        self._optimiser.step()
        self._optimiser.zero_grad()
        loss.item()  # waits for the device
        return time.monotonic() - since

    def _seconds_of_metrics(self, repeats: int) -> float:
        """Estimate the seconds of `training_metrics` by a few images."""
        self.network.eval()
        rows = self._measured[:CHUNK]
        times = []
        for _ in range(repeats):
            since = time.monotonic()
            self._tested(self._train, rows)[0].item()
            times.append(time.monotonic() - since)
        return statistics.median(times) * len(self._measured) / len(rows)

    def snapshot(self) -> Snapshot:
        """Return weights and buffers, flattened as a file of experts holds them."""
        return self.layout.pack(self.network.state_dict())

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights, buffers, what the optimiser remembers, and the scores so far."""
        scores = {EL2N: self._difficulty.scores.cpu()} if self._difficulty else {}
        return {**state_of(self._trained, self._optimiser), **scores}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict`."""
        self._optimiser = make_optimiser(self._trained, self._config)
        if self._difficulty:
            self._difficulty.scores.copy_(state[EL2N])
        restore(self._trained, self._optimiser, state)

    def _epoch_batches(self, expert: int, epoch: int) -> Iterator[tuple[Tensor, TrainingBatch]]:
        """Yield the rows of each batch of an epoch, int64 on the CPU, and the batch."""
        order = torch.randperm(
            len(self._train), generator=generator(self._config.seed, "experts", expert, epoch)
        )
        for step, rows in enumerate(order.split(self._size)[: self.batches]):
            yield rows, self._batch(rows, expert, epoch, step)

    def _batch(self, rows: Tensor, expert: int, epoch: int, step: int) -> TrainingBatch:
        """Return training images: augmented by one operator, with parameters per image; mixed.

        Without labels, they are two views of each image.
        """
        plain = self._train.images(rows)
        targets = self._train.labels[rows.to(self._device, non_blocking=True)]

        def streams(kind: str, *view: int) -> list[torch.Generator]:
            return [generator(self._config.seed, f"experts-{kind}", expert, epoch, step, *view)]

        if not self._config.needs_labels:
            draws = [lambda kind, view=view: streams(kind, view) for view in (1, 2)]
            views = [self._transform(plain, each) for each in draws]
            return TrainingBatch(torch.cat(views), targets, plain)
        images, targets = augment_and_mix(
            plain, targets, self._transform, self._cutmix, self._task.num_classes, streams
        )
        if self._config.label_smoothing:
            targets = smoothed(targets, self._task.num_classes, self._config.label_smoothing)
        return TrainingBatch(images, targets, plain)

    @torch.no_grad()
    def _tested(self, images: NetworkImages, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the number of correct answers on images, not augmented."""
        labels = images.labels[rows.to(self._device)]
        with autocast(self._device, self._precision):
            logits = self.network(images.images(rows)).float()
        return F.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(1) == labels).sum()
