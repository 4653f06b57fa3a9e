"""The command line as a whole: help, exit codes, errors, and the Python calls it stands for."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w

import dsdistill
from dsdistill.cli import main
from tests.helpers.cli import TINY, Captured, refused, succeed
from tests.helpers.data import pixels


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

    monkeypatch.setattr("dsdistill.pipeline.distill.distill", exhausted)
    monkeypatch.setattr("dsdistill.evaluation.run.evaluate", exhausted)
    line = refused(capsys, "distill", *TINY, "-o", tmp_path / "set.h5")
    assert "out of memory" in line
    assert "compute.class_chunk=1" in line
    assert "--set" not in refused(capsys, "evaluate", tmp_path / "set.h5")


def test_debug_shows_where(tmp_path: Path) -> None:
    with pytest.raises(dsdistill.UserError, match="no file at"):
        main(["--debug", "info", str(tmp_path / "none.h5")])


def test_ctrl_c_has_its_exit_code(capsys: Captured, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some versions of typer return it, others raise."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dsdistill.evaluation.run.evaluate", interrupted)
    assert main(["evaluate", str(made)]) == 130
    kept = "stopped by SIGINT; finished rows are kept, --resume goes on"
    assert capsys.readouterr().err == f"dsdistill: {kept}\n"
    assert main(["evaluate", str(made), "--no-save"]) == 130
    assert capsys.readouterr().err == "dsdistill: stopped by SIGINT\n"


def test_a_long_message_is_cut(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def verbose(*_: object, **__: object) -> None:
        raise dsdistill.UserError("g++ " + "-long " * 10_000)

    monkeypatch.setattr("dsdistill.pipeline.distill.distill", verbose)
    line = refused(capsys, "distill", *TINY, "-o", tmp_path / "set.h5")
    assert line.startswith("dsdistill: g++ -long")
    assert len(line) < 1020
    assert line.endswith("… (all of it with --debug)\n")
    with pytest.raises(dsdistill.UserError) as whole:
        main(["--debug", "distill", *TINY, "-o", str(tmp_path / "set.h5")])
    assert len(str(whole.value)) > 50_000


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 2), (errno.EROFS, 2), (errno.EINVAL, 1)])
def test_errors_of_the_system_are_no_defects(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("dsdistill.pipeline.distill.distill", failing)
    assert main(["distill", *TINY, "-o", str(tmp_path / "set.h5")]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert os.strerror(number) in err
    assert "some/file" in err


def test_a_tilde_is_a_home_folder_everywhere(
    capsys: Captured, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    protocol = {"title": "x", "source": "x", "epochs": 1, "repeats": 1, "student": "mlp"}
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(protocol))
    np.savez(tmp_path / "data.npz", images=pixels(40, 8, 8), labels=np.arange(40) % 2)
    for words in (
        ["info", "~/set.h5"],
        ["show", "~/set.h5", "-o", "~/a.png"],
        ["export", "~/set.h5", "~/a.pt"],
        ["export", "~/set.h5", "-o", "~/b.h5"],
        ["export", "~/set.h5", "~/png"],
        ["export", "~/set.h5", "--to", "ddranking", "--protocol", "~/mine.toml", "-o", "~/dd"],
        ["distill", "--config", "~/set.run/config.toml", "-o", "~/c.h5", "--run-dir", "~/d", "--root", "~/e"],
        ["distill", *TINY, "--dataset", "npz:~/data.npz", "-o", "~/f.h5", "--set", "protocol=~/mine.toml"],
        ["evaluate", "~/f.h5", "--json", "~/g.json", "--baselines", ""],
        ["evaluate", "~/f.h5", "--dataset", "npz:~/data.npz", "--protocol", "~/mine.toml", "--baselines", ""],
    ):
        succeed(capsys, *words)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"a.png", "a.pt", "b.h5", "png", "dd", "c.h5", "d", "f.h5", "f.run", "g.json"} <= names
    assert 'path = "~' not in refused(capsys, "distill", *TINY, "-o", "~/h.h5", "--experts", "~/none.h5")
    words = [*TINY, "--method", "ncfm", "-o", "~/h.h5", "--set", "engine.supply.path=~/none.h5"]
    assert f"no file at {tmp_path / 'none.h5'}" in refused(capsys, "distill", *words)
    assert len(dsdistill.load("~/set.h5")) == 10
    with pytest.raises(dsdistill.UserError, match=rf"no file at {tmp_path}/none\.h5"):
        dsdistill.ExpertFile.open("~/none.h5")
    assert "the home folder in ~nobody-here/x.h5 is not known" in refused(capsys, "info", "~nobody-here/x.h5")
    assert not (tmp_path / "~").exists()
    assert not Path("~").exists()
