"""Transfer: pre-training on targets, then other data; rows, resuming, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dsdistill
from dsdistill import UserError
from dsdistill.config.transfer import TransferConfig
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.evaluation import transfer
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.execution import Execution
from dsdistill.evaluation.pretraining import PretrainingSet, Taught, plan_sets
from dsdistill.evaluation.rows import Row, read_row
from dsdistill.evaluation.step_counter import StepCounter
from dsdistill.evaluation.transfer import Plan, Students
from dsdistill.evaluation.tuning import DownstreamData, Tuning
from dsdistill.networks import Network, build_network
from dsdistill.protocol import Protocol, load_protocol
from dsdistill.runtime.callbacks import Observer
from dsdistill.storage import set_file, set_results
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.teachers import load_teachers
from dsdistill.teachers.reference import TeacherReference
from tests.helpers.callbacks import Told
from tests.helpers.data import class_folders
from tests.helpers.storage import make
from tests.helpers.transfer import FIVE, transferred, write_pretraining_set


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_pretraining_set(tmp_path / "set.h5")


def by_set(rows: list[Row]) -> dict[str, list[float]]:
    return {row.set: row.values for row in rows}


def test_pretraining_beats_scratch_with_five_labels_a_class_and_is_deterministic(file: Path) -> None:
    report = transferred(file)
    rows = report.rows
    assert [(row.set, row.images, row.epochs, row.regime) for row in rows] == [
        ("distilled", 100, 20, "HL"),
        ("scratch", 0, 0, "HL"),
    ]
    assert rows[0].mean > rows[1].mean + 5
    assert rows[0].transfer == rows[1].transfer
    assert rows[0].transfer is not None
    assert (rows[0].transfer.dataset, rows[0].transfer.labels) == ("digits", 50)
    assert rows[0].values[0] != rows[0].values[1]
    again, other = (transferred(file, save=False, seed=seed, repeats=1).rows for seed in (0, 1))
    assert [row.values for row in again] == [row.values[:1] for row in rows]
    assert by_set(other) != by_set(again)
    assert (report.dataset, report.protocol, report.labels) == ("digits", "krr-st", "targets")


def test_a_probe_leaves_the_features_as_they_are(file: Path) -> None:
    rows = transferred(file, tuning="probe", fractions="0.037,1").rows
    accuracies = {(row.set, row.transfer.fraction): row.mean for row in rows if row.transfer}
    assert set(accuracies) == {(name, share) for name in ("distilled", "scratch") for share in (FIVE, 1.0)}
    assert accuracies["distilled", FIVE] > accuracies["scratch", FIVE]
    assert accuracies["scratch", 1.0] > accuracies["scratch", FIVE]
    assert all(row.transfer and row.transfer.tuning == "probe" for row in rows)


def test_rows_are_stored_told_and_reused(file: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 2, "steps": 2, "repeats": 1}
    report = transferred(file, **options, json=tmp_path / "report.json")
    stored = set_results.results(file)
    assert [(row["set"], row["transfer"]["dataset"]) for row in stored] == [
        ("distilled", "digits"),
        ("scratch", "digits"),
    ]
    written = json.loads((tmp_path / "report.json").read_text())
    assert [row["transfer"]["fraction"] for row in written["rows"]] == [FIVE, FIVE]
    assert "→ digits, 3.7 % of the labels (50), fine-tune" in report._repr_html_()
    assert report.scores() == {}
    trained: list[str] = []
    again = transferred(
        file, **options, fractions=[1, FIVE], resume=True, callbacks=[lambda row: trained.append(row.set)]
    )
    assert trained == ["distilled", "scratch"]
    shares = [(row.set, row.transfer.fraction) for row in again.rows if row.transfer]
    assert shares == [("distilled", 1.0), ("scratch", 1.0), ("distilled", FIVE), ("scratch", FIVE)]
    assert by_set(again.rows[2:]) == by_set(report.rows)
    assert len(set_results.results(file)) == 4
    for changed, anew in (({"steps": 3}, ["distilled", "scratch"]), ({"epochs": 3}, ["distilled"])):
        trained.clear()
        told = [lambda row: trained.append(row.set)]
        transferred(file, **{**options, **changed}, resume=True, callbacks=told)
        assert trained == anew


def test_rows_of_other_test_images_are_not_reused(file: Path, tmp_path: Path) -> None:
    arrays = {key: np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8) for key in ("x_train", "x_test")}
    labels = {key: np.arange(20) % 2 for key in ("y_train", "y_test")}
    options: dict[str, Any] = {"transfer": f"npz:{tmp_path / 'a.npz'}", "epochs": 1, "steps": 1, "repeats": 1}
    trained: list[str] = []
    for shift, anew in ((0, ["distilled", "scratch"]), (0, []), (1, ["distilled", "scratch"])):
        np.savez(tmp_path / "a.npz", **{**arrays, **labels, "x_test": arrays["x_test"] + np.uint8(shift)})
        trained.clear()
        transferred(file, **options, resume=True, callbacks=[lambda row: trained.append(row.set)])
        assert trained == anew


def test_rows_of_earlier_versions_are_read(file: Path) -> None:
    """They say nothing of the test images, and gave students from scratch the epochs of pre-training."""
    transferred(file, epochs=2, steps=2, repeats=1)
    stored = set_results.results(file)[1]
    assert stored["set"] == "scratch"
    del stored["transfer"]["test"]
    row = read_row({**stored, "epochs": 1000})
    assert row is not None
    assert row.transfer is not None
    assert (row.epochs, row.transfer.test) == (0, "")


def test_data_are_brought_to_the_shape_of_the_set(file: Path, tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pets", per_class=10, size=13)
    arrays = np.random.default_rng(0).integers(0, 256, (30, 9, 9), dtype=np.uint8)
    data = [f"folder:{folder}", (arrays, np.arange(30) % 3)]
    rows = transferred(file, transfer=data, fractions=None, epochs=1, steps=2, repeats=1).rows
    found = [(row.set, row.transfer.dataset, row.transfer.labels) for row in rows if row.transfer]
    assert found == [
        ("distilled", "folder:pets", 16),
        ("scratch", "folder:pets", 16),
        ("distilled", "memory:arrays", 24),
        ("scratch", "memory:arrays", 24),
    ]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.h5"
    words = ["twins.projector=[8]", "data.unlabelled=true", "compute.compile=false", "lr=1e-3"]
    options = {"dataset": "digits", "recipe": "barlow-twins", "network": "convnet2-w6-batch", "epochs": 1}
    dsdistill.train_experts(path, **options, overrides=words, device="cpu")
    return path


def test_baselines_have_the_targets_of_the_teacher(file: Path, teacher: Path) -> None:
    options: dict[str, Any] = {"epochs": 2, "steps": 2, "repeats": 2, "teacher": str(teacher)}
    report = transferred(file, **options)
    assert [(row.set, row.images, row.epochs) for row in report.rows] == [
        ("distilled", 100, 2),
        ("scratch", 0, 0),
        ("random+targets", 100, 2),
        ("k-means+targets", 100, 2),
        ("full+targets", 1347, 2),
    ]
    assert report.teacher is not None
    assert report.teacher.endswith("of teacher.h5")


def test_random_images_are_drawn_anew_and_all_have_the_features_of_the_teacher(teacher: Path) -> None:
    cpu = torch.device("cpu")
    task, real = catalog.load(DataConfig(name="digits", unlabelled=True), "train")
    (known,) = load_teachers([TeacherReference(str(teacher))], task, real.fingerprint, cpu)
    stored = make(2, 2, 1, targets=torch.ones(4, 3))
    names = ["random+targets", "k-means+targets", "full+targets"]
    protocol = load_protocol("krr-st")
    sets = plan_sets(DistilledDataset(stored), names, Taught(task, real, known), protocol, 0, cpu)
    random, centres, full = (each.source for each in sets[1:])
    assert random is not None
    assert centres is not None
    assert full is not None
    network = build_network("convnet2-w6-batch", 1, 8, 1).eval()
    file = ExpertFile.open(teacher)
    network.load_state_dict(file.state(0, file.epochs[-1]))
    images = task.preprocess(real.unit(slice(None)))
    for source in (random, centres, full):
        made = source(0)
        assert made.logits is not None
        with torch.no_grad():
            torch.testing.assert_close(made.logits, network.embed(made.images), rtol=1e-4, atol=1e-5)
        distances = torch.cdist(made.images.flatten(1), images.flatten(1)).amin(1)
        assert distances.max() < 0.05  # squared distances are rounded
    assert len(random(0)) == len(centres(0)) == 4
    assert not torch.equal(random(0).images, random(1).images)
    assert torch.equal(centres(0).images, centres(1).images)
    assert torch.equal(full(1).images, images)


def test_a_stopped_evaluation_keeps_its_rows(file: Path) -> None:
    def stop(row: Row) -> None:
        raise dsdistill.StopRun("enough")

    notices: list[str] = []
    options = {"epochs": 2, "steps": 2, "repeats": 1}
    report = transferred(file, **options, callbacks=[stop, Told(notify=notices.append)])
    assert [row.set for row in report.rows] == ["distilled"]
    assert any("stopped by a callback with 1 of 2 rows: enough" in each for each in notices)
    assert len(set_results.results(file)) == 1


def test_an_estimate_trains_nobody(file: Path) -> None:
    options = {"transfer": "digits", "epochs": 1000, "steps": 10_000, "repeats": 3}
    estimate = dsdistill.dry_run(dsdistill.evaluate, file, **options)
    assert (estimate.amount, estimate.work) == (3 * (1000 + 2 * 10_000), "steps of students")
    assert estimate.seconds > 10
    assert set_results.results(file) == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock by which pre-training, a step, a probe and a test take seconds for each of their images."""
    clock = SimpleNamespace(now=0.0, steps=[])

    def take(seconds: float) -> None:
        clock.now += seconds

    def teach(self: Tuning, network: Network, data: DownstreamData, *_: object) -> Callable[[Tensor], None]:
        probes, labels = self.config.tuning == "probe", int(data.counts.sum())
        take(3 * labels if probes else self.config.steps * 5 * min(self.config.batch_size, labels))
        clock.steps.append(labels if probes else self.config.steps)
        return lambda images: take(7 * len(images))

    def pretrain(
        self: Students, network: Network, images: TrainingSet, protocol: Protocol, *_: object
    ) -> None:
        take(2 * protocol.epochs * len(images))

    monkeypatch.setattr(transfer, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(Tuning, "teach", teach)
    monkeypatch.setattr(Students, "pretrain", pretrain)
    return clock


@pytest.mark.parametrize(("tuning", "taught"), [("fine-tune", (20, 256)), ("probe", (20, 1347))])
def test_an_estimate_is_of_each_data_set_and_each_share_of_its_labels(
    file: Path, clock: SimpleNamespace, tmp_path: Path, tuning: str, taught: tuple[int, int]
) -> None:
    two = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8), np.arange(100) % 2
    options: dict[str, Any] = {"transfer": ["digits", two], "fractions": "0.0149,1", "baselines": "scratch"}
    estimate = dsdistill.dry_run(
        dsdistill.evaluate, file, **options, tuning=tuning, epochs=50, steps=40, repeats=2, device="cpu"
    )
    few, all_labels = taught
    images = few + all_labels + 2 + 80  # of digits, and of two classes
    teaching = 3 * images if tuning == "probe" else 40 * 5 * images
    testing = 7 * 2 * (450 + 20)
    assert estimate.seconds == pytest.approx(2 * (2 * 50 * 100 + 2 * (teaching + testing)), rel=1e-3)
    assert max(clock.steps) <= (520 if tuning == "probe" else 3)


