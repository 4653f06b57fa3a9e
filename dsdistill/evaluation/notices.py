"""What a user is told of an evaluation before it: what its labels and its baselines are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dsdistill.evaluation import baselines
from dsdistill.evaluation.config import RealData
from dsdistill.evaluation.plan import PlannedRow, PlannedSet
from dsdistill.evaluation.rows import FULL, NOISE, STEPS, size_of
from dsdistill.protocol import Protocol
from dsdistill.synthetic.distilled_dataset import DistilledDataset


def notices(
    sets: Sequence[PlannedSet],
    distilled: DistilledDataset,
    data: RealData,
    protocol: Protocol,
    new: Sequence[PlannedRow],
    has_teacher: bool,
) -> Iterator[str]:
    """Yield what a user should know of the labels and of the baselines.

    Args:
        sets: that are evaluated, the distilled one first.
        new: rows whose students are to be trained.
        has_teacher: whether one is named.
    """
    if sets[0].labels == "hard" and distilled.views is not None and protocol.labels.source == "file":
        yield "the set stores views, which this protocol does not train on; pass --labels views to do so"
    if sets[0].regime == "SL" and not has_teacher:
        yield (
            "the labels may do the work of the images: --teacher FILE adds random images and noise with "
            "such labels, and the teacher itself"
        )
    if protocol.cells > 1 and any(each.counts is not None for each in sets):
        yield (
            f"protocol {protocol.name!r} shows students one cell of an image at a time, of "
            "baselines' whole images too: a fair comparison evaluates those without cells, by pca-hard"
        )
    for sentence in (_steps_notice(sets), _short_notice(sets, distilled, data)):
        if sentence:
            yield sentence
    if full := [planned.set for planned in new if baselines.method_of(planned.set.name) == FULL]:
        yield _full_notice(full[0], sets[0], len(full) * full[0].protocol.repeats)


def _steps_notice(sets: Sequence[PlannedSet]) -> str | None:
    """Say that students of the set take more steps than those of real images, where none take as many."""
    own, *others = sets
    real = [each for each in others if each.counts is not None and baselines.method_of(each.name) != FULL]
    of_its_size = [each for each in real if not size_of(each.name)]
    if not of_its_size or any(STEPS in each.name for each in of_its_size):
        return None
    if own.times_steps <= 1:
        return None
    return (
        f"students of the set take {own.times_steps:.3g} times the steps of as many real images, because its "
        f"{own.images:,} images are decoded into {own.decoded:,}: the baseline random{STEPS} "
        "takes as many steps"
    )


def _short_notice(sets: Sequence[PlannedSet], distilled: DistilledDataset, data: RealData) -> str | None:
    """Say that baselines take fewer images than the set stores, of classes that have no more."""
    stored, real = distilled.stored, data.train.counts
    others = (FULL, NOISE)
    of_its_size = any(
        each.counts is not None and not size_of(each.name) and baselines.method_of(each.name) not in others
        for each in sets
    )
    label = int((stored - real).argmax())
    if not of_its_size or stored[label] <= real[label]:
        return None
    name, most = data.train.classes[label], int(real[label])
    return f"baselines take all {most} training images of class {name!r}: the set stores {int(stored[label])}"


def _full_notice(full: PlannedSet, distilled: PlannedSet, students: int) -> str:
    """Return a sentence on the cost of training on the full training set."""
    times = full.image_passes / distilled.image_passes
    count = f"{students} student{'s' if students > 1 else ''}"
    return (
        f"{FULL}: {full.protocol.epochs} epochs of all {full.decoded:,} images, by {count}, "
        f"are {students * full.image_passes:,} image passes, {times:.3g} times those on the distilled set"
    )
