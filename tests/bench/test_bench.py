"""Suites: their settings and cells, and how cells are run, stored and collected."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import dsdistill
from dsdistill.bench import cell_files, published, runner, tables
from dsdistill.bench import results as stored
from dsdistill.bench.cells import Cell
from dsdistill.bench.collection import collect
from dsdistill.bench.expert_set import Environment
from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.planning import matching, plan
from dsdistill.bench.runner import Event, workers_for
from dsdistill.bench.suite import SUITES, Suite, load_suite
from dsdistill.cli import main
from dsdistill.config.presets import RECIPES
from dsdistill.data import catalog
from dsdistill.distillation import run_loop
from dsdistill.distillation.loop import Distiller, IterationReport
from dsdistill.errors import UserError
from dsdistill.evaluation.baselines import baseline_names, expanded_names
from dsdistill.runtime.checkpoints import RunDirectory
from dsdistill.runtime.signals import Interrupted
from dsdistill.storage import set_file
from tests.conftest import THREADS, TINY
from tests.helpers.bench import Commands, Ended, result, row
from tests.helpers.cli import Captured, refused, succeed
from tests.helpers.runs import begin_with

SUITE = """
title = "Two cells"
datasets = ["digits"]
methods = ["dm", "mmd"]
ipcs = [1]
iterations = 3
network = "convnet2-w8"
students = 2
epochs = 2
"""


def written(folder: Path, text: str = SUITE, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def suite(folder: Path, text: str = SUITE) -> Suite:
    return load_suite(written(folder, text))


def baselines_of(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """Return the baselines of each cell's first evaluation."""
    return [cell.evaluations[0].baselines for cell in cells]


# The settings of a suite ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES.names())
def test_shipped_suites_can_be_run(name: str) -> None:
    cells = plan(load_suite(name))
    assert {cell.dataset for cell in cells} <= catalog.names().keys()
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        assert bool(cell.experts) == (cell.method.removeprefix("fyi-").partition("-")[0] in EXPERTS)


EXPERTS = ("ncfm", "mtt", "tesla", "ftd", "datm", "ast")
EXPERTS += ("sre2l", "cda", "cv", "wmdd", "infer", "cim", "nrr", "rded", "pca")


def test_methods_that_optimise_nothing_take_no_iterations() -> None:
    checked = 0
    for name in SUITES.names():
        for cell in plan(load_suite(name)):
            if cell.method.partition("-")[0] in ("rded", "pca"):
                assert "iterations" not in cell.options  # so that the recipe's hold, which are none
                checked += 1
    assert checked


def test_there_are_the_promised_suites() -> None:
    promised = {
        "digits",
        "fashion-mnist-quick",
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "tiny-imagenet",
        "fyi",
        "fm32",
    }
    assert promised <= set(SUITES.names())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"mmd"', '"mdm"'), "unknown method 'mdm'; did you mean 'dm'?"),
        (('"digits"', '"digit"'), "unknown data set 'digit'; did you mean 'digits'?"),
        (("convnet2-w8", "convent"), "unknown network 'convent'"),
        (("iterations = 3", "iterations = 3\nseconds = 4"), "both iterations and seconds"),
        (("iterations = 3", "iteration = 3"), "suite 'mine.toml': unknown key 'iteration'; did you mean"),
        (("ipcs = [1]", "ipcs = [0]"), "greater than or equal to 1"),
        (("ipcs = [1]", "ipcs = [1, 1]"), "lists 1 twice in ipcs"),
        (("students = 2", 'baselines = ["rnd"]'), "unknown baseline 'rnd'; did you mean 'random'?"),
        (("students = 2", "set = { optimiser = { rate = 2 } }"), "unknown option 'optimiser.rate'"),
        (
            ("students = 2", 'set = { "optimiser.lr" = 2.0 }'),
            "option 'optimiser.lr' is one key with dots in it: write it without quotes",
        ),
        (("students = 2", 'protocol = "dms"'), "unknown protocol 'dms'"),
        (('"mmd"', '"ncfm"'), "matches with trained networks: name a table of experts"),
        (("title", "titel"), "suite 'mine.toml': unknown key 'titel'; did you mean 'title'"),
        (("epochs = 2", "[method.dsa]\nset = {}"), "unknown method in the tables of suite 'mine': 'dsa'"),
        (("epochs = 2", '[method.dm]\nexperts = "pool"'), "unknown table of experts for 'dm'"),
    ],
)
def test_a_suite_that_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, SUITE.replace(*change))
    with pytest.raises(UserError) as error:
        plan(load_suite("mine.toml"))
    assert said in str(error.value)


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown suite 'digit'; did you mean 'digits'"):
        load_suite("digit")


def test_networks_in_files_are_looked_for_beside_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugs: None
) -> None:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "net.py").write_text(
        "from torch import nn\n\ndef small(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n\nother = small\n"
    )
    text = SUITE.replace('network = "convnet2-w8"', 'network = "net.py:small"')
    text += 'networks = ["net.py:other", "mlp"]\n[method.dm]\nset = { network = "net.py:small" }\n'
    written(tmp_path / "suites", text)
    monkeypatch.chdir(tmp_path)
    cells = plan(load_suite("suites/mine.toml"))
    assert {cell.options["network"] for cell in cells} == {"suites/net.py:small"}
    assert {cell.network for cell in cells} == {"net.py:small"}
    assert cells[0].evaluations[0].networks[1:] == ("suites/net.py:other", "mlp")


