"""Sources: what an engine may draw from. Every draw is a function of (seed, stream, iteration)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dsdistill import seeding
from dsdistill.augment.dsa import Augmentation, Parameters
from dsdistill.augment.mix import CutMix
from dsdistill.augment.training import augment_and_mix
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.data.real import RealDataset, Task
from dsdistill.objectives.distributions import class_sums
from dsdistill.supply.base import Batch, NetworkTraining, Supply
from dsdistill.supply.queue import Queue
from dsdistill.supply.trained import Trained
from dsdistill.synthetic.set import SyntheticSet


class Sources:
    """Real batches, augmentation parameters and networks for the classes and the iteration at hand.

    Attributes:
        task: what is distilled.
        data: the training images.
        supply: where networks come from.
        embedder: computes features of the supply's network.
        learner: computes its classification loss and the derivatives.
        augmentation: applied alike to real and synthetic images (siamese).
        seed: of the run.
        largest_class: real images of the class that has most.
        iteration: set by the loop.
        update: which of an iteration's steps of the pixels is taken; set by the loop.
        classes: int64 [k] label values this pass is about, on the CPU; set by the loop.
    """

    part_bytes = 1 << 25
    """Real images prepared at once: enough for many passes of a network, little beside its memory."""

    def __init__(
        self,
        task: Task,
        real: RealDataset,
        supply: Supply,
        embedder: Embedder,
        learner: Learner,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.task = task
        self.supply = supply
        self.augmentation = augmentation
        self.iteration = 0
        self.update = 0
        self.classes = torch.arange(task.num_classes)
        self.data = real
        self._preprocess = task.preprocess.to(device, dtype)
        self.seed = seed
        self._device = device
        self._dtype = dtype
        self.embedder = embedder
        self.learner = learner
        self.largest_class = int(real.counts.max())
        self._drawn_at = -1

    def network(self) -> Embedder:
        """Return this iteration's network to embed with, the same one for every pass over its classes."""
        self._draw()
        return self.embedder

    def classifier(self) -> Learner:
        """Return this iteration's network to differentiate, the same one for every pass over its classes."""
        self._draw()
        return self.learner

    def siamese(self) -> Parameters:
        """Draw this turn's augmentation: one row for each of ``classes``, on the CPU."""
        update = (self.update,) if self.update else ()
        stream = seeding.generator(self.seed, "augment", self.iteration, *update)
        rows = self.augmentation.draw(self.task.num_classes, self.task.size, stream, shared_operator=False)
        return rows[self.classes]

    def counts(self, per_class: int) -> Tensor:
        """Return how many images `real` gives of each of ``classes``, int64 [k]: small classes have fewer."""
        return self.data.counts[self.classes].clamp(max=per_class)

    def real(self, per_class: int, parameters: Parameters) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw real images of each of ``classes`` without replacement, preprocessed and augmented.

        Args:
            per_class: images of a class; all of them where it has fewer.
            parameters: k rows, from `siamese`.

        Yields:
            images [b, C, H, W] and int64 [b], the position in ``classes`` of each; on the device. Parts are
            bounded in memory and in class order, however many images there are in all; one part holds them
            all where the network couples the samples of a batch.
        """
        index = torch.cat([self.indices(int(label), per_class) for label in self.classes])
        owner = torch.arange(len(self.classes)).repeat_interleave(self.counts(per_class))
        passes = self.part_bytes // (4 * self.task.channels * self.task.size**2) // self.embedder.chunk
        whole = self.supply.network.couples_samples
        part = len(index) if whole else max(1, passes) * self.embedder.chunk
        for chosen, owners in zip(index.split(part), owner.split(part), strict=True):
            yield self.augmentation(self._prepared(chosen), parameters[owners]), owners.to(self._device)

    def real_of(self, label: int, per_class: int, row: Parameters) -> Tensor:
        """Draw real images of one class, preprocessed and augmented, [b, C, H, W].

        Args:
            label: of the class.
            per_class: images without replacement; all of them where the class has fewer.
            row: one row of parameters, shared by them all.
        """
        images = self._prepared(self.indices(label, per_class))
        return self.augmentation(images, row[torch.zeros(len(images), dtype=torch.int64)])

    def advance(self, synthetic: SyntheticSet) -> None:
        """Train the supply's network, as it asks for, unless a new one is due. Called after every step."""
        supply = self.supply
        if isinstance(supply, Queue):
            supply.train(self.learner, self.seed, self.iteration, self._random_batches)
        elif isinstance(supply, Trained) and (self.iteration + 1) % supply.training.updates_per_network:
            on_real = supply.training.on == "real"
            supply.train(
                self.learner, self._real_batches() if on_real else self._synthetic_batches(synthetic)
            )

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue with the networks of a state returned by the supply's ``state_dict``."""
        self.supply.load_state_dict(state)
        self._drawn_at = -1

    def _draw(self) -> None:
        if self._drawn_at == self.iteration:
            return
        self._drawn_at = self.iteration
        fresh, supply = self.supply.draw(self.seed, self.iteration), self.supply
        if not isinstance(supply, Trained):
            return
        if fresh and supply.training.warm_up:
            supply.train(self.learner, self._warm_up_batches(supply.training))
        if supply.network.has_batch_norm and supply.training.batch_norm == "refreshed":
            labels = range(self.task.num_classes)
            index = torch.cat([self.indices(label, 16, "statistics") for label in labels])
            supply.refresh(self._prepared(index))

    def _synthetic_batches(self, synthetic: SyntheticSet) -> Iterator[Batch]:
        """Yield shuffled batches of the synthetic set, epoch by epoch."""
        training = self._training
        with torch.no_grad():
            images = synthetic.of(torch.arange(self.task.num_classes))
        labels = torch.arange(len(images), device=images.device).repeat_interleave(images.shape[1])
        images = images.flatten(0, 1)
        for epoch in range(training.epochs):
            stream = seeding.generator(self.seed, "inner", self.iteration, epoch)
            order = torch.randperm(len(images), generator=stream)
            for batch, rows in enumerate(order.split(training.batch_size)):
                chosen = rows.to(images.device, non_blocking=images.is_cuda)
                number = (self.iteration, epoch, batch)
                seen, classes = synthetic.batch(images[chosen]), labels[chosen]
                classes = classes.repeat(len(seen) // len(chosen))
                yield self._for_training(seen, classes, "inner", *number)

    def _real_batches(self) -> Iterator[Batch]:
        """Yield real batches from one shuffled stream that goes on from iteration to iteration."""
        training = self._training
        count = -(-training.samples // training.batch_size)
        yield from self._stream(training, "inner", self.iteration * count, count)

    def _random_batches(self, network: int) -> Iterator[Batch]:
        """Yield real batches for the n-th network of a queue, each drawn from all images; not augmented."""
        assert isinstance(self.supply, Queue)
        for batch in range(self.supply.told.steps):
            stream = seeding.generator(self.seed, "queue-batches", self.iteration, network, batch)
            rows = torch.randperm(len(self.data), generator=stream)[: self.supply.told.batch_size]
            yield self._prepared(rows), self.data.labels[rows].to(self._device, non_blocking=True)

    def _warm_up_batches(self, training: NetworkTraining) -> Iterator[Batch]:
        """Yield epochs of real batches, a stream of their own for each network."""
        count = training.warm_up * max(1, len(self.data) // training.batch_size)
        network = self.iteration // training.updates_per_network
        yield from self._stream(training, "warm-up", network * count, count)

    def _stream(self, training: NetworkTraining, stream: str, start: int, count: int) -> Iterator[Batch]:
        """Yield batches number ``start`` to ``start + count``; what is left at an epoch's end is dropped."""
        size = min(training.batch_size, len(self.data))
        per_epoch, shuffled, order = len(self.data) // size, -1, torch.empty(0)
        for number in range(start, start + count):
            epoch, batch = divmod(number, per_epoch)
            if epoch != shuffled:
                generator = seeding.generator(self.seed, stream, epoch)
                shuffled, order = epoch, torch.randperm(len(self.data), generator=generator)
            rows = order[batch * size : (batch + 1) * size]
            labels = self.data.labels[rows].to(self._device, non_blocking=True)
            yield self._for_training(self._prepared(rows), labels, stream, number)

    def _for_training(self, images: Tensor, labels: Tensor, name: str, *number: int) -> Batch:
        """Augment a batch, one operator for all and its parameters per image, and mix it where asked for."""
        cutmix = self._training.cutmix
        augmentation = self.augmentation.without("cutout") if cutmix else self.augmentation

        def streams(kind: str) -> list[torch.Generator]:
            return [seeding.generator(self.seed, f"{name}-{kind}", *number)]

        mix = CutMix(probability=cutmix) if cutmix else None
        return augment_and_mix(images, labels, augmentation, mix, self.task.num_classes, streams)

    @property
    def _training(self) -> NetworkTraining:
        assert self.supply.training is not None
        return self.supply.training

    def _prepared(self, index: Tensor) -> Tensor:
        return self._preprocess(self.data.unit(index).to(self._device, self._dtype))

    def real_features(self, per_class: int, parameters: Parameters) -> Tensor:
        """Embed real images of each of ``classes`` with this iteration's network.

        Args:
            per_class, parameters: see `real`.

        Returns:
            [sum of `counts`, D], class by class; without a graph.
        """
        network = self.network()
        return torch.cat([network.frozen(images) for images, _ in self.real(per_class, parameters)])

    def real_means(self, per_class: int, parameters: Parameters) -> Tensor:
        """Return the means of `real_features` over each class [k, D], without holding the features."""
        network, classes = self.network(), len(self.classes)
        sums = torch.zeros((), device=self._device)
        for images, owner in self.real(per_class, parameters):
            sums = sums + class_sums(network.frozen(images), owner, classes)
        return sums / self.counts(per_class).to(sums.device)[:, None]

    def synthetic_features(self, synthetic: SyntheticSet, parameters: Parameters) -> Tensor:
        """Embed the synthetic images of each of ``classes`` [k, n, D], with a graph to what is learned.

        Args:
            synthetic: of which a step sees n images of each class.
            parameters: k rows, from `siamese`.
        """
        images = synthetic.batch(synthetic.of(self.classes))
        owner = torch.arange(len(self.classes)).repeat_interleave(images.shape[1])
        augmented = self.augmentation(images.flatten(0, 1), parameters[owner])
        return self.network().differentiable(augmented).unflatten(0, images.shape[:2])

    def indices(self, label: int, per_class: int, stream_name: str = "batches") -> Tensor:
        """Draw positions of real images of one class in ``data``, without replacement."""
        members = self.data.indices_of(label)
        stream = seeding.generator(self.seed, stream_name, self.iteration, label)
        return members[torch.randperm(len(members), generator=stream)[:per_class]]
