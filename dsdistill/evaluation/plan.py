"""The plan of an evaluation: its rows in order, and which of them an earlier evaluation has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dsdistill.config.labels import REGIMES, Regime, Source
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines
from dsdistill.evaluation.config import EvaluationConfig, RealData
from dsdistill.evaluation.rows import DISTILLED, DISTILLED_HARD, FULL, RANDOM, UNAUGMENTED, Row
from dsdistill.evaluation.students import steps
from dsdistill.protocol import Protocol
from dsdistill.synthetic.distilled import DistilledDataset
from dsdistill.teachers import Committee


@dataclass(frozen=True, eq=False)
class PlannedSet:
    """A set that the students of every network are trained on.

    Attributes:
        name: see ``Row.set``.
        protocol: of its students.
        images: that the set stores, or real images of the baseline.
        decoded: images that students train on.
        counts: int64 [K], images of each class that a baseline takes; None for the distilled set.
        labels: that its students are trained on.
    """

    name: str
    protocol: Protocol
    images: int
    decoded: int
    counts: Tensor | None = None
    labels: Source = "hard"

    @property
    def regime(self) -> Regime:
        """How labels reach its students."""
        return REGIMES[self.labels]

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
    distilled: DistilledDataset,
    data: RealData,
    protocol: Protocol,
    config: EvaluationConfig,
    teacher: Committee | None = None,
) -> list[PlannedSet]:
    """Return the sets in the order of their rows.

    Returns:
        the distilled set, with hard labels too if scores compare them; the baselines; then those without
        augmentation.

    Raises:
        UserError: a baseline is unknown, or the set or the evaluation lacks the labels that the protocol
            wants.
    """
    labels = source_of(protocol, distilled, teacher)
    if labels == "views":
        assert distilled.views is not None
        protocol = dataclasses.replace(protocol, batch_size=distilled.views.batch_size)
    stored, decoded = int(distilled.stored.sum()), len(distilled.images)
    sets = [PlannedSet(DISTILLED, protocol, stored, decoded, labels=labels)]
    if config.scores and labels != "hard":
        sets.append(PlannedSet(DISTILLED_HARD, protocol, stored, decoded))
    for name in baselines.expanded_names(config.baselines):
        counts = baselines.counts_of(name, data.train, distilled.stored, config.real_images)
        size = int(counts.sum())
        sets.append(PlannedSet(name, protocol, size, size, counts))
    others = [each.decoded for each in sets if each.name != FULL]
    for index, each in enumerate(sets):
        if each.name == FULL:
            shorter = baselines.full_protocol(protocol, each.decoded, others)
            sets[index] = dataclasses.replace(each, protocol=shorter)
    if (
        config.scores
        and protocol.augments_for(data.task.mirror)
        and any(each.name == RANDOM for each in sets)
    ):
        sets += [each.unaugmented() for each in sets if each.name in (DISTILLED, RANDOM)]
    return sets


def source_of(protocol: Protocol, distilled: DistilledDataset, teacher: Committee | None) -> Source:
    """Return which labels students of a set are trained on.

    Raises:
        UserError: the protocol wants labels that are not there, or hard ones of a set that has soft ones.
    """
    wanted, name = protocol.labels.source, f"protocol {protocol.name!r}"
    static, views = distilled.soft_labels is not None, distilled.views is not None
    if wanted == "file":
        return "static" if static else "hard"
    if wanted == "hard" and (static or views):
        raise UserError(
            f"{name} trains on hard labels, and the set has soft ones: pass --labels hard to leave them out"
        )
    if wanted == "static" and not static:
        raise UserError(f"{name} trains on a logit vector of each image, which dsdistill label writes")
    if wanted == "views" and not views:
        raise UserError(f"{name} trains on stored views, which dsdistill label --views writes into a set")
    if wanted == "teacher" and teacher is None:
        raise UserError(f"{name} has a teacher label every batch: name one by --teacher FILE")
    return wanted


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
