"""Runs that are killed, stopped, damaged or blown up: nothing is lost, and resuming is bit-identical."""

from __future__ import annotations

import json
import math
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dsdistill
from dsdistill.cli import main
from dsdistill.compute.pixel_optimiser import JointOptimiser
from dsdistill.errors import NonFiniteLoss, UserError
from dsdistill.runtime.checkpoints import RunDirectory
from dsdistill.runtime.metrics import MetricsLog
from dsdistill.runtime.signals import NUMBERS, Interrupted
from dsdistill.storage import set_file
from tests.conftest import THREADS
from tests.helpers.callbacks import Killed, Told
from tests.helpers.supply import NETWORK as POOLED

EVERY_13 = "checkpoint.iterations=13"
THIRTY: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": "convnet2-w8", "iterations": 30}
WORDS = ["--dataset", "digits", "--ipc", "1", "--network", "convnet2-w8", "--iterations", "30"]
WORDS += ["--set", THREADS, "--set", EVERY_13]

# A process of the command line that crawls once it has written the checkpoint of iteration 13.
CRAWLING = """
import sys, time
from dsdistill import cli
from dsdistill.loggers.progress import ProgressBar
progress = ProgressBar.on_iteration
def crawl(self, entry, set):
    progress(self, entry, set)
    if entry["iteration"] > 13:
        time.sleep(0.5)
ProgressBar.on_iteration = crawl
sys.exit(cli.main(sys.argv[1:]))
"""


