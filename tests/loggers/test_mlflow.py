"""Runs of MLflow, on a stand-in for the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dsdistill
from dsdistill.errors import UserError
from tests.conftest import THREADS, TINY
from tests.helpers.writers import Mlflow, stand_in, uninstall


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
    assert mlflow.ended == 1


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
