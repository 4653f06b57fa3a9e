"""Distillations that processes share as torchrun starts them, through the command line and its files."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.cli import main
from dsdistill.distillation.loop import Distiller, IterationReport
from dsdistill.runtime import launch
from tests.conftest import THREADS
from tests.helpers.processes import together

WORDS = ["distill", "--dataset", "digits", "--ipc", "1", "--network", "convnet2-w8", "--iterations", "6"]
WORDS += ["--set", THREADS, "--set", "compute.compile=false", "--set", "checkpoint.iterations=2"]
STOPPED_AFTER = 3


def distil(folder: Path, name: str, *words: str) -> int:
    return main([*WORDS, *words, "-o", str(folder / name)])


def is_second() -> bool:
    return os.environ["RANK"] == "1"


def several_commands(path: str) -> None:
    """Run commands in turn, and tell how each ended; the second process is killed in the last one."""
    folder = Path(path)
    codes = [distil(folder, "two.h5")]
    codes += [distil(folder, "other.h5", "--seed", "7" if is_second() else "8")]
    codes += [main(["info", str(folder / "two.h5")]), distil(folder, "two.h5")]
    print(codes, flush=True)
    stopped(path, str(int(signal.SIGKILL)))


def stopped(path: str, number: str) -> None:
    """Have the second process receive a signal within a run."""
    step = Distiller.step

    def step_and_stop(loop: Distiller) -> IterationReport:
        report = step(loop)
        if report.iteration == STOPPED_AFTER and is_second():
            os.kill(os.getpid(), int(number))
        return report

    Distiller.step = step_and_stop  # type: ignore[method-assign]
    sys.exit(distil(Path(path), f"stopped-{number}.h5"))


def images(folder: Path, name: str) -> torch.Tensor:
    return dsdistill.load(folder / name, space="unit").images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the set of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    assert distil(folder, "one.h5", "--quiet") == 0
    return folder


def goes_on_in_one(folder: Path, number: signal.Signals) -> bool:
    """Whether a run that ended by a signal is resumed to the set of one process."""
    name = f"stopped-{int(number)}.h5"
    assert not (folder / name).exists()
    assert distil(folder, name, "--resume", "--quiet") == 0
    return torch.equal(images(folder, name), images(folder, "one.h5"))


def test_two_processes_make_the_set_of_one_and_speak_with_one_voice(folder: Path) -> None:
    first, second = together(2, several_commands, folder)
    assert "[0, 2, 2, 2]" in first.out.splitlines()
    assert torch.equal(images(folder, "two.h5"), images(folder, "one.h5"))
    assert "6 iterations" in first.out
    assert second.out.splitlines() == ["[0, 2, 2, 2]"]  # what the test itself printed
    spoken = [line for line in (first.err + second.err).splitlines() if line.startswith("dsdistill: ")]
    assert len(spoken) == 1
    assert "process 1 has other options than process 0" in spoken[0]
    assert not (folder / "other.h5").exists()
    assert (first.code, second.code) == (2, -signal.SIGKILL)
    assert goes_on_in_one(folder, signal.SIGKILL)


@pytest.mark.slow
def test_a_signal_to_one_process_saves_the_state_of_all(folder: Path) -> None:
    first, second = together(2, stopped, folder, int(signal.SIGTERM))
    assert (first.code, second.code) == (143, 143)
    assert (first.err + second.err).count("state saved") == 1
    assert goes_on_in_one(folder, signal.SIGTERM)


def test_processes_that_torchrun_starts_again_resume(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of a run that failed is repeated as it was, without --resume."""
    options: dict[str, Any] = {"dataset": "digits", "ipc": 1, "iterations": 4, "network": "convnet2-w8"}
    dsdistill.distill(folder / "again.h5", **options)
    (folder / "again.h5").unlink()
    monkeypatch.setattr(launch, "attempt", lambda: 1)
    assert dsdistill.distill(folder / "again.h5", **options).iterations == 4


def test_an_estimate_takes_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dsdistill.pipeline.distill.current", lambda: dsdistill.runtime.ranks.Ranks(0, 2))
    with pytest.raises(dsdistill.UserError, match="leave torchrun out"):
        dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", dataset="digits", ipc=1)
