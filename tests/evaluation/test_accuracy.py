"""The accuracy of students on test images."""

from __future__ import annotations

import pytest

from dsdistill.evaluation import accuracy
from dsdistill.evaluation.ensembles import SingleStudent
from dsdistill.evaluation.execution import CPU, Execution
from tests.helpers.evaluation import PREPROCESS, SIZE, fresh, real


def test_the_last_chunk_is_padded_and_counts_no_more_images(monkeypatch: pytest.MonkeyPatch) -> None:
    test, network = real(5, split="test"), fresh(0)
    monkeypatch.setattr(accuracy, "_CHUNK_PIXELS", 4 * SIZE**2)  # chunks 4, 4, 4, 3
    test_images = accuracy.TestImages(test, PREPROCESS, CPU)
    shapes = [(images.shape[0], len(labels)) for images, labels in test_images]
    assert shapes == [(4, 4), (4, 4), (4, 4), (4, 3)]
    predicted = network(PREPROCESS(test.unit(slice(None)))).argmax(1)
    expected = (predicted == test.labels).float().mean().item()
    fractions = accuracy.accuracies(SingleStudent(network, Execution()), test_images, Execution())
    assert fractions == [pytest.approx(expected)]
