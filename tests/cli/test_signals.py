"""Real signals and closed outputs, in every command and in several phases of it."""

from __future__ import annotations

import itertools
import shutil
import signal
from pathlib import Path

import pytest

from dsdistill.cli import app
from dsdistill.runtime.signals import NUMBERS
from dsdistill.storage import set_results
from tests.helpers.cli import pictures
from tests.helpers.processes import DISTIL, TRAIN, Ended, command, run

COMMANDS = [each.name or each.callback.__name__ for each in app.registered_commands if each.callback]
COMMANDS.remove("completion")  # which imports nothing
COMMANDS.append("plan")
WITHOUT_TORCH = {"methods", "datasets", "protocols"}
ARGUMENTS = {
    **dict.fromkeys(("distill", "experts"), "-onew.h5"),
    **dict.fromkeys(("evaluate", "info", "show", "export", "report"), "none"),
    "import": "none -onew.h5",
    "encode": "none -onew.h5",
    "label": "none --teacher none -onew.h5",
    "plan": "distill -onew.h5",
}
"""What a command must be told."""
SUITE = """
title = "One cell"
datasets = ["digits"]
methods = ["dm"]
ipcs = [1]
network = "convnet2-w8"
iterations = 400
set = { compute = { threads = 1 } }
"""


STEP = {"at": "dsdistill.distillation.loop:Distiller.step"}


def check(ended: Ended, number: int, sentence: str) -> None:
    """Check that a process ended by a signal with one sentence as its last line, and no traceback."""
    assert ended.code == 128 + number, ended.err
    assert ended.err.splitlines()[-1] == f"dsdistill: {sentence}", ended.err
    for bad in ("Traceback", "ignored", "Aborted", "Error"):
        assert bad not in ended.err


def name(number: int) -> str:
    return signal.Signals(number).name


# Imports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "number"), [*zip(COMMANDS, itertools.cycle(NUMBERS), strict=False)])
def test_a_signal_during_imports(tmp_path: Path, word: str, number: int) -> None:
    words = [word, *ARGUMENTS.get(word, "").split()]
    module = "dsdistill.cli.console" if word in WITHOUT_TORCH else "torch"
    with command(tmp_path, words, at=module) as process:
        process.reach()
        process.send(number, group=True)
        ended = process.end()
    check(ended, number, f"stopped by {name(number)}")
    assert ended.err.count("\n") == 1


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    with command(tmp_path, ["networks"], at="torch", ignored=(signal.SIGHUP, signal.SIGINT)) as process:
        process.reach()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            process.send(number)
        check(process.end(), signal.SIGTERM, "stopped by SIGTERM")


# Work without a state ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "at", "number"),
    [
        (["info", "set.h5"], "dsdistill.cli.console:print_description", signal.SIGINT),
        (["show", "set.h5", "-o", "set.png"], "dsdistill.files:replace", signal.SIGTERM),
        (["export", "set.h5", "set.pt"], "dsdistill.files:replace", signal.SIGHUP),
        (["report", "results"], "dsdistill.report.page:write", signal.SIGUSR1),
    ],
)
def test_a_signal_ends_a_short_command(
    made: Path, tmp_path: Path, words: list[str], at: str, number: int
) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    with command(tmp_path, words, at=at) as process:
        process.reach()
        process.send(number, group=True)
        check(process.end(), number, f"stopped by {name(number)}")
    assert {path.name for path in tmp_path.iterdir()} - before == {"held", "site"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "number", "kept"),
    [
        ([*DISTIL, "-o", "new.h5"], signal.SIGHUP, "--resume goes on from the last checkpoint"),
        (["evaluate", "set.h5"], signal.SIGINT, "finished rows are kept, --resume goes on"),
    ],
)
def test_a_signal_while_pictures_are_decoded(
    made: Path, tmp_path: Path, words: list[str], number: int, kept: str
) -> None:
    folder = pictures(tmp_path / "pictures", {"cat": 300, "dog": 300})
    cache = tmp_path / "cache"
    words = [*words, "--dataset", f"folder:{folder}"]
    at, variables = "dsdistill.data.decode:pixels", {"DSDISTILL_CACHE": str(cache)}
    with command(tmp_path, words, at=at, seconds=0.2, **variables) as process:
        process.reach()
        process.send(number, group=True)
        check(process.end(), number, f"stopped by {name(number)}; {kept}")
    assert not list(cache.rglob("*.part"))  # nothing half decoded stays
    assert not (tmp_path / "new.run").exists()


@pytest.mark.slow
def test_ctrl_c_in_an_evaluation_keeps_finished_rows(made: Path, tmp_path: Path) -> None:
    words = ["evaluate", "set.h5", "--networks", "convnet2-w8", "--epochs", "2", "--repeats", "1"]
    with command(tmp_path, words, at="dsdistill.evaluation.run:Report.append_to", call=2) as process:
        process.reach()  # the second row is trained, and not added yet
        process.send(signal.SIGINT, group=True)
        kept = "finished rows are kept, --resume goes on"
        check(process.end(), signal.SIGINT, f"stopped by SIGINT; {kept}")
    assert len(set_results.results(made)) == 1


