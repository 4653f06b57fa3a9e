"""A newcomer follows a run, stops it early, and writes it for TensorBoard; by public names only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill

QUICK: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": "convnet2-w8"}


class EarlyStopping(dsdistill.Callback):
    """Stops once the loss has not fallen for some iterations."""

    def __init__(self, patience: int) -> None:
        self.patience, self.best, self.since = patience, float("inf"), 0

    def on_iteration(self, entry: dict[str, Any], set: Callable[[], dsdistill.DistilledSet]) -> None:
        self.since = 0 if entry["loss"] < self.best else self.since + 1
        self.best = min(self.best, entry["loss"])
        if self.since >= self.patience:
            raise dsdistill.StopRun(f"no better loss for {self.patience} iterations")


def test_early_stopping(tmp_path: Path) -> None:
    summary = dsdistill.distill(
        tmp_path / "set.h5", **QUICK, iterations=1000, callbacks=[EarlyStopping(patience=2)]
    )
    assert 2 < summary.iterations < 1000
    assert len(dsdistill.load(tmp_path / "set.h5")) == 10
    assert int(dsdistill.load(tmp_path / "set.h5").attributes["iterations"]) == summary.iterations


class Watch(dsdistill.Callback):
    """Looks at the images now and then."""

    def __init__(self) -> None:
        self.moved: list[float] = []
        self.last: torch.Tensor | None = None

    def on_iteration(self, entry: dict[str, Any], set: Callable[[], dsdistill.DistilledSet]) -> None:
        if entry["iteration"] % 5 == 0:
            images = set().images
            if self.last is not None:
                self.moved.append(float((images - self.last).abs().mean()))
            self.last = images


def test_images_are_watched_while_they_move(tmp_path: Path) -> None:
    watch = Watch()
    dsdistill.distill(tmp_path / "set.h5", **QUICK, iterations=20, callbacks=[watch])
    assert len(watch.moved) == 3
    assert min(watch.moved) > 0


def test_a_one_liner_and_a_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses: list[float] = []
    dsdistill.distill(
        tmp_path / "set.h5",
        **QUICK,
        iterations=5,
        callbacks=[lambda entry: losses.append(entry["loss"]), dsdistill.ProgressBar()],
    )
    assert len(losses) == 5
    assert "5/5" in capsys.readouterr().err


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses: list[float] = []
    dsdistill.distill(
        tmp_path / "set.h5",
        **QUICK,
        iterations=5,
        callbacks=[
            dsdistill.loggers.TensorBoard(tmp_path / "runs"),
            lambda entry: losses.append(entry["loss"]),
        ],
    )
    events = EventAccumulator(str(tmp_path / "runs" / "distillation"))
    events.Reload()
    shown = events.Scalars("loss")
    assert [event.step for event in shown] == [1, 2, 3, 4, 5]
    assert [event.value for event in shown] == pytest.approx(losses)
    assert events.Images("set")[-1].step == 5


class Unreachable(dsdistill.Callback):
    """Cannot let go of what it opened."""

    def on_close(self) -> None:
        raise ConnectionError("no answer")


def test_the_reason_of_a_failure_is_not_hidden_by_what_fails_after_it(tmp_path: Path) -> None:
    with pytest.raises(dsdistill.UserError, match="unknown data set"):
        dsdistill.distill(tmp_path / "set.h5", dataset="nosuchdata", ipc=1, callbacks=[Unreachable()])


def test_sets_and_reports_show_themselves_in_a_notebook(tmp_path: Path) -> None:
    dsdistill.distill(tmp_path / "set.h5", **QUICK, iterations=3)
    assert dsdistill.load(tmp_path / "set.h5")._repr_html_().startswith("<figure")
    report = dsdistill.evaluate(tmp_path / "set.h5", epochs=1, repeats=2)
    assert "<td>random</td>" in report._repr_html_()


def test_a_report_as_a_data_frame(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    dsdistill.distill(tmp_path / "set.h5", **QUICK, iterations=3)
    report = dsdistill.evaluate(tmp_path / "set.h5", epochs=1, repeats=2)
    frame = report.to_frame()
    assert list(frame["set"]) == ["distilled", "random"]
    assert list(frame["mean"]) == [row.mean for row in report.rows]


class Starts(dsdistill.Callback):
    """Keeps what a run begins with, as a notebook shows it."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def on_start(self, start: Any) -> None:
        self.shown.append(repr(start))


def test_objects_say_what_they_are_in_one_line(tmp_path: Path) -> None:
    starts = Starts()
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
    pets = dsdistill.ImageData((images, labels), classes=("cat", "dog"), name="pets")
    assert repr(pets) == (
        "<ImageData pets: train (Tensor 40x1x8x8, Tensor 40), test held out of train, 2 classes>"
    )
    assert repr(dsdistill.ImageData([(images[0], 0)])) == (
        "<ImageData: train list of 1, test held out of train>"
    )
    quick: dict[str, Any] = QUICK | {"dataset": pets, "iterations": 1}
    dsdistill.distill(tmp_path / "set.h5", **quick, callbacks=[starts])
    assert repr(dsdistill.load(tmp_path / "set.h5")) == (
        "<DistilledDataset: dm, memory:pets, 2 images of 1x8x8, 2 classes, in network space, hard labels>"
    )
    experts = dsdistill.train_experts(
        tmp_path / "e.h5", dataset=pets, recipe="ncfm", network="mlp", count=1, epochs=1, callbacks=[starts]
    )
    assert repr(experts).endswith("e.h5: 1 of mlp for memory:pets, epochs 0 to 1>")
    dsdistill.evaluate(
        tmp_path / "set.h5", dataset=pets, epochs=1, repeats=1, baselines="", callbacks=[starts]
    )
    kinds = ["<RunStart ", "<TrainingStart ", "<EvaluationStart "]
    assert [line[: len(kind)] for line, kind in zip(starts.shown, kinds, strict=True)] == kinds
    assert all("\n" not in line and len(line) < 600 for line in starts.shown)


def test_the_writers_are_listed() -> None:
    assert dir(dsdistill.loggers) == ["MLflow", "TensorBoard", "WandB"]
