"""How alike students are: to their teacher, and to one another; sums over test images, in chunks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dsdistill.evaluation.measures import Fidelity
from dsdistill.objectives.labels import divergence


@dataclass(eq=False)
class FidelitySums:
    """Sums over images for S students, float64 on the CPU.

    Attributes:
        images, errors: images, and those that the teacher classifies wrongly.
        agreed, agreed_on_errors: [S], images to which student and teacher give the same class.
        divergence: [S], of KL(teacher ‖ student).
    """

    agreed: Tensor
    agreed_on_errors: Tensor
    divergence: Tensor
    images: int = 0
    errors: int = 0

    @classmethod
    def zeros(cls, students: int) -> FidelitySums:
        """Return the sums over no images."""
        agreed, on_errors, sums = (torch.zeros(students, dtype=torch.float64) for _ in range(3))
        return cls(agreed, on_errors, sums)

    @staticmethod
    def cat(parts: list[FidelitySums]) -> FidelitySums:
        """Join the sums of several groups of students over the same images."""
        agreed = torch.cat([part.agreed for part in parts])
        on_errors = torch.cat([part.agreed_on_errors for part in parts])
        sums = torch.cat([part.divergence for part in parts])
        return FidelitySums(agreed, on_errors, sums, parts[0].images, parts[0].errors)

    def add(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> None:
        """Add images.

        Args:
            logits: of the students, float32 [S, n, K].
            teacher: its logits, float32 [n, K], and labels, int64 [n], on the same device.
        """
        answers, probabilities = teacher.argmax(1), teacher.softmax(1)
        wrong = answers != labels
        same = logits.argmax(-1) == answers
        self.images += len(labels)
        self.errors += int(wrong.sum())
        self.agreed += same.sum(1).double().cpu()
        self.agreed_on_errors += (same & wrong).sum(1).double().cpu()
        sums = [divergence(each, probabilities).sum(dtype=torch.float64) for each in logits]
        self.divergence += torch.stack(sums).cpu()

    def fidelity(self, teacher: str) -> Fidelity | None:
        """Return the means over students; None if logits were not finite."""
        mean = float(self.divergence.mean()) / self.images
        if not math.isfinite(mean):
            return None
        on_errors = 100 * float(self.agreed_on_errors.mean()) / self.errors if self.errors else None
        agreement = 100 * float(self.agreed.mean()) / self.images
        return Fidelity(teacher, agreement, max(0.0, mean), self.errors, on_errors)


def disagreement(predictions: Tensor) -> float | None:
    """Return the percentage of images to which two students give different classes, mean over all pairs.

    >>> disagreement(torch.tensor([[0, 1], [0, 2]]))
    50.0

    Args:
        predictions: integers [S, N].

    Returns:
        None for one student.
    """
    students, images = predictions.shape
    if students < 2:
        return None
    ordered = predictions.sort(0).values
    earlier = torch.zeros(images, dtype=torch.int64)  # students before this one with its class
    equal = 0
    for one, next_one in itertools.pairwise(ordered):
        earlier = torch.where(one == next_one, earlier + 1, 0)
        equal += int(earlier.sum())
    pairs = images * students * (students - 1) // 2
    return 100 * (pairs - equal) / pairs