def test_cells_have_the_settings_of_their_suite(tmp_path: Path) -> None:
    text = SUITE.replace(
        "iterations = 3", 'seconds = 2.5\nseeds = [0, 7]\nnetworks = ["mlp"]\ncurve = 4\ncurve_students = 3'
    )
    text += "[method.mmd]\nipcs = [5]\nset = { optimiser = { lr = 2.0 }, data = { zca = true } }\n"
    cells = plan(suite(tmp_path, text))
    assert [cell.name for cell in cells] == [
        "digits/dm-ipc1-seed0",
        "digits/dm-ipc1-seed7",
        "digits/mmd-ipc5-seed0",
        "digits/mmd-ipc5-seed7",
    ]
    words = cells[2].distil(tmp_path, Environment(Path("/data"), download=True, device="cpu"))
    pairs = dict(itertools.pairwise(words))
    assert (pairs["--method"], pairs["--ipc"], pairs["--seconds"]) == ("mmd", "5", "2.5")
    assert (pairs["--root"], pairs["--device"], pairs["--dataset"]) == ("/data", "cpu", "digits")
    assert {"optimiser.lr=2.0", "data.zca=true", "checkpoint.snapshots=4", "--resume"} <= set(words)
    judged = dict(itertools.pairwise(cells[2].evaluate(cells[2].evaluations[0], tmp_path, Environment())))
    assert (judged["--networks"], judged["--protocol"]) == ("convnet2-w8,mlp", "dm")
    assert (judged["--repeats"], judged["--epochs"]) == ("2", "2")
    early = dict(
        itertools.pairwise(cells[2].evaluate_snapshot(tmp_path, tmp_path / "snapshot.h5", Environment()))
    )
    assert (early["--networks"], early["--protocol"]) == ("convnet2-w8", "dm")
    assert (early["--repeats"], early["--epochs"]) == ("3", "2")
    for cell, seed in zip(cells, ("0", "7") * 2, strict=True):
        commands = (
            cell.distil(tmp_path, Environment()),
            cell.evaluate(cell.evaluations[0], tmp_path, Environment()),
            cell.evaluate_snapshot(tmp_path, tmp_path / "snapshot.h5", Environment()),
        )
        assert [words[words.index("--seed") + 1] for words in commands] == [seed] * 3


def test_equal_baselines_are_evaluated_once(tmp_path: Path) -> None:
    text = SUITE.replace('"mmd"', '"mmd", "dsa"') + 'baselines = ["random", "random@bytes", "full"]\n'
    beside = baselines_of(plan(suite(tmp_path, text)))
    every = ("random", "random@bytes", "full")
    assert beside == [every, ("random@bytes",), every]  # dm and mmd share a protocol, dsa has another
    everything = plan(suite(tmp_path, text.replace('["random", "random@bytes", "full"]', '["all"]')))
    beside = baselines_of(everything)
    assert beside[0] == tuple(expanded_names(["all"]))
    assert all("@" in name for name in beside[1])
    own = '[method.mmd]\nbaselines = ["herding@bytes", "random"]\n'
    beside = baselines_of(plan(suite(tmp_path, text + own)))
    assert beside == [every, ("random@bytes", "herding@bytes", "random"), every]
    with pytest.raises(UserError, match="unknown baseline 'rnd'"):
        plan(suite(tmp_path, text + own.replace("random", "rnd")))


@pytest.mark.parametrize(
    ("change", "beside"),
    [
        (("seeds = [0]", "seeds = [0, 7]"), [1, 1, 0, 0]),  # dm's, then mmd's
        (("ipcs = [1]", "ipcs = [1, 5]"), [1, 0, 1, 0]),  # dm and mmd at each
        (('["digits"]', '["digits", "mnist"]'), [1, 0, 1, 0]),
        (("seeds = [0]", "seeds = [0]\nmethod.mmd.set.data.zca = true"), [1, 1]),
        (("seeds = [0]", 'seeds = [0]\nmethod.mmd.set.network = "mlp"'), [1, 1]),
    ],
)
def test_baselines_that_differ_are_evaluated_apart(
    tmp_path: Path, change: tuple[str, str], beside: list[int]
) -> None:
    text = ("seeds = [0]\n" + SUITE).replace(*change)
    assert [len(names) for names in baselines_of(plan(suite(tmp_path, text)))] == beside


def test_scores_compare_every_cell_with_random_and_full(tmp_path: Path) -> None:
    text = 'scores = true\nbaselines = ["random", "herding", "full"]\n' + SUITE
    first, second = plan(suite(tmp_path, text))
    assert baselines_of([first, second]) == [("random", "herding", "full"), ("random", "full")]
    assert "--scores" in second.evaluate(second.evaluations[0], tmp_path, Environment())