@pytest.mark.parametrize("network", ["resnetap10-w4-batch", "convnet2-w4", "wideconvnet2-w4-none"])
def test_students_begin_with_the_same_features_on_every_set(file: Path, network: str) -> None:
    """Also where a network draws its classifier before its features, whose weights then depend on both."""
    plan = Plan([network], plan_of(file), [], Tuning(TransferConfig(), Execution(), 0), 1, 8)
    students = [Students(plan, network, each, StepCounter(Observer(()), 0), []) for each in plan.sets]
    built = [each.build(outputs, 1) for each in students for outputs in (10, 3)]
    assert [each.eval()(torch.zeros(1, 1, 8, 8)).shape[1] for each in built] == [10, 3, 10, 3]
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for each in built[1:]:
        assert torch.equal(each.embed(images), built[0].embed(images))
    assert not torch.equal(students[0].build(10, 0).eval().embed(images), built[0].embed(images))


def plan_of(file: Path) -> list[PretrainingSet]:
    """Return the sets of a transfer without a teacher: the distilled one, and none."""
    names, cpu = ["scratch"], torch.device("cpu")
    return plan_sets(dsdistill.load(file), names, None, load_protocol("krr-st"), 0, cpu)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transfer": None}, "pre-training alone tells nothing: name data to learn then, such as --transfer"),
        ({"transfer": " , "}, "pre-training alone tells nothing"),
        ({"transfer": "digts"}, "unknown data set 'digts'.*did you mean 'digits'"),
        ({"fractions": "0.1,two"}, "fractions of labels are numbers, such as 0.01,0.1,1, not '0.1,two'"),
        ({"fractions": [0.0]}, "fractions of labels lie above 0 and up to 1"),
        ({"fractions": "1.5"}, "fractions of labels lie above 0 and up to 1"),
        ({"tuning": "freeze"}, "tuning.*'freeze'"),
        ({"steps": 0}, "steps.*0"),
        ({"baselines": "random"}, "unknown baseline of pre-training 'random'"),
        ({"baselines": "random.targets"}, "did you mean 'random.targets'|unknown baseline of pre-training"),
        ({"baselines": "random+targets"}, "has targets of a teacher: name the set's by --teacher FILE"),
        ({"labels": "hard"}, "protocol 'krr-st' pre-trains on targets: leave --labels out"),
        ({"leak": True}, "leave --leak out"),
        ({"teacher": "a.h5,b.h5"}, "targets are the features of one network"),
        ({"protocol": "dm"}, "protocol 'dm' has no transfer that --transfer is of: pass --protocol krr-st"),
        ({"protocol": "dm", "transfer": None, "fractions": None, "steps": 3}, "that --steps is of"),
    ],
)
def test_refusals(file: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        transferred(file, **options)
    assert "\n" not in str(caught.value)
    assert set_results.results(file) == []


def test_data_without_labels_cannot_be_learned(file: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "bare.npz", images=np.zeros((9, 8, 8), np.uint8))
    with pytest.raises(
        UserError, match="has no labels, and students learn its classes; take data with labels"
    ):
        transferred(file, transfer=f"npz:{tmp_path / 'bare.npz'}")


def test_a_set_without_targets_is_refused(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", make())
    with pytest.raises(
        UserError, match="protocol 'krr-st' pre-trains students on targets, and the set has none"
    ):
        transferred(tmp_path / "set.h5", protocol="krr-st")
