"""Runs of MLflow, on a stand-in for the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dsdistill
from dsdistill.errors import UserError
from tests.conftest import THREADS, TINY
from tests.helpers.writers import Mlflow, fail, stand_in, uninstall


def test_a_run_has_params_metrics_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = Mlflow()
    stand_in(monkeypatch, mlflow)
    writer = dsdistill.loggers.MLflow("mine")
    options: dict[str, Any] = TINY | {"overrides": [THREADS], "device": "cpu"}
    dsdistill.distill(tmp_path / "set.h5", **options, callbacks=[writer])
    assert mlflow.experiments == ["mine"]
    assert mlflow.params["data.name"] == "digits"
    assert [step for key, _, step in mlflow.metrics if key == "loss"] == [1, 2, 3]
    assert mlflow.images[-1] == "set-000000003.png"
    assert mlflow.names == ["dm digits IPC 1 (distillation)"]
    assert mlflow.ended == ["FINISHED"]


def test_a_failed_run_is_ended_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = Mlflow()
    stand_in(monkeypatch, mlflow)
    callbacks = [dsdistill.loggers.MLflow(), fail]
    with pytest.raises(ZeroDivisionError):
        dsdistill.distill(tmp_path / "set.h5", **TINY, device="cpu", callbacks=callbacks)
    assert [step for key, _, step in mlflow.metrics if key == "loss"] == [1]
    assert mlflow.ended == ["FAILED"]


def opened(monkeypatch: pytest.MonkeyPatch) -> tuple[Mlflow, Any]:
    mlflow = Mlflow()
    stand_in(monkeypatch, mlflow)
    writer = dsdistill.loggers.MLflow()
    writer.open("distillation", "dm", {"ipc": 1}, 1)
    return mlflow, writer


def test_what_was_not_sent_is_sent_later_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow, writer = opened(monkeypatch)
    failed: list[int] = []
    mlflow.refuses = {"metrics"}
    for step in range(1, 1251):
        try:
            writer.write({"loss": 0.5}, step)
        except ConnectionError:
            failed.append(step)
    assert failed == [500, 1000]  # the server is not asked at every step
    mlflow.refuses = set()
    writer.close(failed=False)
    assert [step for _, _, step in mlflow.metrics] == list(range(1, 1251))


def test_a_run_is_ended_though_its_last_numbers_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow, writer = opened(monkeypatch)
    writer.write({"loss": 0.5}, 1)
    mlflow.refuses = {"metrics"}
    with pytest.raises(ConnectionError):
        writer.close(failed=False)
    assert mlflow.ended == ["FINISHED"]


def test_a_run_whose_options_cannot_be_sent_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow, writer = opened(monkeypatch)
    mlflow.refuses = {"params"}
    with pytest.raises(ConnectionError):
        writer.open("distillation", "dm", {"ipc": 1}, 1)
    assert mlflow.ended == ["FAILED"]


def test_names_that_mlflow_refuses_are_changed(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = Mlflow()
    stand_in(monkeypatch, mlflow)
    told: dict[str, Any] = {"epochs": 1, "repeats": 1, "networks": "mlp", "baselines": "random@bytes"}
    dsdistill.evaluate(made, **told, device="cpu", callbacks=[dsdistill.loggers.MLflow()])
    assert [key for key, *_ in mlflow.metrics][2] == "accuracy/mlp/random-bytes"


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall(monkeypatch, "mlflow")
    with pytest.raises(UserError, match=r"^MLflow is not installed: pip install mlflow"):
        dsdistill.loggers.MLflow()