def test_baselines_at_learned_rates_are_those_of_their_method(tmp_path: Path) -> None:
    text = SUITE.replace('"dm", "mmd"', '"mtt", "tesla"')  # both under the protocol mtt
    text += "".join(f'[method.{name}]\nexperts = "all"\n' for name in ("mtt", "tesla"))
    text += '[experts.all]\nrecipe = "mtt"\ncount = 1\nepochs = 1\n'
    assert baselines_of(plan(suite(tmp_path, text))) == [("random",), ("random",)]
    cells = plan(suite(tmp_path, 'protocol = "dm"\n' + text))
    assert baselines_of(cells) == [("random",), ()]


def test_the_numbers_of_images_are_those_of_ipcs(tmp_path: Path) -> None:
    for text in ("[set]\nipc = [1, 2]\n", "[method.dm.set]\nipc = 3\n"):
        with pytest.raises(UserError, match="method 'dm': options set no ipc in a suite: name the numbers"):
            plan(suite(tmp_path, SUITE + text))


def test_learned_rates_are_found_in_a_protocols_settings(tmp_path: Path) -> None:
    protocol = tmp_path / "own.toml"
    protocol.write_text(
        'title = ""\nsource = ""\nepochs = 9\n'
        '[[settings]]\nwhen = { dataset = ["digits"], ipc_min = 5 }\nset = { lr = "learned" }\n'
    )
    text = f'protocol = "{protocol}"\n' + SUITE.replace("ipcs = [1]", "ipcs = [1, 5]")
    assert baselines_of(plan(suite(tmp_path, text))) == [("random",), (), ("random",), ("random",)]


def test_experts_are_those_for_a_cells_network_and_whitening(tmp_path: Path) -> None:
    text = (
        SUITE.replace('"mmd"', '"ncfm"')
        + '[method.ncfm]\nexperts = "pool"\nset = { data = { zca = true } }\n'
    )
    text += '[experts.pool]\nrecipe = "ncfm"\ncount = 2\nepochs = 1\n'
    cell = plan(suite(tmp_path, text))[1]
    (experts,) = cell.experts
    assert experts.name == "digits/experts-pool-convnet2-w8-zca"
    assert {"count=2", "epochs=1", 'network="convnet2-w8"', "data.zca=true"} <= set(
        experts.command(tmp_path, Environment())
    )
    given = next(
        word for word in cell.distil(tmp_path, Environment()) if word.startswith("engine.supply.path")
    )
    assert str(experts.file(tmp_path)) in given


def test_only_picks_cells(tmp_path: Path) -> None:
    cells = plan(suite(tmp_path, SUITE.replace("ipcs = [1]", "ipcs = [1, 10]")))
    assert [cell.name for cell in matching(cells, "mmd-*-seed0, dm-ipc10")] == [
        "digits/mmd-ipc1-seed0",
        "digits/dm-ipc10-seed0",
        "digits/mmd-ipc10-seed0",
    ]
    assert matching(cells, "") == cells
    with pytest.raises(UserError, match="no cell matches"):
        matching(cells, "dsa")


def test_workers_are_as_many_as_cores_and_memory_allow() -> None:
    machine: dict[str, Any] = {"cores": 8, "memory": 10 * 10**9, "timed": False, "on_gpu": False}
    assert workers_for("auto", 20, **machine) == (3, 2)
    assert workers_for("auto", 2, **machine) == (2, 4)
    assert workers_for("auto", 20, **machine | {"memory": 10**9}) == (1, 0)
    assert workers_for("auto", 20, **machine | {"timed": True}) == (
        1,
        0,
    )  # neighbours would cost unequal time
    assert workers_for("auto", 20, **machine | {"on_gpu": True}) == (1, 0)
    assert workers_for("4", 20, **machine) == (4, 2)
    for asked in ("0", "-1", "many"):
        with pytest.raises(UserError, match="--workers takes auto or a number"):
            workers_for(asked, 20, **machine)


# How cells are run ------------------------------------------------------------------------------------------


class OneProcess:
    """Starts the first commands as processes, and runs the others in this one: torch is imported here."""

    def __init__(self, processes: int = 1) -> None:
        self._processes, self.started = processes, 0

    def __call__(self, words: Sequence[str], log: Path, threads: int) -> subprocess.Popen[bytes]:
        self.started += 1
        if self.started <= self._processes:
            return runner.launch(words, log, threads)
        with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
            return cast("subprocess.Popen[bytes]", Ended(main(list(words))))


def run(
    cells: Sequence[Cell], folder: Path, launch: Any, events: list[Event] | None = None
) -> dict[str, str]:
    kept: list[Event] = [] if events is None else events
    return runner.run("mine", cells, folder, Environment(threads=1), 2, kept.append, launch)


@pytest.mark.slow
def test_finished_cells_are_not_run_again(tmp_path: Path, finished: Path) -> None:
    cells, launch = plan(suite(tmp_path)), Commands(finished)
    events: list[Event] = []
    assert run(cells, tmp_path / "r", launch, events) == {}
    assert sorted(launch.seen) == [
        "distill dm-ipc1-seed0/set.h5",
        "distill mmd-ipc1-seed0/set.h5",
        "evaluate dm-ipc1-seed0/evaluation.json",
        "evaluate mmd-ipc1-seed0/evaluation.json",
    ]
    assert [event.done for event in events if event.result] == [1, 2]
    run(cells, tmp_path / "r", launch)
    assert len(launch.seen) == 4
    found, problems = collect(tmp_path / "r")
    assert [(each.method, each.main.mean, each.iterations) for each in found] == [
        ("dm", 50.5, 3),
        ("mmd", 50.5, 3),
    ]
    assert not problems
    assert found[0].sha256 != "0" * 64
    assert found[0].commands[0].startswith("dsdistill distill -o")


