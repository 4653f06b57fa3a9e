"""Sources: what an engine may draw from. Every draw is a function of (seed, stream, iteration).

Only real images that are chosen by clusters depend on the network, too, and are part of a run's state.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation, Parameters
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.data.batches import RealBatches
from dsdistill.engines.clusters import Clusters
from dsdistill.engines.real_cache import RealCache
from dsdistill.objectives.distributions import class_means, class_sums
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.seeding import generator
from dsdistill.supply.base import DrawnNetwork, NetworkSource, Supply
from dsdistill.supply.batches import TrainingBatches
from dsdistill.synthetic.set import SyntheticSet

S = TypeVar("S", bound=NetworkSource)
T = TypeVar("T")

PASSES_TOGETHER = 4
"""Of a network, whose real images are prepared together where each is used once."""


@dataclass(frozen=True, eq=False)
class ClassFeatures:
    """Features of the synthetic images of some classes.

    Attributes:
        rows: [B, D], class by class.
        counts: rows of each class, B in all.
    """

    rows: Tensor
    counts: list[int]

    def means(self) -> Tensor:
        """Return the mean of each class, [k, D]."""
        return class_means(self.rows, self.counts)

    def by_class(self) -> tuple[Tensor, ...]:
        """Return the features of each class, [n, D]."""
        return self.rows.split(self.counts)


class Sources(Generic[S]):
    """Real batches, augmentation parameters and networks for the classes and the iteration at hand.

    Attributes:
        batches: the training images in network space; ``task``, ``data`` and ``seed`` are theirs.
        supply: where networks come from.
        embedder: computes features of the supply's network.
        learner: computes its classification loss and the derivatives.
        augmentation: applied alike to real and synthetic images (siamese).
        clusters: chooses the real images; None where they are drawn at random.
        cache: keeps what was computed of real images; None computes it anew in every iteration.
        ranks: the processes that share the run, of which each computes its part of every loss; set before
            the loop is made, or by `Distiller.divide`.
        largest_class: real images of the class that has most.
        iteration, iterations: that at hand and all there are; set by the loop.
        update: which of an iteration's steps of the pixels is taken; set by the loop.
        classes: int64 [k] label values this pass is about, on the CPU; set by the loop.
    """

    part_bytes = 1 << 25
    """Real images prepared at once: enough for many passes of a network, little beside its memory."""

    def __init__(
        self,
        batches: RealBatches,
        supply: S,
        embedder: Embedder,
        learner: Learner,
        augmentation: Augmentation,
        clusters: Clusters | None = None,
        cache: RealCache | None = None,
    ) -> None:
        self.batches = batches
        self.task, self.data, self.seed = batches.task, batches.data, batches.seed
        self.supply = supply
        self.embedder = embedder
        self.learner = learner
        self.augmentation = augmentation
        self.clusters = clusters
        self.cache = cache
        self.ranks: Ranks = ALONE
        self.largest_class = int(self.data.counts.max())
        self.iteration = 0
        self.iterations = 0
        self.update = 0
        self.classes = torch.arange(self.task.num_classes)
        self._drawn: DrawnNetwork | None = None
        self._drawn_at = -1

    def begin(self, synthetic: SyntheticSet) -> Iterator[tuple[int, int]]:
        """Train what has to be trained before the first iteration: see `NetworkSource.begin`."""
        return self.supply.begin(self.training_batches(synthetic))

    def drawn(self: Sources[Supply], synthetic: SyntheticSet | None = None) -> DrawnNetwork:
        """Draw this iteration's network, once, and return what the supply knows of it.

        Args:
            synthetic: for supplies that train networks on it before the first iteration.
        """
        if self._drawn is None or self._drawn_at != self.iteration:
            self._drawn = self.supply.draw(self.iteration, self.training_batches(synthetic))
            self._drawn_at = self.iteration
        return self._drawn

    def network(self: Sources[Supply]) -> Embedder:
        """Return this iteration's network to embed with, the same one for every pass over its classes."""
        self.drawn()
        return self.embedder

    def classifier(self: Sources[Supply]) -> Learner:
        """Return this iteration's network to differentiate, the same one for every pass over its classes."""
        self.drawn()
        return self.learner

    @property
    def draw_number(self) -> int:
        """The number that real images and augmentation of this update are drawn by, with the seed.

        It is the iteration; or one of finitely many, where what is computed of real images is cached. That is
        done in the first update of an iteration, the one that matches.
        """
        if self.cache is None or self.update:
            return self.iteration
        return self.cache.number(self.iteration, cast("Sources[Supply]", self).drawn())

    def once(self, what: Hashable, compute: Callable[[], T]) -> T:
        """Return what is computed of real images alone, which a cache keeps for every later iteration.

        Args:
            what: tells it from all else that is computed of the draw at hand.
            compute: it; from this iteration's network and whatever `draw_number` decides, without a graph.
        """
        if self.cache is None or self.update:
            return compute()
        key = (what, int(self.classes[0]), len(self.classes))
        return self.cache.once(self.draw_number, key, compute)

    def siamese(self) -> Parameters:
        """Draw this update's augmentation: one row for each of ``classes``, on the CPU."""
        update = (self.update,) if self.update else ()
        stream = generator(self.seed, "augment", self.draw_number, *update)
        rows = self.augmentation.draw(self.task.num_classes, self.task.size, stream, shared_operator=False)
        return rows[self.classes]

    def counts(self, per_class: int) -> Tensor:
        """Return how many images `real` gives of each of ``classes``, int64 [k]: small classes have fewer."""
        return self.data.counts[self.classes].clamp(max=per_class)

    def positions(self: Sources[Any], label: int, per_class: int) -> Tensor:
        """Choose ``per_class`` distinct real images of a class, int64 [n]; a smaller class gives all."""
        if self.clusters is None:
            return self.batches.positions(label, per_class, self.draw_number)
        return self.clusters.positions(label, per_class, self.iteration, self._embedded)

    def _embedded(self: Sources[Supply], positions: Tensor) -> Tensor:
        """Embed the real images at some positions as they are, [n, D]."""
        network, part = self.network(), self._part(len(positions))
        return torch.cat([network.frozen(self.batches.images(each)) for each in positions.split(part)])

    def _part(self, images: int) -> int:
        """Return how many of so many real images are prepared at once."""
        if self.supply.network.couples_samples:
            return images
        passes = self.part_bytes // (4 * self.task.channels * self.task.size**2) // self.embedder.chunk
        return max(1, passes) * self.embedder.chunk

    def real(self, per_class: int, parameters: Parameters) -> Iterator[tuple[Tensor, Tensor]]:
        """Choose real images of each of ``classes``, no image twice, preprocessed and augmented.

        Args:
            per_class: images of a class; all of them where it has fewer.
            parameters: k rows, from `siamese`.

        Yields:
            images [b, C, H, W] and int64 [b], the position in ``classes`` of each; on the device. Parts are
            bounded in memory and in class order, however many images there are in all; one part holds them
            all where the network couples the samples of a batch.
        """
        index = torch.cat([self.positions(label, per_class) for label in self.classes.tolist()])
        owner = torch.arange(len(self.classes)).repeat_interleave(self.counts(per_class))
        part = self._part(len(index))
        for positions, owners in zip(index.split(part), owner.split(part), strict=True):
            yield (
                self.augmentation(self.batches.images(positions), parameters[owners]),
                owners.to(self.batches.device, non_blocking=True),
            )

    def real_of(self, label: int, per_class: int, row: Parameters) -> Tensor:
        """Choose real images of one class, preprocessed and augmented, [b, C, H, W].

        Args:
            label: of the class.
            per_class: images, none of them twice; all of them where the class has fewer.
            row: one row of parameters, shared by them all.
        """
        images = self.batches.images(self.positions(label, per_class))
        return self.augmentation(images, row[torch.zeros(len(images), dtype=torch.int64)])

    def of_all_classes(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Choose real images whatever their class, no image twice, each augmented on its own.

        Args:
            count: images, those of all processes; all there are if these are fewer.

        Yields:
            images [b, C, H, W], preprocessed, and their labels int64 [b], a few passes of a network at a
            time; all at once where the network couples the samples of a batch.
        """
        stream = generator(self.seed, "mixed-batches", self.draw_number)
        chosen = torch.randperm(len(self.data), generator=stream)[:count]
        draws = generator(self.seed, "augment", self.draw_number)
        rows = self.augmentation.draw(len(chosen), self.task.size, draws, shared_operator=False)
        part = len(chosen) if self.supply.network.couples_samples else PASSES_TOGETHER * self.embedder.chunk
        own = torch.arange(len(chosen))[self.ranks.part(len(chosen))]
        for places in own.split(part) if len(own) else ():
            positions = chosen[places]
            images = self.augmentation(self.batches.images(positions), rows[places])
            yield images, self.batches.labels(positions)

    def all_of(self, label: int) -> Iterator[Tensor]:
        """Yield all real images of one class, preprocessed, [b, C, H, W]: what one pass holds."""
        for positions in self.data.indices_of(label).split(self.embedder.chunk):
            yield self.batches.images(positions)

    def advance(self, synthetic: SyntheticSet) -> None:
        """Let networks be trained for the next iteration; called after every step of the pixels."""
        self.supply.advance(self.iteration, self.training_batches(synthetic))

    def training_batches(self, synthetic: SyntheticSet | None = None) -> TrainingBatches:
        """Return what networks may be trained on: real images, and ``synthetic`` ones."""
        return TrainingBatches(self.batches, synthetic, self.augmentation, self.learner)

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue with the networks of a state returned by the supply's ``state_dict``."""
        self.supply.load_state_dict(state)
        self._drawn = None

    def real_features(self: Sources[Supply], per_class: int, parameters: Parameters) -> Tensor:
        """Embed real images of each of ``classes`` with this iteration's network.

        Args:
            per_class, parameters: see `real`.

        Returns:
            [sum of `counts`, D], class by class; without a graph.
        """
        network = self.network()
        return torch.cat([network.frozen(images) for images, _ in self.real(per_class, parameters)])

    def real_means(self: Sources[Supply], per_class: int, parameters: Parameters) -> Tensor:
        """Return the means of `real_features` over each class [k, D], without holding the features.

        A cache keeps them. Then ``parameters`` must be those of `siamese`.
        """
        return self.once("means", lambda: self._means(per_class, parameters))

    def _means(self: Sources[Supply], per_class: int, parameters: Parameters) -> Tensor:
        network, classes = self.network(), len(self.classes)
        sums = torch.zeros((), device=self.batches.device)
        for images, owner in self.real(per_class, parameters):
            sums = sums + class_sums(network.frozen(images), owner, classes)
        return sums / self.counts(per_class).to(sums.device, non_blocking=True)[:, None]

    def synthetic_positions(self, label: int, count: int, most: int) -> Tensor | None:
        """Draw which of a class's decoded images this iteration matches.

        Args:
            label: of the class.
            count: images there are.
            most: images to be matched; 0 for all.

        Returns:
            int64 [most] on the CPU, distinct positions; None for all.
        """
        if not most or count <= most:
            return None
        stream = generator(self.seed, "synthetic-batches", self.iteration, label)
        return torch.randperm(count, generator=stream)[:most]

    def synthetic_features(
        self: Sources[Supply], synthetic: SyntheticSet, parameters: Parameters, most: int = 0
    ) -> ClassFeatures:
        """Embed synthetic images of each of ``classes``, with a graph to what is learned.

        Args:
            synthetic: the set.
            parameters: k rows, from `siamese`.
            most: decoded images of a class, a random choice in each iteration; 0 for all.
        """
        chosen: list[Tensor | None] = []
        if most:
            counts = synthetic.decoded_of(self.classes)
            labelled = zip(self.classes.tolist(), counts, strict=True)
            chosen = [self.synthetic_positions(label, count, most) for label, count in labelled]
        images, counts = synthetic.matched(self.classes, chosen)
        owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        return ClassFeatures(
            self.network().differentiable(self.augmentation(images, parameters[owner])), counts
        )
