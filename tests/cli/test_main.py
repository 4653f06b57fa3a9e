"""The command line as a whole: help, exit codes, errors, and the Python calls it stands for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dsdistill
from dsdistill.cli import main
from tests.helpers.cli import TINY, Captured, refused, succeed


def test_python_calls_do_the_same(tmp_path: Path) -> None:
    output = tmp_path / "digits.h5"
    summary = dsdistill.distill(output, dataset="digits", ipc=1, network="convnet2-w8", iterations=2)
    assert (summary.path, summary.images, summary.iterations) == (output, 10, 2)
    report = dsdistill.evaluate(output, epochs=1, repeats=1, baselines="", save=False)
    assert len(report.rows) == 1
    assert len(dsdistill.load(output)) == 10


@pytest.mark.slow
def test_help_and_no_words_at_all(capsys: Captured) -> None:
    for words in ([], ["--help"], ["--debug"], ["distill", "-h"]):
        out, err = succeed(capsys, *words)
        assert "Usage: dsdistill" in out
        assert not err
    command = [sys.executable, "-m", "dsdistill", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "evaluate" in done.stdout


@pytest.mark.slow
def test_a_process_exits_with_2_and_no_traceback() -> None:
    command = [sys.executable, "-m", "dsdistill", "info", "no-such-file.h5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr == "dsdistill: no file at no-such-file.h5\n"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 17 GB")]
)
def test_running_out_of_memory_is_said(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("dsdistill.distillation.run.distill", exhausted)
    monkeypatch.setattr("dsdistill.evaluation.run.evaluate", exhausted)
    line = refused(capsys, "distill", *TINY, "-o", tmp_path / "set.h5")
    assert "out of memory" in line
    assert "compute.class_chunk=1" in line
    assert "--set" not in refused(capsys, "evaluate", tmp_path / "set.h5")


def test_debug_shows_where(tmp_path: Path) -> None:
    with pytest.raises(dsdistill.UserError, match="no file at"):
        main(["--debug", "info", str(tmp_path / "none.h5")])
