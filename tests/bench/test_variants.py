"""Suites with variants of a recipe and with several evaluations of a set."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from dsdistill.bench import cell_files, runner, tables
from dsdistill.bench.cells import Cell
from dsdistill.bench.collection import collect
from dsdistill.bench.conditions import Conditions
from dsdistill.bench.expert_set import Environment
from dsdistill.bench.lines import gains
from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.planning import plan
from dsdistill.bench.results import CellResult, EvaluationResult
from dsdistill.bench.suite import load_suite
from dsdistill.errors import UserError
from dsdistill.report import page
from tests.bench.test_bench import Commands
from tests.helpers.bench import result, row

SUITE = """
title = "Variants"
datasets = ["digits"]
methods = ["near", "dm", "far"]
ipcs = [1, 10]
network = "convnet2-w8"
students = 2
epochs = 2

[method.near]
recipe = "mmd"
iterations = { 1 = 5, 10 = 7 }
gain_over = "dm"
set = { optimiser = { lr = 2.0 } }

[method.dm]
iterations = 4

[method.far]
recipe = "mmd"
ipcs = [1]
evaluations = ["dm"]

[evaluation.own]
protocol = "dsa"

[evaluation.dm]
protocol = "dm"
networks = ["mlp"]
epochs = 3
precision = "fp32"
"""


def planned(folder: Path, text: str = SUITE) -> list[Cell]:
    (folder / "mine.toml").write_text(text)
    return plan(load_suite(folder / "mine.toml"))


def changed_evaluations(cell: CellResult, **means: float) -> CellResult:
    """Return a result with one evaluation of each name, of one student each."""
    evaluations = [
        EvaluationResult(name, {**cell.report, "seed": cell.seed}, [row("distilled", [mean])])
        for name, mean in means.items()
    ]
    return dataclasses.replace(cell, evaluations=evaluations)


# Plans ------------------------------------------------------------------------------------------------------


def test_variants_are_cells_of_their_own(tmp_path: Path) -> None:
    cells = planned(tmp_path)
    assert [cell.name for cell in cells] == [
        "digits/near-ipc1-seed0",
        "digits/dm-ipc1-seed0",
        "digits/far-ipc1-seed0",
        "digits/near-ipc10-seed0",
        "digits/dm-ipc10-seed0",
    ]
    words = [dict(itertools.pairwise(cell.distil(tmp_path, Environment()))) for cell in cells]
    assert [each["--method"] for each in words] == ["mmd", "dm", "mmd", "mmd", "dm"]
    assert [each.get("--iterations") for each in words] == ["5", "4", None, "7", "4"]
    assert cells[0].settings()["evaluate"]["gain_over"] == "dm"


def test_every_set_has_its_evaluations(tmp_path: Path) -> None:
    near, _, far, *_ = planned(tmp_path)
    own, dm = (
        dict(itertools.pairwise(near.evaluate(each, tmp_path, Environment()))) for each in near.evaluations
    )
    assert (own["--protocol"], own["--networks"], own["--epochs"]) == ("dsa", "convnet2-w8", "2")
    assert (dm["--protocol"], dm["--networks"], dm["--epochs"]) == ("dm", "mlp", "3")
    assert (own.get("--precision"), dm["--precision"], dm["--repeats"]) == (None, "fp32", "2")
    names = [Path(each["--json"]).name for each in (own, dm)]
    assert names == ["evaluation-own.json", "evaluation-dm.json"]
    assert [each.name for each in far.evaluations] == ["dm"]
    snapshot = near.evaluate_snapshot(tmp_path, tmp_path / "snapshot-1.h5", Environment())
    assert dict(itertools.pairwise(snapshot))["--protocol"] == "dsa"  # the first


def test_epochs_may_depend_on_the_ipc(tmp_path: Path) -> None:
    text = SUITE.replace("epochs = 2", "epochs = { 1 = 20, 10 = 5 }")
    near, *_, large = planned(tmp_path, text.replace("epochs = 3\n", ""))
    assert [each.epochs for each in (*near.evaluations, *large.evaluations)] == [20, 20, 5, 5]


def test_seeds_of_an_evaluation_are_evaluations(tmp_path: Path) -> None:
    cell = planned(tmp_path, SUITE.replace('precision = "fp32"', "seeds = [0, 5]"))[0]
    assert [(each.name, each.seed) for each in cell.evaluations] == [
        ("own", 0),
        ("dm-seed0", 0),
        ("dm-seed5", 5),
    ]


def test_evaluations_share_baselines_under_equal_conditions(tmp_path: Path) -> None:
    near, dm, far, *_ = planned(tmp_path)
    assert [each.baselines for each in near.evaluations] == [("random",), ("random",)]
    assert [each.baselines for each in (*dm.evaluations, *far.evaluations)] == [()] * 3
    assert {name for each in (*dm.evaluations, *far.evaluations) for name in each.baselines_from} == {
        near.name
    }
    text = SUITE.replace("[method.dm]", '[method.dm]\nbaselines = ["herding"]')
    text = text.replace('precision = "fp32"', "baselines = []")
    assert [each.baselines for cell in planned(tmp_path, text)[:2] for each in cell.evaluations] == [
        ("random",),
        (),
        ("herding",),
        (),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('gain_over = "dm"', 'gain_over = "dms"'), "compares with: 'dms'; did you mean 'dm'?"),
        (
            ('gain_over = "dm"', 'gain_over = "near"'),
            "unknown method that 'near' of suite 'mine' compares with",
        ),
        (('recipe = "mmd"\nipcs', 'recipe = "mdm"\nipcs'), "unknown method 'mdm'"),
        (("[method.dm]", '[method.dm]\nrecipe = "mmd"'), "its name is another recipe's; rename it"),
        (("{ 1 = 5, 10 = 7 }", "{ 1 = 5 }"), "method 'near' of suite 'mine' has no iterations for IPC 10"),
        (("{ 1 = 5, 10 = 7 }", "-1"), "greater than or equal to 0"),
        (("epochs = 3", "epochs = { 1 = 2 }"), "evaluation 'dm' of suite 'mine' has no epochs for IPC 10"),
        (("iterations = 4", "iterations = 4\nevaluations = ['dsa']"), "unknown table of evaluation for 'dm'"),
        (('precision = "fp32"', 'precision = "fp64"'), "key 'evaluation.dm.precision' is 'fp64'"),
        (
            ('precision = "fp32"', "precisio = 3"),
            "suite 'mine.toml': unknown key 'evaluation.dm.precisio'; did",
        ),
        (('networks = ["mlp"]', 'networks = ["mpl"]'), "unknown network 'mpl'"),
        (('precision = "fp32"', 'baselines = ["rnd"]'), "unknown baseline 'rnd'"),
        (('protocol = "dsa"', 'protocol = "das"'), "unknown protocol 'das'"),
        (("[evaluation.own]", '[evaluation."a/b"]'), "String should match pattern"),
        (("students = 2", "students = 2\nseconds = 3"), "both iterations and seconds"),
    ],
)
def test_a_suite_that_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert change[0] in SUITE
    (tmp_path / "mine.toml").write_text(SUITE.replace(*change))
    with pytest.raises(UserError) as error:
        plan(load_suite("mine.toml"))
    assert message.casefold() in str(error.value).casefold()


# Runs -------------------------------------------------------------------------------------------------------


def run(cells: list[Cell], folder: Path, launch: Commands) -> dict[str, str]:
    return runner.run("mine", cells, folder, Environment(threads=1), 1, lambda event: None, launch)


def test_every_evaluation_is_run_once_and_collected(tmp_path: Path, finished: Path) -> None:
    cells, launch = planned(tmp_path)[:1], Commands(finished)
    assert run(cells, tmp_path / "r", launch) == {}
    assert launch.seen == [
        "distill near-ipc1-seed0/set.h5",
        "evaluate near-ipc1-seed0/evaluation-own.json",
        "evaluate near-ipc1-seed0/evaluation-dm.json",
    ]
    run(cells, tmp_path / "r", launch)
    assert len(launch.seen) == 3
    ((cell,), problems) = collect(tmp_path / "r")
    assert problems == []
    assert [(each.name, each.report["protocol"]) for each in cell.evaluations] == [
        ("own", "dsa"),
        ("dm", "dm"),
    ]
    assert (cell.method, cell.gain_over, len(cell.commands)) == ("near", "dm", 3)


def test_another_evaluation_keeps_the_distilled_set(tmp_path: Path, finished: Path) -> None:
    cells, launch = planned(tmp_path)[:1], Commands(finished)
    run(cells, tmp_path / "r", launch)
    curve = tmp_path / "r" / cells[0].name / "curve-000000001.json"
    curve.write_text(json.dumps({"rows": [row("distilled", [50.0]).__dict__]}))
    changed = planned(tmp_path, SUITE.replace("epochs = 3", "epochs = 4"))[:1]
    assert cell_files.state(changed[0], tmp_path / "r") == "to be evaluated again"
    run(changed, tmp_path / "r", launch)
    assert [seen.partition(" ")[0] for seen in launch.seen[3:]] == ["evaluate", "evaluate"]
    assert curve.exists()  # its evaluation is the other one
    first = planned(tmp_path, SUITE.replace("[evaluation.own]", "[evaluation.own]\nepochs = 4"))[:1]
    run(first, tmp_path / "r", launch)
    assert not curve.exists()


def test_an_unfinished_cell_names_the_baselines_of_all_evaluations(tmp_path: Path, finished: Path) -> None:
    text = SUITE.replace('precision = "fp32"', 'baselines = ["herding"]')
    run(planned(tmp_path, text)[:1], tmp_path / "r", Commands(finished, failing="evaluation-dm"))
    (problem,) = collect(tmp_path / "r")[1]
    assert problem.endswith("; its baselines are missing too: random, herding")


# Tables -----------------------------------------------------------------------------------------------------


def test_evaluations_are_lines_of_their_own() -> None:
    cell = changed_evaluations(result(seed=0), fp32=50.0, bf16=51.0)
    other = changed_evaluations(result(seed=1), fp32=52.0, bf16=53.0)
    lines = joined_lines([cell, other])
    assert [(line.method, line.values) for line in lines] == [
        ("dm, evaluation fp32", (50.0, 52.0)),
        ("dm, evaluation bf16", (51.0, 53.0)),
    ]
    cell.evaluations[0] = dataclasses.replace(
        cell.evaluations[0], rows=[dataclasses.replace(row("distilled", [50.0]), protocol="dsa")]
    )
    assert [line.method for line in joined_lines([cell])] == ["dm", "dm"]  # the protocol tells them apart
    page.html([cell, other])


def test_seeds_of_an_evaluation_are_one_line() -> None:
    cell = result()
    evaluations = [
        EvaluationResult(f"fp32-seed{seed}", {**cell.report, "seed": seed}, [row("distilled", [50.0 + seed])])
        for seed in (0, 1)
    ]
    (line,) = joined_lines([dataclasses.replace(cell, evaluations=evaluations)])
    assert (line.values, line.over, line.seconds) == ((50.0, 51.0), "2", cell.seconds)


def test_gains_pair_methods_by_their_seed() -> None:
    settings = {"distil": {}, "evaluate": {"gain_over": "dm"}}
    means = {"flip": (53.0, 55.0, 99.0), "dm": (52.0, 52.5)}
    results = [
        changed_evaluations(
            result(method, seed=seed, **({"settings": settings} if method == "flip" else {})), own=mean
        )
        for method, each in means.items()
        for seed, mean in enumerate(each)
    ]
    (gain,) = gains(results)
    assert (gain.method, gain.over, gain.points) == ("flip", "dm", (1.0, 2.5))
    text = "flip over dm +1.75 ± 1.06 points (2 seeds; convnet, protocol dm, 1000 epochs, evaluation own)"
    assert f"- cifar10, 1 per class: {text}" in tables.markdown(results)
    assert text in page.html(results)
    assert gains([result()]) == []


def test_planned_and_finished_evaluations_have_the_same_conditions(tmp_path: Path) -> None:
    """What a plan lets evaluations share is what the results are scored by."""
    cells = planned(tmp_path)
    fields = {field.name for field in dataclasses.fields(Conditions)}
    conditions = [Conditions.of_plan(cell, each) for cell in cells for each in cell.evaluations]
    assert len(set(conditions)) == 4  # two evaluations at two IPCs, whatever the method
    of_result = Conditions.of_result(result(), result().evaluations[0])
    assert all(
        getattr(of_result, name) not in ("", "None") for name in fields - {"data", "precision", "labels"}
    )
