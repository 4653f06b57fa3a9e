"""A newcomer trains teachers of two architectures, and picks an early epoch of one; by public names only."""

from __future__ import annotations

from pathlib import Path

import dsdistill


def test_teachers_of_two_architectures(tmp_path: Path) -> None:
    for network in ("convnet2-w8-batch", "mlp"):
        teacher = dsdistill.train_experts(
            tmp_path / f"{network}.h5", dataset="digits", recipe="teacher", network=network, epochs=5
        )
        assert teacher.epochs == (0, 1, 2, 4, 5)
        accuracies = [teacher.test_accuracy(expert=0, epoch=epoch) for epoch in teacher.epochs]
        assert accuracies[0] < 0.3
        assert accuracies[-1] > 0.6
        assert teacher.metadata.classes == tuple("0123456789")


def test_a_teacher_that_stops_early(tmp_path: Path) -> None:
    teacher = dsdistill.train_experts(
        tmp_path / "early.h5",
        dataset="digits",
        recipe="early-teacher",
        network="convnet2-w8",
        epochs=6,
        options={"optimiser": "adamw", "schedule": "cosine", "label_smoothing": 0.1},
    )
    early = next(epoch for epoch in teacher.epochs if teacher.test_accuracy(0, epoch) > 0.3)
    assert 0 < early < 6
    assert teacher.state(0, early)["classifier.weight"].shape[0] == 10
