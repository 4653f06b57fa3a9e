"""The batches that students learn from: images in network space, and what they are compared with."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.mix import Mix
from dsdistill.augment.training import Transform, draw_mix
from dsdistill.config.labels import LabelConfig, Source
from dsdistill.evaluation.images import RealImages
from dsdistill.evaluation.loss import Targets, temperature_softmax
from dsdistill.objectives.labels import label_distances
from dsdistill.objectives.precision import working_dtype
from dsdistill.protocol import Protocol
from dsdistill.seeding import generator
from dsdistill.synthetic.answers import Answers, encode, encode_distances
from dsdistill.synthetic.views import Views
from dsdistill.teachers import Committee


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What one student is trained on.

    Attributes:
        images: float [N, C, H, W] in network space; or real images that are brought there batch by batch.
        labels: int64 [N], hard labels.
        logits: float32 [N, K], stored soft labels of the images.
        weights: float32 [N], of each image in the loss.
        views: stored views of the images, with a teacher's answers.
        source: which labels it is trained on; "static" needs logits, "views" views, "teacher" a teacher.
        relabelled: the views were answered for other images. A teacher answers them anew, and its answers are
            encoded as the stored ones.
        real_rows: int64, the places of the images in the real training set; None where they are not real.
        image_bytes: of chosen real images, compressed as a set's are; None of other images.
    """

    images: Tensor | RealImages
    labels: Tensor
    logits: Tensor | None = None
    weights: Tensor | None = None
    views: Views | None = None
    source: Source = "hard"
    relabelled: bool = False
    real_rows: Tensor | None = None
    image_bytes: float | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> TrainingSet:
        """Return the same set with its tensors on a device; views stay where they are."""
        moved = {
            name: value.to(device)
            for name in ("images", "labels", "logits", "weights")  # real rows are compared on the CPU
            if (value := getattr(self, name)) is not None
        }
        return dataclasses.replace(self, **moved)


class Batch(NamedTuple):
    """Images [R·B, C, H, W] of R students, student-major, and their targets."""

    images: Tensor
    targets: Targets


