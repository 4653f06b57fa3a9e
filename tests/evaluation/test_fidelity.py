"""Fidelity to a teacher and disagreement of students, against plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from dsdistill.evaluation.fidelity import FidelitySums, disagreement

COUNT, CLASSES = 60, 4


def drawn(seed: int) -> Tensor:
    return 2 * torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(COUNT) % CLASSES
TEACHER, STUDENTS = drawn(0), torch.stack([drawn(1), drawn(0) + 0.1 * drawn(2)])


def test_fidelity_is_the_mean_over_students_in_chunks() -> None:
    sums = FidelitySums.zeros(2)
    for rows in torch.arange(COUNT).split(25):
        sums.add(STUDENTS[:, rows], TEACHER[rows], LABELS[rows])
    found = sums.fidelity("a teacher")
    assert found is not None
    same, on_errors, divergence = 0, 0, 0.0
    errors = int((TEACHER.argmax(1) != LABELS).sum())
    for student, row in itertools.product(range(2), range(COUNT)):
        answer, own = int(TEACHER[row].argmax()), int(STUDENTS[student, row].argmax())
        same += answer == own
        on_errors += answer == own and answer != LABELS[row]
        p, q = (each[row].double().softmax(0).tolist() for each in (TEACHER, STUDENTS[student]))
        divergence += sum(one * math.log(one / other) for one, other in zip(p, q, strict=True))
    assert found.agreement == pytest.approx(100 * same / (2 * COUNT))
    assert found.errors == errors
    assert found.agreement_on_errors == pytest.approx(100 * on_errors / (2 * errors))
    assert found.divergence == pytest.approx(divergence / (2 * COUNT), rel=1e-5)
    assert found.teacher == "a teacher"


def test_a_copy_of_the_teacher_agrees_everywhere() -> None:
    sums = FidelitySums.zeros(1)
    sums.add(TEACHER[None], TEACHER, TEACHER.argmax(1))
    found = sums.fidelity("a teacher")
    assert found is not None
    assert (found.agreement, found.errors, found.agreement_on_errors) == (100, 0, None)
    assert found.divergence == pytest.approx(0, abs=1e-6)


def test_disagreement_is_the_mean_over_all_pairs() -> None:
    draws = torch.Generator().manual_seed(3)
    predictions = torch.randint(0, 3, (5, 40), generator=draws).int()
    pairs = list(itertools.combinations(predictions, 2))
    expected = sum((one != other).double().mean().item() for one, other in pairs) / len(pairs)
    assert disagreement(predictions) == pytest.approx(100 * expected)
    assert disagreement(predictions[:1]) is None
