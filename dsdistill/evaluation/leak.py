"""The leak test: do the losses of students tell the images that a teacher was trained on from fresh ones?

Soft labels can carry what a teacher memorised (arXiv 2506.14457). A student that never saw the training
images then has lower losses on them. The test is the plain threshold on the loss (Yeom et al. 2018).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from dsdistill.evaluation.measures import Leak

IMAGES = 2000
"""Of either kind, at most."""


def leak_of(members: Sequence[tuple[Tensor, Tensor]], fresh: Sequence[tuple[Tensor, Tensor]]) -> Leak | None:
    """Return the leak, a mean over students.

    Args:
        members, fresh: of each student, the losses float [M] and whether the class was right, bool [M]; of
            training images that it did not train on, and of test images. The longer of both is cut.

    Returns:
        None where a student was trained on all training images, or a loss is not finite.
    """
    aucs, gaps, sizes = [], [], []
    for (losses, right), (fresh_losses, fresh_right) in zip(members, fresh, strict=True):
        count = min(len(losses), len(fresh_losses))
        if not count or not (losses.isfinite().all() and fresh_losses.isfinite().all()):
            return None
        aucs.append(area(losses[:count], fresh_losses[:count]))
        gaps.append(100 * float(right[:count].double().mean() - fresh_right[:count].double().mean()))
        sizes.append(count)
    return Leak(statistics.mean(aucs), statistics.mean(gaps), min(sizes))


def area(lower: Tensor, higher: Tensor) -> float:
    """Return the probability that a value of the first is below one of the second; equal ones count half.

    >>> area(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    0.875

    Args:
        lower, higher: float [M] and [N].
    """
    ordered = lower.sort().values
    below, not_above = (
        torch.searchsorted(ordered, higher.contiguous(), right=right).sum() for right in (False, True)
    )
    return float(below + not_above) / (2 * len(lower) * len(higher))