@pytest.mark.slow
def test_a_cell_goes_on_where_it_was_killed(tmp_path: Path, finished: Path) -> None:
    cells, folder = plan(suite(tmp_path))[:1], tmp_path / "r"
    run(cells, folder, Commands(finished))
    cell = folder / cells[0].name
    (cell / "result.json").write_text(
        (cell / "result.json").read_text()[:40]
    )  # as a kill might leave others'
    launch = Commands(finished)
    run(cells, folder, launch)
    assert launch.seen == []  # everything it is made of is whole
    (cell / "result.json").unlink()
    (cell / "evaluation.json").write_text('{"rows": [')
    assert cell_files.state(cells[0], folder) == "distilled"
    run(cells, folder, launch)
    assert launch.seen == ["evaluate dm-ipc1-seed0/evaluation.json"]
    (cell / "result.json").unlink()
    (cell / "set.h5").unlink()
    run(cells, folder, launch)  # the report was on another set
    assert launch.seen[1:] == ["distill dm-ipc1-seed0/set.h5", "evaluate dm-ipc1-seed0/evaluation.json"]


def test_a_failing_cell_leaves_the_others(tmp_path: Path, finished: Path) -> None:
    cells, folder = plan(suite(tmp_path)), tmp_path / "r"
    failed = run(cells, folder, Commands(finished, failing="dm-ipc1-seed0"))
    assert list(failed) == ["digits/dm-ipc1-seed0"]
    assert failed["digits/dm-ipc1-seed0"].startswith("the disk is full (see ")
    found, problems = collect(folder)
    assert [each.method for each in found] == ["mmd"]
    (problem,) = problems
    assert problem.startswith(
        "not finished: digits/dm-ipc1-seed0 (the disk is full (see digits/dm-ipc1-seed0/"
    )
    assert problem.endswith("); its baselines are missing too: random")  # which mmd leaves to it
    assert run(cells, folder, Commands(finished)) == {}
    assert collect(folder)[1] == []
    assert not (folder / cells[0].name / "failed.txt").exists()


def test_a_command_that_said_nothing_fails_by_no_earlier_words(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("\n$ dsdistill distill\ndsdistill: the disk is full\n\n$ dsdistill distill --resume\n")
    job = runner._Job("cell", iter(()), log)
    job.process = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    job.process.wait()
    assert runner._failure(job) == f"ended by signal 9 (see {log})"
    log.write_text(log.read_text() + "dsdistill: no such data\n")
    assert runner._failure(job).startswith("no such data")


def test_experts_come_first_and_their_failure_is_their_cells(tmp_path: Path, finished: Path) -> None:
    text = SUITE.replace('"mmd"', '"ncfm"') + 'seeds = [0, 1]\n[method.ncfm]\nexperts = "pool"\n'
    cells = plan(suite(tmp_path, text + '[experts.pool]\nrecipe = "ncfm"\n'))
    launch = Commands(finished)
    run(cells, tmp_path / "r", launch)
    experts = [seen for seen in launch.seen if seen.startswith("experts")]
    assert experts == ["experts digits/experts-pool-convnet2-w8.h5"]
    assert launch.seen.index(experts[0]) < launch.seen.index("distill ncfm-ipc1-seed0/set.h5")
    failed = run(cells, tmp_path / "s", Commands(finished, failing="experts-pool"))
    assert list(failed) == ["digits/ncfm-ipc1-seed0", "digits/ncfm-ipc1-seed1"]
    assert len(collect(tmp_path / "s")[0]) == 2


def test_snapshots_become_a_curve(tmp_path: Path, finished: Path) -> None:
    cells, folder = plan(suite(tmp_path, SUITE + "curve = 3\n"))[:1], tmp_path / "r"
    snapshots = RunDirectory(folder / cells[0].name / "set.run")
    snapshots.path.mkdir(parents=True)
    shutil.copy(finished, snapshots.snapshot(1))
    launch = Commands(finished)
    run(cells, folder, launch)
    assert launch.seen[-1] == "evaluate dm-ipc1-seed0/curve-000000001.json"
    (found,), _ = collect(folder)
    assert [(point.iteration, point.mean, point.students) for point in found.curve] == [
        (3, 50.5, 2),
        (3, 50.5, 2),
    ]


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path, finished: Path) -> None:
    folder, launch = tmp_path / "r", Commands(finished)
    run(plan(suite(tmp_path)), folder, launch)
    changed = plan(suite(tmp_path, SUITE.replace("iterations = 3", "iterations = 4")))
    with pytest.raises(UserError, match=r"distil.iterations was 3, now 4.*choose another folder"):
        run(changed, folder, launch)
    assert len(launch.seen) == 4
    assert len(collect(folder)[0]) == 2
    assert cell_files.state(changed[0], folder) == "begun with other settings"


