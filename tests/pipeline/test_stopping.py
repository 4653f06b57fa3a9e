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
from dsdistill.data.selection import validation_split
from dsdistill.errors import UserError
from dsdistill.evaluation.config import RealData
from dsdistill.labelling.summary import LabelSummary
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


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that stores two epochs, and that a tenth of the training images was held out of."""
    path = tmp_path_factory.mktemp("apart") / "apart.h5"
    options = {"count": 1, "keep": "ends", "test": "validation"}
    dsdistill.train_experts(
        path, dataset="digits", recipe="mtt", network="convnet2-w6", epochs=1, options=options
    )
    return path


def choice_of(
    teacher: Path, finished: Path, output: Path, brief: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[list[RealData], str, LabelSummary]:
    """Return the data of each evaluation by which an epoch is chosen, the closing notice, and the summary."""
    seen: list[RealData] = []
    notices: list[str] = []
    evaluate = stopping.evaluate_set

    def note(dataset: Any, data: RealData, *rest: Any, **more: Any) -> Any:
        seen.append(data)
        return evaluate(dataset, data, *rest, **more)

    monkeypatch.setattr(stopping, "evaluate_set", note)
    options |= {"protocol": brief, "network": "convnet2-w6", "callbacks": [Told(notify=notices.append)]}
    summary = label(finished, output, teachers=teacher, stop="auto", **options)
    (sentence,) = [each for each in notices if "epochs tried" in each]
    return seen, sentence, summary


def test_students_are_tested_on_what_the_teacher_held_out(
    finished: Path, apart: Path, brief: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, sentence, summary = choice_of(apart, finished, tmp_path / "early.h5", brief, monkeypatch, seed=3)
    train = catalog.load(DataConfig(name="digits"), "train")[1]
    held_out = train.part(validation_split(train)[1])
    for data in seen:
        assert torch.equal(data.test.images, held_out.images)
        assert torch.equal(data.test.labels, held_out.labels)
    assert f"% on {len(held_out)} training images that the teacher held out, protocol brief" in sentence
    (point,) = summary.curve
    assert (point.teacher, point.validation) == (
        None,
        dsdistill.ExpertFile.open(apart).validation_accuracy(0, 1),
    )
    assert point.sentence.endswith("% (held out)")


def test_students_are_tested_on_training_images_alone(
    finished: Path, teacher: Path, brief: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "CANDIDATES", 2)
    seen, sentence, _ = choice_of(teacher, finished, tmp_path / "early.h5", brief, monkeypatch)
    train = catalog.load(DataConfig(name="digits"), "train")[1]
    known = {each.numpy().tobytes() for each in train.images}
    for data in seen:
        assert len(data.test) == len(train) // 5
        assert all(each.numpy().tobytes() in known for each in data.test.images)
    assert "of the students, but not of the teacher, which was trained on them (dsdistill experts" in sentence


def test_images_held_out_of_other_data_are_not_looked_for(apart: Path) -> None:
    config = DataConfig(name="digits")
    task, train = catalog.load(config, "train")
    other = train.part(torch.arange(1000))
    rows, words = stopping._held_out(RealData(task, other, other), dsdistill.ExpertFile.open(apart), 0)
    assert len(rows) == 200
    assert "which was trained on them" in words


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
