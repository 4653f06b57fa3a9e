"""Estimates in words, and dry runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.errors import UserError
from dsdistill.runtime.estimate import RunEstimate
from tests.conftest import THREADS, TINY
from tests.helpers.callbacks import Told
from tests.helpers.supply import NETWORK

EXPERTS: dict[str, Any] = {"dataset": "digits", "recipe": "ncfm", "network": NETWORK, "device": "cpu"}


def test_an_estimate_is_a_line() -> None:
    estimate = RunEstimate(
        amount=20_000,
        work="iterations",
        seconds=32_400.0,
        warm_up=62.0,
        memory_bytes=1_200_000_000,
        disk={"set": 1_000_000, "log": 500},
    )
    assert str(estimate) == (
        "estimated time 9 h 00 min for 20,000 iterations (1.62 s each), besides 1 min 02 s of compiling and "
        "warming up; memory 1.2 GB; disk 1 MB (set 1 MB, log 500 B)"
    )
    on_cpu = RunEstimate(
        amount=0, work="epochs", seconds=0.0, memory_bytes=51_800_000, process_bytes=900_000_000
    )
    assert on_cpu.rows()[1] == ("memory", "51.8 MB for the run itself (the whole process has 900 MB now)")
    assert str(RunEstimate(amount=0, work="epochs", seconds=0.0)) == "estimated time 0 min 00 s for 0 epochs"


def test_a_dry_run_of_a_distillation_writes_nothing(tmp_path: Path) -> None:
    output, starts = tmp_path / "set.h5", list[Any]()
    estimate = dsdistill.dry_run(
        dsdistill.distill, output, **TINY, device="cpu", callbacks=[Told(started=starts.append)]
    )
    assert (estimate.amount, estimate.work) == (3, "iterations")
    assert estimate.seconds > 0
    assert estimate.memory_bytes
    assert estimate.memory_bytes == starts[0].memory.total
    assert estimate.process_bytes
    assert estimate.process_bytes > 2**24
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_resumed_run_counts_what_is_left(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.parent.rglob("*")}
    estimate = dsdistill.dry_run(dsdistill.distill, made, resume=True)
    assert estimate.amount == 0
    assert {path: path.stat().st_mtime_ns for path in made.parent.rglob("*")} == before


def test_a_dry_run_checks_what_the_run_would(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set given"):
        dsdistill.dry_run(dsdistill.distill, tmp_path / "other.h5", ipc=1)
    content = made.read_bytes()
    assert (
        dsdistill.dry_run(dsdistill.distill, made, **TINY).amount > 0
    )  # where a file is that the run would refuse
    assert made.read_bytes() == content


def test_a_dry_run_of_a_training_writes_nothing(tmp_path: Path) -> None:
    output = tmp_path / "experts.h5"
    estimate = dsdistill.dry_run(dsdistill.train_experts, output, **EXPERTS, count=3, epochs=4)
    assert (estimate.amount, estimate.work) == (12, "epochs")
    assert estimate.seconds > 0
    assert estimate.memory_bytes
    assert estimate.process_bytes
    assert list(tmp_path.iterdir()) == []
    file = dsdistill.train_experts(output, **EXPERTS, count=3, epochs=4)
    assert estimate.disk["file"] == pytest.approx(file.path.stat().st_size, rel=0.5)
    file.close()
    assert dsdistill.dry_run(dsdistill.train_experts, output, **EXPERTS, count=4, epochs=4).amount == 4
    assert (
        dsdistill.dry_run(dsdistill.train_experts, output, **EXPERTS, count=3, epochs=4, resume=True).amount
        == 0
    )


def test_a_dry_run_of_an_evaluation_writes_nothing(made: Path) -> None:
    before = made.read_bytes()
    report = made.with_name("report.json")
    estimate = dsdistill.dry_run(
        dsdistill.evaluate, made, epochs=20, repeats=2, networks="mlp,convnet2-w4", json=report, device="cpu"
    )
    assert estimate.work == "steps of students"
    assert (
        estimate.amount == 2 * 2 * 2 * 21
    )  # networks, sets, students, epochs of one batch (one more is run)
    assert estimate.seconds > 0
    assert estimate.memory_bytes
    assert estimate.process_bytes
    assert made.read_bytes() == before
    assert not report.exists()


def test_a_dry_run_of_something_else_is_refused() -> None:
    with pytest.raises(UserError, match=r"dry_run takes dsdistill\.distill, train_experts, label or"):
        dsdistill.dry_run(lambda **_: None)


def test_a_dry_run_of_something_else_does_nothing(made: Path, tmp_path: Path) -> None:
    torch.save(torch.zeros(20, 1, 8, 8), tmp_path / "theirs.pt")
    before = sorted(tmp_path.rglob("*"))
    match = "^dry_run takes dsdistill.distill, "
    with pytest.raises(UserError, match=match):
        dsdistill.dry_run(dsdistill.import_set, tmp_path / "theirs.pt", tmp_path / "o.h5", dataset="digits")
    with pytest.raises(UserError, match=match):
        dsdistill.dry_run(dsdistill.export_set, made, tmp_path / "out.pt")
    with pytest.raises(UserError, match=match):
        dsdistill.dry_run(dsdistill.load, made)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_of_a_run_that_cannot_compile_leaves_its_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.helpers.compilers import break_compiler

    break_compiler(monkeypatch)
    overrides = [THREADS, "compute.compile=true"]
    dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", **TINY, device="cpu", overrides=overrides)
    assert list(tmp_path.iterdir()) == []
