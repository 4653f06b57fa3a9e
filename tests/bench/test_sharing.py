"""Several processes in the folder of one suite: no cell is run twice, and none is left by one that died."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dsdistill import UserError, files
from dsdistill.bench import runner, sharing
from dsdistill.bench.cells import Cell
from dsdistill.bench.expert_set import Environment
from dsdistill.bench.planning import plan
from dsdistill.bench.runner import Event
from dsdistill.bench.sharing import part_of
from dsdistill.bench.suite import load_suite
from tests.helpers.bench import Commands
from tests.helpers.cli import Captured, refused

SUITE = """
title = "Six cells"
datasets = ["digits"]
methods = ["dm", "mmd"]
ipcs = [1]
seeds = [0, 1, 2]
iterations = 3
network = "convnet2-w8"
students = 2
epochs = 2
"""


def cells_of(folder: Path, text: str = SUITE) -> list[Cell]:
    path = folder / "mine.toml"
    path.write_text(text)
    return plan(load_suite(path))


def run(
    cells: Sequence[Cell], results: Path, launch: Any, everyone: Sequence[Cell] | None, events: list[Event]
) -> dict[str, str]:
    environment = Environment(threads=1)
    return runner.run("mine", cells, results, environment, 1, events.append, launch, shared_by=everyone)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_LOOK", 0.02)


def of_cells(commands: Commands) -> list[str]:
    return [each.split()[1].split("/")[0] for each in commands.seen if each.startswith("distill")]


def test_processes_that_share_run_every_cell_once(tmp_path: Path, finished: Path) -> None:
    cells, results = cells_of(tmp_path), tmp_path / "r"
    launches = [Commands(finished), Commands(finished)]
    events: list[list[Event]] = [[], []]
    other = threading.Thread(target=lambda: run(cells, results, launches[1], cells, events[1]))

    def first(words: Sequence[str], log: Path, threads: int) -> Any:
        if not other.ident:
            other.start()
        time.sleep(0.05)
        return launches[0](words, log, threads)

    assert run(cells, results, first, cells, events[0]) == {}
    other.join()
    together = of_cells(launches[0]) + of_cells(launches[1])
    assert sorted(together) == sorted(cell.name.split("/")[1] for cell in cells)
    assert of_cells(launches[1])
    for heard in events:  # each tells of all cells, its own or not
        assert [event.done for event in heard][-1] == len(cells)
    assert list((results / ".claims").iterdir()) == []


def test_a_cell_of_a_process_that_died_is_taken_over(tmp_path: Path, finished: Path) -> None:
    cells, results = cells_of(tmp_path), tmp_path / "r"
    dead = files.Claims(results / ".claims")
    assert dead.take(cells[0].name)
    events: list[Event] = []
    done = threading.Event()

    def finish() -> None:
        run(cells, results, Commands(finished), cells, events)
        done.set()

    threading.Thread(target=finish).start()
    while not (events and events[-1].done == len(cells) - 1):
        time.sleep(0.02)
    assert not done.wait(0.2)  # it waits for the one that is left
    for path in (results / ".claims").iterdir():
        if cells[0].name.split("/")[1] in path.name:
            os.utime(path, (0.0, 0.0))
    assert done.wait(30)
    assert events[-1].done == len(cells)
    assert dead.renew() == [cells[0].name]


def test_what_is_taken_over_is_stopped_where_it_ran(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_RENEWAL", 0.0)
    cells, results = cells_of(tmp_path)[:1], tmp_path / "r"
    started: list[subprocess.Popen[bytes]] = []

    def slow(words: Sequence[str], log: Path, threads: int) -> Any:
        if started:
            return Commands(finished)(words, log, threads)
        started.append(subprocess.Popen(["sleep", "60"]))
        (claim,) = (each for each in (results / ".claims").iterdir() if "dm-ipc1" in each.name)
        other = claim.with_suffix(".000002")
        other.write_text("process 1 on another machine\ntoken\n\n")
        claim.unlink()
        threading.Timer(0.5, other.unlink).start()
        return started[0]

    events: list[Event] = []
    assert run(cells, results, slow, cells, events) == {}
    assert started[0].returncode == -signal.SIGTERM
    assert events[-1].stage == "finished"


def test_experts_are_trained_by_one_of_those_who_share(tmp_path: Path, finished: Path) -> None:
    text = SUITE.replace('"dm", "mmd"', '"ncfm"') + '[method.ncfm]\nexperts = "pool"\n'
    cells = cells_of(tmp_path, text + '[experts.pool]\nrecipe = "ncfm"\nepochs = 2\n')
    results, commands = tmp_path / "r", Commands(finished)
    other = files.Claims(results / ".claims")
    assert other.take(cells[0].needs[0].name)
    trained = cells[0].needs[0].file(results)

    def train() -> None:
        files.make_folder(trained.parent, parents=True)
        trained.write_bytes(finished.read_bytes())
        other.free_all()

    threading.Timer(0.3, train).start()
    assert run(cells, results, commands, cells, []) == {}
    assert [each for each in commands.seen if each.startswith("experts")] == []


def test_whoever_is_alone_keeps_others_out_and_the_other_way_round(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_PATIENCE", 0.0)
    cells, results = cells_of(tmp_path), tmp_path / "r"
    said: list[str] = []

    def inside(everyone: Sequence[Cell] | None, cells: Sequence[Cell] = cells) -> Any:
        def launch(words: Sequence[str], log: Path, threads: int) -> Any:
            if not said:
                with pytest.raises(UserError) as error:
                    run(cells, results, Commands(finished), everyone, [])
                said.append(str(error.value))
            return Commands(finished)(words, log, threads)

        return launch

    run(cells[:1], results, inside(cells), None, [])
    assert "another suite of" in said.pop()
    run(cells[1:2], results, inside(None), cells, [])
    assert f"process {os.getpid()} on " in said[0]
    assert "pass --shared to work beside it" in said.pop()
    others = cells_of(tmp_path, SUITE.replace("iterations = 3", "iterations = 4"))
    run(cells[2:3], results, inside(others, others), cells, [])
    assert "give all machines the same suite" in said.pop()


def test_a_shard_is_every_nth_cell(tmp_path: Path, capsys: Captured) -> None:
    cells = cells_of(tmp_path)
    parts = [part_of(cells, f"{number}/4") for number in range(1, 5)]
    assert sorted(cell.name for part in parts for cell in part) == sorted(cell.name for cell in cells)
    assert [len(part) for part in parts] == [2, 2, 1, 1]
    for bad in ("0/2", "3/2", "2", "a/b", "1/0"):
        with pytest.raises(UserError, match="--shard takes a part such as 2/4"):
            part_of(cells, bad)
    said = refused(capsys, "bench", tmp_path / "mine.toml", "-o", tmp_path / "r", "--shard", "1/7")
    assert "6 cells are too few for 7 parts" in said


@pytest.mark.slow
def test_a_machine_that_is_killed_costs_the_others_nothing(tmp_path: Path) -> None:
    cells, results = cells_of(tmp_path, SUITE.replace("[0, 1, 2]", "[0]")), tmp_path / "r"
    words = [sys.executable, "-m", "dsdistill", "bench", str(tmp_path / "mine.toml"), "-o", str(results)]
    words += ["--workers", "1", "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    one = subprocess.Popen([*words, "--shared"], env=environment)
    while not (results / cells[0].name / "log.txt").exists():
        time.sleep(0.05)
    one.kill()
    one.wait()
    wait_for_what_was_left_running(results / cells[0].name / "set.h5")
    for path in (results / ".claims").iterdir():  # as if five minutes had passed
        os.utime(path, (0.0, 0.0))
    assert subprocess.run([*words, "--shared"], env=environment, timeout=300).returncode == 0
    assert len(list(results.glob("digits/*/result.json"))) == len(cells)
    assert len(read_results(results / "results.csv")) >= len(cells)


def wait_for_what_was_left_running(output: Path) -> None:
    """Wait for a command whose parent was killed: it takes a second to begin, and ends by itself."""
    since = time.monotonic()
    while not output.exists():
        assert time.monotonic() - since < 120
        time.sleep(0.1)
    with files.hold(output, "a distillation", wait=lambda sentence: None):
        pass


def read_results(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
