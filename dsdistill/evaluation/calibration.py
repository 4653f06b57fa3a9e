"""Calibration of students: sums over test images, in chunks, and the temperature that validation images fit.

Definitions: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017, arXiv 1706.04599).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dsdistill.evaluation.measures import BINS, Calibration, Scores

_LOWEST, _HIGHEST = 0.01, 100.0  # temperatures; a student that errs nowhere would have 0
_HALVINGS = 40


@dataclass(eq=False)
class CalibrationSums:
    """Sums over images for S students, float64 on the CPU.

    Attributes:
        counts, confidences, correct: [S, 15], of each bin of confidence.
        nll, brier: [S].
    """

    counts: Tensor
    confidences: Tensor
    correct: Tensor
    nll: Tensor
    brier: Tensor

    @classmethod
    def zeros(cls, students: int) -> CalibrationSums:
        """Return the sums over no images."""
        bins = [torch.zeros(students, BINS, dtype=torch.float64) for _ in range(3)]
        return cls(*bins, *(torch.zeros(students, dtype=torch.float64) for _ in range(2)))

    @staticmethod
    def cat(parts: list[CalibrationSums]) -> CalibrationSums:
        """Join the sums of several groups of students."""
        names = ("counts", "confidences", "correct", "nll", "brier")
        return CalibrationSums(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add images.

        Args:
            logits: float32 [S, n, K].
            labels: int64 [n], on their device.
        """
        logs = logits.log_softmax(-1)
        probabilities = logs.exp()
        confidence, predicted = probabilities.max(-1)
        of_class = labels.expand(len(logits), -1)[..., None]
        own = probabilities.gather(-1, of_class)[..., 0]
        bins = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1).cpu()
        right = (predicted == labels).double().cpu()
        self.counts.scatter_add_(1, bins, torch.ones_like(right))
        self.confidences.scatter_add_(1, bins, confidence.double().cpu())
        self.correct.scatter_add_(1, bins, right)
        self.nll -= logs.gather(-1, of_class)[..., 0].sum(1, dtype=torch.float64).cpu()
        squares = probabilities.square().sum(-1) - 2 * own + 1
        self.brier += squares.sum(1, dtype=torch.float64).cpu()

    def scores(self) -> Scores | None:
        """Return the means over students; None if logits were not finite, or there were no images."""
        images = self.counts.sum(1)
        ece = (self.confidences - self.correct).abs().sum(1) / images
        means = [float(each.mean()) for each in (100 * ece, self.nll / images, self.brier / images)]
        if not all(map(math.isfinite, means)):
            return None
        return Scores(*(max(0.0, each) for each in means))


def calibration(
    plain: CalibrationSums, scaled: CalibrationSums | None, temperature: float | None, validation: int
) -> Calibration | None:
    """Return the calibration of a row's students.

    Args:
        plain: over the test images. scaled: the same with logits divided by each student's temperature; None
            where none was fitted.
        temperature: mean over students.
        validation: images that they were fitted to.

    Returns:
        None where the students' logits are not finite.
    """
    scores = plain.scores()
    if scores is None:
        return None
    counts = plain.counts.sum(0)
    in_bin = counts.clamp(min=1)
    return Calibration(
        scores,
        temperature if scaled else None,
        scaled.scores() if scaled else None,
        validation,
        [round(each) for each in counts.tolist()],
        *((100 * each.sum(0) / in_bin).tolist() for each in (plain.confidences, plain.correct)),
    )


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the T that minimises the mean negative log-likelihood of softmax(z / T), in [0.01, 100].

    It is convex in 1 / T, so its derivative, E_p[z] - z_y, is bisected.

    >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
    >>> round(fitted_temperature(logits, torch.tensor([0, 0, 0, 1])), 4)  # 4 / T = log(3)
    3.641

    Args:
        logits: [V, K], V at least 1.
        labels: int64 [V].
    """
    logits = logits.double()
    own = logits.gather(1, labels[:, None])[:, 0].mean()
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = ((logits / math.exp(middle)).softmax(1) * logits).sum(1).mean()
        if expected > own:  # too sharp: in 1 / T the likelihood falls here
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)
