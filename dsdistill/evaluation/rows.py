"""Rows: the accuracies of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from dsdistill.text import spread

DISTILLED, DISTILLED_HARD = "distilled", "distilled-hard"


PLAIN = "-plain"
"""Ends the names of sets that students are trained on without augmentation."""


@dataclass(frozen=True)
class Row:
    """Test accuracy of one network's students on one training set, in percent.

    Attributes:
        set: "distilled", "distilled-hard" (the same images under hard labels), or the name of a baseline;
            with "-plain" appended where students were trained without the protocol's augmentation.
        epochs: the protocol's, fewer for the baseline "whole".
        std: sample standard deviation over the students (n - 1 in the denominator); 0 for one student.
        values: one per student, in the order of the repeats.
        images: that the set stores, or real ones that the baseline takes.
        decoded: that the students train on; more than ``images`` where the set is a multi-formation.
        seconds: of training and testing them all, compilation included.
    """

    set: str
    network: str
    protocol: str
    epochs: int
    mean: float
    std: float
    values: list[float]
    images: int
    decoded: int
    seconds: float

    @property
    def accuracy(self) -> str:
        """Mean ± deviation, as it is shown to people."""
        return spread(self.mean, self.std, len(self.values))