# Loops with a state -----------------------------------------------------------------------------------------


AGAIN = {
    signal.SIGINT: "; Ctrl-C once more ends at once",
    signal.SIGTERM: "; a second SIGTERM ends at once",
}


def acknowledged(number: int) -> str:
    again = AGAIN.get(signal.Signals(number), "")
    return f"dsdistill: stopping on {name(number)}: the state is being saved{again}\n"


@pytest.mark.slow
def test_a_terminal_that_closes_ends_the_loop_of_distill(tmp_path: Path) -> None:
    with command(tmp_path, [*DISTIL, "-o", "new.h5"], **STEP, call=4, seconds=0.5) as process:
        process.reach()
        process.send(signal.SIGHUP, group=True)
        process.read_error(acknowledged(signal.SIGHUP))
        process.send(signal.SIGHUP)  # a closed terminal sends more than one
        ended = process.end()
    assert ended.code == 128 + signal.SIGHUP
    assert "dsdistill: stopped by SIGHUP; state saved. Continue with:\n" in ended.err
    assert "Traceback" not in ended.err
    checkpoints = [path.name for path in (tmp_path / "new.run").glob("*.safetensors")]
    assert checkpoints == ["checkpoint-000000004.safetensors"]
    assert len((tmp_path / "new.run" / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    words = [*DISTIL, "-o", "new.h5"]
    with command(tmp_path, words, **STEP, call=3) as process:
        process.reach()
        process.send(signal.SIGINT, group=True)
        process.read_error(acknowledged(signal.SIGINT))
        process.send(signal.SIGINT, group=True)
        check(process.end(), 2, "stopped by SIGINT; --resume goes on from the last checkpoint")


@pytest.mark.slow
def test_a_signal_in_the_loop_of_experts(tmp_path: Path) -> None:
    words = [*TRAIN, "-o", "experts.h5"]
    epoch = "dsdistill.experts.trainer:Trainer.train_epoch"
    with command(tmp_path, words, at=epoch, call=3, seconds=0.3) as process:
        process.reach()
        process.send(signal.SIGUSR1)
        ended = process.end()
    assert ended.code == 128 + signal.SIGUSR1
    assert acknowledged(signal.SIGUSR1) in ended.err
    assert "state saved. Continue with:" in ended.err
    assert "Traceback" not in ended.err
    assert (tmp_path / "experts.h5.parts" / "00000" / "checkpoint-000000002.safetensors").exists()


@pytest.mark.slow
def test_a_signal_in_bench_reaches_its_commands(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    with command(tmp_path, ["bench", "suite.toml", "-o", "out"], **STEP, call=3, seconds=0.1) as process:
        process.reach()  # the process of the cell is in its loop
        process.send(signal.SIGINT, group=True)
        ended = process.end()
    assert ended.code == 130
    assert "state saved. Continue with:\n  dsdistill bench suite.toml -o out\n" in ended.err
    assert "Traceback" not in ended.err
    (log,) = (tmp_path / "out").rglob("log.txt")
    assert "stopped by SIGTERM; state saved" in log.read_text()
    assert list((tmp_path / "out").rglob("checkpoint-*.safetensors"))


# Compiling --------------------------------------------------------------------------------------------------

_SLOW_COMPILER = """#!/bin/sh
case "$*" in *--version*) exec g++ "$@";; esac
touch "$HELD"
sleep 60
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_ctrl_c_while_the_compiler_works(tmp_path: Path) -> None:
    compiler = tmp_path / "slow-g++"
    compiler.write_text(_SLOW_COMPILER)
    compiler.chmod(0o755)
    variables = {"CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    words = [*DISTIL, "--set", "compute.compile=true", "-o", "new.h5"]
    with command(tmp_path, words, **variables) as process:
        process.reach()
        process.send(signal.SIGINT, group=True)  # the compiler and its workers receive it too
        sentence = "stopped by SIGINT; --resume goes on from the last checkpoint"
        check(process.end(), signal.SIGINT, sentence)


# Closed outputs ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_closed_pipe_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    with command(tmp_path, [*DISTIL, "-o", "new.h5"], **STEP, seconds=0.2) as process:
        process.reach()
        process.close_error()  # the line of the first iteration meets it
        ended = process.end()
    assert ended.code == 141
    assert list((tmp_path / "new.run").glob("checkpoint-*.safetensors"))
    assert not (tmp_path / "new.h5").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_stdout(made: Path, tmp_path: Path) -> None:
    ended = run(tmp_path, "info", "set.h5", redirected="> /dev/full")
    line = "dsdistill: cannot write to stdout: No space left on device\n"
    assert ended == Ended(2, "", line)


@pytest.mark.slow
def test_streams_that_were_closed_before(made: Path, tmp_path: Path) -> None:
    before = made.read_bytes()
    ended = run(tmp_path, "export", "set.h5", "other.h5", redirected=">&- 2>&-")
    assert ended == Ended(0, "", "")
    assert (tmp_path / "other.h5").exists()
    assert made.read_bytes() == before
