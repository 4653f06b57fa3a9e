"""The command ``plan``: what another command takes, by its own options, and nothing written."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from dsdistill.cli import app
from dsdistill.runtime.estimate import RunEstimate
from tests.helpers.cli import TINY, Captured, refused, succeed


def options_of(*path: str) -> dict[str, list[str]]:
    """Return the options of a command, by their names in Python."""
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return {each.name: each.opts for each in command.params}


@pytest.mark.parametrize("name", ["distill", "experts", "label", "evaluate"])
def test_a_plan_takes_the_options_of_its_command(name: str) -> None:
    own, planned = options_of(name), options_of("plan", name)
    assert planned.pop("json") == ["--json"]
    own.pop("json", None)
    assert own.pop("dry_run") == ["--dry-run"]
    assert planned == own


def test_a_plan_is_printed_and_written_as_json(tmp_path: Path, capsys: Captured) -> None:
    plan, output = tmp_path / "plan.json", tmp_path / "set.h5"
    out, _ = succeed(capsys, "plan", "distill", *TINY, "-o", output, "--iterations", 1000, "--json", plan)
    content = json.loads(plan.read_text())
    assert "for 1,000 iterations" in out
    assert (content["amount"], content["work"]) == (1000, "iterations")
    assert content["total_seconds"] >= content["seconds"] > 0
    assert content["memory_bytes"] > 0
    assert content["disk_bytes"] == sum(content["disk"].values()) > 160_000  # the log alone
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_an_evaluation_and_a_labelling(finished: Path, pool: Path, tmp_path: Path, capsys: Captured) -> None:
    before, plan = finished.read_bytes(), tmp_path / "plan.json"
    succeed(capsys, "plan", "evaluate", finished, "--repeats", 2, "--epochs", 5, "--json", plan)
    content = json.loads(plan.read_text())
    assert (content["work"], content["label_bytes"]) == ("steps of students", 0)
    output = tmp_path / "labelled.h5"
    out, _ = succeed(
        capsys, "plan", "label", finished, "--teacher", pool, "-o", output, "--stop", "auto", "--json", plan
    )
    content = json.loads(plan.read_text())
    assert content["label_bytes"] == content["disk_bytes"] > 0
    assert "the choice of the teacher's epoch" in out
    assert finished.read_bytes() == before
    assert not output.exists()


def test_experts_of_several_networks_are_planned_one_by_one(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimated(call: Any, output: Path, **options: Any) -> RunEstimate:
        inspect.signature(call).bind(output, **options)
        return RunEstimate(amount=3, work="epochs", seconds=len(options["network"]))

    monkeypatch.setattr("dsdistill.runtime.estimate.dry_run", estimated)
    words = [
        "plan",
        "experts",
        "--dataset",
        "digits",
        "-o",
        tmp_path / "e.h5",
        "--network",
        "mlp,convnet2-w8",
    ]
    succeed(capsys, *words, "--json", tmp_path / "plan.json")
    assert [each["seconds"] for each in json.loads((tmp_path / "plan.json").read_text())] == [3, 11]


def test_bad_plans_get_one_line(tmp_path: Path, capsys: Captured) -> None:
    output = tmp_path / "set.h5"
    assert "unknown command 'distil'" in refused(capsys, "plan", "distil")
    assert "did you mean" in refused(
        capsys, "plan", "distill", "--ipc", 1, "--dataset", "digit", "-o", output
    )
    assert "--datase" in refused(capsys, "plan", "distill", "--datase", "digits", "-o", output)
