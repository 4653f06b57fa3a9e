"""The loss of students against naive versions in float64, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dsdistill.config.labels import LabelConfig
from dsdistill.evaluation.loss import StudentLoss, Targets

BATCH, CLASSES = 5, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOGITS, TEACHER = drawn(BATCH, CLASSES), drawn(BATCH, CLASSES, seed=1)
LABELS, PARTNERS = torch.tensor([0, 3, 1, 2, 2]), torch.tensor([1, 0, 1, 3, 2])
WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0], dtype=torch.float64)
DISTANCES = drawn(BATCH, 2, seed=2).abs()


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def cross_entropy(row: int, smoothing: float = 0.0) -> float:
    logs = [math.log(each) for each in softmax(LOGITS[row].tolist())]
    targets = [smoothing / CLASSES] * CLASSES
    targets[LABELS[row]] += 1 - smoothing
    return -sum(target * log for target, log in zip(targets, logs, strict=True))


def soft_cross_entropy(row: int, temperature: float = 1.0) -> float:
    teacher = softmax(TEACHER[row].tolist(), temperature)
    student = softmax(LOGITS[row].tolist())
    return -sum(p * math.log(q) for p, q in zip(teacher, student, strict=True))


def divergence(row: int, temperature: float) -> float:
    teacher, student = (softmax(each[row].tolist(), temperature) for each in (TEACHER, LOGITS))
    return sum(p * (math.log(p) - math.log(q)) for p, q in zip(teacher, student, strict=True))


def squared(row: int) -> float:
    pairs = zip(LOGITS[row].tolist(), TEACHER[row].tolist(), strict=True)
    return sum((one - other) ** 2 for one, other in pairs) / CLASSES


def cosine_to_gift(row: int) -> float:
    hard = [0.1 / (CLASSES - 1)] * CLASSES
    hard[LABELS[row]] = 0.9
    teacher = TEACHER[row].tolist()
    target = [
        one / math.hypot(*teacher) + 0.1 * other / math.hypot(*hard)
        for one, other in zip(teacher, hard, strict=True)
    ]
    student = LOGITS[row].tolist()
    dot = sum(one * other for one, other in zip(student, target, strict=True))
    return 1 - dot / math.hypot(*student) / math.hypot(*target)


def distance_loss(row: int) -> float:
    logs = [math.log(each) for each in softmax(LOGITS[row].tolist())]
    mine = -logs[LABELS[row]], -logs[PARTNERS[row]]
    pairs = zip(mine, DISTANCES[row].tolist(), strict=True)
    return cross_entropy(row) + 0.7 * sum((one - other) ** 2 for one, other in pairs) / 2


SOFT: Targets = {"logits": TEACHER, "hard": LABELS, "labels": LABELS}
CASES: list[tuple[dict[str, object], Targets, Callable[[int], float]]] = [
    ({}, {"hard": LABELS}, cross_entropy),
    ({"smoothing": 0.8}, {"hard": LABELS}, lambda row: cross_entropy(row, 0.8)),
    ({"loss": "ce"}, SOFT, soft_cross_entropy),
    ({"loss": "ce", "temperature": 4.0}, SOFT, lambda row: soft_cross_entropy(row, 4.0)),
    ({"loss": "kl", "temperature": 20.0}, SOFT, lambda row: divergence(row, 20.0)),
    (
        {"loss": "kl", "temperature": 20.0, "temperature_squared": True},
        SOFT,
        lambda row: 400 * divergence(row, 20.0),
    ),
    (
        {"loss": "kl", "temperature": 4.0, "hard_weight": 0.3, "smoothing": 0.1},
        SOFT,
        lambda row: 0.7 * divergence(row, 4.0) + 0.3 * cross_entropy(row, 0.1),
    ),
    ({"loss": "mse"}, SOFT, squared),
    ({"loss": "sse"}, SOFT, lambda row: LOGITS.shape[1] / 2 * squared(row)),
    ({"loss": "gift"}, SOFT, cosine_to_gift),
    (
        {"loss": "dbr", "source": "views", "hard_weight": 0.7},
        {"hard": LABELS, "labels": LABELS, "partners": PARTNERS, "distances": DISTANCES},
        distance_loss,
    ),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("options", "targets", "naive"), CASES)
def test_every_loss_is_the_mean_of_its_formula(
    options: dict[str, object], targets: Targets, naive: Callable[[int], float], weighted: bool
) -> None:
    """Weights of images reach each of them."""
    config = LabelConfig(**options)  # type: ignore[arg-type]
    given = {**targets, "weights": WEIGHTS} if weighted else targets
    factors = WEIGHTS.tolist() if weighted else [1.0] * BATCH
    expected = sum(factor * naive(row) for row, factor in enumerate(factors)) / BATCH
    assert StudentLoss(config)(LOGITS, given).item() == pytest.approx(expected, rel=1e-9)


def test_probabilities_are_at_the_temperature_already() -> None:
    config = LabelConfig(loss="kl", temperature=5.0)
    loss = StudentLoss(config)
    ready = {"probabilities": (TEACHER / 5).softmax(1)}
    assert loss(LOGITS, ready).item() == pytest.approx(loss(LOGITS, {"logits": TEACHER}).item(), rel=1e-12)


def test_half_precision_is_computed_in_float32() -> None:
    loss = StudentLoss(LabelConfig(loss="kl", temperature=20.0))
    found = loss(LOGITS.bfloat16(), {"logits": TEACHER.float()})
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(LOGITS.bfloat16().double(), SOFT).item(), rel=1e-4)
