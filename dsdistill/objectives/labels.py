"""Losses of a student against a teacher's answers: one number per image, in float32 or wider.

Logits of the student are ``[B, K]``. A teacher answers by logits ``[B, K]``, or by probabilities ``[B, K]``,
which sum to 1. Sources: knowledge distillation (Hinton et al. 2015, arXiv 1503.02531), FKD and SRe2L (Yin et
al. 2023, arXiv 2306.13092), GIFT (Shang et al. 2025, arXiv 2405.14736), NRR-DD (arXiv 2503.18267)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.objectives.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

GIFT_SMOOTHING = 0.1
"""Label smoothing of GIFT's hard labels, and their weight beside the teacher's."""


def divergence(
    logits: Float[Tensor, "B K"], probabilities: Float[Tensor, "B K"], temperature: float = 1.0
) -> Float[Tensor, " B"]:
    """Return KL(p ‖ softmax(z / T)) of every image, summed over classes, without the factor T².

    >>> divergence(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([0.6931])

    Args:
        logits: of the student, z.
        probabilities: of the teacher, p, at this temperature already.
        temperature: T, positive.
    """
    student = (at_least_float32(logits) / temperature).log_softmax(1)
    teacher = probabilities.to(student.dtype)
    return torch.special.xlogy(teacher, teacher).sum(1) - (teacher * student).sum(1)


def squared_error(logits: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """Return the mean over classes of (z - z_teacher)² of every image.

    >>> squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    tensor([2.])
    """
    student = at_least_float32(logits)
    return (student - teacher.to(student.dtype)).square().mean(1)


def gift(
    logits: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], labels: Int64[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Return GIFT's loss of every image: 1 - cos(z, t / ‖t‖ + 0.1·h / ‖h‖).

    h is the smoothed one-hot label: 0.9 for the class, 0.1 / (K - 1) for each other one. The released
    function is followed, in which the teacher's part is not weighted by 1 - 0.1.

    >>> logits = torch.tensor([[3.0, 1.0]])
    >>> same, other = (gift(logits, teacher, torch.tensor([0])) for teacher in (logits, -logits))
    >>> bool(same < 0.01 < 1 < other)
    True

    Args:
        logits: of the student, z.
        teacher: the teacher's vector, t.
        labels: the hard labels.
    """
    student = at_least_float32(logits)
    classes = student.shape[1]
    rest = GIFT_SMOOTHING / max(1, classes - 1)
    hard = F.one_hot(labels, classes).to(student.dtype) * (1 - GIFT_SMOOTHING - rest) + rest
    target = F.normalize(teacher.to(student.dtype), dim=1) + GIFT_SMOOTHING * F.normalize(hard, dim=1)
    return 1 - F.cosine_similarity(student, target, dim=1)


def label_distances(
    logits: Float[Tensor, "B K"], labels: Int64[Tensor, " B"], partners: Int64[Tensor, " B"]
) -> Float[Tensor, "B 2"]:
    """Return the cross-entropies of mixed images with their own label and with their partner's.

    These two distances are what NRR-DD stores in place of a vector of K logits.

    >>> label_distances(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1]))
    tensor([[0.6931, 0.6931]])

    Args:
        logits: of the mixed images.
        labels, partners: the hard labels of an image and of the one that it is mixed with.
    """
    logs = at_least_float32(logits).log_softmax(1)
    return -logs.gather(1, torch.stack([labels, partners], 1))


def distance_error(
    logits: Float[Tensor, "B K"],
    labels: Int64[Tensor, " B"],
    partners: Int64[Tensor, " B"],
    distances: Float[Tensor, "B 2"],
) -> Float[Tensor, " B"]:
    """Return the mean squared difference of a student's two distances to the teacher's (NRR-DD).

    >>> logits, labels, partners = torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1])
    >>> distance_error(logits, labels, partners, label_distances(logits, labels, partners))
    tensor([0.])
    """
    mine = label_distances(logits, labels, partners)
    return (mine - distances.to(mine.dtype)).square().mean(1)
