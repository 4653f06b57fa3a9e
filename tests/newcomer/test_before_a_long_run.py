"""A newcomer asks how long a run takes, before it and in its first iterations; by public names only."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import dsdistill

QUICK: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": "convnet2-w8"}


def test_how_long_will_it_take(tmp_path: Path) -> None:
    estimate = dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", **QUICK, iterations=100_000)
    assert estimate.amount == 100_000
    assert estimate.seconds > 10
    assert estimate.memory_bytes is not None
    assert estimate.memory_bytes > 1_000_000
    assert estimate.disk_bytes > 10_000_000  # the log alone
    assert str(estimate).startswith("estimated time ")
    assert list(tmp_path.iterdir()) == []


def test_how_long_will_experts_and_an_evaluation_take(tmp_path: Path) -> None:
    experts = dsdistill.dry_run(
        dsdistill.train_experts,
        tmp_path / "experts.h5",
        dataset="digits",
        recipe="ncfm",
        network="convnet2-w8",
        count=5,
    )
    assert experts.seconds > 0
    assert experts.disk["file"] > 0
    dsdistill.distill(tmp_path / "set.h5", **QUICK, iterations=3)
    before = (tmp_path / "set.h5").read_bytes()
    evaluation = dsdistill.dry_run(dsdistill.evaluate, tmp_path / "set.h5", repeats=5)
    assert evaluation.seconds > 0
    assert (tmp_path / "set.h5").read_bytes() == before


class Patience(dsdistill.Callback):
    """Gives up at once on what would take long."""

    def on_estimate(self, estimate: dsdistill.RunEstimate) -> None:
        if estimate.seconds > 60:
            raise dsdistill.StopRun(str(estimate))


def test_a_run_says_so_within_its_first_iterations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dsdistill"):
        summary = dsdistill.distill(
            tmp_path / "set.h5", **QUICK, iterations=1_000_000, callbacks=[Patience()]
        )
    assert summary.iterations < 100
    assert any(record.message.startswith("estimated time ") for record in caplog.records)


def test_a_time_budget_in_place_of_iterations(tmp_path: Path) -> None:
    assert dsdistill.distill(tmp_path / "set.h5", **QUICK, seconds=0.2).seconds < 5


def test_what_cannot_be_estimated_is_not_done(made: Path, tmp_path: Path) -> None:
    with pytest.raises(dsdistill.UserError, match="dry_run takes"):
        dsdistill.dry_run(dsdistill.export_set, made, tmp_path / "set.pt")
    assert not (tmp_path / "set.pt").exists()


def test_an_estimate_is_kept_as_json(tmp_path: Path) -> None:
    estimate = dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", **QUICK, iterations=1000)
    content = json.loads(json.dumps(estimate.to_dict()))
    assert content["amount"] == 1000
    assert content["total_seconds"] == estimate.total_seconds
    assert content["label_bytes"] == 0
