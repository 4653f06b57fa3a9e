"""The epoch of a teacher, chosen by students on training images that are held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError
from dsdistill.evaluation.config import RealData
from dsdistill.pipeline import stopping
from dsdistill.pipeline.label import label
from dsdistill.pipeline.stopping import candidates
from dsdistill.storage import set_file
from tests.helpers.callbacks import Told

PROTOCOL = """
title = "brief"
source = "a test"
epochs = 3
lr = 0.01
schedule = "steps"
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that stores four epochs, with the initial weights, and states its accuracies."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.h5"
    options = {"count": 1, "keep": "all", "test": "stored", "lr": 0.05, "batch_size": 128}
    dsdistill.train_experts(
        path, dataset="digits", recipe="mtt", network="convnet2-w8", epochs=3, options=options
    )
    return path


@pytest.fixture
def brief(tmp_path: Path) -> Path:
    path = tmp_path / "brief.toml"
    path.write_text(PROTOCOL)
    return path


def test_candidates_are_stored_epochs_closer_together_where_it_is_early() -> None:
    assert candidates(range(5), 8) == [1, 2, 3, 4]
    assert candidates(range(0, 101), 5) == [1, 3, 10, 32, 100]
    assert candidates([0, 10, 20, 400], 3) == [10, 20, 400]
    assert candidates([0], 3) == [0]


def test_the_best_epoch_labels_the_set(
    finished: Path, teacher: Path, brief: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    output = tmp_path / "early.h5"
    options: dict[str, Any] = {"protocol": brief, "network": "convnet2-w8", "callbacks": [told]}
    summary = label(finished, output, teachers=teacher, stop="auto", **options)
    assert [point.epoch for point in summary.curve] == [1, 2, 3]
    assert not any("--teacher" in sentence for sentence in caplog.messages)  # advice for an evaluation
    assert all(0 < point.accuracy < 100 for point in summary.curve)
    experts = dsdistill.ExpertFile.open(teacher)
    assert [point.teacher for point in summary.curve] == [experts.test_accuracy(0, e) for e in (1, 2, 3)]
    best = max(summary.curve, key=lambda point: (point.accuracy, -point.epoch))
    attributes = set_file.read(output).attributes
    assert attributes["teacher_epochs"] == str(best.epoch)
    stored = json.loads(str(attributes["stop_curve"]))
    assert [each["accuracy"] for each in stored] == [point.accuracy for point in summary.curve]
    assert [name for name, _ in summary.rows()].count("stop") == 3
    again = label(finished, tmp_path / "same.h5", teachers=f"{teacher}@{best.epoch}")
    assert again.agreement == summary.agreement
    same, chosen = set_file.read(tmp_path / "same.h5"), set_file.read(output)
    assert same.soft_labels is not None
    assert chosen.soft_labels is not None
    assert torch.equal(same.soft_labels, chosen.soft_labels)


def test_students_are_tested_on_training_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(name="digits")
    task, train = catalog.load(config, "train")
    data = stopping._held_out(RealData(task, train, catalog.read(config, "test")), seed=0)
    assert len(data.test) == len(train) // 5
    known = {each.numpy().tobytes() for each in train.images}
    assert all(each.numpy().tobytes() in known for each in data.test.images)


@pytest.mark.parametrize(
    ("teachers", "stop", "sentence"),
    [
        ("{0},{0}", "auto", "an epoch is chosen for one teacher"),
        ("{0}@2", "auto", "names an epoch, which stop auto chooses"),
        ("{0}#all", "auto", "an epoch is chosen for one expert of a file"),
        ("{0}", "soon", "stop is auto, not 'soon'"),
    ],
)
def test_bad_input_is_one_sentence(
    finished: Path, teacher: Path, tmp_path: Path, teachers: str, stop: Any, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        label(finished, tmp_path / "out.h5", teachers=teachers.format(teacher), stop=stop)
    assert not (tmp_path / "out.h5").exists()
