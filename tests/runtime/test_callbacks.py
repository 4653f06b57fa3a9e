"""Callbacks: what they are told, how they stop a run, and what becomes of their errors."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.errors import UserError
from dsdistill.runtime.callbacks import Callback, Observer
from dsdistill.storage import set_file
from tests.conftest import THREADS, TINY
from tests.helpers.callbacks import Told
from tests.helpers.supply import NETWORK

OVERRIDES = [THREADS, "engine.batch_real=32"]
EIGHT: dict[str, Any] = TINY | {"iterations": 8, "overrides": OVERRIDES, "device": "cpu"}


class Diary(Callback):
    """Writes down the name of every event, in order; progress only once in a row."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.result: Any = None

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            events = self.events
            if name not in events[-1:]:
                events.append(name)
        return super().__getattribute__(name)

    def on_end(self, result: Any) -> None:
        self.result = result


# What is told -----------------------------------------------------------------------------------------------


def test_a_distillation_tells_start_iterations_and_end(tmp_path: Path) -> None:
    diary = Diary()
    summary = dsdistill.distill(tmp_path / "set.h5", **EIGHT, callbacks=[diary])
    assert diary.events == ["on_info", "on_start", "on_iteration", "on_end", "on_close"]
    assert diary.result is summary


def test_a_training_tells_start_epochs_and_end(tmp_path: Path) -> None:
    diary = Diary()
    told: dict[str, Any] = {"dataset": "digits", "recipe": "ncfm", "network": NETWORK, "device": "cpu"}
    experts = dsdistill.train_experts(tmp_path / "e.h5", **told, count=1, epochs=2, callbacks=[diary])
    assert diary.events == ["on_info", "on_start", "on_estimate", "on_epoch", "on_end", "on_close"]
    assert diary.result is experts


def test_an_evaluation_tells_start_progress_rows_and_end(made: Path) -> None:
    diary = Diary()
    report = dsdistill.evaluate(made, epochs=1, repeats=1, device="cpu", callbacks=[diary])
    each = ["on_progress", "on_row"]
    assert diary.events == ["on_start", *each, *each, "on_end", "on_close"]
    assert diary.result is report


def test_a_function_sees_every_entry(tmp_path: Path) -> None:
    entries: list[Any] = []
    output = tmp_path / "set.h5"
    dsdistill.distill(output, **EIGHT, callbacks=[entries.append])
    assert [entry["iteration"] for entry in entries] == list(range(1, 9))
    rows: list[Any] = []
    report = dsdistill.evaluate(output, epochs=1, repeats=1, device="cpu", callbacks=[rows.append])
    assert rows == report.rows


class Sets(Callback):
    """Keeps the set after some iterations."""

    def __init__(self, *iterations: int) -> None:
        self._iterations = iterations
        self.sets: dict[int, dsdistill.DistilledSet] = {}

    def on_iteration(self, entry: dict[str, Any], set: Any) -> None:
        if entry["iteration"] in self._iterations:
            self.sets[entry["iteration"]] = set()


@pytest.mark.parametrize("space", ["network", "unit"])
def test_the_set_of_an_iteration_is_that_of_a_run_of_so_many(tmp_path: Path, space: str) -> None:
    seen = Sets(3, 8)
    told = EIGHT | {"overrides": [*OVERRIDES, f"space={space}", "storage=float32"]}
    dsdistill.distill(tmp_path / "set.h5", **told, callbacks=[seen])
    dsdistill.distill(tmp_path / "short.h5", **told | {"iterations": 3})
    third = seen.sets[3]
    assert torch.equal(third.images, set_file.read(tmp_path / "short.h5").images)  # and it has stayed so
    assert third.attributes["iterations"] == 3
    assert torch.equal(seen.sets[8].images, set_file.read(tmp_path / "set.h5").images)
    assert not torch.equal(third.images, seen.sets[8].images)