def thirty(output: Path, **options: Any) -> dsdistill.Summary:
    return dsdistill.distill(output, **THIRTY, overrides=[THREADS, EVERY_13], **options)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of 30 iterations that nothing disturbed."""
    output = tmp_path_factory.mktemp("straight") / "set.h5"
    thirty(output, device="cpu")
    return output


def images(file: Path) -> Tensor:
    return set_file.read(file).images


def logged(file: Path) -> list[tuple[int, float]]:
    lines = (file.with_suffix(".run") / "metrics.jsonl").read_text().splitlines()
    return [(entry["iteration"], entry["loss"]) for entry in map(json.loads, lines)]


def checkpoints(file: Path) -> list[str]:
    return sorted(path.name for path in file.with_suffix(".run").glob("checkpoint-*"))


def same(one: Path, other: Path) -> None:
    """Check that two runs left the same pixels and logged the same losses, each once."""
    assert torch.equal(images(one), images(other))
    assert logged(one) == logged(other)
    assert [iteration for iteration, _ in logged(one)] == list(range(1, 31))


def stopped(output: Path, number: int) -> tuple[int, str]:
    """Start a run in a process, send it a signal after iteration 13; return its exit code and stderr."""
    command = [sys.executable, "-c", CRAWLING, "distill", *WORDS, "-o", str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while "checkpoint-000000013.safetensors" not in checkpoints(output):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, said


# Stopping and resuming --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(straight: Path, tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    code, _ = stopped(output, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not output.exists()
    summary = thirty(output, resume=True)
    assert summary.iterations == 30
    same(output, straight)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state_and_says_how_to_go_on(
    straight: Path, tmp_path: Path, number: int, code: int
) -> None:
    output = tmp_path / "a set.h5"
    returned, said = stopped(output, number)
    assert returned == code
    assert "Traceback" not in said
    assert "state saved" in said
    assert {path.name for path in tmp_path.iterdir()} == {"a set.run"}  # no half of a file
    last = int(checkpoints(output)[-1].removeprefix("checkpoint-").removesuffix(".safetensors"))
    assert 13 < last < 30
    assert [iteration for iteration, _ in logged(output)] == list(range(1, last + 1))
    program, *words = shlex.split(said.splitlines()[-1])
    assert program == "dsdistill"
    assert main(words) == 0
    same(output, straight)


def test_resuming_a_finished_run_writes_the_file_again(made: Path) -> None:
    before = images(made)
    made.unlink()
    summary = dsdistill.distill(made, resume=True)
    assert torch.equal(images(made), before)
    assert summary.iterations == 3
    losses = [loss for _, loss in logged(made)]
    assert [summary.first_loss, summary.last_loss] == [losses[0], losses[-1]]
    assert main(["distill", "-o", str(made), "--resume"]) == 0  # and where the file is there


def test_resuming_where_nothing_ran_starts_anew(straight: Path, tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    thirty(output, resume=True)
    same(output, straight)
    run = tmp_path / "bare.run"  # killed before its first checkpoint
    run.mkdir()
    (run / "config.toml").write_bytes((output.with_suffix(".run") / "config.toml").read_bytes())
    (run / "metrics.jsonl").write_text('{"iteration": 1, "loss": 3.0}\n{"iterat')
    thirty(tmp_path / "bare.h5", resume=True)
    same(tmp_path / "bare.h5", straight)


@pytest.mark.slow
def test_a_thread_may_distil(straight: Path, tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    thread = threading.Thread(target=thirty, args=(output,))
    thread.start()
    thread.join(120)
    same(output, straight)


def test_the_handlers_of_the_caller_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    thirty(tmp_path / "set.h5")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def kill(entry: dict[str, Any]) -> None:
    if entry["iteration"] == 5:
        raise Killed


IDC = ["engine.supply.samples=20", "engine.supply.batch_size=8"]
WARM = ["engine.supply.warm_up=1", "engine.supply.batch_size=400"]
QUEUE = [f"engine.supply.{told}" for told in ("size=3", "push_every=2", "steps=2", "batch_size=8")]
POPULATION = [f"engine.supply.{told}" for told in ("size=3", "max_age=2")]
TRAINED = {
    "dsa": ("dsa", "convnet2-w8", ["engine.supply.epochs=2"]),
    "dsa, batch norm": ("dsa", "convnet2-w8-batch", ["engine.supply.epochs=2"]),
    "idc": ("idc", "convnet2-w8", [*IDC, "engine.supply.updates_per_network=6", "optimiser.clamp_every=4"]),
    "idc, warm-up": (
        "idc",
        "convnet2-w8",
        [*IDC, *WARM, "engine.supply.updates_per_network=2", "optimiser.lr=0.1"],
    ),
    "idm": ("idm", "convnet2-w8", QUEUE),
    "idm, batch norm": ("idm", "convnet2-w8-batch", QUEUE),
    "acc-dd": (
        "acc-dd",
        POOLED,
        [*IDC, "engine.supply.path={pool}", "engine.supply.updates_per_network=4", "optimiser.clamp_every=4"],
    ),
    "frepo": ("frepo", "wideconvnet2-w4-inputbatch", POPULATION),
    "krr-st": ("krr-st", "wideconvnet2-w4-batch", [*POPULATION, "engine.supply.path={pool}"]),
    "tgdd": ("tgdd", POOLED, ["engine.supply.path={pool}"]),
    "ncfm-minmax": (
        "ncfm-minmax",
        POOLED,
        ["engine.supply.path={pool}", "engine.discrepancy.frequencies=16", "optimiser.patience=1"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", TRAINED)
def test_what_is_trained_beside_the_images_survives_a_kill(tmp_path: Path, pool: Path, case: str) -> None:
    method, network, overrides = TRAINED[case]
    overrides = [each.format(pool=pool) for each in overrides]
    told: dict[str, Any] = {
        "dataset": "digits",
        "method": method,
        "ipc": 2,
        "network": network,
        "iterations": 8,
        "overrides": [THREADS, "checkpoint.iterations=3", "engine.batch_real=8", *overrides],
    }
    whole, output = tmp_path / "whole.h5", tmp_path / "set.h5"
    dsdistill.distill(whole, **told)
    with pytest.raises(Killed):
        dsdistill.distill(output, **told, callbacks=[kill])
    assert checkpoints(output) == ["checkpoint-000000003.safetensors"]
    assert not output.exists()
    steps: list[int] = []
    dsdistill.distill(output, **told, resume=True, callbacks=[lambda entry: steps.append(entry["iteration"])])
    assert steps == [4, 5, 6, 7, 8]
    assert torch.equal(images(output), images(whole))
    assert logged(output) == logged(whole)


class Signal(dsdistill.Callback):
    """Sends this process a signal while the first networks are trained."""

    def __init__(self) -> None:
        self.left: list[int] = []

    def on_progress(self, what: str, done: int, total: int) -> None:
        if what == "training the first networks" and not self.left:
            self.left.append(total - done)
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.slow
def test_training_before_the_first_iteration_may_be_stopped(tmp_path: Path, pool: Path) -> None:
    told: dict[str, Any] = THIRTY | {"method": "krr-st", "iterations": 2, "network": TRAINED["krr-st"][1]}
    supply = [f"engine.supply.{each}" for each in (f"path={pool}", "size=3", "max_age=99")]
    told["overrides"] = [THREADS, "engine.batch_real=8", *supply]
    whole, output = tmp_path / "whole.h5", tmp_path / "set.h5"
    dsdistill.distill(whole, **told)
    with pytest.raises(Interrupted):
        dsdistill.distill(output, **told, callbacks=[stop := Signal()])
    assert stop.left[0] > 0
    assert checkpoints(output) == ["checkpoint-000000000.safetensors"]
    dsdistill.distill(output, **told, resume=True)
    assert torch.equal(images(output), images(whole))


def test_a_schedule_ends_with_the_seconds_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    monkeypatch.setattr(JointOptimiser, "set_lr", lambda _, lr: rates.append(lr))
    told = THIRTY | {"iterations": 1_000_000, "options": {"seconds": 2.0}}
    overrides = [THREADS, "optimiser.schedule=linear", "optimiser.lr=8"]
    dsdistill.distill(tmp_path / "set.h5", **told, overrides=overrides)
    assert rates[0] == 8
    assert rates[-1] < 1
    middle = rates[len(rates) // 2]
    assert 2 < middle < 6


def snapshots(file: Path) -> list[str]:
    return sorted(path.name for path in file.with_suffix(".run").glob("snapshot-*"))


@pytest.mark.slow
def test_snapshots_after_the_last_checkpoint_are_taken_again(tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.h5", tmp_path / "set.h5"
    told: dict[str, Any] = THIRTY | {"iterations": 8, "options": {"checkpoint": {"snapshots": 8}}}
    told["overrides"] = [THREADS, "checkpoint.iterations=3"]
    dsdistill.distill(whole, **told)
    names = snapshots(whole)
    assert names == [f"snapshot-{iteration:09d}.h5" for iteration in range(1, 8)]
    with pytest.raises(Killed):
        dsdistill.distill(output, **told, callbacks=[kill])
    assert snapshots(output) == names[:4]
    seen: list[list[str]] = []
    dsdistill.distill(output, **told, resume=True, callbacks=[lambda entry: seen.append(snapshots(output))])
    assert seen == [names[:taken] for taken in range(3, 8)]
    for name in names:
        one, other = (file.with_suffix(".run") / name for file in (output, whole))
        assert torch.equal(images(one), images(other))


# Checkpoints ------------------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def test_the_two_latest_checkpoints_are_kept(straight: Path) -> None:
    assert checkpoints(straight) == ["checkpoint-000000026.safetensors", "checkpoint-000000030.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("truncate", [False, True])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    straight: Path, tmp_path: Path, truncate: bool
) -> None:
    output = tmp_path / "set.h5"
    thirty(output, device="cpu")
    latest = output.with_suffix(".run") / checkpoints(output)[-1]
    if truncate:
        latest.write_bytes(latest.read_bytes()[:100])
    else:
        damage(latest)
    said: list[str] = []
    steps: list[int] = []
    thirty(
        output,
        resume=True,
        callbacks=[Told(notify=said.append), lambda entry: steps.append(entry["iteration"])],
    )
    assert steps == [27, 28, 29, 30]
    assert said == ["checkpoint-000000030.safetensors is damaged; trying the one before it"]
    same(output, straight)


@pytest.mark.slow
def test_damage_to_what_a_checkpoint_records_is_found_too(straight: Path, tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    thirty(output, device="cpu")
    latest = output.with_suffix(".run") / checkpoints(output)[-1]
    data = bytearray(latest.read_bytes())
    position = data.index(b'"seconds":"') + len(b'"seconds":"')
    data[position] = ord("7") if data[position] != ord("7") else ord("8")
    latest.write_bytes(data)
    said: list[str] = []
    thirty(output, resume=True, callbacks=[Told(notify=said.append)])
    assert said == ["checkpoint-000000030.safetensors is damaged; trying the one before it"]
    same(output, straight)


def test_resuming_on_data_that_have_changed_is_refused(tmp_path: Path) -> None:
    data, output = tmp_path / "data.npz", tmp_path / "set.h5"
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (40, 8, 8), np.uint8), np.arange(40) % 2
    np.savez(data, images=images, labels=labels)
    told = {"dataset": f"npz:{data}", "ipc": 1, "network": "convnet2-w8", "iterations": 2}
    dsdistill.distill(output, **told)
    before = output.read_bytes()
    np.savez(data, images=255 - images, labels=labels)
    with pytest.raises(UserError, match=r"has changed since set.run began; start anew with --overwrite"):
        dsdistill.distill(output, **told, resume=True)
    assert output.read_bytes() == before


def test_all_checkpoints_damaged(made: Path) -> None:
    for path in made.with_suffix(".run").glob("checkpoint-*"):
        damage(path)
    before = made.read_bytes()
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged; start anew with --overwrite"):
        dsdistill.distill(made, resume=True)
    assert made.read_bytes() == before


def test_the_clock_saves_too(tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    dsdistill.distill(output, **THIRTY | {"iterations": 4}, overrides=["checkpoint.seconds=0"])
    assert checkpoints(output) == ["checkpoint-000000003.safetensors", "checkpoint-000000004.safetensors"]


# Losses that are no numbers ---------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "set.h5"
    words = ["distill", *WORDS, "-o", str(output), "--set", "optimiser.lr=1e30"]
    assert main([*words, "--set", "checkpoint.iterations=1"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    run = output.with_suffix(".run")
    last = run / checkpoints(output)[-1]
    assert line.startswith("dsdistill: iteration ")
    assert "the loss term 'mean' is " in line
    assert f"last good state: {last}" in line
    iteration = int(line.split()[2].rstrip(":"))
    assert last.name == f"checkpoint-{iteration - 1:09d}.safetensors"
    assert all(math.isfinite(loss) for _, loss in logged(output))
    assert not output.exists()

    with pytest.raises(NonFiniteLoss, match="no checkpoint had been written yet"):
        dsdistill.distill(tmp_path / "other.h5", **THIRTY, overrides=["optimiser.lr=1e30"])


# A log that cannot be written ------------------------------------------------------------------------------


def test_a_full_disk_behind_the_log_saves_the_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, straight: Path
) -> None:
    output = tmp_path / "set.h5"
    add = MetricsLog.add

    def full(self: MetricsLog, entry: dict[str, Any]) -> None:
        if entry["iteration"] == 5:
            raise UserError("cannot write metrics.jsonl: No space left on device")
        add(self, entry)

    monkeypatch.setattr(MetricsLog, "add", full)
    assert main(["distill", *WORDS, "-o", str(output)]) == 2
    line = "cannot write metrics.jsonl: No space left on device; --resume goes on from the last checkpoint"
    assert capsys.readouterr().err.splitlines()[-1] == f"dsdistill: {line}"
    assert checkpoints(output) == ["checkpoint-000000005.safetensors"]
    monkeypatch.undo()
    assert main(["distill", *WORDS, "-o", str(output), "--resume"]) == 0
    assert torch.equal(images(output), images(straight))
    monkeypatch.setattr(MetricsLog, "add", full)
    monkeypatch.setattr(RunDirectory, "save", fail)
    assert main(["distill", *WORDS, "-o", str(output), "--overwrite"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"dsdistill: {line}"  # of the first error


def fail(*_: Any) -> None:
    raise UserError("cannot write the checkpoint")


def test_handlers_are_back_as_soon_as_the_loop_ends(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    try:
        dsdistill.distill(tmp_path / "set.h5", **THIRTY, callbacks=[fail])
    except UserError:
        assert [signal.getsignal(number) for number in NUMBERS] == before
