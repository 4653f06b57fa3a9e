"""What is measured of students besides their accuracy; the values are stored with the rows of a result.

Percentages are of images. Means are over the students of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Len

Percent = Annotated[float, Ge(0), Le(100 + 1e-6)]
"""A share, an accuracy or its deviation; means may be rounded up. Checked where a row is read."""
Points = Annotated[float, Ge(-100 - 1e-6), Le(100 + 1e-6)]
Amount = Annotated[float, Ge(0), Le(1e18)]
"""Of seconds, bytes or nats."""
Count = Annotated[int, Ge(0)]

BINS = 15
"""Of confidence, of equal width: bin b holds confidences in (b / 15, (b + 1) / 15]."""


@dataclass(frozen=True)
class Scores:
    """Whether probabilities are right; lower is better.

    Attributes:
        ece: expected calibration error, in percent: the mean over test images of |confidence - accuracy| of
            their bin.
        nll: mean negative logarithm of the probability of the true class, in nats.
        brier: mean over images of Σ_k (p_k - y_k)², in [0, 2].
    """

    ece: Percent
    nll: Amount
    brier: Annotated[float, Ge(0), Le(2 + 1e-6)]


@dataclass(frozen=True)
class Transfer:
    """The data that students learned after they were pre-trained on a set.

    Attributes:
        dataset: its name, without folders. fingerprint: 16 hexadecimal digits of its training images.
        fraction: of the training images, whose labels students saw.
        labels: how many these were.
        tuning: "fine-tune" of all weights, or a linear "probe" of features that stay as they are.
        test: 16 hexadecimal digits of the fingerprint of its test images; empty in rows of earlier versions.
    """

    dataset: str
    fingerprint: str
    fraction: Annotated[float, Gt(0), Le(1)]
    labels: Count
    tuning: str
    test: str = ""

    @property
    def words(self) -> str:
        """Say what was learned, for people: "digits, 1 % of the labels (13), fine-tune"."""
        share = "all" if self.fraction == 1 else f"{100 * self.fraction:g} % of the"
        return f"{self.dataset}, {share} labels ({self.labels}), {self.tuning}"


@dataclass(frozen=True)
class Calibration:
    """Calibration on the test images.

    Attributes:
        scores: as the students are.
        temperature: T, fitted for each student to the validation images; None where there are none that the
            students did not train on.
        scaled: with the logits divided by T.
        validation: images that T was fitted to: real training images that the students did not see. The
            distillation of the set may have seen them.
        counts: predictions of all students in each of the 15 bins of confidence.
        confidences, accuracies: their means in each bin, in percent; 0 in an empty one.
    """

    scores: Scores
    temperature: Amount | None
    scaled: Scores | None
    validation: Count
    counts: Annotated[list[Count], Len(BINS, BINS)]
    confidences: Annotated[list[Percent], Len(BINS, BINS)]
    accuracies: Annotated[list[Percent], Len(BINS, BINS)]


@dataclass(frozen=True)
class Fidelity:
    """How alike students and a teacher are on the test images.

    Attributes:
        teacher: its name.
        agreement: percentage of images to which both give the same class.
        divergence: mean KL(teacher ‖ student) at temperature 1, in nats.
        errors: images that the teacher classifies wrongly.
        agreement_on_errors: percentage of these to which the student gives the same wrong class; None where
            there are none.
    """

    teacher: str
    agreement: Percent
    divergence: Amount
    errors: Count
    agreement_on_errors: Percent | None


@dataclass(frozen=True)
class Leak:
    """How well the losses of students tell training images, which they did not train on, from fresh ones.

    Attributes:
        auc: probability that a training image has the lower loss than a test image, in [0, 1]; 0.5 tells
            nothing.
        gap: accuracy on training images less that on test images, in points.
        images: of each of the two, in equal numbers.
        temperature: by which logits are divided before the loss.
    """

    auc: Annotated[float, Ge(0), Le(1)]
    gap: Points
    images: Count
    temperature: Amount = 1.0
