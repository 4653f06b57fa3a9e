"""A committee answers: to the training images of a set, or to blocks of views, many batches at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dsdistill.labelling.config import LabellingConfig
from dsdistill.labelling.draws import ViewDraws
from dsdistill.objectives.labels import label_distances
from dsdistill.runtime.pace import PaceMeter
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.seeding import generator
from dsdistill.synthetic.answers import Answers, encode, encode_distances
from dsdistill.synthetic.views import ViewBatch, Views
from dsdistill.teachers import Committee

Tick = Callable[[int], None]
"""Is told how many images have been answered to."""

_AT_ONCE = 512  # images, if they are small
_VALUES = 1 << 25  # of all images at once
_SECONDS = 0.5  # of timing

Batches = Sequence[tuple[int, ViewBatch]]
"""Each with its epoch."""


def images_at_once(images: Tensor) -> int:
    """Return how many images like these, [N, C, H, W], go through a teacher at once."""
    return max(1, min(_AT_ONCE, _VALUES // images[0].numel()))


def static_logits(
    images: Tensor, committee: Committee, config: LabellingConfig, tick: Tick, ranks: Ranks = ALONE
) -> Tensor:
    """Return a committee's logits of images, float32 [N, K], on the CPU.

    Processes share whole batches, so that the logits do not depend on how many they are.

    Args:
        images: [N, C, H, W] in network space, on the committee's device. In mode "train" they come in batches
            of a random order, because in the order of a set a batch would hold one class.
        tick: is told how many this process has answered to.
        ranks: the processes.
    """
    count = len(images)
    order, size = torch.arange(count), images_at_once(images)
    if committee.mode == "train":
        order, size = (
            torch.randperm(count, generator=generator(config.seed, "static-order")),
            config.batch_size,
        )
    batches, done = order.split(size), 0
    own: dict[str, Tensor] = {}
    for number in range(len(batches))[ranks.part(len(batches))]:
        rows = batches[number]
        own[f"{number:09d}"] = committee.logits(images[rows.to(images.device)]).cpu()
        done += len(rows)
        tick(done)
    logits = ranks.union(own)
    return torch.cat([logits[name] for name in sorted(logits)])[order.argsort()]


def measured(count: int, answer: Callable[[], object]) -> PaceMeter:
    """Measure the seconds of an answer.

    Args:
        count: of images that a call answers to.
        answer: answers to them, and brings the answers to the CPU.
    """
    pace = PaceMeter(enough_seconds=_SECONDS)
    while not pace.is_known:
        since = time.monotonic()
        answer()
        pace.add(count, time.monotonic() - since)
    return pace


@dataclass(frozen=True, eq=False)
class ViewAnswers:
    """Draws views of a set's training images and has a committee answer to them, block by block.

    A block is one epoch, or several where the images are so few that one would leave the hardware idle. Where
    teachers normalise by the statistics of their training, the batches of a block are computed together;
    where they normalise by the batch, each is computed alone.

    Attributes:
        images: [N, C, S, S] in network space, on the committee's device.
        labels: int64 [N], their classes, on the CPU.
        digest: of the set, which its views carry.
    """

    images: Tensor
    labels: Tensor
    committee: Committee
    draws: ViewDraws
    digest: str
    _kept: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kept", self.draws.kept())

    @property
    def total(self) -> int:
        """Views of all blocks."""
        return self.views_of(range(self.draws.config.views))

    def blocks(self) -> Iterator[range]:
        """Yield the epochs of each block of which any view is kept."""
        step = max(1, images_at_once(self.images) // len(self.images))
        for begin in range(0, self.draws.config.views, step):
            epochs = range(begin, min(begin + step, self.draws.config.views))
            if self.views_of(epochs):
                yield epochs

    def block(self, epochs: range, tick: Tick) -> Views:
        """Return the views of a block, answered.

        Args:
            epochs: of the block.
            tick: is told how many views of the block are done.
        """
        batches = self._batches(epochs)
        answers, done = [], 0
        for group in self._groups(batches):
            answers.append(self._answer(group))
            done += _views_in(group)
            tick(done)
        return self._views(batches, Answers.cat(answers))

    def pace(self) -> PaceMeter:
        """Measure the seconds of a view by a few groups of batches."""
        pace, epochs = PaceMeter(enough_seconds=_SECONDS), next(self.blocks())
        while not pace.is_known:
            since = time.monotonic()
            batches = self._batches(epochs)
            drawing = time.monotonic() - since
            group = next(self._groups(batches))
            since = time.monotonic()
            self._views(group, self._answer(group))
            pace.add(_views_in(group), time.monotonic() - since + drawing * len(group) / len(batches))
        return pace

    def views_of(self, epochs: range) -> int:
        """Return how many views some epochs have."""
        size, count = self.draws.config.batch_size, len(self.images)
        sizes = torch.full((self.draws.per_epoch,), size)
        sizes[-1] = (count - 1) % size + 1
        return int((self._kept[epochs.start : epochs.stop] * sizes).sum())

    def _batches(self, epochs: range) -> Batches:
        kept = {epoch: self._kept[epoch].tolist() for epoch in epochs}
        return [
            (epoch, batch)
            for epoch in epochs
            if any(kept[epoch])
            for batch, keep in zip(self.draws.epoch(epoch), kept[epoch], strict=True)
            if keep
        ]

    def _groups(self, batches: Batches) -> Iterator[Batches]:
        """Yield batches that are computed together: as many as fit, at least one."""
        most, size = images_at_once(self.images), 0
        group: list[tuple[int, ViewBatch]] = []
        for epoch, batch in batches:
            if group and size + len(batch) > most:
                yield group
                group, size = [], 0
            group.append((epoch, batch))
            size += len(batch)
        yield group

    def _views(self, batches: Batches, answers: Answers) -> Views:
        """Return batches with their answers as a set stores them."""
        config = self.draws.config
        return Views.of(batches, answers, len(self.images), config.mixing, config.keep < 1, self.digest)

    def _answer(self, group: Batches) -> Answers:
        config, batches = self.draws.config, [batch for _, batch in group]
        joined = ViewBatch.cat(batches)
        views = joined.images(self.images)
        if self.committee.mode == "train":
            parts = views.split([len(batch) for batch in batches])
            logits = torch.cat([self.committee.logits(part) for part in parts])
        else:
            logits = self.committee.logits(views)
        if config.encoding == "distances":
            labels = self.labels[joined.rows]
            distances = label_distances(logits.cpu(), labels, labels[joined.mix.partner])
            return encode_distances(distances, logits.shape[1])
        return encode(logits, config.encoding, config.top)


def _views_in(batches: Batches) -> int:
    return sum(len(batch) for _, batch in batches)
