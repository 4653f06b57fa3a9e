"""The leak test on losses that are known."""

from __future__ import annotations

import math

import pytest
import torch

from dsdistill.evaluation.leak import area, leak_of

RIGHT, WRONG = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)


def test_the_area_counts_pairs() -> None:
    draws = torch.Generator().manual_seed(0)
    low, high = (torch.randint(0, 9, (size,), generator=draws).float() for size in (30, 20))
    pairs = [(one < other) + 0.5 * (one == other) for one in low.tolist() for other in high.tolist()]
    assert area(low, high) == pytest.approx(sum(pairs) / len(pairs))


def test_lower_losses_on_training_images_are_a_leak() -> None:
    low, high = torch.arange(4.0), torch.arange(4.0) + 10
    found = leak_of([(low, RIGHT), (low, RIGHT)], [(high, WRONG), (high, RIGHT)])
    assert found is not None
    assert (found.auc, found.gap, found.images, found.temperature) == (1.0, 50.0, 4, 1.0)


def test_both_kinds_are_cut_to_equal_numbers() -> None:
    found = leak_of([(torch.zeros(2), RIGHT[:2])], [(torch.zeros(4), RIGHT)])
    assert found is not None
    assert (found.auc, found.gap, found.images) == (0.5, 0.0, 2)


def test_nothing_is_said_of_students_of_all_training_images_or_of_broken_ones() -> None:
    assert leak_of([(torch.zeros(0), RIGHT[:0])], [(torch.zeros(4), RIGHT)]) is None
    assert leak_of([(torch.full((4,), math.nan), RIGHT)], [(torch.zeros(4), RIGHT)]) is None