def test_a_set_that_nobody_looks_at_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dsdistill.distillation import result

    made: list[int] = []
    distilled_set = result.distilled_set

    def counted(*arguments: Any) -> Any:
        made.append(1)
        return distilled_set(*arguments)

    monkeypatch.setattr(result, "distilled_set", counted)
    dsdistill.distill(tmp_path / "set.h5", **EIGHT, callbacks=[Callback()])
    assert len(made) == 1


def test_notices_and_details_go_to_the_logger(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    notices: list[str] = []
    details: list[str] = []
    listener = Told(notify=notices.append, inform=details.append)
    with caplog.at_level(logging.INFO, logger="dsdistill"):
        dsdistill.distill(tmp_path / "set.h5", **EIGHT, resume=True, callbacks=[listener])
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    informed = [record.message for record in caplog.records if record.levelno == logging.INFO]
    assert warned == notices == [f"there is no run in {tmp_path / 'set.run'} to resume: starting anew"]
    assert set(details) <= set(informed)
    assert any(line.startswith("decided: ") and "compute.device=" not in line for line in informed)
    assert any(line.startswith("digits: ") for line in informed)
    assert {record.name for record in caplog.records} == {"dsdistill"}


def test_nothing_is_printed_unasked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dsdistill.distill(tmp_path / "set.h5", **EIGHT, resume=True)
    assert capfd.readouterr() == ("", "")


# Stopping ---------------------------------------------------------------------------------------------------


def at(iteration: int, error: BaseException) -> Any:
    def stop(entry: Any) -> None:
        if entry["iteration"] == iteration:
            raise error

    return stop


def test_a_stopped_distillation_writes_its_file_and_can_go_on(tmp_path: Path) -> None:
    output, whole, short = (tmp_path / name for name in ("set.h5", "whole.h5", "short.h5"))
    notices: list[str] = []
    others: list[int] = []
    callbacks = [
        at(3, dsdistill.StopRun("enough")),
        lambda entry: others.append(entry["iteration"]),
        Told(notify=notices.append),
    ]
    summary = dsdistill.distill(output, **EIGHT, callbacks=callbacks)
    assert summary.iterations == 3
    assert others == [1, 2, 3]  # callbacks after the one that stops see the iteration too
    assert notices == ["stopped by a callback after 3 iterations: enough; resume=True goes on"]
    stopped = set_file.read(output)
    assert stopped.attributes["iterations"] == 3
    dsdistill.distill(short, **EIGHT | {"iterations": 3})
    assert torch.equal(stopped.images, set_file.read(short).images)

    others.clear()
    assert dsdistill.distill(output, **EIGHT, resume=True, callbacks=[callbacks[1]]).iterations == 8
    assert others == [4, 5, 6, 7, 8]
    dsdistill.distill(whole, **EIGHT)
    assert torch.equal(set_file.read(output).images, set_file.read(whole).images)


def test_an_error_in_a_callback_ends_the_run_after_a_checkpoint(tmp_path: Path) -> None:
    output, steps = tmp_path / "set.h5", list[int]()
    closed = Diary()
    with pytest.raises(ZeroDivisionError):
        dsdistill.distill(output, **EIGHT, callbacks=[at(3, ZeroDivisionError()), closed])
    assert closed.events[-1] == "on_close"
    assert "on_end" not in closed.events
    assert not output.exists()
    dsdistill.distill(
        output, **EIGHT, resume=True, callbacks=[lambda entry: steps.append(entry["iteration"])]
    )
    assert steps == [4, 5, 6, 7, 8]


def test_a_stop_at_the_last_iteration_is_no_stop(tmp_path: Path) -> None:
    notices: list[str] = []
    callbacks = [at(8, dsdistill.StopRun()), Told(notify=notices.append)]
    assert dsdistill.distill(tmp_path / "set.h5", **EIGHT, callbacks=callbacks).iterations == 8
    assert notices == []


def train(output: Path, count: int, **options: Any) -> dsdistill.ExpertFile:
    told: dict[str, Any] = {"dataset": "digits", "recipe": "ncfm", "network": NETWORK, "epochs": 2}
    overrides = [THREADS, "compute.compile=false"]
    return dsdistill.train_experts(output, **told, count=count, device="cpu", overrides=overrides, **options)


def after(done: int) -> Any:
    def stop(entry: dict[str, Any]) -> None:
        if entry["done"] == done:
            raise dsdistill.StopRun("enough")

    return stop


@pytest.mark.parametrize("done", [2, 3])
def test_a_stopped_training_writes_the_finished_experts(tmp_path: Path, done: int) -> None:
    output, epochs = tmp_path / "e.h5", list[int]()
    notices: list[str] = []
    experts = train(output, 2, callbacks=[after(done), Told(notify=notices.append)])
    assert experts.count == 1
    assert notices == ["stopped by a callback with 1 of 2 experts: enough; resume=True goes on"]
    experts.close()
    assert train(output, 2, resume=True, callbacks=[lambda entry: epochs.append(entry["epoch"])]).count == 2
    assert epochs == [1, 2][done - 2 :]
    assert [path.name for path in tmp_path.iterdir()] == ["e.h5"]


def test_a_training_that_is_stopped_before_any_expert_is_finished_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="before the first expert was finished") as caught:
        train(tmp_path / "e.h5", 2, callbacks=[after(1)])
    assert str(caught.value).count("\n") == 0
    assert train(tmp_path / "e.h5", 1, resume=True).count == 1


