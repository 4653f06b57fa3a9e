"""The plan of an evaluation: its rows in order, and which of them an earlier evaluation has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dsdistill.evaluation import baselines
from dsdistill.evaluation.config import EvaluationConfig, RealData
from dsdistill.evaluation.rows import DISTILLED, DISTILLED_HARD, FULL, RANDOM, UNAUGMENTED, Row
from dsdistill.evaluation.students import steps
from dsdistill.protocol import Protocol
from dsdistill.synthetic.distilled import DistilledDataset


@dataclass(frozen=True, eq=False)
class PlannedSet:
    """A set that the students of every network are trained on.

    Attributes:
        name: see ``Row.set``.
        protocol: of its students.
        images: that the set stores, or real images of the baseline.
        decoded: images that students train on.
        counts: int64 [K], images of each class that a baseline takes; None for the distilled set.
    """

    name: str
    protocol: Protocol
    images: int
    decoded: int
    counts: Tensor | None = None

    @property
    def source(self) -> str:
        """The name of the images and labels, which training without augmentation shares."""
        return self.name.removesuffix(UNAUGMENTED)

    @property
    def chosen_by_networks(self) -> bool:
        """Whether networks choose its images: a baseline that is neither random nor full."""
        return self.counts is not None and baselines.method_of(self.source) not in (RANDOM, FULL)

    @property
    def steps(self) -> int:
        """Optimiser steps of all students of one network."""
        return self.protocol.repeats * steps(self.protocol, self.decoded)

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What a row of an earlier evaluation must share to be reused, besides the network."""
        return self.name, self.protocol.name, self.protocol.epochs, self.images, self.decoded

    @property
    def image_passes(self) -> int:
        """How many images one student sees in all its epochs."""
        return self.protocol.epochs_run * self.decoded

    def unaugmented(self) -> PlannedSet:
        """Return the same set for students without augmentation."""
        name, protocol = self.name + UNAUGMENTED, self.protocol.unaugmented()
        return dataclasses.replace(self, name=name, protocol=protocol)


@dataclass(frozen=True, eq=False)
class PlannedRow:
    """A row of the result.

    Attributes:
        earlier: the row of an earlier, otherwise identical evaluation, which is reused; None to train anew.
    """

    network: str
    set: PlannedSet
    earlier: Row | None


def plan_sets(
    distilled: DistilledDataset, data: RealData, protocol: Protocol, config: EvaluationConfig
) -> list[PlannedSet]:
    """Return the sets in the order of their rows.

    Returns:
        the distilled set, with hard labels too if scores compare them; the baselines; then those without
        augmentation.

    Raises:
        UserError: a baseline is unknown.
    """
    stored, decoded = int(distilled.stored.sum()), len(distilled.images)
    hard = config.scores and distilled.soft_labels is not None
    sets = [
        PlannedSet(name, protocol, stored, decoded)
        for name in ([DISTILLED, DISTILLED_HARD] if hard else [DISTILLED])
    ]
    for name in baselines.expanded_names(config.baselines):
        counts = baselines.counts_of(name, data.train, distilled.stored, config.real_images)
        size = int(counts.sum())
        sets.append(PlannedSet(name, protocol, size, size, counts))
    others = [each.decoded for each in sets if each.name != FULL]
    for index, each in enumerate(sets):
        if each.name == FULL:
            shorter = baselines.full_protocol(protocol, each.decoded, others)
            sets[index] = dataclasses.replace(each, protocol=shorter)
    augments = protocol.augmentation_for(data.task.mirror).operators or protocol.cutmix
    if config.scores and augments and any(each.name == RANDOM for each in sets):
        sets += [each.unaugmented() for each in sets if each.name in (DISTILLED, RANDOM)]
    return sets


def plan_rows(
    networks: Sequence[str], sets: Sequence[PlannedSet], earlier: Sequence[Row]
) -> list[PlannedRow]:
    """Return the rows in order: every set for the first network, then for the next.

    Args:
        earlier: rows of an earlier evaluation; those of other protocols, epochs or sizes are not reused.
    """
    rows = {(row.network, row.set, row.protocol, row.epochs, row.images, row.decoded): row for row in earlier}
    return [
        PlannedRow(network, each, rows.get((network, *each.key))) for network in networks for each in sets
    ]
