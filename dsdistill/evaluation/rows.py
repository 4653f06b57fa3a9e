"""Rows, the accuracies of an evaluation, and the names of the sets that students are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from annotated_types import Ge, Le

from dsdistill.config.validation import validate
from dsdistill.errors import UserError
from dsdistill.text import spread

DISTILLED, DISTILLED_HARD = "distilled", "distilled-hard"
RANDOM, FULL = "random", "full"

UNAUGMENTED = "-plain"
"""Ends the names of sets that students are trained on without augmentation."""

Percent = Annotated[float, Ge(0), Le(100 + 1e-6)]
"""An accuracy or a deviation; means may be rounded up. Checked where a row is read."""
Count = Annotated[int, Ge(0)]
Amount = Annotated[float, Ge(0), Le(1e18)]
"""Of seconds or bytes."""

_FORMER_NAMES = {"whole": FULL}


def canonical(name: str) -> str:
    """Return today's name of a set or baseline: files and suites may still say ``whole`` for ``full``."""
    method, at, size = name.partition("@")
    return _FORMER_NAMES.get(method, method) + at + size


@dataclass(frozen=True)
class Row:
    """Test accuracy of one network's students on one training set, in percent.

    Attributes:
        set: "distilled", "distilled-hard" (the same images under hard labels), or the name of a baseline;
            with "-plain" appended where students were trained without the protocol's augmentation. A former
            name becomes today's.
        epochs: the protocol's; fewer for the baseline "full".
        std: sample standard deviation over the students (n - 1 in the denominator); 0 for one student.
        values: one per student, in the order of the repeats.
        images: stored images of the set, or real images of the baseline.
        decoded: images that the students train on; more than ``images`` where the set is a multi-formation.
        seconds: to train and test all students, compilation included.
    """

    set: str
    network: str
    protocol: str
    epochs: Count
    mean: Percent
    std: Percent
    values: list[Percent]
    images: Count
    decoded: Count
    seconds: Amount

    def __post_init__(self) -> None:
        object.__setattr__(self, "set", canonical(self.set))

    @property
    def accuracy(self) -> str:
        """Mean ± deviation, for people."""
        return spread(self.mean, self.std, len(self.values))


def read_row(result: Any) -> Row | None:
    """Return the row in a stored result; None where it is none, as other programs may have written it."""
    if not isinstance(result, Mapping):
        return None
    keys = [each.name for each in fields(Row)]
    try:
        row: Row = validate(Row, {key: result[key] for key in keys if key in result}, "key", keys)
    except UserError:
        return None
    return row if row.values else None