def test_another_evaluation_keeps_the_distilled_set(tmp_path: Path, finished: Path) -> None:
    folder, launch = tmp_path / "r", Commands(finished)
    run(plan(suite(tmp_path)), folder, launch)
    (before,) = (each.path for each in collect(folder)[0] if each.method == "dm" and each.path)
    curve = before.with_name("curve-000000001.json")
    curve.write_text(before.with_name("evaluation.json").read_text())
    cells = plan(suite(tmp_path, SUITE + 'networks = ["mlp"]\n'))
    assert cell_files.state(cells[0], folder) == "to be evaluated again"
    assert cell_files.read_result(cells[0], folder) is None
    run(cells, folder, launch)
    assert sorted(launch.seen[4:]) == [
        "evaluate dm-ipc1-seed0/evaluation.json",
        "evaluate mmd-ipc1-seed0/evaluation.json",
    ]
    assert curve.exists()
    assert [cell_files.state(cell, folder) for cell in cells] == ["finished", "finished"]
    mixed = SUITE.replace("epochs = 2", 'epochs = 7\nnetworks = ["mlp"]')
    with pytest.raises(UserError, match=r"mmd-ipc1-seed0 was begun .*distil.optimiser.lr"):
        run(plan(suite(tmp_path, mixed + "[method.mmd.set]\noptimiser.lr = 3.0\n")), folder, launch)
    assert [cell_files.state(cell, folder) for cell in cells] == [
        "finished",
        "finished",
    ]  # nothing was touched
    run(plan(suite(tmp_path, mixed))[:1], folder, Commands(finished, failing="evaluation"))
    assert not curve.exists()


def test_experts_of_other_settings_are_refused(tmp_path: Path, finished: Path) -> None:
    text = SUITE.replace('"dm", "mmd"', '"ncfm"') + '[method.ncfm]\nexperts = "pool"\n'
    text += '[experts.pool]\nrecipe = "ncfm"\nepochs = 2\n'
    run(plan(suite(tmp_path, text)), tmp_path / "r", Commands(finished))
    shutil.rmtree(tmp_path / "r" / "digits" / "ncfm-ipc1-seed0")
    with pytest.raises(UserError, match="experts-pool-convnet2-w8 was begun with other settings"):
        run(
            plan(suite(tmp_path, text.replace("epochs = 2\n", "epochs = 3\n"))),
            tmp_path / "r",
            Commands(finished),
        )


def test_a_folder_takes_one_suite_at_a_time(tmp_path: Path, finished: Path) -> None:
    cells, said = plan(suite(tmp_path)), []

    def inside(words: Sequence[str], log: Path, threads: int) -> Any:
        if not said:
            with pytest.raises(UserError, match="another suite") as error:
                run(cells, tmp_path / "r", Commands(finished))
            said.append(error)
        return Commands(finished)(words, log, threads)

    run(cells, tmp_path / "r", inside)
    assert said


def test_what_a_kill_left_half_begun_is_begun_again(tmp_path: Path, finished: Path) -> None:
    results, cells = tmp_path / "r", plan(suite(tmp_path))
    for folder in (results, results / cells[0].name):
        folder.mkdir(parents=True)
        (folder / ".cell.toml.0a1b2c3d.part").write_bytes(b"[distil")
    (results / ".running").write_text("process 1 on another machine")
    assert run(cells, results, Commands(finished)) == {}
    assert list(results.rglob(".*")) == []


def test_a_log_that_cannot_be_written_fails_its_cell_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*log\.txt: it is a folder"):
        runner.launch(["info", "none"], tmp_path / "log.txt", 1)


def test_a_signal_stops_the_commands(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def sleeping(words: Sequence[str], log: Path, threads: int) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "60"], start_new_session=True))
        if len(started) == 2:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return started[-1]

    with pytest.raises(Interrupted):
        run(plan(suite(tmp_path)), tmp_path / "r", sleeping)
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2


def test_a_log_that_cannot_be_written_fails_its_cell(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the folder .* does not exist"):
        runner.launch(["info"], tmp_path / "none" / "log.txt", 0)


# Results on disk ------------------------------------------------------------------------------------------


def saved(folder: Path, found: stored.CellResult) -> Path:
    path = folder / found.cell / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(found.to_dict()))
    return path


def test_results_are_read_back(tmp_path: Path) -> None:
    path = saved(tmp_path, result())
    assert stored.read(path) == result(path=path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"format": "dsdistill-cell", "ver',
        "[1, 2]",
        '{"accuracy": 99}',
        "not json at all",
        "[" * 100_000,
        '{"format": "dsdistill-cell", "version": 3}',
        '{"format": "dsdistill-cell", "version": 2, "suite": "x"}',
        '{"format": "dsdistill-cell", "version": 1, "suite": "x"}',
    ],
)
def test_foreign_and_half_files_are_left_out_with_a_sentence(tmp_path: Path, text: str) -> None:
    saved(tmp_path, result())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text(text)
    found, (problem,) = collect(tmp_path)
    assert len(found) == 1
    assert problem.startswith("left out: ")
    assert "other/result.json" in problem
    assert "\n" not in problem


