"""Results that others wrote: shown, or left out with a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dsdistill.bench import results, tables
from dsdistill.bench.collection import collect
from dsdistill.report import page, plots
from tests.helpers.bench import result, row
from tests.helpers.mutants import mutated_json

VALUES = (
    *("0", "-1", "true", "null", "NaN", "1e999", "[]", "{}", "[1]", '""', '"x"', "9" * 19, "9" * 5000),
    *("-1e308", "1e308", '{"a": 1}', '"\\ud800"', '"\\u0000"', '"\\u001b[31m<b>"', f'"{"x" * 3000}"'),
    *("[" * 500 + "]" * 500, "[" * 50_000, '"{}"', '"a = ["', f'"a = {"[" * 600}"', '["a"]', '[0.5, "x"]'),
)


def written(folder: Path) -> Path:
    """Write a result with a baseline, scores and experts."""
    rows = [row("distilled", [50.0, 52.0]), row("random", [30.0, 31.0]), row("full", [80.0, 81.0])]
    table = result(rows=rows, experts_seconds=3.0).to_dict()
    table["evaluations"][0]["report"] |= {"soft_labels": True, "seed": 0}
    path = folder / table["cell"] / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(table, indent=1))
    return path


def test_mutants_are_shown_or_left_out(tmp_path: Path) -> None:
    path = written(tmp_path)
    sound, found = path.read_text(), set()
    for seed in range(120):
        path.write_text(mutated_json(sound, seed, VALUES))
        results, problems = collect(tmp_path)
        assert len(results) + len(problems) == 1, seed
        assert not any("\n" in each or len(each) > 600 for each in problems), seed
        if results:
            page.html(results)
            tables.write(tmp_path, "tried", results, problems)
            plots.write(tmp_path / "plots", results)
        found.add("shown" if results else "left out")
    assert found == {"shown", "left out"}


@pytest.mark.parametrize(
    ("key", "value"), [("seed", "x"), ("seed", []), ("cost", [1]), ("cost", {"image_bytes": "x"})]
)
def test_a_seed_or_a_cost_that_is_none(tmp_path: Path, key: str, value: object) -> None:
    path = written(tmp_path)
    table = json.loads(path.read_text())
    table["evaluations"][0]["report"][key] = value
    path.write_text(json.dumps(table))
    assert "a seed or a cost that is no number" in collect(tmp_path)[1][0]


def test_pipes_are_left_out(tmp_path: Path) -> None:
    cell = written(tmp_path).parent
    for name in ("other/result.json", "third/cell.toml", "third/failed.txt"):
        (cell.parent / name).parent.mkdir(exist_ok=True)
        os.mkfifo(cell.parent / name)
    results, problems = collect(tmp_path)
    assert len(results) == 1
    assert "it is a pipe" in problems[0]
    assert problems[1] == "not finished: cifar10/third"
    os.mkfifo(tmp_path / "results.json")
    with pytest.raises(tables.UserError, match="would be replaced"):
        tables.check_replaceable(tmp_path)


def test_results_of_earlier_versions_have_regimes_of_soft_labels(tmp_path: Path) -> None:
    table = json.loads(json.dumps(result(path=tmp_path / "result.json").to_dict()))
    table.pop("format")
    table.pop("version")
    for soft, regimes in ((False, ["HL", "HL"]), (True, ["SL", "HL"])):
        (evaluation,) = table["evaluations"]
        evaluation["report"]["soft_labels"] = soft
        for each in evaluation["rows"]:
            for key in ("regime", "calibration", "disagreement", "fidelity", "leak"):
                each.pop(key, None)
        found = results.from_table(table, tmp_path / "result.json")
        assert [each.regime for each in found.evaluations[0].rows] == regimes
