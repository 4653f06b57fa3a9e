"""Rows, the accuracies of an evaluation, and the names of the sets that students are trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from dsdistill.config.regimes import Regime
from dsdistill.config.validation import validate
from dsdistill.errors import UserError
from dsdistill.evaluation.measures import Amount, Calibration, Count, Fidelity, Leak, Percent, Transfer
from dsdistill.text import spread

DISTILLED, DISTILLED_HARD = "distilled", "distilled-hard"
RANDOM, FULL, NOISE, TEACHER = "random", "full", "noise", "teacher"

LABELLED = "+labels"
"""Ends the names of baselines that get the distilled set's labels procedure."""

SCRATCH = "scratch"
"""Students that are not pre-trained, where those of other sets are."""

TARGETS = "+targets"
"""Ends the names of real images whose targets a teacher gives, for students to be pre-trained on."""

BYTES, STEPS = "@bytes", "@steps"
"""End the names of real images that are as many as fill a set's bytes, and of those that are trained on for
as many steps as a set whose stored images are decoded into more; before `LABELLED`. A size may stand in
place of "bytes", as in "random@31kB"."""

UNAUGMENTED = "-plain"
"""Ends the names of sets that students are trained on without augmentation."""

_FORMER_NAMES = {"whole": FULL}


def canonical(name: str) -> str:
    """Return the one name of a set or baseline.

    Files and suites may still say ``whole`` for ``full``, and sizes may be written in several ways.

    >>> canonical("whole"), canonical("random@10 IPC"), canonical("herding@31KB+labels")
    ('full', 'random@10ipc', 'herding@31kB+labels')
    """
    method, at, size = name.partition("@")
    return _FORMER_NAMES.get(method, method) + at + _SIZE.sub(_spelt, size)


_SIZE = re.compile(r"([\d.]+) *([A-Za-z]+)")


def _spelt(size: re.Match[str]) -> str:
    """Return a size with the capitals that its unit has: 31kB, 2MB, 10ipc."""
    amount, unit = size.group(1), size.group(2).lower()
    return amount + (unit[:-1].replace("m", "M") + "B" if unit.endswith("b") else unit)


def size_of(name: str) -> str:
    """Return what the images of a baseline fill: "bytes" for those of the set, a size, or "" for neither.

    >>> size_of("random@bytes+labels"), size_of("random@10ipc"), size_of("random@steps"), size_of("random")
    ('bytes', '10ipc', '', '')
    """
    at_size = "".join(name.removesuffix(LABELLED).partition("@")[1:])
    return "" if at_size == STEPS else at_size.removeprefix("@")


@dataclass(frozen=True)
class Row:
    """Test accuracy of one network's students on one training set, in percent.

    Attributes:
        set: "distilled", "distilled-hard" (the same images under hard labels), or the name of a baseline;
            with "-plain" appended where students were trained without the protocol's augmentation. A former
            name becomes today's.
        epochs: the protocol's; fewer for the baseline "full", more for those of equal steps, and 0 for
            students that are not pre-trained, for which earlier versions stored the protocol's.
        std: sample standard deviation over the students (n - 1 in the denominator); 0 for one student.
        values: one per student, in the order of the repeats.
        images: stored images of the set, or real images of the baseline.
        decoded: images that the students train on; more than ``images`` where the set is a multi-formation.
        seconds: to train and test all students, compilation included; of all processes that share them.
        regime: how labels reached the students: "HL" hard labels, "SL" stored soft labels, "SL+KD" a teacher
            that labels every batch. The teacher itself was trained on hard labels.
        calibration, disagreement: whether the students' probabilities are right, and the percentage of test
            images to which two of them give different classes.
        fidelity: how alike the students and the teacher are, where there is one. leak: how students tell
            training images from fresh ones, where it was asked for.
        transfer: the data that students learned after they were pre-trained on the set; the accuracy is that
            on the test images of these, and ``seconds`` has the pre-training. None where the set taught them
            all they know.
        image_bytes: of the real images of a baseline, in the mean over students that have their own, as they
            were chosen and coded; None for other sets, and for the baseline "full".

    The last six are None in rows of earlier versions.
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
    regime: Regime = "HL"
    calibration: Calibration | None = None
    disagreement: Percent | None = None
    fidelity: Fidelity | None = None
    leak: Leak | None = None
    transfer: Transfer | None = None
    image_bytes: Amount | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "set", canonical(self.set))
        if self.set == SCRATCH:
            object.__setattr__(self, "epochs", 0)

    @property
    def accuracy(self) -> str:
        """Mean ± deviation, for people."""
        return spread(self.mean, self.std, len(self.values))


def modernise_row(row: Mapping[str, Any], soft_labels: bool) -> dict[str, Any]:
    """Return a stored row with what earlier versions left out.

    They told its regime by the evaluation's ``soft_labels``, and only students of the set itself learned from
    soft labels. Before stored images could be decoded into more, students trained on the stored ones.
    """
    soft = soft_labels and row.get("set") in (DISTILLED, DISTILLED + UNAUGMENTED)
    images = {"decoded": row["images"]} if "images" in row else {}
    return {"regime": "SL" if soft else "HL", **images, **row}


def read_row(result: Any) -> Row | None:
    """Return the row in a stored result; None where it is none, as other programs may have written it."""
    if not isinstance(result, Mapping):
        return None
    keys = [each.name for each in fields(Row)]
    table = modernise_row(
        {key: result[key] for key in keys if key in result}, result.get("soft_labels") is True
    )
    try:
        row: Row = validate(Row, table, "key", keys)
    except UserError:
        return None
    return row if row.values else None


CLOSE = 1.0
"""Points within which random images reach a set, so that their common labels explain its accuracy."""


def labels_do_the_work(rows: Iterable[Row]) -> list[str]:
    """Say for which networks random real images with the set's labels come within a point of the set.

    They may be trained on for as many epochs, or for as many steps: the better counts.
    """
    means = {(row.network, row.set): row.mean for row in rows}
    sentences = []
    for (network, name), mean in means.items():
        controls = (RANDOM + LABELLED, RANDOM + STEPS + LABELLED)
        random = max(means.get((network, control), -math.inf) for control in controls)
        if name == DISTILLED and mean - random <= CLOSE + 1e-9:
            both = f"{random:.2f} % on random images and {mean:.2f} % on the set"
            sentences.append(f"labels do the work: with the same labels {network} reaches {both}")
    return sentences
