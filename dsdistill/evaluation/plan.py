"""The plan of an evaluation: its rows in order, and which of them an earlier evaluation has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dsdistill.config.labels import Source
from dsdistill.config.regimes import REGIMES, Regime
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines
from dsdistill.evaluation.config import EvaluationConfig, RealData
from dsdistill.evaluation.rows import (
    DISTILLED,
    DISTILLED_HARD,
    FULL,
    LABELLED,
    NOISE,
    RANDOM,
    STEPS,
    TEACHER,
    UNAUGMENTED,
    Row,
    size_of,
)
from dsdistill.protocol import Protocol
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.views import Views
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
        network: of the teacher, which is tested and not trained; empty for a set of students.
    """

    name: str
    protocol: Protocol
    images: int
    decoded: int
    counts: Tensor | None = None
    labels: Source = "hard"
    network: str = ""

    @property
    def regime(self) -> Regime:
        """How labels reach its students."""
        return REGIMES[self.labels]

    @property
    def source(self) -> str:
        """The name of the images and labels, which training without augmentation shares."""
        return self.name.removesuffix(UNAUGMENTED)

    @property
    def labelled(self) -> bool:
        """Whether it is a control, which gets the distilled set's labels procedure."""
        return self.source.endswith(LABELLED)

    @property
    def chosen_by_networks(self) -> bool:
        """Whether networks choose its images: a baseline that is neither random, noise nor full."""
        return self.counts is not None and baselines.method_of(self.source) not in (RANDOM, NOISE, FULL)

    @property
    def steps(self) -> int:
        """Optimiser steps of all students of one network."""
        return self.protocol.repeats * self.protocol.steps(self.decoded)

    @property
    def times_steps(self) -> float:
        """How many times the steps its students take that those of as many images would, if it is decoded."""
        return self.protocol.steps(self.decoded) / self.protocol.steps(self.images)

    @property
    def key(self) -> tuple[str, Regime, str, int, int, int]:
        """What a row of an earlier evaluation must share to be reused, besides the network."""
        protocol = self.protocol
        return self.name, self.regime, protocol.name, protocol.epochs, self.images, self.decoded

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
        UserError: a baseline is unknown or cannot be made, or the set or the evaluation lacks the labels that
            the protocol wants.
    """
    labels = source_of(protocol, distilled, teacher, config.labels)
    if labels == "views":
        assert distilled.views is not None
        protocol = dataclasses.replace(protocol, batch_size=distilled.views.batch_size)
    own = PlannedSet(DISTILLED, protocol, int(distilled.stored.sum()), len(distilled.images), labels=labels)
    sets = [own]
    for name in _names(config, own, teacher):
        if name == DISTILLED_HARD:
            sets.append(dataclasses.replace(own, name=name, labels=_hard(own)))
        elif name == TEACHER:
            sets.append(PlannedSet(name, protocol, 0, 0, network=_needed(teacher, name).architectures))
        else:
            sets.append(_baseline(name, own, distilled, data, config, teacher))
    others = [each.decoded for each in sets if baselines.method_of(each.name) != FULL]
    for index, each in enumerate(sets):
        if baselines.method_of(each.name) == FULL:
            shorter = baselines.full_protocol(protocol, each.decoded, others)
            sets[index] = dataclasses.replace(each, protocol=shorter)
    comparable = labels != "views" and any(each.name == RANDOM for each in sets)  # views are augmented
    if config.scores and comparable and protocol.augments_for(data.task.mirror):
        sets += [each.unaugmented() for each in sets if each.name in (DISTILLED, RANDOM)]
    return sets


def _names(config: EvaluationConfig, own: PlannedSet, teacher: Committee | None) -> list[str]:
    """Return the names of the baselines, in order."""
    soft = own.labels != "hard"
    if config.baselines is None:
        names = baselines.default_names(soft, teacher is not None, own.times_steps > 1)
        if own.labels == "views" and own.images != own.decoded:  # there are as many views as decoded images
            names = [name for name in names if not name.endswith(LABELLED)]
    else:
        names = baselines.expanded_names(config.baselines)
    first = [DISTILLED_HARD] if config.scores and soft else []
    return list(dict.fromkeys([*first, *names]))


def _baseline(
    name: str,
    own: PlannedSet,
    distilled: DistilledDataset,
    data: RealData,
    config: EvaluationConfig,
    teacher: Committee | None,
) -> PlannedSet:
    """Return a baseline of real images or of noise.

    Raises:
        UserError: the name is unknown; or it asks for labels which the set has not, which there is no teacher
            for, or of views of a set of another size.
    """
    counts = baselines.counts_of(name, data.train, distilled.stored, config.real_images.get(size_of(name)))
    images, protocol = int(counts.sum()), own.protocol
    if STEPS in name:
        protocol = baselines.stretched_protocol(protocol, images, protocol.steps(own.decoded))
    planned = PlannedSet(name, protocol, images, images, counts)
    if not planned.labelled:
        return planned
    if own.labels == "hard":
        raise UserError(f"baseline {name!r} has the set's soft labels, and here it has hard ones: drop it")
    _needed(teacher, name)
    if own.labels == "views" and planned.decoded != own.decoded:
        raise UserError(
            f"baseline {name!r} has {planned.decoded} images, and the views are of {own.decoded}: drop it"
        )
    return dataclasses.replace(planned, labels=own.labels)


def _hard(own: PlannedSet) -> Source:
    """Return the labels of the set's control with hard labels.

    Raises:
        UserError: the set itself has them.
    """
    if own.labels == "hard":
        raise UserError(f"{DISTILLED_HARD} is the set itself, which has hard labels here: drop that baseline")
    return "hard"


def _needed(teacher: Committee | None, name: str) -> Committee:
    if teacher is None:
        raise UserError(f"baseline {name!r} needs the teacher: name it by --teacher FILE")
    return teacher


def source_of(
    protocol: Protocol, distilled: DistilledDataset, teacher: Committee | None, chosen: Source | None = None
) -> Source:
    """Return which labels students of a set are trained on.

    Args:
        chosen: by the user, in place of the protocol's.

    Raises:
        UserError: the labels that are wanted are not there, or the protocol wants hard ones of a set that has
            soft ones.
    """
    source = chosen or protocol.labels.source
    name = f"--labels {chosen}" if chosen else f"protocol {protocol.name!r}"
    static, views = distilled.soft_labels is not None, distilled.views is not None
    if source == "file":
        return "static" if static else "hard"
    if source == "hard" and (static or views) and not chosen:
        raise UserError(
            f"{name} trains on hard labels, and the set has soft ones: pass --labels hard to leave them out"
        )
    if source == "static" and not static:
        raise UserError(f"{name} trains on stored logits of each image, which dsdistill label writes")
    if source == "views":
        _check_views(protocol, distilled.views, name)
    if source == "teacher" and teacher is None:
        raise UserError(f"{name} has a teacher label every batch: name one by --teacher FILE")
    return source


def _check_views(protocol: Protocol, views: Views | None, name: str) -> None:
    """Check that there are views, and that the loss of a protocol takes what they store.

    Raises:
        UserError: it does not: one loss takes distances, and all others take logits.
    """
    if views is None:
        raise UserError(f"{name} trains on stored views, which dsdistill label --views writes into a set")
    distances = views.answers.encoding == "distances"
    if distances and protocol.labels.loss != "dbr":
        raise UserError(
            f"{name} takes logits, and the set's views store two distances: use --protocol nrr-dd, or label "
            "the set with another encoding"
        )
    if not distances and protocol.labels.loss == "dbr":
        raise UserError(
            f"{name} takes two distances, and the set's views store logits: label it with --encoding "
            "distances, or use --protocol fkd"
        )


def plan_rows(
    networks: Sequence[str], sets: Sequence[PlannedSet], earlier: Sequence[Row]
) -> list[PlannedRow]:
    """Return the rows in order: every set for the first network, then for the next; last the teacher.

    Args:
        earlier: rows of an earlier evaluation; those of other protocols, epochs or sizes are not reused.
    """
    rows = {
        (row.network, row.set, row.regime, row.protocol, row.epochs, row.images, row.decoded): row
        for row in earlier
    }
    trained = [each for each in sets if not each.network]
    planned = [
        PlannedRow(network, each, rows.get((network, *each.key))) for network in networks for each in trained
    ]
    return planned + [PlannedRow(each.network, each, None) for each in sets if each.network]
