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


def static_logits(images: Tensor, committee: Committee, config: LabellingConfig, tick: Tick) -> Tensor:
    """Return a committee's logits of images, float32 [N, K], on the CPU.

    Args:
        images: [N, C, H, W] in network space, on the committee's device. In mode "train" they come in batches
            of a random order, because in the order of a set a batch would hold one class.
    """
    count = len(images)
    order, size = torch.arange(count), images_at_once(images)
    if committee.mode == "train":
        order, size = (
            torch.randperm(count, generator=generator(config.seed, "static-order")),
            config.batch_size,
        )
    logits: list[Tensor] = []
    for rows in order.split(size):
        logits.append(committee.logits(images[rows.to(images.device)]).cpu())
        tick(min(count, size * len(logits)))
    return torch.cat(logits)[order.argsort()]


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
        return self._views_of(range(self.draws.config.views))

    def blocks(self, first: int = 0) -> Iterator[range]:
        """Yield the epochs of each block, from that of an epoch on; blocks do not depend on where it lies."""
        step = max(1, images_at_once(self.images) // len(self.images))
        for begin in range(0, self.draws.config.views, step):
            if begin >= first:
                yield range(begin, min(begin + step, self.draws.config.views))

    def block(self, epochs: range, tick: Tick) -> Views | None:
        """Return the views of a block, answered; None where no batch of it is kept.

        Args:
            epochs: of the block.
            tick: is told how many views of the block are done.
        """
        batches = self._batches(epochs)
        if not batches:
            return None
        answers, done = [], 0
        for group in self._groups(batches):
            answers.append(self._answer(group))
            done += sum(len(batch) for _, batch in group)
            tick(done)
        config = self.draws.config
        pool, count = config.keep < 1, len(self.images)
        return Views.of(batches, Answers.cat(answers), count, config.mixing, pool, self.digest)

    def pace(self) -> PaceMeter:
        """Measure the seconds of a view by a few groups of batches."""
        epochs = next(block for block in self.blocks() if self._views_of(block))
        group = next(self._groups(self._batches(epochs)))
        return measured(sum(len(batch) for _, batch in group), lambda: self._answer(group))

    def views_before(self, epoch: int) -> int:
        """Return how many views lie in the epochs before one."""
        return self._views_of(range(epoch))

    def _batches(self, epochs: range) -> Batches:
        kept = {epoch: self._kept[epoch].tolist() for epoch in epochs}
        return [
            (epoch, batch)
            for epoch in epochs
            if any(kept[epoch])
            for batch, keep in zip(self.draws.epoch(epoch), kept[epoch], strict=True)
            if keep
        ]

    def _views_of(self, epochs: range) -> int:
        size, count = self.draws.config.batch_size, len(self.images)
        sizes = torch.full((self.draws.per_epoch,), size)
        sizes[-1] = (count - 1) % size + 1
        return int((self._kept[epochs.start : epochs.stop] * sizes).sum())

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
