"""A newcomer follows a run, stops it early, and writes it for TensorBoard; by public names only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from tests.helpers.writers import events

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
    writer = dsdistill.loggers.TensorBoard(tmp_path / "runs")
    losses: list[float] = []
    watch = [writer, lambda entry: losses.append(entry["loss"])]
    dsdistill.distill(tmp_path / "set.h5", **QUICK, iterations=5, callbacks=watch)
    shown = events(tmp_path / "runs")
    assert [event.value for event in shown.Scalars("loss")] == [pytest.approx(loss) for loss in losses]
    assert [event.step for event in shown.Images("set")][-1] == 5


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
