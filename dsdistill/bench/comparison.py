"""How accuracies stand to one another, and which real images a distilled set is compared with.

Sets and images are compared within one regime of labels: what labels are worth is no merit of images. Where
a set's stored images are decoded into more, real images may have been trained on for as many epochs and for
as many steps, which are more epochs: a set is compared with the better.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from dsdistill.bench.lines import Line
from dsdistill.evaluation.rows import BYTES, FULL, LABELLED, RANDOM, STEPS, TEACHER, size_of

_NEARLY = 0.1  # by which share the bytes of two sets may differ that are compared with the same real images


class Verdict(Enum):
    """How one accuracy stands to another: see `verdict`."""

    AHEAD = "ahead"
    LEVEL = "level"
    BEHIND = "behind"
    UNKNOWN = "unknown"


def verdict(one: Line, other: Line) -> Verdict:
    """Say how an accuracy stands to another.

    It is ahead or behind if their means differ by more than both standard deviations, else level. It is
    unknown where one of them is of a single student, so without a deviation.
    """
    if min(len(one.values), len(other.values)) < 2:
        return Verdict.UNKNOWN
    difference = one.mean - other.mean
    if abs(difference) <= max(one.std, other.std):
        return Verdict.LEVEL
    return Verdict.AHEAD if difference > 0 else Verdict.BEHIND


def random_images(line: Line, lines: Sequence[Line]) -> Line | None:
    """Return as many random real images as a set has, with the same labels and trained on like it.

    Returns:
        those of as many epochs or those of as many steps, whichever are more accurate; None without any.
    """
    labels = "" if line.regime == "HL" else LABELLED
    same = [each for each in lines if each.set == RANDOM + labels and alike(line, each)]
    of_steps = _own(line, [each for each in lines if each.set == RANDOM + STEPS + labels])
    of_epochs = _own(line, same) if labels else _nearest(line, same)
    return max(filter(None, (of_epochs, of_steps)), key=lambda each: each.mean, default=None)


def random_images_of_bytes(line: Line, lines: Sequence[Line]) -> Line | None:
    """Return random real images for the bytes of a set, or of another one with nearly as many, coded alike.

    They have hard labels, and are compared with sets that have, too.
    """
    alike_lines = [each for each in lines if each.set == RANDOM + BYTES and alike(line, each)]
    near = [
        each
        for each in alike_lines
        if each.set_bits == line.set_bits and abs(each.bytes - line.bytes) <= _NEARLY * line.bytes
    ]
    return _nearest(line, near)


def best_coreset(line: Line, lines: Sequence[Line]) -> Line | None:
    """Return the most accurate selection of as many real images that is not random."""
    chosen = [
        each
        for each in lines
        if each.baseline
        and each.set not in (RANDOM, RANDOM + STEPS, FULL, TEACHER)
        and not size_of(each.set)
        and not each.set.endswith(LABELLED)
        and (alike(line, each) or (STEPS in each.set and _own(line, [each])))
    ]
    return max(chosen, key=lambda each: each.mean, default=None)


def alike(one: Line, other: Line) -> bool:
    """Whether two lines of one data set and IPC differ only in the images that students were trained on."""
    shared = {_setting(report) for report in one.reports} & {_setting(report) for report in other.reports}
    return training(one) == training(other) and bool(shared)


def training(line: Line) -> tuple[str, str, int, str]:
    """Return what is trained and how: student, protocol, epochs and regime of labels."""
    return line.network, line.protocol, line.epochs, line.regime


def _setting(report: dict[str, object]) -> tuple[str, str]:
    return str(report.get("lr")), str(report.get("precision"))


def _own(line: Line, real: Sequence[Line]) -> Line | None:
    """Return the real images of a set's own evaluation, which may be trained on for other epochs."""

    def how(each: Line) -> tuple[str, ...]:
        return each.network, each.protocol, each.regime, each.evaluation

    return next((each for each in real if _of_one_cell(line, each) and how(each) == how(line)), None)


def _nearest(line: Line, real: Sequence[Line]) -> Line | None:
    """Return the real images that were evaluated with a set, or else those with another like it."""
    return min(real, key=lambda each: not _of_one_cell(line, each), default=None)


def _of_one_cell(one: Line, other: Line) -> bool:
    cells = {(each.suite, each.cell) for each in one.cells}
    return not cells.isdisjoint((each.suite, each.cell) for each in other.cells)
