"""Losses against a teacher's answers, against plain loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dsdistill.objectives.labels import distance_error, divergence, gift, label_distances, squared_error
from dsdistill.seeding import generator

COUNT, CLASSES = 5, 4
LABELS, PARTNERS = torch.tensor([0, 3, 1, 1, 2]), torch.tensor([3, 3, 0, 1, 2])


def draw(name: str) -> Tensor:
    return 3 * torch.randn(COUNT, CLASSES, generator=generator(0, name), dtype=torch.float64)


LOGITS, TEACHER = draw("student"), draw("teacher")


def probabilities(logits: Tensor, temperature: float = 1.0) -> list[list[float]]:
    rows = []
    for row in logits.tolist():
        powers = [math.exp(value / temperature) for value in row]
        rows.append([power / sum(powers) for power in powers])
    return rows


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_divergence(temperature: float) -> None:
    teacher, student = probabilities(TEACHER, temperature), probabilities(LOGITS, temperature)
    expected = [
        sum(p * (math.log(p) - math.log(q)) for p, q in zip(*rows, strict=True))
        for rows in zip(teacher, student, strict=True)
    ]
    found = divergence(LOGITS, torch.tensor(teacher, dtype=torch.float64), temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-13)


def test_the_divergence_from_certainty_is_the_cross_entropy() -> None:
    found = divergence(LOGITS, torch.eye(CLASSES, dtype=torch.float64)[LABELS])
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(LOGITS, LABELS, reduction="none"))


def test_squared_error() -> None:
    expected = [
        sum((a - b) ** 2 for a, b in zip(*rows, strict=True)) / CLASSES
        for rows in zip(LOGITS.tolist(), TEACHER.tolist(), strict=True)
    ]
    torch.testing.assert_close(squared_error(LOGITS, TEACHER), torch.tensor(expected, dtype=torch.float64))


def test_gift() -> None:
    expected = []
    for student, teacher, label in zip(LOGITS.tolist(), TEACHER.tolist(), LABELS.tolist(), strict=True):
        hard = [0.9 if place == label else 0.1 / (CLASSES - 1) for place in range(CLASSES)]
        target = [
            t / math.hypot(*teacher) + 0.1 * h / math.hypot(*hard) for t, h in zip(teacher, hard, strict=True)
        ]
        dot = sum(a * b for a, b in zip(student, target, strict=True))
        expected.append(1 - dot / (math.hypot(*student) * math.hypot(*target)))
    found = gift(LOGITS, TEACHER, LABELS)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-13)


def test_distances_and_their_error() -> None:
    rows, pairs = probabilities(LOGITS), list(zip(LABELS.tolist(), PARTNERS.tolist(), strict=True))
    mine = [[-math.log(row[label]) for label in pair] for row, pair in zip(rows, pairs, strict=True)]
    found = label_distances(LOGITS, LABELS, PARTNERS)
    torch.testing.assert_close(found, torch.tensor(mine, dtype=torch.float64), rtol=1e-12, atol=1e-13)

    stored = label_distances(TEACHER, LABELS, PARTNERS)
    expected = [
        sum((a - b) ** 2 for a, b in zip(*both, strict=True)) / 2
        for both in zip(mine, stored.tolist(), strict=True)
    ]
    errors = distance_error(LOGITS, LABELS, PARTNERS, stored)
    torch.testing.assert_close(errors, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-13)
    assert distance_error(TEACHER, LABELS, PARTNERS, stored).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_compared_in_float32(dtype: torch.dtype) -> None:
    logits, teacher = LOGITS.to(dtype), TEACHER.to(dtype)
    for loss in (
        divergence(logits, teacher.softmax(1)),
        squared_error(logits, teacher),
        gift(logits, teacher, LABELS),
        distance_error(logits, LABELS, PARTNERS, label_distances(teacher, LABELS, PARTNERS)),
    ):
        assert loss.dtype == torch.float32
        assert loss.shape == (COUNT,)
        assert loss.isfinite().all()


def test_gradients() -> None:
    stored = label_distances(TEACHER, LABELS, PARTNERS)
    logits = LOGITS.clone().requires_grad_()
    for loss in (
        lambda z: divergence(z, TEACHER.softmax(1), 4.0),
        lambda z: squared_error(z, TEACHER),
        lambda z: gift(z, TEACHER, LABELS),
        lambda z: distance_error(z, LABELS, PARTNERS, stored),
    ):
        torch.autograd.gradcheck(loss, logits)
