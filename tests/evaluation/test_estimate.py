"""The estimate of an evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dsdistill.evaluation import evaluate
from dsdistill.evaluation.config import EvaluationConfig
from dsdistill.evaluation.ensembles import Ensembles
from dsdistill.evaluation.estimate import Timer, estimate
from dsdistill.evaluation.exam import Exam
from dsdistill.evaluation.execution import CPU, Execution
from dsdistill.evaluation.plan import plan_rows, plan_sets
from dsdistill.networks import build_network
from dsdistill.runtime.callbacks import Observer
from dsdistill.runtime.pace import PaceMeter
from tests.helpers.callbacks import Told
from tests.helpers.evaluation import (
    CLASSES,
    NETWORK,
    PREPROCESS,
    SIZE,
    distilled,
    evaluated,
    real_data,
    tiny,
)


def test_long_evaluations_are_estimated_and_short_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "WORTHWHILE", 20)
    for epochs, count in ((8, 0), (9, 1)):
        seen: list[Any] = []
        observer = Observer([Told(estimated=seen.append)])
        evaluated(tiny(epochs=epochs, repeats=1, batch_size=16), observer=observer)
        assert len(seen) == count
    assert seen[0].amount == 20  # two sets, one epoch more than the protocol names
    assert seen[0].seconds > 0


def test_an_estimate_changes_no_student(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = tiny(epochs=3, repeats=2)
    before = torch.get_rng_state()
    plain = evaluated(protocol, [NETWORK, "convnet2-w4-batch"])
    monkeypatch.setattr(evaluate, "WORTHWHILE", 0)
    rows = evaluated(protocol, [NETWORK, "convnet2-w4-batch"])
    assert [row.values for row in rows] == [row.values for row in plain]
    assert torch.equal(torch.get_rng_state(), before)


def test_seconds_are_those_of_steps_and_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three students of 4 + 1 epochs: 9 images are a batch an epoch, the 90 of full take 6 batches of 16."""
    monkeypatch.setattr(PaceMeter, "step", 2.0)
    monkeypatch.setattr("dsdistill.evaluation.estimate.seconds_of_testing", lambda *_: (5.0, 7.0))
    protocol, data = tiny(epochs=4, repeats=3, batch_size=16), real_data()
    sets = plan_sets(distilled(), data, protocol, EvaluationConfig(baselines=["random", "full"]))
    rows = plan_rows(["mlp"], sets, [])
    exam = Exam(data, PREPROCESS, CPU)
    monkeypatch.setattr(Exam, "chunks", exam.test_images.chunks)  # or validation images count too
    timer = Timer(
        lambda repeat: build_network("mlp", 1, SIZE, CLASSES),
        False,
        Ensembles(Execution()),
        exam,
        distilled(),
        mirror=False,
        lr=0.01,
    )
    full = sets[2].protocol.steps(90)
    found = estimate(rows, {"mlp": timer}, choosing=10, data=1000)
    assert found.seconds == 3 * (2 * (5 * 2.0 + 7.0) + full * 2.0 + 7.0) + 10 * 2.0
    assert found.amount == 3 * (5 + 5 + full) + 10
    assert found.memory_bytes is not None
    assert found.memory_bytes > 1000
    assert len(timer._known) == 2  # batches of 9 and of 16