class Batches(ABC):
    """The batches of an epoch for R students that train side by side, each with the draws of its repeat."""

    @abstractmethod
    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0."""


class ShuffledBatches(Batches):
    """Every image once an epoch, in a new order, transformed and mixed."""

    def __init__(
        self,
        sets: Sequence[TrainingSet],
        repeats: Sequence[int],
        protocol: Protocol,
        transform: Transform,
        seed: int,
        classes: int,
        teacher: Committee | None = None,
    ) -> None:
        """Prepare.

        Args:
            sets: of each student, on the device that computes, equally many images each.
            repeats: of the students.
            teacher: labels every batch where the source of labels is "teacher".
            classes: K.
        """
        self._repeats, self._protocol, self._seed, self._classes = repeats, protocol, seed, classes
        self._transform, self._mixing, self._teacher = transform, protocol.mixing, teacher
        self._count, self._source = len(sets[0]), sets[0].source
        distinct = list({id(each.images): each for each in sets}.values())
        position = {id(each.images): place for place, each in enumerate(distinct)}
        self._offsets = torch.tensor([[position[id(each.images)] * self._count] for each in sets])
        self._images = _joined_images([each.images for each in distinct])
        self._pool = {name: _joined(parts) for name, parts in _targets(distinct, protocol.labels).items()}

    def epoch(self, epoch: int) -> Iterator[Batch]:
        size = self._protocol.batch_size
        orders = [
            torch.randperm(self._count, generator=generator(self._seed, "students", repeat, epoch))
            for repeat in self._repeats
        ]
        for batch, rows in enumerate(torch.stack(orders).split(size, dim=1)):
            index = (rows + self._offsets).flatten().to(self._images.device, non_blocking=True)

            def streams(kind: str, batch: int = batch) -> list[torch.Generator]:
                return [
                    generator(self._seed, f"student-{kind}", repeat, epoch, batch) for repeat in self._repeats
                ]

            yield self._batch(index, streams)

    def _batch(self, index: Tensor, streams: Callable[[str], Sequence[torch.Generator]]) -> Batch:
        images = self._transform(self._images[index], streams)
        targets = {name: values[index] for name, values in self._pool.items()}
        if self._mixing:
            mix = draw_mix(self._mixing, len(images), images.shape[-1], streams)
            images, targets = mix.images(images), _mixed(targets, mix, self._classes, images.dtype)
        if self._source == "teacher":
            assert self._teacher is not None
            # One student at a time: a teacher may normalise by the batch that it sees.
            parts = images.chunk(len(self._repeats))
            targets["logits"] = torch.cat([self._teacher.logits(part) for part in parts])
        return Batch(images, targets)


class ViewBatches(Batches):
    """Stored views, replayed as the teacher saw them; all students see the same ones."""

    def __init__(
        self,
        sets: Sequence[TrainingSet],
        protocol: Protocol,
        seed: int,
        classes: int,
        teacher: Committee | None = None,
    ) -> None:
        """Prepare; the arguments are those of `ShuffledBatches`.

        Args:
            sets: with the same views; their images may differ where these are relabelled.
            teacher: answers views that are relabelled.
        """
        assert sets[0].views is not None
        self._sets, self._views, self._teacher = sets, sets[0].views, teacher
        self._labels, self._seed, self._classes = protocol.labels, seed, classes

    def epoch(self, epoch: int) -> Iterator[Batch]:
        draws = generator(self._seed, "student-views", epoch)
        for number in self._views.schedule(epoch, draws, self._labels.views):
            known = {id(each): self._batch(each, number) for each in {id(s): s for s in self._sets}.values()}
            yield _side_by_side([known[id(each)] for each in self._sets])

    def _batch(self, training_set: TrainingSet, number: int) -> Batch:
        """Return the batch of one student."""
        batch, device = self._views.batch(number), training_set.images.device
        images = batch.images(training_set.images)
        rows = batch.rows.to(device, non_blocking=True)
        labels = training_set.labels[rows]
        targets: dict[str, Tensor] = {"hard": labels, "labels": labels}
        if training_set.weights is not None:
            targets["weights"] = training_set.weights[rows]
        targets = _mixed(targets, batch.mix, self._classes, images.dtype)
        kind = "distances" if self._views.answers.encoding == "distances" else "logits"
        if training_set.relabelled:
            assert self._teacher is not None
            pair = targets["labels"], targets["partners"]
            answers = _encoded_like(self._views.answers, self._teacher.logits(images), *pair)
        else:
            answers = self._views.answers[self._views.slice(number)]
        return Batch(images, {**targets, kind: answers.to(device, non_blocking=True)})


def _encoded_like(stored: Answers, logits: Tensor, labels: Tensor, partners: Tensor) -> Tensor:
    """Return logits, or the distances that they give, as they would be read from a file of stored answers."""
    if stored.encoding == "distances":
        return encode_distances(label_distances(logits, labels, partners), stored.num_classes)[:]
    top = stored.parts["values"].shape[1] if stored.encoding == "top" else None
    return encode(logits, stored.encoding, top)[:]


def _side_by_side(batches: Sequence[Batch]) -> Batch:
    """Join the batches of students, student-major."""
    if len(batches) == 1:
        return batches[0]
    targets = {name: torch.cat([each.targets[name] for each in batches]) for name in batches[0].targets}
    return Batch(torch.cat([each.images for each in batches]), targets)


def _targets(sets: Sequence[TrainingSet], labels: LabelConfig) -> dict[str, list[Tensor]]:
    """Return what students are compared with, for each of several sets: those targets that the loss reads."""
    first = sets[0]
    soft = first.source == "static"
    hard = first.source == "hard" or bool(labels.hard_weight)
    targets: dict[str, list[Tensor]] = {}
    if hard:
        targets["hard"] = [each.labels for each in sets]
    if labels.loss == "gift" and first.source != "hard":
        targets["labels"] = [each.labels for each in sets]
    if soft:
        logits = [each.logits for each in sets if each.logits is not None]
        if labels.loss in ("mse", "sse", "gift") or labels.mixed == "logits":
            targets["logits"] = logits
        else:
            targets["probabilities"] = [temperature_softmax(each, labels.temperature) for each in logits]
    if first.weights is not None:
        targets["weights"] = [each.weights for each in sets if each.weights is not None]
    return targets


def _mixed(targets: dict[str, Tensor], mix: Mix, classes: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Mix targets like the images; weights and unmixed labels stay those of an image itself."""
    mixed = dict(targets)
    if "hard" in targets:
        one_hot = F.one_hot(targets["hard"], classes).to(working_dtype(dtype))
        mixed["hard"] = mix.targets(one_hot)
    for name in ("probabilities", "logits"):
        if name in targets:
            mixed[name] = mix.targets(targets[name])
    if "labels" in targets:
        labels = targets["labels"]
        mixed["partners"] = labels[mix.partner.to(labels.device, non_blocking=True)]
    return mixed


def _joined_images(parts: Sequence[Tensor | RealImages]) -> Tensor | RealImages:
    return parts[0] if len(parts) == 1 else torch.cat([each for each in parts if isinstance(each, Tensor)])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