@pytest.mark.parametrize("key", ["sha256", "evaluations", "rows", "seconds", "report"])
def test_damaged_values_are_refused(tmp_path: Path, key: str) -> None:
    path = saved(tmp_path, result())
    for value in (float("nan"), [], {"a": 1}):
        if key == "report" and isinstance(value, dict):
            continue
        table = result().to_dict()
        changed = table if key in table else table["evaluations"][0]
        changed[key] = value
        path.write_text(json.dumps(table))
        with pytest.raises(UserError):
            stored.read(path)


def test_results_of_the_first_version_are_read(tmp_path: Path) -> None:
    table = result().to_dict() | {"version": 1}
    (evaluation,) = table.pop("evaluations")
    old = {"told": table.pop("settings"), "evaluation": evaluation["report"], "rows": evaluation["rows"]}
    path = tmp_path / "result.json"
    path.write_text(json.dumps(table | old))
    assert stored.read(path) == result(path=path)


def test_a_cell_found_twice_counts_once(tmp_path: Path) -> None:
    for copy in ("first", "second"):
        saved(tmp_path / copy, result())
    saved(tmp_path / "third", result(suite="another"))
    found, problems = collect(tmp_path)
    assert [(each.suite, len(each.main.values)) for each in found] == [("another", 2), ("tried", 2)]
    name = "cifar10/dm-ipc1-seed0/result.json"
    assert problems == [f"left out: second/{name} is of the same suite and cell as first/{name}"]
    home = saved(tmp_path, result())  # where it belongs, among copies
    found, problems = collect(tmp_path)
    assert home in [each.path for each in found]
    assert problems == [
        f"left out: {copy}/{name} is of the same suite and cell as {name}" for copy in ("first", "second")
    ]


def test_scores_take_baselines_of_another_cell(tmp_path: Path) -> None:
    own = [row("distilled", [60.0, 62.0])]
    data = '[data]\nname = "cifar10"\nzca = {}\ndownload = {}\n'
    beside = [row("distilled", [50.0]), row("random", [40.0]), row("full", [90.0])]
    judge = result(rows=beside, config=data.format("false", "true"))
    without, elsewhere = (
        result(name, rows=own, config=data.format("false", "false")) for name in ("mmd", "mtt")
    )
    elsewhere.report["lr"] = 0.5  # learned
    whitened = result("dsa", rows=own, config=data.format("true", "false"))
    decoded = result("idm", rows=[dataclasses.replace(own[0], decoded=40)], config=without.config)
    others = [result("mmd", rows=own, **told) for told in ({"seed": 1}, {"ipc": 10}, {"suite": "another"})]
    for each in (judge, without, elsewhere, whitened, decoded, *others):
        saved(tmp_path / each.suite, each)
    found = {(each.suite, each.cell): each.report["scores"] for each in collect(tmp_path)[0]}
    assert found[decoded.suite, decoded.cell]["networks"]["convnet"].keys() == {"ior"}  # full took few steps
    scored = found[without.suite, without.cell]["networks"]["convnet"]
    assert (scored["ior"], scored["hlr"]) == (pytest.approx(0.21), pytest.approx(0.29))
    assert 0 < scored["lrs"] < 1
    assert [found[each.suite, each.cell] for each in (elsewhere, whitened, *others)] == [{}] * 5


# Tables -----------------------------------------------------------------------------------------------------


def test_seeds_are_joined_and_nothing_else() -> None:
    own = [row("distilled", [50.0, 52.0])]
    results = [result(seed=0), result(seed=1), result("dsa", rows=own), result(ipc=10)]
    lines = joined_lines(results)
    assert [(line.ipc, line.method, line.over) for line in lines] == [
        (1, "dm", "4 (2 seeds)"),
        (1, "dsa", "2"),
        (1, "random", "4 (2 seeds)"),
        (10, "dm", "2"),
        (10, "random", "2"),
    ]
    assert lines[0].values == (50.0, 52.0, 51.0, 53.0)
    assert lines[0].accuracy == "51.50 ± 1.29"
    assert lines[0].bytes == 10_000
    assert lines[2].bytes == 1_000  # ten real images of a hundred bytes


def test_baselines_of_a_sets_bytes_stay_with_their_method() -> None:
    rows = [row("distilled", [50.0]), row("random@bytes", [40.0], images=100)]
    lines = joined_lines([result("dm", rows=rows), result("dsa", rows=rows)])
    assert [line.method for line in lines] == ["dm", "dsa", "random@bytes of dm", "random@bytes of dsa"]
    assert all(line.published is None for line in lines[2:])


def test_baselines_under_other_conditions_stay_apart() -> None:
    rows = [row("distilled", [50.0]), row("random", [40.0])]
    lines = joined_lines([result("mtt", rows=rows), result("tesla", rows=rows), result("dm", ipc=10)])
    assert [line.method for line in lines] == [
        "mtt",
        "tesla",
        "random of mtt",
        "random of tesla",
        "dm",
        "random",
    ]
    assert lines[2].values == (40.0,)


def test_the_time_of_experts_comes_on_top() -> None:
    made = dataclasses.replace(result(), seconds=120.0, experts_seconds=600.0)
    line, baseline = joined_lines([made])
    assert (line.spent, baseline.spent) == ("2 min + 10 min", "")
    assert "| 2 min + 10 min | 100 |" in tables.markdown([made])


