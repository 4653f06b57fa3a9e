"""The suites of benchmarks/suites are understood, and their results become the files of artifacts/."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import chart, common, record
from dsdistill.bench.cells import Cell
from dsdistill.bench.expert_set import Environment
from dsdistill.bench.planning import plan
from dsdistill.bench.results import EvaluationResult
from dsdistill.bench.suite import load_suite
from dsdistill.data import catalog
from dsdistill.errors import UserError
from dsdistill.protocol import load_protocol
from tests.helpers.bench import coded, result, row
from tests.helpers.cli import refused

SUITES = sorted(path.stem for path in common.SUITES.glob("*.toml"))


def cells_of(suite: str) -> list[Cell]:
    return plan(load_suite(common.SUITES / f"{suite}.toml"))


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_commands_of_suites_are_understood(
    suite: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(config: Any, split: str, *_: Any) -> None:
        raise UserError(f"reading {config.name}, {split}")

    monkeypatch.setattr(catalog, "load", load)
    commands = []
    for cell in cells_of(suite):
        commands += [each.command(tmp_path, Environment()) for each in cell.experts]
        commands.append(cell.distil(tmp_path, Environment()))
        commands += [cell.evaluate(each, tmp_path, Environment()) for each in cell.evaluations]
    for words in commands:
        for option in ("-o", "--json"):
            if option in words:
                Path(words[words.index(option) + 1]).parent.mkdir(parents=True, exist_ok=True)
        message = refused(capsys, *words)
        data = "digits" if suite == "adversary" else "fashion-mnist"
        assert message.endswith(f": reading {data}, train\n") or "no file at" in message, words


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_has_its_figures_in_artifacts(suite: str) -> None:
    page = (common.ARTIFACTS / f"accuracy-{suite}.md").read_text()
    command = json.loads((common.ARTIFACTS / f"accuracy-{suite}.json").read_text())["command"]
    assert command.startswith(f"dsdistill bench benchmarks/suites/{suite}.toml -o results/")
    assert all(f"`{part}`" in page for part in command.split(" && "))


def test_random_selection_is_evaluated_once() -> None:
    evaluations = {
        suite: {
            (cell.method, each.name): each.baselines for cell in cells_of(suite) for each in cell.evaluations
        }
        for suite in ("distribution-ipc1", "trajectory-ipc1", "precision")
    }
    random = {suite: [key for key, names in each.items() if names] for suite, each in evaluations.items()}
    assert random == {
        "distribution-ipc1": [("datadam", "own"), ("datadam", "dm"), ("ncfm", "own"), ("idm", "own")],
        "trajectory-ipc1": [("mtt", "own"), ("datm", "own"), ("ast", "own")],  # each at a rate of its own
        "precision": [],
    }


def test_idm_is_evaluated_once_because_its_protocol_has_the_settings_of_dm() -> None:
    assert load_protocol("idm").training == load_protocol("dm").training
    (cell,) = (cell for cell in cells_of("distribution-ipc1") if cell.method == "idm")
    assert [each.protocol for each in cell.evaluations] == ["idm"]


def test_results_become_artifacts_that_the_chart_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = ["dsdistill distill -o x --method dm --ipc 1", "dsdistill evaluate x --protocol dm"]
    cell = result(dataset="fashion-mnist", commands=commands)
    about = {"dataset": "fashion-mnist", "machine": "a machine", "distil_machine": "another"}
    evaluation = cell.evaluations[0]
    report = evaluation.report | about
    report["cost"] = {**report["cost"], "distil_seconds": 1800.0}
    short = dataclasses.replace(row("distilled", [10.0]), epochs=300)
    evaluations = [
        EvaluationResult("own", report, evaluation.rows),
        EvaluationResult("short", report, [short]),
    ]
    cell = dataclasses.replace(cell, evaluations=evaluations, commands=[*commands, "dsdistill evaluate x"])
    file = tmp_path / "results" / cell.cell / "result.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(cell.to_dict()))
    file.with_name("set.h5").write_bytes(b"a set")
    monkeypatch.setattr(common, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["record.py", str(tmp_path / "results"), "--sets"])
    record.main()
    assert (tmp_path / "fashion-mnist-dm-ipc1.h5").read_bytes() == b"a set"
    page = (tmp_path / "accuracy-tried.md").read_text()
    assert page == capsys.readouterr().out.removesuffix("\n")
    assert "on a machine and another, 2026-01-02" in page
    assert "| fashion-mnist | 1 | dm | HL | convnet | dm | 1000 | 51.00 ± 1.41 |" in page
    assert f"- `{commands[0]}`" in page
    rows = json.loads((tmp_path / "accuracy-tried.json").read_text())["rows"]
    assert [(each["evaluation"], each["set"]) for each in rows] == [
        ("own", "distilled"),
        ("own", "random"),
        ("short", "distilled"),
    ]
    assert rows[0]["distilled_by"] == commands[0].removeprefix("dsdistill ")
    assert rows[2]["evaluated_by"] == "evaluate x"
    dots = list(chart.dots(rows))
    assert [(dot.name, dot.ipc, dot.mean, dot.minutes) for dot in dots] == [
        ("dm", 1, 51.0, 30.0),
        (chart.RANDOM, 1, 30.5, 30.0),
    ]


def test_records_of_copies_tell_their_bits() -> None:
    evaluated = [f"evaluate set{suffix}.h5" for suffix in ("", "-4bits", "-2bits")]
    encoded = [f"encode set.h5 -o set-{bits}bits.h5 --bits {bits}" for bits in (4, 2)]
    commands = [f"dsdistill {each}" for each in ("distill -o set.h5", *encoded, *evaluated)]
    rows = [each for each in record.records(coded(commands=commands)) if each["set"] == "distilled"]
    assert [each.get("bits") for each in rows] == [None, 4, 2]
    assert [each["evaluated_by"] for each in rows] == evaluated
    assert {each["distilled_by"] for each in rows} == {"distill -o set.h5"}


def test_the_chart_shows_the_figures_of_artifacts() -> None:
    files = sorted(common.ARTIFACTS.glob("accuracy-*.json"))
    dots = list(chart.dots([row for file in files for row in json.loads(file.read_text())["rows"]]))
    assert {dot.ipc for dot in dots} == {1, 10}
    assert {"dm", "dsa", "idc", "datadam", "ncfm", "mtt", "datm", "ast", chart.RANDOM} <= {
        dot.name for dot in dots
    }
    drawn = (common.ARTIFACTS / "results.svg").read_text()
    for dot in dots:
        assert f"{dot.mean:.1f} ± {dot.std:.1f}" in drawn, dot