def test_a_stopped_evaluation_reports_the_finished_rows(made: Path) -> None:
    told: dict[str, Any] = {"epochs": 2, "repeats": 1, "device": "cpu", "baselines": "random,full"}
    notices: list[str] = []

    def in_second(what: str, done: int, total: int) -> None:
        if "random" in what:
            raise dsdistill.StopRun("enough")

    listener = Told(progress=in_second, notify=notices.append)
    report = dsdistill.evaluate(made, **told, callbacks=[listener])
    assert [row.set for row in report.rows] == ["distilled"]
    assert notices[-1] == "stopped by a callback with 1 of 3 rows: enough; resume=True goes on"
    trained: list[Any] = []
    whole = dsdistill.evaluate(made, **told, resume=True, callbacks=[trained.append])
    assert [row.set for row in whole.rows] == ["distilled", "random", "full"]
    assert whole.rows[0] == report.rows[0]
    assert [row.set for row in trained] == ["random", "full"]


# Closing ----------------------------------------------------------------------------------------------------


class Unclosable(Callback):
    """Cannot be closed; keeps that it was asked to."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, False

    def on_close(self) -> None:
        self.asked = True
        raise self.error


def test_every_callback_is_closed_and_the_first_failure_is_told(caplog: pytest.LogCaptureFixture) -> None:
    callbacks = [Unclosable(OSError("disk full")), Unclosable(ValueError("no socket")), Diary()]
    with pytest.raises(OSError, match="disk full"), Observer(callbacks):
        pass
    assert callbacks[1].asked
    assert callbacks[2].events == ["on_close"]
    assert [record.message for record in caplog.records] == ["a callback could not be closed: no socket"]


def test_a_callback_that_cannot_be_closed_does_not_hide_why_the_run_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    callbacks = [Unclosable(OSError("disk full")), Diary()]
    with pytest.raises(UserError, match="the real one"), Observer(callbacks):
        raise UserError("the real one")
    assert callbacks[1].events == ["on_close"]
    assert [record.message for record in caplog.records] == ["a callback could not be closed: disk full"]


# Bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("callbacks", "sentence"),
    [
        ([Diary], r"callbacks has the class Diary: pass an instance, Diary\(\)"),
        ([3], "callbacks has a int: pass instances of dsdistill.Callback, or functions"),
        (Diary(), "callbacks is a list: write callbacks="),
        (print, "callbacks is a list: write callbacks="),
        (None, "callbacks is a list"),
    ],
)
def test_what_is_no_callback_is_refused(tmp_path: Path, callbacks: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Observer(callbacks)
    with pytest.raises(UserError, match=sentence):
        dsdistill.distill(tmp_path / "set.h5", **EIGHT, callbacks=callbacks)
    assert list(tmp_path.iterdir()) == []
