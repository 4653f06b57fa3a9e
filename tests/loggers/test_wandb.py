"""Runs of Weights & Biases, on a stand-in for the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dsdistill
from dsdistill.errors import UserError
from tests.conftest import THREADS, TINY
from tests.helpers.writers import Wandb, fail, stand_in, uninstall


def test_a_run_is_begun_logged_and_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Wandb()
    stand_in(monkeypatch, wandb)
    writer = dsdistill.loggers.WandB("mine", tags=["first"])
    options: dict[str, Any] = TINY | {"overrides": [THREADS], "device": "cpu"}
    dsdistill.distill(tmp_path / "set.h5", **options, callbacks=[writer])
    (begun,) = wandb.begun
    assert (begun["project"], begun["tags"], begun["name"]) == ("mine", ["first"], "dm digits IPC 1")
    assert begun["config"]["data.name"] == "digits"
    numbers = [(values.keys(), step) for values, step in wandb.logged if "set" not in values]
    assert numbers == [({"loss", "mean", "seconds"}, step) for step in (1, 2, 3)]
    pictures = [(values["set"].pixels.shape[-1], step) for values, step in wandb.logged if "set" in values]
    assert pictures == [(3, 1), (3, 2), (3, 3), (3, 3)]
    assert begun["job_type"] == "distillation"
    assert wandb.finished == [0]


def test_a_name_tells_the_stage_and_a_failed_run_is_finished_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Wandb()
    stand_in(monkeypatch, wandb)
    callbacks = [dsdistill.loggers.WandB(name="mine"), fail]
    with pytest.raises(ZeroDivisionError):
        dsdistill.distill(tmp_path / "set.h5", **TINY, device="cpu", callbacks=callbacks)
    assert [begun["name"] for begun in wandb.begun] == ["mine (distillation)"]
    assert wandb.finished == [1]


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall(monkeypatch, "wandb")
    with pytest.raises(UserError, match=r"^Weights & Biases is not installed: pip install wandb"):
        dsdistill.loggers.WandB()
