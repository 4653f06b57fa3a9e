"""Calibration against plain loops in float64, and the temperature against a grid."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dsdistill.evaluation.calibration import CalibrationSums, calibration, fitted_temperature
from dsdistill.evaluation.measures import BINS

COUNT, CLASSES = 200, 5


def logits(seed: int, scale: float = 3.0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return scale * torch.randn(COUNT, CLASSES, generator=draws)


LABELS = torch.randint(0, CLASSES, (COUNT,), generator=torch.Generator().manual_seed(9))


def naive(values: Tensor) -> tuple[float, float, float]:
    """Return ECE in percent, NLL and Brier of one student."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    nll = brier = 0.0
    for row, label in zip(values.double().tolist(), LABELS.tolist(), strict=True):
        powers = [math.exp(each - max(row)) for each in row]
        probabilities = [each / sum(powers) for each in powers]
        confidence = max(probabilities)
        nll -= math.log(probabilities[label])
        brier += sum((p - (k == label)) ** 2 for k, p in enumerate(probabilities))
        for place in range(BINS):
            if place / BINS < confidence <= (place + 1) / BINS:
                bins[place].append((confidence, probabilities.index(confidence) == label))
    gaps = [abs(sum(c for c, _ in each) - sum(right for _, right in each)) for each in bins]
    return 100 * sum(gaps) / COUNT, nll / COUNT, brier / COUNT


def sums(students: list[Tensor], chunk: int = 64) -> CalibrationSums:
    total, stacked = CalibrationSums.zeros(len(students)), torch.stack(students)
    for part, labels in zip(stacked.split(chunk, 1), LABELS.split(chunk), strict=True):
        total.add(part, labels)
    return total


def test_scores_are_means_over_students_in_any_chunks() -> None:
    students = [logits(0), logits(1)]
    expected = [sum(values) / 2 for values in zip(*map(naive, students), strict=True)]
    for chunk in (64, COUNT):
        scores = sums(students, chunk).scores()
        assert scores is not None
        assert [scores.ece, scores.nll, scores.brier] == pytest.approx(expected, rel=1e-5)
    joined = CalibrationSums.cat([sums(students[:1]), sums(students[1:])]).scores()
    assert joined is not None
    assert joined.ece == pytest.approx(expected[0], rel=1e-5)


def test_bins_count_every_prediction_of_every_student() -> None:
    found = calibration(sums([logits(0), logits(1)]), None, None, 0)
    assert found is not None
    assert len(found.counts) == BINS
    assert sum(found.counts) == 2 * COUNT
    confidences = torch.stack([logits(0), logits(1)]).softmax(-1).amax(-1)
    last = confidences > 14 / BINS
    assert found.counts[-1] == int(last.sum())
    assert found.confidences[-1] == pytest.approx(100 * confidences[last].mean().item(), rel=1e-5)
    assert found.counts[0] == 0  # no confidence of five classes is below 1/5
    assert (found.confidences[0], found.accuracies[0]) == (0, 0)
    assert (found.temperature, found.scaled, found.validation) == (None, None, 0)


def test_a_student_that_is_always_sure_and_right_is_calibrated() -> None:
    sure = 100 * torch.nn.functional.one_hot(LABELS, CLASSES).float()
    scores = sums([sure]).scores()
    assert scores is not None
    assert (scores.ece, scores.nll, scores.brier) == pytest.approx((0, 0, 0), abs=1e-6)
    wrong = sums([sure.roll(1, 1)]).scores()
    assert wrong is not None
    assert (wrong.ece, wrong.nll, wrong.brier) == pytest.approx((100, 100, 2), abs=1e-4)


def test_logits_that_are_not_finite_have_no_calibration() -> None:
    broken = logits(0)
    broken[3] = math.nan
    assert calibration(sums([broken, logits(1)]), None, None, 0) is None


@pytest.mark.parametrize("scale", [0.5, 1.0, 8.0])
def test_the_fitted_temperature_has_the_lowest_likelihood_loss_of_a_grid(scale: float) -> None:
    values = scale * (logits(0, 1.0) + 2 * torch.nn.functional.one_hot(LABELS, CLASSES))
    found = fitted_temperature(values, LABELS)

    def loss(temperature: float) -> float:
        return torch.nn.functional.cross_entropy(values.double() / temperature, LABELS).item()

    assert loss(found) <= min(loss(math.exp(step / 50)) for step in range(-200, 200)) + 1e-9


def test_the_temperature_stays_in_its_range() -> None:
    right = torch.nn.functional.one_hot(LABELS, CLASSES).float()
    assert fitted_temperature(right, LABELS) == pytest.approx(0.01)
    assert fitted_temperature(right.roll(1, 1), LABELS) == pytest.approx(100)