def test_iterations_are_those_of_the_seeds_on_average() -> None:
    seeds = [dataclasses.replace(result(seed=seed), iterations=steps) for seed, steps in enumerate((7, 10))]
    line, baseline = joined_lines(seeds)
    assert (line.iterations, baseline.iterations) == ("8", "")


def test_markdown_gives_published_values_their_source() -> None:
    text = tables.markdown([result()], ["not finished: x"])
    (line,) = [line for line in text.splitlines() if line.startswith("| cifar10 | 1 | dm ")]
    assert "51.00 ± 1.41" in line
    assert "26.0 ± 0.8 [1]" in line
    assert "1. Quoted in" in text
    assert published.NOTE in text
    assert "- not finished: x" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_csv_has_a_row_for_every_accuracy() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.csv_text([result(), result(seed=1)]))))
    assert [(each["seed"], each["set"], float(each["mean"])) for each in rows] == [
        ("0", "distilled", 51.0),
        ("0", "random", 30.5),
        ("1", "distilled", 52.0),
        ("1", "random", 30.5),
    ]
    assert rows[0]["file"] == "cifar10/dm-ipc1-seed0/set.h5"
    costs = ("stored_bytes", "iterations", "distil_seconds", "peak_memory_bytes")
    assert [rows[0][key] for key in costs] == ["10000.0", "100", "50.00", "1000000000"]
    assert [rows[1][key] for key in costs] == ["1000", "", "", ""]  # ten real images of 100 bytes each


def test_published_values_are_those_that_were_read() -> None:
    every = list(published.every())
    assert all(0 < each.mean < 100 and each.source and (each.std or 0) < 20 for each in every)
    keys = [(each.dataset, each.method, each.ipc) for each in every]
    assert len(keys) == len(set(keys))
    assert {dataset for dataset, _, _ in keys} <= catalog.names().keys()
    names = {*RECIPES.names(), *baseline_names(), "mtt", "tesla", "ftd", "datm"}
    assert {method for _, method, _ in keys} <= names
    found = published.find("cifar10", "dm", 10)
    assert found
    assert (found.mean, found.std) == (48.9, 0.6)
    assert published.find("cifar10", "full", 10) == published.find("cifar10", "full", 1)
    assert published.find("cifar10", "datadam-paper", 1) == published.find("cifar10", "datadam", 1)
    # Numbers known by hearsay only are not there.
    for unread in (
        ("mnist", "dm", 1),
        ("fashion-mnist", "mtt", 1),
        ("cifar10", "dm", 11),
        ("digits", "dm", 1),
    ):
        assert published.find(*unread) is None


# Budgets and snapshots of a distillation --------------------------------------------------------------------


@pytest.fixture
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of a second an iteration, however long it takes."""
    now, step = [0.0], Distiller.step

    def timed(distiller: Distiller) -> IterationReport:
        now[0] += 0.125
        return step(distiller)

    monkeypatch.setattr(Distiller, "step", timed)
    monkeypatch.setattr(run_loop, "time", SimpleNamespace(monotonic=lambda: now[0]))


@pytest.mark.usefixtures("_clock")
def test_seconds_decide_in_place_of_iterations(tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    made = dsdistill.distill(output, **TINY | {"iterations": 1}, seconds=0.3, overrides=[THREADS])
    assert (made.iterations, made.seconds) == (3, 0.375)
    assert set_file.read(output).attributes["iterations"] == 3
    again = dsdistill.distill(output, resume=True)
    assert again.iterations == 3
    short = dsdistill.distill(tmp_path / "one.h5", **TINY, seconds=1e-6, overrides=[THREADS])
    assert short.iterations == 1
    with pytest.raises(UserError, match="seconds"):
        dsdistill.distill(tmp_path / "none.h5", **TINY, seconds=-1)


@pytest.mark.usefixtures("_clock")
def test_seconds_count_across_resumes(tmp_path: Path) -> None:
    output = tmp_path / "set.h5"

    def stop(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 2:
            raise KeyboardInterrupt

    told: dict[str, Any] = {"overrides": [THREADS, "checkpoint.iterations=1"], "seconds": 0.5}
    with pytest.raises(KeyboardInterrupt):
        dsdistill.distill(output, **TINY, **told, callbacks=[stop])
    seen: list[float] = []
    made = dsdistill.distill(output, resume=True, callbacks=[lambda entry: seen.append(entry["seconds"])])
    assert seen == [0.25, 0.375, 0.5]  # the second one was on its way to be saved
    assert (made.iterations, made.seconds) == (4, 0.5)


@pytest.mark.slow
def test_snapshots_are_sets_of_their_moment(tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    told: dict[str, Any] = {"options": {"checkpoint": {"snapshots": 3}}, "overrides": [THREADS]}
    dsdistill.distill(output, **TINY | {"iterations": 6}, **told)
    kept = RunDirectory(tmp_path / "set.run").snapshots()
    assert [path.name for path in kept] == ["snapshot-000000002.h5", "snapshot-000000004.h5"]
    early = dsdistill.distill(tmp_path / "two.h5", **TINY | {"iterations": 2}, overrides=[THREADS])
    assert set_file.read(kept[0]).images.equal(set_file.read(early.path).images)
    assert set_file.read(kept[0]).attributes["iterations"] == 2
    dsdistill.distill(output, **TINY, overrides=[THREADS], overwrite=True)
    assert RunDirectory(tmp_path / "set.run").snapshots() == []


def test_a_run_from_before_an_option_goes_on(made: Path) -> None:
    run = made.with_suffix(".run")
    lines = (run / "config.toml").read_text().splitlines(True)
    begin_with(run, "".join(line for line in lines if not line.startswith("seconds = 0.0")))
    made.unlink()
    assert dsdistill.distill(made, resume=True).iterations == 3
    with pytest.raises(UserError, match=r"cannot resume set\.run with seconds = 5\.0"):
        dsdistill.distill(made, resume=True, overwrite=True, seconds=5.0)


# The commands -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_suite_from_end_to_end(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole_run, launch = runner.run, OneProcess()
    monkeypatch.setattr(runner, "run", lambda *told, **options: whole_run(*told, launch=launch, **options))
    mine, folder = written(tmp_path, SUITE + "curve = 2\n"), tmp_path / "r"
    out, _ = succeed(capsys, "bench", mine, "-o", folder, "--dry-run")
    assert [line.split() for line in out.splitlines()] == [
        ["digits/dm-ipc1-seed0", "to", "do"],
        ["digits/mmd-ipc1-seed0", "to", "do"],
    ]
    assert not folder.exists()
    out, err = succeed(capsys, "bench", mine, "-o", folder, "--workers", "2")
    assert "2/2" in err
    assert "results.json, results.csv, table.md" in out
    cell = folder / "digits" / "dm-ipc1-seed0"
    assert {path.name for path in cell.iterdir()} >= {
        "cell.toml",
        "log.txt",
        "result.json",
        "set.h5",
        "set.run",
    }
    (one, other), problems = collect(folder)
    assert (one.method, other.method, problems) == ("dm", "mmd", [])
    assert [point.iteration for point in one.curve] == [2, 3]
    assert {each.set for each in one.evaluations[0].rows} == {"distilled", "random"}
    assert {each.set for each in other.evaluations[0].rows} == {"distilled"}
    assert (folder / "plots" / "seconds-mine-digits-ipc1.svg").exists()
    page = tmp_path / "report.html"
    succeed(capsys, "report", folder, "-o", page)
    assert one.sha256 in page.read_text()
    before, started = (cell / "result.json").stat().st_mtime_ns, launch.started
    assert started == 3 + 3  # each is distilled, evaluated, and evaluated in its middle
    out, _ = succeed(capsys, "bench", mine, "-o", folder, "--dry-run")
    assert out.count("finished") == 2
    succeed(capsys, "bench", mine, "-o", folder)
    assert (cell / "result.json").stat().st_mtime_ns == before
    assert launch.started == started


def test_a_suite_with_a_failing_cell_fails_and_keeps_the_others(
    capsys: Captured, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner.run
    failing = Commands(finished, failing="dm-ipc1-seed0")
    monkeypatch.setattr(runner, "run", lambda *told, **options: run(*told, launch=failing, **options))
    folder = tmp_path / "r"
    assert main(["bench", str(written(tmp_path)), "-o", str(folder)]) == 2
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert last.startswith("dsdistill: 1 of 2 cells failed, the first of them digits/dm-ipc1-seed0: the disk")
    assert last.endswith("; the others are kept, and the same command tries again")
    assert "dsdistill report" not in out
    assert "mmd" in (folder / "table.md").read_text()
    failing.failing = ""
    out, _ = succeed(capsys, "bench", tmp_path / "mine.toml", "-o", folder)
    assert f"dsdistill report {folder}" in out


def test_a_stopped_suite_says_how_to_go_on(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> dict[str, str]:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(runner, "run", stopped)
    mine = written(tmp_path)
    assert main(["bench", str(mine), "-o", str(tmp_path / "r")]) == 128 + signal.SIGTERM
    err = capsys.readouterr().err
    assert f"dsdistill bench {mine} -o {tmp_path / 'r'}\n" in err
    assert "baselines" not in err
    main(["bench", str(mine), "-o", str(tmp_path / "r"), "--only", "mmd"])
    assert "some baselines are evaluated with digits/dm-ipc1-seed0, which --only" in capsys.readouterr().err


def test_what_the_commands_refuse(capsys: Captured, tmp_path: Path) -> None:
    assert "unknown suite 'digts'" in refused(capsys, "bench", "digts")
    assert "there is no folder" in refused(capsys, "report", tmp_path / "none")
    (tmp_path / "set.h5").write_bytes(b"")
    assert "set.h5 is a file" in refused(capsys, "report", tmp_path / "set.h5")
    assert "no finished cell" in refused(capsys, "report", tmp_path, "-o", tmp_path / "x.html")
    assert ".html" in refused(capsys, "report", tmp_path, "-o", written(tmp_path))
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(capsys, "bench", "digits", "-o", tmp_path / "file")
    for name, text in (("table.md", "mine"), ("results.json", "[]"), ("results.json", '{"suite": 1}')):
        foreign = tmp_path / "foreign" / name
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_text(text)
        said = refused(capsys, "bench", written(tmp_path), "-o", foreign.parent)
        assert "would be replaced" in said
        assert foreign.read_text() == text
    out, _ = succeed(capsys, "bench")
    assert "digits" in out
